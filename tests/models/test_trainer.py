"""What stops a training, and which epoch is kept."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models import probe, signatures, trainer
from models.callbacks import LastEpoch, TrainingError
from models.checkpoints import CheckpointError
from models.inputs import Reader, Recency, Split, load_split
from models.preflight import PreflightError
from models.settings import NetworkSettings, TrainSettings
from models.signatures import answers
from models.tasks import TASKS
from schemas.features import LabelKind
from schemas.probe import Probe
from tests.models.conftest import only, serialized


@only(LabelKind.REGRESSION)
def test_training_that_diverges_is_an_error(table: SimpleNamespace) -> None:
    split = load_split("train", table.files, Reader(table.features, table.graph), 10_000)
    broken = replace(split, label_std=1e-30)
    data = trainer.Data(broken, split, table.features, table.graph)
    with pytest.raises(TrainingError, match="diverged"):
        trainer.fit(data, trainer.Settings(NetworkSettings(), TrainSettings(epochs=1)))


@only(LabelKind.BINARY, LabelKind.MULTICLASS)
def test_one_class_alone_cannot_be_trained_on(table: SimpleNamespace, tmp_path: Path) -> None:
    label = table.features.label.name
    file = tmp_path / "rows.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for row in table.rows:
            writer.write(serialized({**row, label: table.rows[0][label]}))
    arguments = SimpleNamespace(
        custom_config={"features": table.features.to_json()},
        transform_graph_path=table.graph_path,
        train_files=[str(file)],
        eval_files=[str(file)],
    )
    with pytest.raises(TrainingError, match="nothing to learn"):
        trainer.load_data(arguments, TrainSettings())


@only(LabelKind.BINARY)
@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_a_streamed_split_can_be_shuffled_by_any_seed(table: SimpleNamespace, seed: int) -> None:
    split = load_split("train", table.files, Reader(table.features, table.graph), memory_rows=10)
    data = trainer.Data(split, split, table.features, table.graph)
    settings = trainer.Settings(NetworkSettings(hidden_units=(4,)), TrainSettings(epochs=1, seed=seed))
    assert len(trainer.fit(data, settings).history) == 1


@only(LabelKind.BINARY)
def test_a_checkpoint_that_was_cut_short_is_named(table: SimpleNamespace, tmp_path: Path) -> None:
    split = load_split("train", table.files, Reader(table.features, table.graph), 10_000)
    data = trainer.Data(split, split, table.features, table.graph)
    settings = trainer.Settings(NetworkSettings(hidden_units=(4,)), TrainSettings(epochs=1))
    trainer.fit(data, settings, checkpoints=tmp_path)
    [values] = tmp_path.glob("*.data-*")
    values.write_bytes(values.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=f"delete {tmp_path}"):
        trainer.fit(data, settings, checkpoints=tmp_path)


def test_an_unknown_hyperparameter_is_named() -> None:
    settings = trainer.Settings(NetworkSettings(), TrainSettings())
    with pytest.raises(ValueError, match=r"train\.lerning_rate"):
        settings.with_values({"train.lerning_rate": 1.0})


TRAINING = {"batch_size": 64, "epochs": 5, "patience_epochs": 0, "checks": False}
KILLED_IN_THE_FOURTH_EPOCH = """
import json, os, signal, sys
from types import SimpleNamespace
from models import trainer
import tf_keras

class Kill(tf_keras.callbacks.TensorBoard):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self.epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch

