"""The taxi example, run end to end once for all tests that need a trained, pushed model on real data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import main
from pipeline.runners.records import RunRecord, load_run

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "taxi" / "pipeline.yaml"


@dataclass(frozen=True)
class Taxi:
    """A folder in which the taxi pipeline runs."""

    root: Path

    def run(self, *arguments: str) -> Result:
        """Runs the command with fewer epochs than the example has and no checks before; later arguments win."""
        fixed = (f"output={self.root}", "train.epochs=6", "train.checks=false")
        settings = [part for assignment in fixed for part in ("--set", assignment)]
        return CliRunner().invoke(main, ["run", str(EXAMPLE), *settings, *arguments])

    @property
    def latest(self) -> RunRecord:
        """The newest run."""
        return load_run(self.root, "latest")


@dataclass(frozen=True)
class FirstRun:
    """The first run in a fresh folder. Tests may run more in it; what this run made stays."""

    taxi: Taxi
    result: Result
    record: RunRecord

    def output(self, node_id: str, key: str) -> Path:
        """Folder of the artifact that a node put out."""
        [uri] = self.record.nodes[node_id].uris(key)
        return Path(uri)


def first_run(root: Path) -> FirstRun:
    """Runs the example in a fresh folder."""
    taxi = Taxi(root)
    result = taxi.run()
    return FirstRun(taxi, result, taxi.latest)
