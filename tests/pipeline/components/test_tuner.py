"""The Tuner as TFX runs it: what it reads, and what it leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts
from tfx.types.channel_utils import as_channel
from tfx.utils import json_utils, proto_utils

from pipeline import stages, trials
from pipeline.components.tuner import Executor, Tuner
from pipeline.config import load
from report.tuning import Search
from schemas.features import LabelKind

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "taxi" / "pipeline.yaml"
TUNE = {
    "trials": 3,
    "epochs": 1,
    "method": "random",
    "ensemble": 2,
    "search": {"train.learning_rate": {"min": 1e-3, "max": 1e-1, "log": True}},
}


@pytest.fixture(scope="module")
def table(tables: Callable[[LabelKind], SimpleNamespace]) -> SimpleNamespace:
    return tables(LabelKind.BINARY)


def examples_of(table: SimpleNamespace, folder: Path, test: bytes) -> standard_artifacts.Examples:
    """The table's rows as both splits for learning, and some bytes as the test split."""
    [rows] = Path(table.files[0]).parent.glob("rows-*")
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder / "examples")
    artifact.split_names = json.dumps(["train", "validation", "test"])
    for split, content in (("train", rows.read_bytes()), ("validation", rows.read_bytes()), ("test", test)):
        place = folder / "examples" / f"Split-{split}"
        place.mkdir(parents=True)
        (place / "data_tfrecord-00000-of-00001.gz").write_bytes(content)
    artifact.set_string_custom_property("payload_format", "FORMAT_TF_EXAMPLE")
    return artifact


def run(
    table: SimpleNamespace, folder: Path, test: bytes, validation: str = "validation"
) -> tuple[dict[str, Any], Search]:
    """The best hyperparameters, and the trials, of a Tuner with such a test split."""
    graph = standard_artifacts.TransformGraph()
    graph.uri = table.graph_path
    best, results = standard_artifacts.HyperParameters(), standard_artifacts.TunerResults()
    for artifact, name in ((best, "best"), (results, "results")):
        artifact.uri = str(folder / name)
        (folder / name).mkdir(parents=True)
    given = {"examples": [examples_of(table, folder, test)], "transform_graph": [graph]}
    parameters = {
        "tuner_fn": "models.tuner.tuner_fn",
        "train_args": proto_utils.proto_to_json(trainer_pb2.TrainArgs(splits=["train"])),
        "eval_args": proto_utils.proto_to_json(trainer_pb2.EvalArgs(splits=[validation])),
        "custom_config": json_utils.dumps(
            {
                "features": table.features.to_json(),
                "model": {"hidden_units": [4]},
                "train": {"batch_size": 64},
                "tune": TUNE,
                "training_folder": str(folder / "training"),
            }
        ),
    }
    context = Executor.Context(tmp_dir=str(folder / "tmp"), unique_id="1")
    Executor(context).Do(given, {"best_hyperparameters": [best], "tuner_results": [results]}, parameters)
    [file] = (folder / "best").iterdir()
    found = trials.read(folder / "results")
    assert found is not None
    assert not list((folder / "training").iterdir()), "the state of a search that succeeded is cleared away"
    return json.loads(file.read_text()), found


def scores(search: Search) -> list[float | None]:
    return [trial.score for trial in search.trials]


@pytest.fixture(scope="module")
def poisoned(table: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(table, tmp_path_factory.mktemp("poisoned"), test=b"no record at all: whoever reads it fails")


def test_tuning_neither_reads_the_test_split_nor_changes_with_it(
    poisoned: Any, table: SimpleNamespace, tmp_path: Path
) -> None:
    [rows] = Path(table.files[0]).parent.glob("rows-*")
    best, search = run(table, tmp_path, test=rows.read_bytes())
    assert best == poisoned[0]
    assert scores(search) == scores(poisoned[1])
    assert None not in scores(search)


def test_the_sentinel_bites_whoever_reads_the_test_split(table: SimpleNamespace, tmp_path: Path) -> None:
    from tensorflow.errors import DataLossError

    with pytest.raises(DataLossError):
        run(table, tmp_path, test=b"no record at all: whoever reads it fails", validation="test")


def test_the_component_is_given_the_splits_for_learning_alone() -> None:
    search = "tune.search={model.dropout: {min: 0.0, max: 0.5}}"
    project = load(EXAMPLE, ["tune.enabled=true", search])
    examples = SimpleNamespace(outputs={"examples": as_channel([standard_artifacts.Examples()])})
    graph = SimpleNamespace(outputs={"transform_graph": as_channel([standard_artifacts.TransformGraph()])})
    node: Any = stages.tuner(project, project.feature_set(), examples, graph)
    assert isinstance(node, Tuner)
    assert node.id == "Tuner"
    assert set(node.inputs) == {"examples", "transform_graph"}
    assert json.loads(node.exec_properties["train_args"]) == {"splits": ["train"]}
    assert json.loads(node.exec_properties["eval_args"]) == {"splits": ["validation"]}


def test_the_best_come_out_as_the_trainer_reads_them_and_all_trials_as_the_report_does(poisoned: Any) -> None:
    best, search = poisoned
    by_score = sorted(search.trials, key=lambda trial: -(trial.score or 0.0))
    assert best["values"] == by_score[0].values
    assert best["ensemble"] == [trial.values for trial in by_score[:2]]
    assert (search.objective, search.method, len(search.trials)) == ("val_auc", "random", 3)
    assert all(trial.epochs == 1 for trial in search.trials)