tf_keras.callbacks.TensorBoard = Kill
trainer.run_fn(SimpleNamespace(**json.loads(sys.argv[1])))
"""


def arguments_of(table: SimpleNamespace, folder: Path, **train: object) -> dict[str, Any]:
    """What TFX hands to `run_fn`, with everything it writes below `folder`."""
    return {
        "custom_config": {
            "features": table.features.to_json(),
            "model": {"hidden_units": [8], "dropout": 0.0, "input_dropout": 0.0},
            "train": {**TRAINING, **train},
            "training_folder": str(folder / "training"),
        },
        "hyperparameters": None,
        "transform_graph_path": table.graph_path,
        "train_files": table.files,
        "eval_files": table.files,
        "base_model": None,
        "serving_model_dir": str(folder / "model"),
        "model_run_dir": str(folder / "run"),
    }


def trained(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run" / "training.json").read_text())
    return record


@only(LabelKind.BINARY)
def test_training_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # Epochs that end within a pass, and dropout: the place in the data and the draws have to be the same again.
    dropping = {"hidden_units": [8], "dropout": 0.3, "input_dropout": 0.1}
    uninterrupted, arguments = (arguments_of(table, folder, epoch_rows=400) for folder in (whole, killed))
    for given in (uninterrupted, arguments):
        given["custom_config"]["model"] = dropping
    trainer.run_fn(SimpleNamespace(**uninterrupted))
    command = [sys.executable, "-c", KILLED_IN_THE_FOURTH_EPOCH, json.dumps(arguments)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not (killed / "model").exists()
    [left] = (killed / "training").iterdir()
    assert list((left / "logs").rglob("events*"))

    trainer.run_fn(SimpleNamespace(**arguments))
    expected, got = trained(whole), trained(killed)
    assert len(Probe.read(killed / "run")) == 512
    assert got["rows"] == {"train": 600, "validation": 600}
    assert got["resumed_after_epochs"] == 3
    assert [entry["epoch"] for entry in got["history"]] == [1, 2, 3, 4, 5]
    for before, after in zip(expected["history"], got["history"], strict=True):
        assert after == pytest.approx(before, abs=1e-4)
    rows = tf.constant([serialized(row) for row in table.rows[:50]])
    scores = [
        tf.saved_model.load(str(folder / "model")).signatures["serving_default"](examples=rows)["scores"]
        for folder in (whole, killed)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
    assert list((killed / "training").iterdir()) == []
    assert list((killed / "run").rglob("events*"))


@only(LabelKind.BINARY)
def test_the_checks_before_training_are_in_its_record_and_stop_it(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = arguments_of(table, tmp_path, checks=True, epochs=1)
    trainer.run_fn(SimpleNamespace(**arguments))
    assert {"initial bias", "gradients", "shuffled labels"} <= {
        check["name"] for check in trained(tmp_path)["checks"]
    }
    shutil.rmtree(tmp_path / "model")
    sound = TASKS[LabelKind.BINARY]
    wrong = {LabelKind.BINARY: lambda *given: replace(sound(*given), initial_bias=(9.0,))}
    monkeypatch.setattr(trainer, "TASKS", wrong)
    with pytest.raises(PreflightError, match="initial bias"):
        trainer.run_fn(SimpleNamespace(**arguments))
    assert not (tmp_path / "model").exists()


@only(LabelKind.BINARY)
def test_other_settings_or_data_are_another_training(table: SimpleNamespace, tmp_path: Path) -> None:
    arguments = arguments_of(table, tmp_path)
    changes: list[dict[str, Any]] = [
        {},
        {"eval_files": []},
        {"transform_graph_path": "elsewhere"},
        {"hyperparameters": {"values": {"train.learning_rate": 0.1}}},
        {"custom_config": arguments_of(table, tmp_path, seed=2)["custom_config"]},
    ]
    names = {trainer.identity(SimpleNamespace(**{**arguments, **change})) for change in changes}
    assert len(names) == 5
    moved = arguments_of(table, tmp_path / "moved")["custom_config"]
    assert trainer.identity(SimpleNamespace(**{**arguments, "custom_config": moved})) in names


def network_and_split(table: SimpleNamespace, reader: Reader, files: list[str]) -> tuple[Any, Split]:
    """A network that has not learned anything, and all rows as the reader has them."""
    split = load_split("validation", files, reader, 10_000)
    data = trainer.Data(split, split, table.features, table.graph)
    settings = trainer.Settings(NetworkSettings(hidden_units=(4,)), TrainSettings())
    tf_keras.utils.set_random_seed(1)
    return trainer.compiled_network(data, settings, 1), split


def test_a_probe_holds_what_the_network_says_of_the_rows_that_training_saw(table: SimpleNamespace) -> None:
    reader = Reader(table.features, table.graph)
    network, split = network_and_split(table, reader, table.files)
    taken = probe.take(network, split)
    assert len(taken.examples) == len(taken) == 512
    assert len(set(taken.examples)) == 512
    columns, _ = reader.decode(tf.constant(taken.examples))
    outputs = answers(network(columns), table.features.label)
    key = "prediction" if table.features.label.kind is LabelKind.REGRESSION else "scores"
    np.testing.assert_allclose(taken.scores, outputs[key], rtol=1e-5, atol=1e-6)
    lacking = tf.io.parse_example(taken.examples[:2], {"fare": tf.io.FixedLenFeature([1], tf.float32, -7.0)})
    assert (lacking["fare"] == -7.0).numpy().any(), "a row without its fare comes first"


@only(LabelKind.BINARY)
def test_a_probe_shows_what_only_training_does(
    table: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Reader.decode

    def otherwise(reader: Reader, examples: tf.Tensor) -> Any:
        inputs, label = decode(reader, examples)
        return {**inputs, "fare_scaled": inputs["fare_scaled"] + 100.0}, label

    monkeypatch.setattr(Reader, "decode", otherwise)
    taken = probe.take(*network_and_split(table, Reader(table.features, table.graph), table.files))
    assert taken.columns["fare_scaled"].min() > 50.0


@only(LabelKind.BINARY)
def test_rows_without_a_label_are_not_in_a_probe(table: SimpleNamespace, tmp_path: Path) -> None:
    label = table.features.label.name
    file = tmp_path / "rows.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for number, row in enumerate(table.rows[:100]):
            writer.write(serialized({k: v for k, v in row.items() if k != label or number % 4}))
    network, split = network_and_split(table, Reader(table.features, table.graph), [str(file)])
    taken = probe.take(network, split)
    assert len(taken.examples) == split.rows == 75
    found = tf.io.parse_example(taken.examples, {label: tf.io.FixedLenFeature([1], tf.int64)})
    columns, labels = split.reader.decode(tf.constant(taken.examples))
    np.testing.assert_array_equal(labels, found[label])
    np.testing.assert_allclose(columns["fare_scaled"], taken.columns["fare_scaled"], atol=1e-6)


@only(LabelKind.BINARY)
def test_a_probe_of_transformed_rows_holds_no_raw_ones(table: SimpleNamespace, tmp_path: Path) -> None:
    raw = Reader(table.features, table.graph)
    network, split = network_and_split(table, raw, table.files)
    assert split.columns is not None
    assert split.labels is not None
    file = tmp_path / "transformed.gz"
    spec = table.graph.transformed_feature_spec()
    columns = {name: values.numpy() for name, values in split.columns.items()}
    columns[table.features.label.transformed_name] = split.labels.numpy()
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for row in range(split.rows):
            writer.write(example_of({name: columns[name][row] for name in spec}))
    transformed = load_split("validation", [str(file)], replace(raw, is_transformed=True), 10_000)
    taken = probe.take(network, transformed)
    assert taken.examples == ()
    assert len(taken) == 512
    of_all = probe.scores(network.predict(split.batches(1000), verbose=0), table.features.label)
    nearest = np.abs(taken.scores[:, None, 1] - of_all[None, :, 1]).min(axis=1)
    assert nearest.max() < 1e-5
    assert (taken.columns["fare_missing"][:3] == 1.0).any(), "rows that lack a value come first"


def example_of(values: dict[str, Any]) -> bytes:
    """A transformed row as a tf.Example."""
    features = {}
    for name, array in values.items():
        if array.dtype.kind == "f":
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=array))
        else:
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=array))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


ON_TWO_DEVICES = """
import json, sys
from dataclasses import replace
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from types import SimpleNamespace
from models import trainer
arguments = SimpleNamespace(**json.loads(sys.argv[1]))
settings = trainer.Settings.from_config(arguments.custom_config)
data = trainer.load_data(arguments, settings.train)
for name in ("mirrored", "none"):
    train = replace(settings.train, strategy=name)
    fitted = trainer.fit(data, replace(settings, train=train))
    np.savez(f"{sys.argv[2]}/{name}.npz", *fitted.network.get_weights())
    print(name, fitted.history[-1])
