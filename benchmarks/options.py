"""What mixed precision, XLA and gradient checkpointing bring: step time and memory, on the examples of a finished run.

Each option trains in a process of its own, in turn: the network of the configuration, and a wide one with a large
batch, whose hidden layers are what fills the memory. Step time is the median over epochs after the first, which
traces and compiles; memory is the largest resident set of the process.

    python -m benchmarks.options output/flights examples/flights/pipeline.yaml
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.inputs import last_source
from pipeline.config import load

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "mixed_precision: bfloat16": {"mixed_precision": "bfloat16"},
    "jit_compile": {"jit_compile": True},
    "recompute": {"recompute": True},
}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "of the configuration": {},
    "wide": {"hidden_units": (1024,) * 4, "dropout": 0.0},
}
ROWS = {"of the configuration": (None, None), "wide": (8_192, 2_048)}
"""Rows of an epoch and of a batch; None: as configured."""


def train(output: Path, config: Path, network: str, option: str, epochs: int) -> dict[str, float]:
    """Seconds a step, megabytes and the validation metric, of one training in this process."""
    from types import SimpleNamespace

    from models import trainer

    settings = load(config, ()).config
    source = last_source(output, load(config, ()).feature_set(), settings.train.batch_size)
    rows, batch = ROWS[network]
    settings_of_train = replace(
        settings.train, epochs=epochs, patience_epochs=0, epoch_rows=rows, **OPTIONS[option]
    )
    if batch:
        settings_of_train = replace(settings_of_train, batch_size=batch)
    arguments = SimpleNamespace(
        custom_config={"features": source.features.to_json()},
        transform_graph_path=source.graph,
        train_files=source.files,
        eval_files=[f"{source.examples}/Split-validation/*"],
    )
    data = trainer.load_data(arguments, settings_of_train)
    loaded = _resident_megabytes()
    clock = _clock()
    fitted = trainer.fit(
        data,
        trainer.Settings(replace(settings.model, **NETWORKS[network]), settings_of_train),
        [clock],
    )
    return {
        "milliseconds": 1e3 * median(clock.seconds[1:]) / clock.params["steps"],
        "megabytes": _resident_megabytes() - loaded,
        "metric": fitted.history[-1][fitted.monitor],
    }


def _clock() -> Any:
    """A callback that notes how long the steps of each epoch took, without its validation."""
    import time

    import tf_keras

    class Clock(tf_keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []
            self._began = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._began = time.perf_counter()

        def on_test_begin(self, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self._began)

    return Clock()


def _resident_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("config", type=click.Path(path_type=Path, exists=True))
@click.option("--epochs", default=4, show_default=True, help="Epochs of each training.")
@click.option("--one", nargs=2, hidden=True, help="Network and option to train with in this process.")
def main(output: Path, config: Path, epochs: int, one: tuple[str, str] | None) -> None:
    """Trains with each option and prints the table."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if one is not None:
        click.echo(json.dumps(train(output, config, *one, epochs)))
        return
    grid = Table(title=f"{config}, {epochs} epochs each")
    for heading in ("network", "option", "ms a step", "MB over loading", "metric after the last epoch"):
        grid.add_column(heading, justify="left" if heading in ("network", "option") else "right")
    for network in NETWORKS:
        for option in OPTIONS:
            command = [sys.executable, "-m", "benchmarks.options", str(output), str(config)]
            done = subprocess.run(
                [*command, "--epochs", str(epochs), "--one", network, option],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found = json.loads(done.stdout.splitlines()[-1])
            click.echo(f"{network}, {option}: {found}", err=True)
            grid.add_row(
                network,
                option,
                f"{found['milliseconds']:.2f}",
                f"{found['megabytes']:,.0f}",
                f"{found['metric']:.4f}",
            )
    Console().print(grid)


if __name__ == "__main__":
    main()
