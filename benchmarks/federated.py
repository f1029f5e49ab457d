"""Federated averaging on a finished run's training rows, against the same learner with all rows in one place.

Clients are the values of one or more columns, such as destination airports: each has its own number of rows and its own
share of positives. What learns is a device model in LiteRT's interpreter (`tflite.training`, `tflite.federated`),
from random weights, by plain gradient descent; AUC is on the run's test split. For each round:

- passes: rows learned from so far, as a multiple of all training rows;
- AUC of the server's weights;
- KiB that the clients of the round sent.

Then one learner has all rows at once, for at least as many passes. `--mixed` deals the rows at random to clients of the
same sizes: where that is closer to central training, the difference is due to clients being unlike each other.

    python -m benchmarks.federated output/flights examples/flights/pipeline.yaml --by dest
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from benchmarks.quality import last_run
from pipeline.config import Project, load
from schemas.features import DType, LabelKind
from tflite.federated import DeviceClient, FederatedSettings, Rows, Weights, dealt, federated_rounds
from tflite.settings import TrainableSettings

if TYPE_CHECKING:
    from models.trainer import Data

_LINE = "{:>12}{:>10}{:>10}{:>10}{:>8}{:>10}"
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged.

    Attributes:
      data: of the run.
      rows: of its training split.
      network: with random weights; `auc` changes them.
      auc: of weights on the test split.
      graph: folder of the tf.Transform output.
    """

    data: Data
    rows: Rows
    network: Any
    auc: Callable[[Weights], float]
    graph: str


def prepared(project: Project, record: Mapping[str, Any], seed: int) -> Task:
    """Reads a run's rows and makes its network anew, with random weights."""
    import tensorflow as tf

    from models import trainer
    from models.inputs import load_split

    features, config = project.feature_set(), project.config
    if features.label.kind is not LabelKind.BINARY:
        raise click.ClickException("AUC needs a label of two classes")
    graph, examples = _output(record, "TransformGraph"), _output(record, "Examples")
    arguments = SimpleNamespace(
        custom_config={"features": features.to_json()},
        transform_graph_path=str(graph),
        train_files=[str(examples / "Split-train/*.gz")],
        eval_files=[str(examples / "Split-validation/*.gz")],
    )
    data = trainer.load_data(arguments, config.train)
    test_files = [str(examples / "Split-test/*.gz")]
    test = load_split("test", test_files, data.train.reader, config.train.memory_rows)
    columns, labels = data.train.columns, data.train.labels
    if columns is None or labels is None or test.columns is None or test.labels is None:
        raise click.ClickException(
            "the rows do not fit into train.memory_rows: take a configuration that raises it"
        )
    tf.keras.utils.set_random_seed(seed + 1)
    plain = replace(config.train, mixed_precision="off", recompute=False)
    network = trainer.untrained(data, trainer.Settings(config.model, plain))
    held = {name: column.numpy() for name, column in columns.items()}
    rows = Rows(held, labels.numpy().astype(np.float32))
    return Task(data, rows, network, judge(network, test.columns, test.labels.numpy()), str(graph))


def judge(network: Any, columns: Mapping[str, Any], labels: Any) -> Callable[[Weights], float]:
    """What tells the AUC of weights."""
    from tflite.training import named_weights

    variables = named_weights(network)

    def auc(weights: Weights) -> float:
        for name, values in weights.items():
            variables[name].assign(values)
        logits = network.predict(columns, batch_size=_ROWS_AT_ONCE, verbose=0)
        return float(roc_auc_score(labels[:, 0], logits[:, 0]))

    return auc


def owners(data: Data, columns: Sequence[str]) -> npt.NDArray[np.str_]:
    """Whose each training row is: its values in these columns, joined."""
    import tensorflow as tf

    dtypes = {DType.FLOAT: tf.float32, DType.INT: tf.int64, DType.BYTES: tf.string}
    by_name = {feature.name: dtypes[feature.dtype] for feature in data.features}
    values = []
    for column in columns:
        if column not in by_name:
            raise click.ClickException(f"--by: there is no feature {column!r}, only {', '.join(by_name)}")
        records = tf.data.TFRecordDataset(list(data.train.files), "GZIP").batch(_ROWS_AT_ONCE)
        parts = [data.train.reader.decode_with(batch, column, by_name[column])[2] for batch in records]
        values.append(np.concatenate(parts)[:, 0].astype(str))
    return np.array([" ".join(row) for row in zip(*values, strict=True)])


