"""Bayesian against random search at an equal budget, on the training and validation rows of a finished run.

Both searches of a pair have the same seed, and so begin with the same random trials; what differs is who chooses
the rest. The figure of a search is the best validation metric among its trials.

    python -m benchmarks.tuner output/taxi examples/taxi/pipeline.yaml --trials 12 --epochs 3 --seeds 5
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

METHODS = ("random", "bayesian")
SEARCH: Mapping[str, Any] = {
    "train.learning_rate": {"min": 1e-4, "max": 3e-2, "log": True},
    "model.hidden_units": {"values": [[], [16], [64, 32], [128, 64]]},
    "model.cross_layers": {"min": 0, "max": 3},
    "model.embedding_size": {"min": 2, "max": 16, "step": 2, "log": True},
    "model.dropout": {"min": 0.0, "max": 0.5},
    "model.l2": {"min": 1e-6, "max": 1e-2, "log": True},
}
"""Depth and width, crossing, embeddings, regularisation and the learning rate."""


@dataclass(frozen=True)
class Outcome:
    """What one search came to: the best metric after each trial, and wall time."""

    best_so_far: tuple[float, ...]
    seconds: float

    @property
    def best(self) -> float:
        """At the end of the search."""
        return self.best_so_far[-1]


def arguments(root: Path, config: Path) -> dict[str, Any]:
    """What the Tuner of this configuration would be handed of the run's artifacts."""
    from pipeline.config import load
    from pipeline.runners.records import load_run

    project = load(config)
    nodes = load_run(root, "latest").nodes
    examples = next(uri for node in nodes.values() for uri in node.uris("examples"))
    return {
        "transform_graph_path": nodes["Transform"].uris("transform_graph")[0],
        "train_files": [f"{examples}/Split-train/*"],
        "eval_files": [f"{examples}/Split-validation/*"],
        "custom_config": {
            "features": project.feature_set().to_json(),
            "model": json.loads(_json(project.config.model)),
            "train": json.loads(_json(project.config.train)),
        },
    }


def searches(given: Mapping[str, Any], trials: int, epochs: int, seeds: int) -> Iterator[tuple[str, Outcome]]:
    """Every search with its method, pair by pair."""
    from models import tuner

    for seed in range(1, seeds + 1):
        for method in METHODS:
            config = dict(given["custom_config"])
            config["train"] = {**config["train"], "seed": seed}
            config["tune"] = {"trials": trials, "epochs": epochs, "method": method, "search": SEARCH}
            with tempfile.TemporaryDirectory() as folder:
                search = tuner.build_tuner(
                    SimpleNamespace(**{**given, "custom_config": config, "working_dir": folder})
                )
                search.oracle.verbose = 0
                started = time.monotonic()
                search.search()
                seconds = time.monotonic() - started
                scores = [trial["score"] for trial in search.trials()]
            yield method, Outcome(tuple(np.maximum.accumulate([s or 0.0 for s in scores])), seconds)


def _json(settings: Any) -> str:
    from dataclasses import asdict

    return json.dumps(asdict(settings))


def _rows(name: str, values: list[float]) -> tuple[str, ...]:
    low, lower, median, upper, high = np.percentile(values, [0, 25, 50, 75, 100])
    return (name, *(f"{value:.4f}" for value in (low, lower, median, upper, high)))


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--trials", default=12, show_default=True)
@click.option("--epochs", default=3, show_default=True)
@click.option("--seeds", default=5, show_default=True)
def main(root: Path, config: Path, trials: int, epochs: int, seeds: int) -> None:
    """Compares the methods on the latest run in ROOT of the pipeline CONFIG, which has a binary label."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    console = Console()
    found: dict[str, list[Outcome]] = {method: [] for method in METHODS}
    for method, outcome in searches(arguments(root.resolve(), config), trials, epochs, seeds):
        found[method].append(outcome)
        console.print(
            f"seed {len(found[method])} {method:<9} best {outcome.best:.4f} {outcome.seconds:6.1f} s"
        )
    half = trials // 2
    table = Table("best val_auc", "least", "quartile", "median", "quartile", "most")
    for method, outcomes in found.items():
        table.add_row(*_rows(f"{method}, {half} trials", [o.best_so_far[half - 1] for o in outcomes]))
        table.add_row(*_rows(f"{method}, {trials} trials", [o.best for o in outcomes]))
    console.print(table)
    pairs = [(b.best, r.best) for r, b in zip(found["random"], found["bayesian"], strict=True)]
    won, lost = sum(b > r for b, r in pairs), sum(b < r for b, r in pairs)
    difference = float(np.median([b - r for b, r in pairs]))
    console.print(
        f"bayesian won {won}, lost {lost} of {len(pairs)} pairs; median difference {difference:+.4f}"
    )


if __name__ == "__main__":
    main()