"""


@only(LabelKind.BINARY)
def test_two_devices_train_the_same_network_as_one(table: SimpleNamespace, tmp_path: Path) -> None:
    arguments = arguments_of(table, tmp_path, epochs=2)
    command = [sys.executable, "-c", ON_TWO_DEVICES, json.dumps(arguments), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "mirrored.npz") as mirrored, np.load(tmp_path / "none.npz") as single:
        assert len(mirrored.files) == len(single.files) > 0
        for name in single.files:
            np.testing.assert_allclose(mirrored[name], single[name], atol=1e-4)


class EveryEpoch(tf_keras.callbacks.Callback):
    """The weights at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.get_weights())


class EndsInTheSecondEpoch(LastEpoch):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


def two_splits(table: SimpleNamespace, folder: Path) -> dict[str, Any]:
    """Arguments with the table's first rows to train on; of the others every third has the wrong label."""
    for name, numbers in (("train", range(400)), ("validation", range(400, 600))):
        with tf.io.TFRecordWriter(str(folder / name), "") as writer:
            for row in (table.rows[number] for number in numbers):
                is_wrong = name == "validation" and row["row"] % 3 == 0
                writer.write(serialized({**row, "tip": 1 - row["tip"]} if is_wrong else row))
    given = arguments_of(
        table,
        folder,
        refit=True,
        monitor="val_loss",
        learning_rate=0.02,
        epoch_rows=200,
        recency_half_life=200.0,
    )
    given["custom_config"]["order_column"] = "row"
    return {**given, "train_files": [str(folder / "train")], "eval_files": [str(folder / "validation")]}