def describe(clients: Mapping[str, Rows]) -> str:
    """How unlike the clients are."""
    sizes = [len(rows) for rows in clients.values()]
    low, middle, high = np.quantile([rows.labels.mean() for rows in clients.values()], [0.1, 0.5, 0.9])
    return (
        f"{len(clients)} clients of {min(sizes):,} to {max(sizes):,} rows (median {np.median(sizes):,.0f}); share of "
        f"positives: median {middle:.1%}, eight of ten clients {low:.1%} to {high:.1%}"
    )


def write_model(task: Task, path: Path, rate: float, batch_rows: int) -> None:
    """The device model, with the network's random weights."""
    from tflite import training
    from tflite.analysed import Analysed
    from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach
    from tflite.preprocessing import input_layout

    features, settings = task.data.features, TrainableSettings(rate, batch_rows)
    analysed = Analysed.read(features, task.graph)
    described = tuple(
        DeviceFeature(f.name, f.graph_name, f.dtype, f.kind, f.is_required, place.width)
        for f, place in zip(features, input_layout(features, analysed), strict=True)
    )
    label = DeviceLabel(features.label.name, features.label.kind, features.label.classes)
    said = Metadata("federated", 0, "benchmark", "", "float32", label, described)
    path.write_bytes(attach(training.convert(task.network, features, analysed, settings), said))


def federated(task: Task, path: Path, clients: Mapping[str, Rows], settings: FederatedSettings) -> int:
    """Prints the rounds; returns how many rows were learned from."""
    from tflite.client import TrainableModel

    devices = {
        name: DeviceClient(path, rows, settings.epochs, (settings.seed, number))
        for number, (name, rows) in enumerate(clients.items())
    }
    learned, started = 0, time.monotonic()
    for average in federated_rounds(TrainableModel(path).weights(), devices, settings):
        learned += average.rows * settings.epochs
        _say(
            f"round {average.number}",
            f"{average.rows:,}",
            f"{learned / len(task.rows):.2f}",
            f"{task.auc(average.weights):.4f}",
            f"{average.bytes_received / 1024:.0f}",
            f"{time.monotonic() - started:.1f}",
        )
    return learned


def central(task: Task, path: Path, passes: int, seed: int) -> None:
    """Prints the passes of one learner that has all rows."""
    from tflite.client import TrainableModel

    model, started = TrainableModel(path), time.monotonic()
    for number in range(1, passes + 1):
        model.learn(task.rows.columns, task.rows.labels, seed=seed + number)
        auc = task.auc(model.weights())
        _say(
            "central",
            f"{len(task.rows):,}",
            f"{number:.2f}",
            f"{auc:.4f}",
            "",
            f"{time.monotonic() - started:.1f}",
        )


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--by", default="dest", show_default=True, help="Columns whose values are the clients: A or A,B."
)
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
@click.option(
    "--clients", type=click.IntRange(1), default=20, show_default=True, help="Drawn for each round."
)
@click.option(
    "--epochs", type=click.IntRange(1), default=1, show_default=True, help="Of a client in a round."
)
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=0.05, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Rows of a step.")
@click.option("--least", type=click.IntRange(1), default=100, show_default=True, help="Rows of a client.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--mixed", is_flag=True, help="Deal the rows at random.")
def main(
    output: Path,
    config: Path,
    by: str,
    rounds: int,
    clients: int,
    epochs: int,
    rate: float,
    batch: int,
    least: int,
    seed: int,
    mixed: bool,
) -> None:
    """Runs the rounds, then central training."""
    settings = FederatedSettings(rounds, clients, epochs, seed)
    task = prepared(load(config, ()), last_run(output), seed)
    names = owners(task.data, by.split(","))
    if mixed:
        names = np.random.default_rng(seed).permutation(names)
    shares = {name: rows for name, rows in dealt(task.rows, names).items() if len(rows) >= least}
    click.echo(describe(shares))
    _say("", "rows", "passes", "AUC", "KiB", "seconds")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trainable.tflite")
        write_model(task, path, rate, batch)
        learned = federated(task, path, shares, settings)
        central(task, path, math.ceil(learned / len(task.rows)), seed)


def _say(*cells: str) -> None:
    click.echo(_LINE.format(*cells))


def _output(record: Mapping[str, Any], type_name: str) -> Path:
    return next(
        Path(output["uri"])
        for node in record["nodes"]
        for output in node["outputs"]
        if output["type_name"] == type_name
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    main()
