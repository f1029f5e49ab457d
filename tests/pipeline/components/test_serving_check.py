"""Real exports, asked in a real fresh process: what passes, and what is refused by name."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from setuptools import find_packages
from tfx.types import standard_artifacts

from gates import evidence
from gates.serving import Fallen
from gates.verdict import Outcome
from models import signatures, trainer
from models.inputs import present
from pipeline import fresh_process, serving_script
from pipeline.components.gate_output import REFUSED_FOLDER, GateVerdict, RefusedError, read_verdicts
from pipeline.components.serving_check import Executor
from pipeline.probe_rows import raw_columns, with_raw_rows
from schemas.features import Label, LabelKind
from schemas.probe import Probe
from tests.models.conftest import FEATURES, made_table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small model, the network it was exported from, and the rows, raw and transformed."""
    folder = tmp_path_factory.mktemp("trained")
    table = made_table(folder, LabelKind.BINARY, FEATURES[:3])
    kept: dict[str, Any] = {}
    export = signatures.export
    arguments = SimpleNamespace(
        custom_config={
            "features": table.features.to_json(),
            "model": {"hidden_units": [8]},
            "train": {"epochs": 1, "batch_size": 32},
        },
        hyperparameters=None,
        transform_graph_path=table.graph_path,
        train_files=table.files,
        eval_files=table.files,
        serving_model_dir=str(folder / "model" / "Format-Serving"),
        model_run_dir=str(folder / "run"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "export", lambda n, *a: kept.update(network=n) or export(n, *a))
        trainer.run_fn(arguments)
    split = folder / "examples" / "Split-validation"
    split.mkdir(parents=True)
    shutil.copy(next(folder.glob("rows-*")), split)
    return SimpleNamespace(folder=folder, table=table, network=kept["network"], examples=split.parent)


@pytest.fixture
def model(trained: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy of the model to spoil: the folder of its artifact."""
    return Path(shutil.copytree(trained.folder / "model", tmp_path / "model"))


def artifact(kind: type, folder: Path, **properties: str) -> Any:
    made = kind()
    made.uri = str(folder)
    for name, value in properties.items():
        setattr(made, name, value)
    return made


def check(
    trained: SimpleNamespace,
    model: Path,
    out: Path,
    settings: Mapping[str, float] | None = None,
    run: Path | None = None,
) -> Path:
    """Runs the component; the folder of its verdict."""
    inputs = {
        "model": artifact(standard_artifacts.Model, model),
        "model_run": artifact(standard_artifacts.ModelRun, run or trained.folder / "run"),
        "examples": artifact(standard_artifacts.Examples, trained.examples, split_names='["validation"]'),
        "transform_graph": artifact(standard_artifacts.TransformGraph, Path(trained.table.graph_path)),
    }
    Executor().Do(
        {name: [value] for name, value in inputs.items()},
        {"verdict": [artifact(GateVerdict, out / "verdict")]},
        {
            "settings": json.dumps(settings or {}),
            "overrides": "[]",
            "features": trained.table.features.to_json(),
            "source_digest": "",
        },
    )
    return out / "verdict"


def refused(trained: SimpleNamespace, model: Path, **settings: float) -> dict[str, str]:
    """The reasons of a refusal by the check's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REFUSED_FOLDER, str(model / "refused"))
        with pytest.raises(RefusedError):
            check(trained, model, model, settings)
    return {v.name: v.reason for v in read_verdicts(model / "refused") if not v.passed}


def exported(trained: SimpleNamespace, folder: Path) -> Path:
    """Exports the trained network anew, as it is and as `models.signatures` is now."""
    path = str(folder / "Format-Serving")
    signatures.export(trained.network, trained.table.features, trained.table.graph, path)
    return folder


@pytest.fixture(scope="module")
def refused_broken(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of a model with NaN for weights, without `serving_raw`, for which no answer is fast enough."""
    complete = signatures.ServedModel.signatures
    weights = trained.network.get_weights()
    trained.network.set_weights([np.full_like(values, np.nan) for values in weights])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            signatures.ServedModel,
            "signatures",
            lambda self: {name: s for name, s in complete(self).items() if name != "serving_raw"},
        )
        model = exported(trained, tmp_path_factory.mktemp("broken"))
    trained.network.set_weights(weights)
    return refused(trained, model, max_p99_milliseconds=0.001)


@pytest.fixture(scope="module")
def refused_other(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of a model that swaps the classes, and takes fares in another unit when they come as columns."""
    answers = signatures.answers

    def swapped(logits: tf.Tensor, label: Label) -> dict[str, tf.Tensor]:
        outputs = answers(logits, label)
        scores = tf.reverse(outputs["scores"], [1])
        return {**outputs, "scores": scores, "probability": scores[:, 1:]}

    def in_kilometres(values: tf.Tensor) -> tf.SparseTensor:
        return present(values * 1.609 if values.dtype.is_floating else values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "answers", swapped)
        patch.setattr(signatures, "present", in_kilometres)
        model = exported(trained, tmp_path_factory.mktemp("other"))
    return refused(trained, model)


def test_a_good_model_passes_and_its_figures_are_kept_also_where_training_read_transformed_rows(
    trained: SimpleNamespace, tmp_path: Path
) -> None:
    replace(Probe.read(trained.folder / "run"), examples=()).write(tmp_path / "run")
    folder = check(trained, trained.folder / "model", tmp_path, run=tmp_path / "run")
    assert {verdict.outcome for verdict in read_verdicts(folder)} == {Outcome.PASSED}
    found = evidence.read(evidence.ServingEvidence, folder)
    assert found.model_bytes > 10_000
    by_name = {figures.name: figures for figures in found.signatures}
    assert set(by_name) == {"serving_default", "serving_raw", "transform_features"}
    difference = by_name["serving_raw"].max_difference
    assert difference is not None
    assert difference < 1e-5
    default = by_name["serving_default"]
    assert default.single_p99_milliseconds >= default.single_p50_milliseconds > 0.0


def test_the_raw_rows_of_transformed_ones_are_found_and_those_that_are_not_are_left_out(
    trained: SimpleNamespace,
) -> None:
    probe = Probe.read(trained.folder / "run").first(50)
    without = replace(probe, examples=())
    without.columns["fare_scaled"][3] = 77.0
    found = with_raw_rows(without, trained.examples / "Split-validation", trained.table.graph_path)
    assert len(found) == 49
    known = [row for row in range(50) if row != 3]
    np.testing.assert_array_equal(found.scores, probe.scores[known])
    columns = raw_columns(found.examples, trained.table.features)
    np.testing.assert_array_equal(
        columns["fare"], raw_columns(probe.examples, trained.table.features)["fare"][known]
    )


def test_weights_that_are_no_numbers_are_refused(refused_broken: dict[str, str]) -> None:
    assert "serving_default answers NaN to 256 of 256 rows" in refused_broken["answers of serving_default"]


def test_a_missing_signature_is_refused(refused_broken: dict[str, str]) -> None:
    reason = refused_broken["signature serving_raw"]
    assert "no signature serving_raw (it has serving_default, transform_features)" in reason


def test_slow_answers_are_refused(refused_broken: dict[str, str]) -> None:
    assert "serving_default is too slow" in refused_broken["latency of serving_default"]


def test_swapped_classes_are_refused(refused_other: dict[str, str]) -> None:
    reason = refused_other["answers of serving_default"]
    assert "serving_default: scores of class 0 and 1 are swapped" in reason


def test_a_graph_that_differs_from_the_trained_one_is_refused(refused_other: dict[str, str]) -> None:
    reason = refused_other["answers of serving_raw"]
    assert (
        "the exported graph answers otherwise than the network that was trained: serving_raw, row" in reason
    )
    assert (
        "serving_raw answers otherwise than serving_default to the same rows"
        in (refused_other["agreement of serving_default and serving_raw"])
    )


def test_variables_that_were_cut_short_are_refused_with_the_file(
    trained: SimpleNamespace, model: Path, tmp_path: Path
) -> None:
    [variables] = model.rglob("variables.data-*")
    variables.write_bytes(variables.read_bytes()[: variables.stat().st_size // 2])
    with pytest.raises(RefusedError, match="cannot be loaded: ") as refusal:
        check(trained, model, tmp_path)
    assert f"{variables} is cut short or damaged" in str(refusal.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "saved_model.pb is missing"),
        (lambda file: file.write_bytes(b"not a graph"), "saved_model.pb is damaged"),
        (lambda file: (file.parent / "variables" / "variables.index").unlink(), "variables.index is missing"),
        (lambda file: None, ""),
    ],
)
def test_the_broken_file_of_a_model_is_found(model: Path, spoil: Callable[[Path], None], said: str) -> None:
    folder = model / "Format-Serving"
    spoil(folder / "saved_model.pb")
    assert serving_script.broken_file(folder).endswith(said)
    assert bool(serving_script.broken_file(folder)) == bool(said)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import time; time.sleep(60)", "did not end within 2 s"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("raise SystemExit('the last words')", "exit code 1; it said last: the last words"),
    ],
)
def test_a_process_that_hangs_or_dies_is_a_refusal(
    trained: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    (tmp_path / "script.py").write_text(script)
    monkeypatch.setattr(serving_script, "__file__", str(tmp_path / "script.py"))
    monkeypatch.setattr(fresh_process, "_SECONDS_BESIDES_LOADING", 1.0)
    with pytest.raises(RefusedError, match=said):
        check(trained, trained.folder / "model", tmp_path, {"max_load_seconds": 1.0})


def test_the_fresh_process_can_import_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(serving_script.__file__).read_text().partition('if __name__ == "__main__"')[0]
    tries = """
import importlib
question = json.loads((Path(sys.argv[1]) / "question.json").read_text())
forbid(question["forbidden"])
for name in question["forbidden"]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported")
sys.exit("PYTHONPATH counts" if "/elsewhere" in sys.path else "nothing can be imported")
"""
    (tmp_path / "script.py").write_text(script + tries)
    monkeypatch.setattr(serving_script, "__file__", str(tmp_path / "script.py"))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    fallen = fresh_process.ask(tmp_path, {}, 10.0)
    assert isinstance(fallen, Fallen)
    assert fallen.words.endswith("nothing can be imported")


def test_every_room_of_the_house_is_kept_out() -> None:
    root = Path(serving_script.__file__).parents[1]
    rooms = {name for name in find_packages(str(root)) if "." not in name and name != "tests"}
    assert rooms <= set(fresh_process.ROOMS)
    assert not set(fresh_process.ROOMS) & set(sys.stdlib_module_names)
