"""A real export becomes LiteRT files that are asked in real fresh processes: what ships, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from gates import evidence
from gates.device import Failed, Ran
from gates.verdict import Outcome
from models import trainer
from pipeline import device_process
from pipeline.components.device_models import DeviceModelFiles, Executor
from pipeline.components.gate_output import REFUSED_FOLDER, GateVerdict, RefusedError, read_verdicts
from pipeline.push import MANIFEST, damaged, push
from schemas.features import MISSING_INT, LabelKind
from tests.models.conftest import serialized
from tflite import client, metadata, production
from tflite.analysed import Analysed, Moments
from tflite.client import DeviceModel
from tflite.quantization import QuantizationError
from tflite.variants import NumberFormat

CLIENT = Path(client.__file__)


@pytest.fixture(scope="module")
def pushed(
    tables: Callable[[LabelKind], SimpleNamespace], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """A small model that was pushed, and what a run has beside it."""
    folder = tmp_path_factory.mktemp("pushed")
    table = tables(LabelKind.BINARY)
    arguments = SimpleNamespace(
        custom_config={
            "features": table.features.to_json(),
            "model": {"hidden_units": [16]},
            "train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.02},
        },
        hyperparameters=None,
        transform_graph_path=table.graph_path,
        train_files=table.files,
        eval_files=table.files,
        serving_model_dir=str(folder / "model"),
        model_run_dir=str(folder / "run"),
    )
    trainer.run_fn(arguments)
    [rows] = Path(table.graph_path).parent.glob("rows-*")
    for split in ("train", "validation", "test"):
        (folder / "examples" / f"Split-{split}").mkdir(parents=True)
        shutil.copy(rows, folder / "examples" / f"Split-{split}")
    version = push(folder / "model", folder / "serving", {"run_id": "a-run", "threshold": 0.3})
    return SimpleNamespace(folder=folder, table=table, version=version.folder)


def artifact(kind: type, folder: Path, **properties: str) -> Any:
    made = kind()
    made.uri = str(folder)
    for name, value in properties.items():
        setattr(made, name, value)
    return made


def make(
    pushed: SimpleNamespace, out: Path, number: int = 1, overrides: str = "[]", **settings: Any
) -> SimpleNamespace:
    """Runs the component; `number` is that of its artifacts."""
    version = artifact(standard_artifacts.PushedModel, pushed.folder)
    version.set_string_custom_property("pushed_destination", str(pushed.version))
    splits = '["train", "validation", "test"]'
    inputs = {
        "pushed_model": version,
        "model_run": artifact(standard_artifacts.ModelRun, pushed.folder / "run"),
        "examples": artifact(standard_artifacts.Examples, pushed.folder / "examples", split_names=splits),
        "transform_graph": artifact(standard_artifacts.TransformGraph, Path(pushed.table.graph_path)),
    }
    files = artifact(DeviceModelFiles, out / "device_models" / str(number))
    Executor().Do(
        {name: [value] for name, value in inputs.items()},
        {"device_models": [files], "verdict": [artifact(GateVerdict, out / "verdict" / str(number))]},
        {
            "name": "tips",
            "settings": json.dumps({"rows": 500, "calibration_rows": 100, **settings}),
            "overrides": overrides,
            "features": pushed.table.features.to_json(),
            "units": '{"fare": "dollars"}',
            "order_column": "null",
            "folder": str(out / "device"),
            "source_digest": "",
        },
    )
    destination = Path(files.get_string_custom_property("pushed_destination"))
    return SimpleNamespace(
        files=Path(files.uri),
        folder=destination,
        verdicts={verdict.name: verdict for verdict in read_verdicts(out / "verdict" / str(number))},
        evidence=evidence.read(evidence.DeviceEvidence, out / "verdict" / str(number)),
        out=out,
    )


@pytest.fixture(scope="module")
def made(pushed: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What a run without faults makes."""
    return make(
        pushed,
        tmp_path_factory.mktemp("made"),
        variants=["float32", "float16", "int8"],
        budget={"max_auc_drop": 0.02},
    )


def test_the_pushed_folder_has_the_blessed_files_the_recommended_one_and_its_client(made):
    names = {path.name for path in made.folder.iterdir()}
    assert names == {"float32.tflite", "float16.tflite", "int8.tflite", "model.tflite", "client.py", MANIFEST}
    best = made.evidence.recommended
    assert (made.folder / "model.tflite").read_bytes() == (made.folder / f"{best}.tflite").read_bytes()
    assert json.loads((made.folder / MANIFEST).read_text())["recommended"] == best
    assert damaged(made.folder) == []


def test_float32_answers_the_rows_as_the_pushed_model_does(pushed, made):
    model = DeviceModel(made.folder / "float32.tflite")
    answer = tf.saved_model.load(str(pushed.version)).signatures["serving_raw"]
    rows = pushed.table.rows[:50]
    given = {
        "fare": tf.constant([row.get("fare", np.nan) for row in rows], tf.float32),
        "row": tf.constant([row["row"] for row in rows], tf.int64),
        "company": tf.constant([row.get("company", "") for row in rows]),
        "hour": tf.constant([row["hour"] for row in rows], tf.int64),
        "remark": tf.constant([row["remark"] for row in rows]),
    }
    ours = [
        model.predict({name: row.get(name) for name in given}).probability["1"]
        for row in pushed.table.rows[:50]
    ]
    np.testing.assert_allclose(ours, answer(**given)["probability"].numpy()[:, 0], rtol=0, atol=1e-5)
    assert made.verdicts["same answers on the device"].passed


