"""Rows are set aside one by one; what passes is the same to the byte."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components.gate_output import RefusedError, read_verdicts
from pipeline.components.quarantine import Executor, Quarantine, QuarantinedRows

SCHEMA = """
feature { name: "size" type: FLOAT float_domain { max: 9 } }
feature { name: "color" type: BYTES string_domain { value: "red" } presence { min_fraction: 1.0 } }
"""
RULES = [{"action": "quarantine", "column": "*", "kind": "*"}]
SPLITS = ("train", "test")


def record(size: float, color: str | None) -> bytes:
    features = {
        "size": tf.train.Feature(float_list=tf.train.FloatList(value=[size])),
        "color": tf.train.Feature(bytes_list=tf.train.BytesList(value=[color.encode()] if color else [])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def rows(folder: Path, split: str) -> list[bytes]:
    files = sorted(str(path) for path in (folder / f"Split-{split}").glob("*.gz"))
    return list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())


class Tables:
    """A folder with a table in two files a split, of which rows are set aside."""

    def __init__(self, folder: Path, train: list[bytes]) -> None:
        self._folder = folder
        self.train, self.test = train, [record(1.0, "red")] * 10
        for split, records in (("train", self.train), ("test", self.test)):
            target = folder / "examples" / f"Split-{split}"
            target.mkdir(parents=True)
            half = len(records) // 2
            for number, part in enumerate((records[:half], records[half:])):
                with tf.io.TFRecordWriter(str(target / f"rows-{number}.gz"), "GZIP") as writer:
                    for one in part:
                        writer.write(one)
        (folder / "schema").mkdir()
        (folder / "schema" / "schema.pbtxt").write_text(SCHEMA)

    def set_aside(self, most: float = 0.5, rules: list[dict[str, str]] = RULES) -> types.Artifact:
        examples, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
        examples.uri, schema.uri = str(self._folder / "examples"), str(self._folder / "schema")
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        examples.set_int_custom_property("span", 7)
        passed, aside = standard_artifacts.Examples(), QuarantinedRows()
        passed.uri, aside.uri = str(self._folder / "passed"), str(self._folder / "aside")
        Executor().Do(
            {"rows": [examples], "schema": [schema]},
            {"examples": [passed], "quarantined": [aside]},
            {
                "rules": json.dumps(rules),
                "max_quarantined": json.dumps(most),
                "overrides": "[]",
                "source_digest": "",
            },
        )
        return passed


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path, [record(float(size), "red") for size in range(10)] + [record(10.0, None)] * 2)


def test_bad_rows_are_set_aside_and_the_others_pass_unchanged(tables: Tables, tmp_path: Path):
    passed = tables.set_aside()
    assert rows(tmp_path / "passed", "train") == tables.train[:10]
    assert rows(tmp_path / "passed", "test") == tables.test
    assert rows(tmp_path / "aside", "train") == tables.train[10:]
    assert artifact_utils.decode_split_names(passed.split_names) == list(SPLITS)
    assert passed.get_int_custom_property("span") == 7


def test_each_row_that_is_set_aside_is_told_with_its_number_reasons_and_values(
    tables: Tables, tmp_path: Path
):
    tables.set_aside()
    told = [json.loads(line) for line in (tmp_path / "aside/Split-train/rows.jsonl").read_text().splitlines()]
    assert told[0] == {
        "split": "train",
        "row": 10,
        "reasons": ["size: above 9", "color: no value"],
        "values": {"color": [], "size": [10.0]},
    }
    assert [row["row"] for row in told] == [10, 11]
    [verdict, _] = read_verdicts(tmp_path / "aside")
    assert (
        "2 of 12 rows of the train split are set aside (size: above 9: 2, color: no value: 2)"
        in verdict.reason
    )


def test_a_file_without_a_bad_row_is_not_written_again(tables: Tables, tmp_path: Path):
    tables.set_aside()
    for file in ("Split-test/rows-0.gz", "Split-train/rows-0.gz"):
        assert (tmp_path / "passed" / file).samefile(tmp_path / "examples" / file)


def test_too_many_bad_rows_are_refused_by_name(tables: Tables):
    with pytest.raises(
        RefusedError, match=r"2 of 12 rows of the train split .* data_gate.max_quarantined 10.0%"
    ):
        tables.set_aside(most=0.1)


def test_what_no_rule_names_stays(tables: Tables, tmp_path: Path):
    tables.set_aside(rules=[{"action": "quarantine", "column": "size", "kind": "FLOAT_TYPE_SMALL_FLOAT"}])
    assert rows(tmp_path / "passed", "train") == tables.train


def test_what_is_not_a_number_can_be_told(tmp_path: Path):
    schema = 'feature { name: "size" type: FLOAT float_domain { disallow_nan: true } }'
    tables = Tables(tmp_path, [record(np.nan, "red"), record(1.0, "red")])
    (tmp_path / "schema" / "schema.pbtxt").write_text(schema)
    tables.set_aside()
    [told] = (tmp_path / "aside/Split-train/rows.jsonl").read_text().splitlines()
    assert json.loads(told)["values"]["size"] == ["nan"]


def test_the_component_stands_where_an_example_gen_stood():
    node = Quarantine(
        rows=types.Channel(type=standard_artifacts.Examples),
        schema=types.Channel(type=standard_artifacts.Schema),
        rules="[]",
        max_quarantined="0.01",
        overrides="[]",
        source_digest="",
    )
    assert node.outputs["examples"].type_name == "Examples"
