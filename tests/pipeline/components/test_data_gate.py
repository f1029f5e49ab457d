"""The data gate inside TFX's own objects: faults planted in rows and statistics are named, clean redraws pass."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from gates import evidence
from gates.settings import AnomalyRule, DataGateSettings, Override
from gates.verdict import Outcome, Verdict
from pipeline import table_scan
from pipeline.components.data_gate import DataGate, Executor
from pipeline.components.gate_output import REFUSED_FOLDER, GateVerdict, RefusedError, read_verdicts
from pipeline.table_scan import Wanted, scan
from schemas.features import feature_set

SCHEMA = text_format.Parse(
    """
    feature { name: "id" type: INT }
    feature { name: "day" type: INT }
    feature { name: "miles" type: FLOAT }
    feature { name: "zone" type: INT int_domain { is_categorical: true } }
    feature { name: "color" type: BYTES }
    feature { name: "sold" type: INT bool_domain {} }
    """,
    schema_pb2.Schema(),
)
FEATURES = feature_set(SCHEMA, "sold", exclude=["id", "day"])
ROWS = {"train": 2000, "validation": 600, "test": 900}

Table = dict[str, pd.DataFrame]
Change = Callable[[Table], None]


def draw(seed: int) -> Table:
    """A table by split, in the order of time."""
    random = np.random.default_rng(seed)
    table, first_id, first_day = {}, 0, 0
    for split, rows in ROWS.items():
        miles = np.round(random.gamma(1.0, 4.0, rows), 2)
        table[split] = pd.DataFrame(
            {
                "id": np.arange(first_id, first_id + rows),
                "day": np.sort(random.integers(first_day, first_day + 100, rows)),
                "miles": np.where(random.random(rows) < 0.1, np.nan, miles),
                "zone": random.choice([3, 8, 32, 56], rows),
                "color": random.choice(["red", "green", "blue"], rows, p=[0.5, 0.3, 0.2]),
                "sold": (random.random(rows) < 0.2 + 0.02 * np.minimum(miles, 20)).astype(int),
            }
        )
        first_id, first_day = first_id + rows, first_day + 100
    return table


def record(row: dict[str, Any]) -> bytes:
    features = {}
    for name, value in row.items():
        if isinstance(value, str):
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        elif isinstance(value, float):
            kept = [] if np.isnan(value) else [value]
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=kept))
        else:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def statistics(frame: pd.DataFrame) -> statistics_pb2.DatasetFeatureStatisticsList:
    """What StatisticsGen says of a frame, as far as the gate reads it."""
    made = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = made.datasets.add(num_examples=len(frame))
    for name in frame:
        values = frame[name].dropna()
        column = dataset.features.add()
        column.path.step.append(str(name))
        if values.dtype == object:
            column.type = statistics_pb2.FeatureNameStatistics.STRING
            common, counts = column.string_stats.common_stats, values.value_counts()
            column.string_stats.unique = len(counts)
            for value, count in counts.items():
                column.string_stats.rank_histogram.buckets.add(label=value, sample_count=count)
        else:
            column.type = statistics_pb2.FeatureNameStatistics.FLOAT
            common = column.num_stats.common_stats
            edges = np.quantile(values, np.linspace(0, 1, 11), method="inverted_cdf")
            histogram = column.num_stats.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
            for low, high in itertools.pairwise(edges):
                histogram.buckets.add(low_value=low, high_value=high, sample_count=len(values) / 10)
        common.num_non_missing, common.num_missing = len(values), len(frame) - len(values)
        common.min_num_values = common.max_num_values = 1
        common.tot_num_values = len(values)
    return made


class Gate:
    """A folder in which the gate judges tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def judge(
        self,
        table: Table,
        *,
        previous: Table | None = None,
        anomalies: anomalies_pb2.Anomalies | None = None,
        settings: DataGateSettings | None = None,
        overrides: tuple[Override, ...] = (),
        counted: Table | None = None,
    ) -> dict[str, Verdict]:
        """The verdicts by name.

        Raises:
          RefusedError: as the executor does.
        """
        found = {split: anomalies_pb2.Anomalies() for split in ROWS} | (
            {"test": anomalies} if anomalies else {}
        )
        inputs = {
            "examples": [self.write_examples(table)],
            "statistics": [self._statistics(counted or table, "statistics")],
            "anomalies": [
                self._written(standard_artifacts.ExampleAnomalies(), "anomalies", "SchemaDiff.pb", found)
            ],
            "schema": [self._schema()],
            "previous_statistics": [self._statistics(previous, "previous")] if previous else [],
        }
        output = GateVerdict()
        output.uri = str(self._folder / "verdict")
        Executor().Do(
            inputs,
            {"verdict": [output]},
            {
                "settings": json.dumps(dataclasses.asdict(settings or DataGateSettings())),
                "overrides": json.dumps([dataclasses.asdict(one) for one in overrides]),
                "features": FEATURES.to_json(),
                "key": '["id"]',
                "time": '"day"',
                "source_digest": "",
            },
        )
        return {verdict.name: verdict for verdict in read_verdicts(self._folder / "verdict")}

    def write_examples(self, table: Table) -> types.Artifact:
        artifact = standard_artifacts.Examples()
        for split, frame in table.items():
            folder = self._folder / "examples" / f"Split-{split}"
            folder.mkdir(parents=True, exist_ok=True)
            with tf.io.TFRecordWriter(str(folder / "rows.gz"), "GZIP") as writer:
                for row in frame.to_dict("records"):
                    writer.write(record(row))
        artifact.uri = str(self._folder / "examples")
        artifact.split_names = artifact_utils.encode_split_names(list(table))
        return artifact

    def _statistics(self, table: Table, name: str) -> types.Artifact:
        made = {split: statistics(frame) for split, frame in table.items()}
        return self._written(standard_artifacts.ExampleStatistics(), name, "FeatureStats.pb", made)

    def _written(self, artifact: Any, name: str, file: str, content: dict[str, Any]) -> types.Artifact:
        artifact.uri = str(self._folder / name)
        artifact.split_names = artifact_utils.encode_split_names(list(content))
        for split, message in content.items():
            path = Path(artifact_utils.get_split_uri([artifact], split), file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(message.SerializeToString())
        return artifact

    def _schema(self) -> types.Artifact:
        artifact = standard_artifacts.Schema()
        artifact.uri = str(self._folder / "schema")
        (self._folder / "schema").mkdir(exist_ok=True)
        (self._folder / "schema" / "schema.pbtxt").write_text(text_format.MessageToString(SCHEMA))
        return artifact


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setenv(REFUSED_FOLDER, str(tmp_path / "refused"))
    return Gate(tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_clean_redraws_pass_without_a_warning(gate: Gate, seed: int):
    verdicts = gate.judge(draw(seed), previous=draw(seed + 100))
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASSED}
    assert {"repeated keys in train", "order of validation and test", "change of rows"} <= set(verdicts)
    assert "drift since the data accepted before" in verdicts


def test_what_was_measured_is_kept(gate: Gate, tmp_path: Path):
    gate.judge(draw(0), previous=draw(1))
    found = evidence.read(evidence.DataEvidence, tmp_path / "verdict")
    assert found.rows == found.previous_rows == ROWS
    by_name = {column.column: column for column in found.columns}
    assert set(by_name) == {"miles", "zone", "color", "sold"}
    assert by_name["miles"].missing["train"] == pytest.approx(0.1, abs=0.03)
    assert by_name["miles"].auc is not None
    assert by_name["miles"].auc > 0.5
    assert set(by_name["color"].drift) == {"validation", "test", "previous"}
    assert by_name["color"].measure == "L-infinity"
    assert by_name["zone"].measure == by_name["miles"].measure == "Jensen-Shannon"
    assert by_name["zone"].new_values == {"validation": 0.0, "test": 0.0}


def never_filled(table: Table) -> None:
    for frame in table.values():
        frame.loc[np.random.default_rng(3).random(len(frame)) < 0.8, "miles"] = np.nan


def kilometres(table: Table) -> None:
    for frame in table.values():
        frame["miles"] *= 1.609


def other_colors(table: Table) -> None:
    table["train"].loc[: ROWS["train"] // 3, "color"] = "blue"


def other_zones(table: Table) -> None:
    table["train"].loc[: ROWS["train"] // 2, "zone"] = 56


def new_zone(table: Table) -> None:
    table["test"].loc[table["test"].index[:200], "zone"] = 77


def unfilled(table: Table) -> None:
    table["test"].loc[table["test"].index[:400], "miles"] = np.nan


def loaded_twice(table: Table) -> None:
    again = table["train"][:300].assign(id=np.arange(100_000, 100_300))
    table["train"] = pd.concat([table["train"], again], ignore_index=True)


def copied_into_train(table: Table) -> None:
    table["train"] = pd.concat([table["train"], table["test"][:300]], ignore_index=True)


def label_in_disguise(table: Table) -> None:
    for frame in table.values():
        frame["zone"] = np.where(frame["sold"] == 1, 56, frame["zone"].replace(56, 3))


def half_is_gone(table: Table) -> None:
    for split in table:
        table[split] = table[split][: len(table[split]) // 3]


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (kilometres, {"scale of miles since the data accepted before"}),
        (other_colors, {"drift of color since the data accepted before"}),
        (other_zones, {"drift of zone since the data accepted before"}),
        (new_zone, {"new values of zone in test"}),
        (unfilled, {"missing values of miles in test"}),
        (never_filled, {"missing values of miles since the data accepted before"}),
        (loaded_twice, {"repeated rows in train"}),
        (
            copied_into_train,
            {"keys of test in train", "rows of test in train", "order of train and validation"},
        ),
        (label_in_disguise, {"leak of the label in zone"}),
        (half_is_gone, {"change of rows"}),
    ],
)
def test_a_planted_fault_is_refused_by_the_checks_that_name_it(
    gate: Gate, tmp_path: Path, fault: Change, names: set[str]
):
    table = draw(0)
    fault(table)
    with pytest.raises(RefusedError) as refused:
        gate.judge(table, previous=draw(1))
    kept = {v.name for v in read_verdicts(tmp_path / "refused") if not v.passed}
    assert kept == names
    assert all(f"[check: {name}]" in str(refused.value) for name in names)


def test_statistics_of_other_rows_are_refused(gate: Gate):
    table, others = draw(0), draw(0)
    others["test"] = others["test"][1:]
    with pytest.raises(RefusedError, match="test split has 900 rows, and StatisticsGen counted 899"):
        gate.judge(table, counted=others)


def unseen_color() -> anomalies_pb2.Anomalies:
    found = anomalies_pb2.Anomalies()
    info = found.anomaly_info["color"]
    info.severity = anomalies_pb2.AnomalyInfo.ERROR
    info.reason.add(
        type=anomalies_pb2.AnomalyInfo.ENUM_TYPE_UNEXPECTED_STRING_VALUES,
        short_description="Unexpected values",
    )
    return found


def test_an_anomaly_is_refused_before_the_rows_are_read(gate: Gate, tmp_path: Path):
    with pytest.raises(RefusedError, match="'color' in the test split: Unexpected values"):
        gate.judge(draw(0), anomalies=unseen_color())
    names = {verdict.name for verdict in read_verdicts(tmp_path / "refused")}
    assert "rows in train" in names
    assert "leak of the label" not in names


def other_type() -> anomalies_pb2.Anomalies:
    found = anomalies_pb2.Anomalies()
    info = found.anomaly_info["miles"]
    info.severity = anomalies_pb2.AnomalyInfo.ERROR
    info.reason.add(type=anomalies_pb2.AnomalyInfo.UNEXPECTED_DATA_TYPE, short_description="Unexpected type")
    return found


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_another_type_that_somebody_let_pass_are_refused_with_all_other_verdicts(
    gate: Gate, tmp_path: Path, split: str
):
    table = draw(0)
    table[split]["miles"] = table[split]["miles"].astype(str)
    with pytest.raises(RefusedError, match=f"rows of the {split} split cannot be read as the schema says"):
        gate.judge(
            table,
            counted=draw(0),
            anomalies=other_type(),
            settings=DataGateSettings(rules=(AnomalyRule("warn", "miles"),)),
        )
    kept = {verdict.name: verdict for verdict in read_verdicts(tmp_path / "refused")}
    assert {name for name, verdict in kept.items() if not verdict.passed} == {f"rows of {split}"}
    assert {"rows in train", "missing values", "drift in test"} <= set(kept)
    assert "rows of validation in train" in kept or split == "train"
    expected = Outcome.WARNED if split == "train" else Outcome.PASSED
    assert kept["leak of the label"].outcome is expected


def test_the_sample_holds_more_of_a_rare_class(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(table_scan, "_MOST_RARE", 100)
    table = draw(0)
    train = table["train"]
    train["sold"] = (np.arange(len(train)) % 50 == 7).astype(int)
    gate.write_examples(table)
    wanted = Wanted(FEATURES, (), None, {})
    found = scan(tmp_path / "examples" / "Split-train", wanted, step=20).sample
    labels = [tf.train.Example.FromString(one).features.feature["sold"].int64_list.value[0] for one in found]
    ids = [tf.train.Example.FromString(one).features.feature["id"].int64_list.value[0] for one in found]
    assert sum(labels) == 40
    assert ids == sorted(set(ids))
    assert set(range(0, 2000, 20)) <= set(ids)
    assert len(ids) == 140


def test_a_rule_or_somebody_who_answers_lets_an_anomaly_pass(gate: Gate):
    name = "ENUM_TYPE_UNEXPECTED_STRING_VALUES of color in test"
    warned = gate.judge(
        draw(0), anomalies=unseen_color(), settings=DataGateSettings(rules=(AnomalyRule("warn", "color"),))
    )
    assert warned[name].outcome is Outcome.WARNED
    answered = gate.judge(
        draw(0), anomalies=unseen_color(), overrides=(Override(name, "ann", "a new brand"),)
    )
    assert answered[name].outcome is Outcome.OVERRIDDEN
    assert "let pass by ann: a new brand" in answered[name].reason


def test_the_component_is_a_node_with_a_verdict():
    gate = DataGate(
        examples=types.Channel(type=standard_artifacts.Examples),
        statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
        schema=types.Channel(type=standard_artifacts.Schema),
        previous_statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        settings="{}",
        overrides="[]",
        features="{}",
        key="[]",
        time="null",
        source_digest="x",
    )
    assert gate.outputs["verdict"].type_name == "pipeline.GateVerdict"
