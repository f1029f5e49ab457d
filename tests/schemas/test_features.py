import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.features import DType, Feature, FeatureSet, Form, Kind, LabelKind, SchemaError, feature_set

SCHEMA = """
feature { name: "age" type: INT }
feature { name: "fare" type: FLOAT presence { min_fraction: 1.0 min_count: 1 } }
feature { name: "zone" type: INT int_domain { min: 1 max: 9 is_categorical: true } }
feature { name: "company" type: BYTES }
feature { name: "note" type: BYTES natural_language_domain {} }
feature { name: "paid" type: INT bool_domain {} }
feature { name: "late" type: INT bool_domain {} not_in_environment: "SERVING" }
"""


def schema(text: str = SCHEMA) -> schema_pb2.Schema:
    return text_format.Parse(text, schema_pb2.Schema())


def test_kinds_follow_from_the_types_and_domains_of_the_schema():
    kinds = {feature.name: feature.kind for feature in feature_set(schema(), "late")}
    assert kinds == {
        "age": Kind.NUMERIC,
        "fare": Kind.NUMERIC,
        "zone": Kind.CATEGORICAL,
        "company": Kind.CATEGORICAL,
        "note": Kind.TEXT,
        "paid": Kind.BOOLEAN,
    }


def test_a_feature_that_may_be_missing_gets_an_indicator_and_a_required_one_does_not():
    names = [column.name for column in feature_set(schema(), "late").columns()]
    assert "age_missing" in names
    assert "fare_missing" not in names


def test_an_override_changes_the_kind_and_its_parameters():
    features = feature_set(schema(), "late", overrides={"age": {"kind": "bucketized", "buckets": 4}})
    [column] = next(f for f in features if f.name == "age").columns()
    assert (column.form, column.size) == (Form.ID, 5)  # four buckets and missing


def test_the_json_form_keeps_everything():
    features = feature_set(schema(), "late", exclude=["company"], overrides={"fare": {"log": True}})
    assert FeatureSet.from_json(features.to_json()) == features


@pytest.mark.parametrize(
    ("domain", "kind", "classes"),
    [
        ("type: INT bool_domain {}", LabelKind.BINARY, ("0", "1")),
        ("type: INT int_domain { min: 1 max: 3 }", LabelKind.MULTICLASS, ("1", "2", "3")),
        ('type: BYTES string_domain { value: "no" value: "yes" }', LabelKind.BINARY, ("no", "yes")),
        ("type: FLOAT", LabelKind.REGRESSION, ()),
    ],
)
def test_what_is_predicted_follows_from_the_label_in_the_schema(domain, kind, classes):
    label = feature_set(
        schema(f'feature {{ name: "x" type: INT }} feature {{ name: "y" {domain} }}'), "y"
    ).label
    assert (label.kind, label.classes) == (kind, classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "lat"}, "no column 'lat'; did you mean 'late'"),
        ({"exclude": ["agee"]}, "did you mean 'age'"),
        (
            {"overrides": {"company": {"kind": "numeric"}}},
            "'company' is bytes in the schema; kind numeric needs",
        ),
        ({"overrides": {"late": {"kind": "hashed"}}}, "'late' is not a feature"),
        ({"label": "company", "exclude": ["late"]}, "label 'company': the schema lists no classes"),
        ({"classes": ["a", "b"]}, "is INT in the schema but has the classes"),
    ],
)
def test_a_fault_names_the_column_and_the_remedy(arguments, message):
    with pytest.raises(SchemaError, match=message):
        feature_set(schema(), **{"label": "late", **arguments})


def test_a_feature_that_no_served_row_can_carry_is_refused():
    leaking = SCHEMA + 'feature { name: "arrived" type: FLOAT not_in_environment: "SERVING" }'
    with pytest.raises(SchemaError, match="'arrived' is absent in the SERVING environment"):
        feature_set(schema(leaking), "late")


@pytest.mark.parametrize(
    ("name", "in_graphs"),
    [
        ("fare", "fare"),
        ("Monthly Spend ($)", "Monthly_Spend_"),
        ("2nd", "c2nd"),
        ("_x", "c_x"),
        ("class", "class_"),
    ],
)
def test_a_name_that_tensorflow_would_not_have_is_written_with_underscores(name: str, in_graphs: str) -> None:
    feature = Feature(name, DType.FLOAT, Kind.NUMERIC)
    assert feature.graph_name == in_graphs
    assert [column.name for column in feature.columns()] == [f"{in_graphs}_scaled", f"{in_graphs}_missing"]


def test_names_in_another_script_stay_different_and_names_that_would_be_the_same_are_refused() -> None:
    names = {Feature(name, DType.FLOAT, Kind.NUMERIC).graph_name for name in ("価格", "距離")}
    assert len(names) == 2
    columns = "".join(f'feature {{ name: "{name}" type: FLOAT }} ' for name in ("a b", "a-b", "y"))
    with pytest.raises(SchemaError, match="'a b' and 'a-b' are the same to TensorFlow"):
        feature_set(text_format.Parse(columns, schema_pb2.Schema()), "y")
