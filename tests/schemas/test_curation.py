"""What would change in a schema that followed the data, and that only what was named does."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas import curation
from schemas.curation import Change, CurationError, Kind, Proposal

_CURRENT = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "pay" type: BYTES string_domain { value: "Cash" } presence { min_fraction: 1 } }
feature { name: "hour" type: INT int_domain { min: 0 max: 12 } }
feature { name: "fare" type: FLOAT value_count { min: 1 max: 1 } presence { min_fraction: 1 } }
feature { name: "miles" type: INT presence { min_fraction: 1 } }
feature { name: "route" type: BYTES }
feature { name: "sold" type: INT bool_domain {} not_in_environment: "SERVING" }
"""
# As TFDV updates the schema above: a column of another type and one that is gone are both called deprecated.
_UPDATED = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "pay" type: BYTES string_domain { value: "Cash" value: "Coin" } presence { min_fraction: 0.9 } }
feature { name: "hour" type: INT int_domain { min: 0 max: 23 } }
feature { name: "fare" type: FLOAT value_count { min: 1 max: 3 } presence { min_fraction: 0.6658 } }
feature { name: "miles" type: INT presence { min_fraction: 1 } lifecycle_stage: DEPRECATED }
feature { name: "route" type: BYTES lifecycle_stage: DEPRECATED }
feature { name: "sold" type: INT bool_domain {} not_in_environment: "SERVING" }
feature { name: "tolls" type: FLOAT presence { min_fraction: 0.25 } }
"""
_INFERRED = (
    'feature { name: "miles" type: FLOAT float_domain { min: 0 max: 9 } presence { min_fraction: 1 } }'
)


def schema(text: str) -> schema_pb2.Schema:
    return text_format.Parse(text, schema_pb2.Schema())


@pytest.fixture
def current() -> schema_pb2.Schema:
    return schema(_CURRENT)


@pytest.fixture
def proposal() -> Proposal:
    return Proposal(schema(_UPDATED), schema(_INFERRED))


def column(of: schema_pb2.Schema, name: str) -> schema_pb2.Feature:
    return next(feature for feature in of.feature if feature.name == name)


def only(there: tuple[Change, ...], name: str) -> Change:
    [change] = [change for change in there if change.name == name]
    return change


def test_each_change_is_named_once_with_its_kind(current: schema_pb2.Schema, proposal: Proposal) -> None:
    assert [change.name for change in curation.changes(current, proposal)] == [
        "pay:values",
        "pay:presence",
        "hour:range",
        "fare:presence",
        "fare:count",
        "miles:type",
        "route:gone",
        "tolls:new",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pay:values", "values that the schema does not list: 'Coin'."),
        ("pay:presence", "90 % of the rows have a value, the schema wants 100 %."),
        ("hour:range", "numbers from 0 to 23, the schema allows from 0 to 12."),
        ("fare:count", "rows have 1 to 3 values, the schema wants 1."),
        ("miles:type", "the data hold FLOAT, the schema says INT."),
        ("route:gone", "the data no longer have this column."),
        ("tolls:new", "the schema does not list this column (FLOAT, in 25 % of the rows)."),
    ],
)
def test_each_change_says_what_the_data_and_the_schema_say_and_what_accepting_means(
    current: schema_pb2.Schema, proposal: Proposal, name: str, words: str
) -> None:
    change = only(curation.changes(current, proposal), name)
    assert change.words.startswith(words)
    assert "ccepted, " in change.words


def test_a_schema_that_fits_has_no_changes(current: schema_pb2.Schema) -> None:
    assert curation.changes(current, Proposal(current, schema(""))) == ()


@pytest.mark.parametrize(
    "name", ["pay:values", "hour:range", "fare:presence", "miles:type", "route:gone", "tolls:new"]
)
def test_what_is_accepted_is_no_change_any_more_and_all_else_is_as_before(
    current: schema_pb2.Schema, proposal: Proposal, name: str
) -> None:
    there = curation.changes(current, proposal)
    result = curation.accepted(current, proposal, curation.chosen(there, [name]))
    changed = name.partition(":")[0]
    assert name not in [change.name for change in curation.changes(result, proposal)]
    others = [feature for feature in current.feature if feature.name != changed]
    assert [column(result, feature.name) for feature in others] == others


def test_one_kind_of_a_column_leaves_its_others(current: schema_pb2.Schema, proposal: Proposal) -> None:
    wanted = curation.chosen(curation.changes(current, proposal), ["pay:values"])
    pay = column(curation.accepted(current, proposal, wanted), "pay")
    assert list(pay.string_domain.value) == ["Cash", "Coin"]
    assert pay.presence.min_fraction == 1


def test_a_column_without_a_kind_means_all_of_it(current: schema_pb2.Schema, proposal: Proposal) -> None:
    there = curation.changes(current, proposal)
    assert [c.kind for c in curation.chosen(there, ["pay"])] == [Kind.VALUES, Kind.PRESENCE]


def test_environments_stay_also_where_the_type_changes(
    current: schema_pb2.Schema, proposal: Proposal
) -> None:
    proposal.updated.feature[5].lifecycle_stage = schema_pb2.DEPRECATED
    proposal.inferred.feature.add(name="sold", type=schema_pb2.FLOAT)
    there = curation.changes(current, proposal)
    result = curation.accepted(current, proposal, there)
    assert column(result, "sold").type == schema_pb2.FLOAT
    assert list(column(result, "sold").not_in_environment) == ["SERVING"]
    assert list(result.default_environment) == ["TRAINING", "SERVING"]


def test_values_that_columns_share_are_changed_where_they_stand() -> None:
    shared = 'string_domain { name: "towns" value: "Ayr" } feature { name: "a" type: BYTES domain: "towns" }'
    updated = schema(shared.replace('"Ayr"', '"Ayr" value: "Wick"'))
    current, proposal = schema(shared), Proposal(updated, schema(""))
    there = curation.changes(current, proposal)
    result = curation.accepted(current, proposal, there)
    assert result.feature[0].domain == "towns"
    assert list(result.string_domain[0].value) == ["Ayr", "Wick"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pai", r"pai: no such change; did you mean pay\?; there are: pay:values, pay:presence, hour:range"),
        ("pay:range", "pay:range: no such change; did you mean pay:"),
        ("sold", "sold: no such change"),
    ],
)
def test_a_name_that_matches_nothing_is_answered_with_what_there_is(
    current: schema_pb2.Schema, proposal: Proposal, name: str, message: str
) -> None:
    with pytest.raises(CurationError, match=message):
        curation.chosen(curation.changes(current, proposal), ["pay", name])


def test_comments_at_the_top_stay_and_others_are_known_to_be_lost(current: schema_pb2.Schema) -> None:
    body = text_format.MessageToString(current)
    former = f"# Ours.\n\n# Mind the fares.\n{body}"
    assert curation.text_of(current, former) == former
    assert not curation.loses_comments(former.replace('"Cash"', '"Cash #1"'))
    assert curation.loses_comments(former.replace("type: BYTES", "type: BYTES  # a code", 1))


def test_the_file_is_replaced_whole_and_its_former_self_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_text("before")
    copy = curation.replace_file(path, "after", "before")
    assert (path.read_text(), copy.read_text()) == ("after", "before")
    assert {file.name for file in tmp_path.iterdir()} == {"schema.pbtxt", "schema.pbtxt.former"}


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "schema.pbtxt"
    path.write_text("theirs")
    with pytest.raises(CurationError, match="changed by somebody else meanwhile"):
        curation.replace_file(path, "ours", "before")
    assert path.read_text() == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == ["schema.pbtxt"]