def test_a_file_says_where_it_comes_from(pushed, made):
    said = metadata.read(made.folder / "int8.tflite")
    assert (said.name, said.version, said.run_id, said.variant) == ("tips", 1, "a-run", "int8")
    assert (said.threshold, said.label.classes) == (0.3, ("0", "1"))
    assert said.source_sha256 == metadata.source_digest_of(pushed.version)
    assert {feature.name: feature.unit for feature in said.features}["fare"] == "dollars"


def test_figures_are_those_of_the_files(made):
    by_name = {one.name: one for one in made.evidence.variants}
    assert list(by_name) == ["float32", "float16", "int8"]
    for name, figures in by_name.items():
        assert figures.bytes == (made.files / f"{name}.tflite").stat().st_size
        assert 0 < figures.p50_milliseconds <= figures.p99_milliseconds
    assert by_name["float32"].max_difference < by_name["int8"].max_difference
    assert made.evidence.rows == 500


def test_a_budget_that_none_meets_fails_the_stage_and_nobody_can_answer_for_it(pushed, tmp_path, monkeypatch):
    monkeypatch.setenv(REFUSED_FOLDER, str(tmp_path / "refused"))
    override = json.dumps([{"check": "device models", "owner": "me", "reason": "a demo"}])
    with pytest.raises(RefusedError, match=r"none of the device models.*tflite.budget.max_bytes"):
        make(pushed, tmp_path, overrides=override, variants=["float32"], budget={"max_bytes": 10})
    assert not (tmp_path / "device").exists()
    found = evidence.read(evidence.DeviceEvidence, tmp_path / "refused")
    assert found.recommended is None


def test_preparing_a_feature_otherwise_on_the_device_is_refused(pushed, tmp_path, monkeypatch):
    read = Analysed.read

    def shifted(*arguments: Any) -> Analysed:
        found = read(*arguments)
        moments = {
            **found.moments,
            "fare": Moments(found.moments["fare"].mean + 0.01, found.moments["fare"].variance),
        }
        return Analysed(moments, found.boundaries, found.vocabularies)

    monkeypatch.setattr(Analysed, "read", shifted)
    with pytest.raises(RefusedError, match="the device prepares some feature otherwise"):
        make(pushed, tmp_path, variants=["float32"])


def test_a_variant_that_cannot_be_made_is_reported_and_the_others_ship_under_the_next_number(
    pushed, made, monkeypatch
):
    def refusing(model: bytes, number_format: NumberFormat, samples: Any) -> bytes:
        if number_format is NumberFormat.INT16X8:
            raise QuantizationError("GATHER cannot be had in 16 bits")
        return model

    monkeypatch.setattr(production, "quantize", refusing)
    again = make(pushed, made.out, 2, variants=["float32", "int16x8"])
    assert again.evidence.failed == {"int16x8": "GATHER cannot be had in 16 bits"}
    assert again.evidence.recommended == "float32"
    assert not (again.folder / "int16x8.tflite").exists()
    assert again.folder == made.out / "device" / "2"


def test_rows_that_the_client_refuses_are_told_and_left_out_and_float32_ships_only_if_asked_for(
    pushed, tmp_path
):
    folder = tmp_path / "pushed"
    shutil.copytree(pushed.folder, folder)
    for split in ("train", "test"):
        with tf.io.TFRecordWriter(str(folder / "examples" / f"Split-{split}" / "bad.gz"), "GZIP") as writer:
            for company in (b"no\xffutf8", b"a\0zero"):
                row = tf.train.Example.FromString(serialized(pushed.table.rows[1]))
                row.features.feature["company"].bytes_list.value[:] = [company]
                writer.write(row.SerializeToString())
    spoilt = SimpleNamespace(folder=folder, table=pushed.table, version=pushed.version)
    limits: dict[str, Any] = {"rows": 700, "max_refused_rows": 0.01, "budget": {"max_auc_drop": 0.05}}
    made = make(spoilt, tmp_path, variants=["int8"], **limits)
    assert made.verdicts["rows the device takes"].outcome is Outcome.WARNED
    assert "600 of 602 test rows" in made.verdicts["rows the device takes"].reason
    assert "company" in made.verdicts["rows the device takes"].reason
    assert made.evidence.rows == 600
    assert {path.name for path in made.folder.glob("*.tflite")} == {"int8.tflite", "model.tflite"}


def test_a_single_row_is_enough_to_answer_and_to_be_timed(pushed, made):
    columns = {
        "fare": np.array([np.nan], np.float32),
        "row": np.array([3]),
        "company": np.array([b"red"], object),
        "hour": np.array([MISSING_INT]),
        "remark": np.array([b""], object),
    }
    with device_process.rows_file(columns, LabelKind.BINARY) as rows:
        found = device_process.ask("int8", made.files / "int8.tflite", CLIENT, rows)
    assert isinstance(found, Ran), found
    assert found.answers.shape == (1, 2)
    assert 0 < found.memory_bytes < 60_000_000


def test_a_file_that_cannot_be_loaded_is_reported(tmp_path, made):
    broken = tmp_path / "int8.tflite"
    content = (made.files / "int8.tflite").read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with device_process.rows_file({"fare": np.zeros(1, np.float32)}, LabelKind.BINARY) as rows:
        found = device_process.ask("int8", broken, CLIENT, rows)
    assert isinstance(found, Failed)
    assert "exit code 1" in found.reason
    assert str(broken) in found.reason
