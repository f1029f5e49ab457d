import json
from pathlib import Path
from typing import Any

import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx import types
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components.data_gate import DataGate, DataGateError, Executor, GateVerdict

SPLITS = ("train", "test")


def write(artifact: Any, folder: Path, name: str, content: dict[str, bytes]) -> Any:
    artifact.uri = str(folder)
    artifact.split_names = artifact_utils.encode_split_names(list(SPLITS))
    for split in SPLITS:
        path = Path(artifact_utils.get_split_uri([artifact], split), name)
        path.parent.mkdir(parents=True)
        path.write_bytes(content[split])
    return artifact


def run(
    folder: Path, rows: int, missing_column: str | None = None, ignore: tuple[str, ...] = ()
) -> GateVerdict:
    found = anomalies_pb2.Anomalies()
    if missing_column:
        info = found.anomaly_info[missing_column]
        info.severity = anomalies_pb2.AnomalyInfo.ERROR
        kind = anomalies_pb2.AnomalyInfo.SCHEMA_MISSING_COLUMN
        info.reason.add(type=kind, short_description="Column dropped")
    clean = anomalies_pb2.Anomalies().SerializeToString()
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    statistics.datasets.add(num_examples=rows)
    counted = statistics.SerializeToString()
    anomalies = write(
        standard_artifacts.ExampleAnomalies(),
        folder / "anomalies",
        "SchemaDiff.pb",
        {"train": clean, "test": found.SerializeToString()},
    )
    stats = write(
        standard_artifacts.ExampleStatistics(),
        folder / "statistics",
        "FeatureStats.pb",
        dict.fromkeys(SPLITS, counted),
    )
    output = GateVerdict()
    output.uri = str(folder / "verdict")
    settings = json.dumps({"min_rows": 50, "ignore": ignore})
    Executor().Do(
        {"anomalies": [anomalies], "statistics": [stats]},
        {"verdict": [output]},
        {"settings": settings, "source_digest": "x"},
    )
    return output


def test_good_data_passes_and_its_verdicts_are_kept(tmp_path):
    output = run(tmp_path, rows=60)
    verdicts = json.loads(Path(output.uri, "verdict.json").read_text())
    assert [(one["name"], one["passed"], one["figure"]) for one in verdicts] == [
        ("rows in train", True, "60"),
        ("rows in test", True, "60"),
    ]


def test_every_refusal_is_in_the_error(tmp_path):
    with pytest.raises(DataGateError) as refused:
        run(tmp_path, rows=7, missing_column="color")
    for part in (
        "train split has 7 rows",
        "test split has 7 rows",
        "'color' in the test split",
        "Column dropped",
    ):
        assert part in str(refused.value)


def test_an_ignored_finding_lets_the_run_go_on(tmp_path):
    run(tmp_path, rows=60, missing_column="color", ignore=("color:SCHEMA_MISSING_COLUMN",))


def test_the_component_is_a_node_with_a_verdict():
    gate = DataGate(
        anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies),
        statistics=types.Channel(type=standard_artifacts.ExampleStatistics),
        settings="{}",
        source_digest="x",
    )
    assert gate.outputs["verdict"].type_name == "HeadworksVerdict"