@only(LabelKind.BINARY)
def test_a_refit_learns_from_both_splits_for_the_chosen_epochs_and_goes_on_where_it_was_ended(
    table: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[Any] = []
    monkeypatch.setattr(signatures, "export", lambda network, *_: exported.append(network))
    arguments = SimpleNamespace(**two_splits(table, tmp_path))
    with monkeypatch.context() as ended:
        ended.setattr(trainer, "LastEpoch", EndsInTheSecondEpoch)
        with pytest.raises(KeyboardInterrupt):
            trainer.run_fn(arguments)
    trainer.run_fn(arguments)
    record = trained(tmp_path)
    assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3, 4, 5]
    assert 1 < record["chosen_epoch"] < 5
    assert record["rows"] == {"train": 400, "validation": 200}
    assert record["refit"]["rows"] == 600

    # Epochs of half of the rows, ages from the latest row, and the learning rate as it was in those epochs.
    settings = trainer.Settings.from_config(arguments.custom_config)
    reader = Reader(table.features, table.graph)
    files = [*arguments.train_files, *arguments.eval_files]
    both = load_split("both", files, reader, 10_000, Recency("row", 200.0))
    expected = EveryEpoch()
    whole = replace(settings, train=replace(settings.train, epoch_rows=300))
    trainer.fit(trainer.Data(both, both, table.features, table.graph), whole, [expected])
    [network] = exported
    chosen = expected.weights[record["chosen_epoch"] - 1]
    for got, want in zip(network.get_weights(), chosen, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
