"""Rows a second into the network: Headworks' input against the stock one of TFX, on the examples of a finished run.

Both read the same tf.Examples, apply the same transform graph and shuffle; nothing learns. A first epoch begins with
nothing read and counts everything until its last batch: for Headworks the loading of the split. The stock input is the
`tf_dataset_factory` that TFX's Trainer hands to its `run_fn`, with its own defaults, and the graph mapped over its
batches one after the other, as users of TFX mostly do, or in parallel. Processor time stands beside wall time because
other work on the machine changes the one more than the other.

    python -m benchmarks.inputs output/flights examples/flights/pipeline.yaml
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipeline.config import load
from schemas.features import FeatureSet

SEED, BUFFER_ROWS, MEMORY_ROWS = 1, 10_000, 100_000_000


@dataclass(frozen=True)
class Source:
    """What all inputs read.

    Attributes:
      examples: folder of the raw examples.
      graph: folder of the transform graph.
      features: the columns.
      batch_size: rows of a batch.
    """

    examples: str
    graph: str
    features: FeatureSet
    batch_size: int

    @property
    def files(self) -> list[str]:
        """Patterns of the files of train."""
        return [f"{self.examples}/Split-train/*"]


@dataclass(frozen=True)
class Epoch:
    """What one epoch took."""

    rows: int
    seconds: float
    cpu_seconds: float


Input = Callable[[], Any]
"""Makes an endless data set of elements (inputs, label) anew."""


def headworks(source: Source) -> Input:
    """The split in memory."""
    import tensorflow_transform as tft

    from models.inputs import Reader, load_split

    reader = Reader(source.features, tft.TFTransformOutput(source.graph))

    def build() -> Any:
        split = load_split("train", source.files, reader, MEMORY_ROWS)
        return split.shuffled_batches(source.batch_size, seed=SEED, buffer_rows=BUFFER_ROWS)

    return build


def stock(source: Source, calls: int | None) -> Input:
    """TFX's factory with the graph after it, so many calls at once."""
    import tensorflow_transform as tft
    from tfx.components.util import tfxio_utils
    from tfx.types import standard_artifacts
    from tfx_bsl.public.tfxio import TensorFlowDatasetOptions

    graph = tft.TFTransformOutput(source.graph)
    layer = graph.transform_features_layer()
    label = source.features.label.transformed_name
    artifact = standard_artifacts.Examples()
    artifact.uri = source.examples
    factory = tfxio_utils.get_tf_dataset_factory_from_artifact([artifact], ["benchmark"])
    options = TensorFlowDatasetOptions(batch_size=source.batch_size, num_epochs=1, shuffle_seed=SEED)

    def transform(examples: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        columns = dict(layer(examples))
        return columns, columns.pop(label)

    def build() -> Any:
        raw = factory(source.files, options, graph.raw_metadata.schema)
        return raw.map(transform, num_parallel_calls=calls).repeat()

    return build


def measure(build: Input, steps: int, epochs: int) -> list[Epoch]:
    """So many epochs from nothing, taken as training takes them: in a loop of TensorFlow's, on the host."""
    import tensorflow as tf

    @tf.function
    def consume(batches: Any) -> tf.Tensor:
        rows = 0
        for _ in tf.range(steps):
            _, label = next(batches)
            rows += tf.shape(label)[0]
        return rows

    found = []
    wall, cpu = time.perf_counter(), time.process_time()
    batches = iter(build())
    for _ in range(epochs):
        rows = int(consume(batches))
        found.append(Epoch(rows, time.perf_counter() - wall, time.process_time() - cpu))
        wall, cpu = time.perf_counter(), time.process_time()
    return found


def last_source(output: Path, features: FeatureSet, batch_size: int) -> Source:
    """What the latest run that succeeded left."""
    files = sorted(output.glob("runs/*/run.json"))
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    succeeded = [record for record in records if record["state"] == "succeeded"]
    if not succeeded:
        raise click.ClickException(f"{output}: no run has succeeded here; run the example first")
    uris = {
        output["key"]: output["uri"]
        for node in reversed(succeeded[-1]["nodes"])
        for output in node["outputs"]
    }
    return Source(uris["examples"], uris["transform_graph"], features, batch_size)


def _row(name: str, runs: Sequence[Sequence[Epoch]]) -> tuple[str, ...]:
    first = [epochs[0] for epochs in runs]
    later = [epoch for epochs in runs for epoch in epochs[1:]]
    return (
        name,
        f"{median(epoch.rows / epoch.seconds for epoch in first):,.0f}",
        f"{median(epoch.rows / epoch.cpu_seconds for epoch in first):,.0f}",
        f"{median(epoch.rows / epoch.seconds for epoch in later):,.0f}",
        f"{median(epoch.rows / epoch.cpu_seconds for epoch in later):,.0f}",
    )


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.option("--batch-size", default=1024, show_default=True, help="Rows of a batch.")
@click.option(
    "--repeats", default=3, show_default=True, help="How often each input begins from nothing, in turn."
)
@click.option("--epochs", default=4, show_default=True, help="Epochs of Headworks each time; stock has two.")
def main(output: Path, config: Path, batch_size: int, repeats: int, epochs: int) -> None:
    """Measures the inputs in turn and prints the table."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    source = last_source(output, load(config, ()).feature_set(), batch_size)
    files = tf.data.TFRecordDataset(tf.io.gfile.glob(source.files[0]), "GZIP")
    rows = int(files.reduce(0, lambda count, _: count + 1))
    inputs = {
        "Headworks": (headworks(source), epochs),
        "TFX, graph mapped": (stock(source, None), 2),
        "TFX, graph mapped in parallel": (stock(source, tf.data.AUTOTUNE), 2),
    }
    found: dict[str, list[list[Epoch]]] = {name: [] for name in inputs}
    for _ in range(repeats):
        for name, (build, count) in inputs.items():
            found[name].append(measure(build, -(-rows // batch_size), count))
    grid = Table(title=f"{rows:,} rows, batches of {batch_size:,}, medians in rows a second")
    for heading in ("input", "first epoch", "of the processors", "later epochs", "of the processors"):
        grid.add_column(heading, justify="left" if heading == "input" else "right")
    for name, runs in found.items():
        grid.add_row(*_row(name, runs))
    Console().print(grid)


if __name__ == "__main__":
    main()
