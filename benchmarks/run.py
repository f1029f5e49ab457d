"""How long the commands take, against what they may take: help, check, a first run of flights and its rerun.

The run goes into a fresh folder. Its memory is that of the largest process of a component, as its record says.

    python -m benchmarks.run [--repeats 5]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

EXAMPLES = Path(__file__).parents[1] / "examples"
FLIGHTS, TAXI = (EXAMPLES / name / "pipeline.yaml" for name in ("flights", "taxi"))
MAX_MEMORY_GB = 4.0


@dataclass(frozen=True)
class Command:
    """A command and the most wall seconds that it may take."""

    name: str
    arguments: tuple[str, ...]
    target: float

    def seconds(self) -> float:
        """Wall seconds of one call; its output is dropped.

        Raises:
          subprocess.CalledProcessError: if the command fails.
        """
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cli.main", *self.arguments], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def quick() -> tuple[Command, ...]:
    """Commands that are called several times; the median counts."""
    return (
        Command("help", ("--help",), 0.4),
        Command("check flights", ("check", str(FLIGHTS)), 2.0),
        Command("check taxi", ("check", str(TAXI)), 2.0),
    )


def runs(output: Path) -> tuple[Command, ...]:
    """The first run and the one that finds nothing changed."""
    arguments = ("run", str(FLIGHTS), "--set", f"output={output}")
    return Command("run flights", arguments, 240.0), Command("run flights again", arguments, 40.0)


def peak_gb(output: Path) -> float:
    """The most memory that a component of the runs in a folder has held."""
    records = (json.loads(file.read_text(encoding="utf-8")) for file in output.glob("runs/*/run.json"))
    return max(node["peak_rss_bytes"] or 0 for record in records for node in record["nodes"]) / 1e9


@click.command(help=__doc__)
@click.option("--repeats", default=5, show_default=True, help="Of the quick commands; the median counts.")
def main(repeats: int) -> None:
    """Times the commands and prints a table; exits with 1 where a target is missed."""
    grid = Table("what", "measured", "target", "", title="Headworks")
    missed = False

    def row(name: str, value: float, target: float, unit: str) -> None:
        nonlocal missed
        missed = missed or value > target
        grid.add_row(name, f"{value:.2f} {unit}", f"{target:g} {unit}", "ok" if value <= target else "MISSED")

    for command in quick():
        row(command.name, statistics.median(command.seconds() for _ in range(repeats)), command.target, "s")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "flights"
        for command in runs(output):
            row(command.name, command.seconds(), command.target, "s")
        row("largest process", peak_gb(output), MAX_MEMORY_GB, "GB")
    Console().print(grid)
    sys.exit(missed)


if __name__ == "__main__":
    main()
