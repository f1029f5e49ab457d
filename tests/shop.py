"""A made-up shop: 300 orders in a CSV file, with the schema and the configuration of a small, quick pipeline."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import main

REPOSITORY = Path(__file__).resolve().parents[1]
HEADER = "id,bought,colour,size,sold"
ROWS = tuple(
    f"{i},2024-01-{1 + i // 15:02d},{('red', 'blue')[i % 2]},{i % 7}.5,{int(i % 3 == 0)}" for i in range(300)
)
"""Twenty days of fifteen orders; each day has both colours and both classes."""

_SCHEMA = """
default_environment: "TRAINING"
default_environment: "SERVING"
feature { name: "id" type: INT }
feature { name: "bought" type: INT }
feature { name: "colour" type: BYTES }
feature { name: "size" type: FLOAT }
feature { name: "sold" type: INT bool_domain {} not_in_environment: "SERVING" }
"""

_CONFIG = """\
name: shop
data:
  source:
    kind: query
    tables: {orders: orders.csv}
    sql: orders.sql
  split: {by: time, column: bought, validation_from: 2024-01-13, test_from: 2024-01-17}
label: {column: sold}
features: {exclude: [id, bought]}
output: output
model: {hidden_units: [4], cross_layers: 0}
model_gate: {must_beat: []}
train:
  epochs: 1
  checks: false
"""

# A view of the file system of one's own: what is mounted there is gone with the process.
_PRIVATE_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


@dataclass(frozen=True)
class Shop:
    """The shop's project in a folder of its own, in which all is well until a test spoils something."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.orders.write_text(text())
        (self.folder / "orders.sql").write_text("SELECT *\nFROM orders\n")
        (self.folder / "schema.pbtxt").write_text(_SCHEMA)
        self.config.write_text(_CONFIG)

    @property
    def config(self) -> Path:
        return self.folder / "pipeline.yaml"

    @property
    def orders(self) -> Path:
        return self.folder / "orders.csv"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def serving(self) -> Path:
        return self.output / "serving"

    @property
    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace what stands in one file of the project."""
        before = (self.folder / name).read_text()
        assert old in before
        (self.folder / name).write_text(before.replace(old, new))

    def call(self, command: str, *arguments: str) -> Result:
        """Call `headworks` in this process."""
        return CliRunner().invoke(main, [command, str(self.config), *arguments])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `headworks run` in a process group of its own."""
        return subprocess.Popen(
            [*_HEADWORKS, "run", str(self.config), *arguments],
            env=_environment(),
            text=True,
            start_new_session=True,
        )

    def run_with_mount(self, mount: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call `headworks run` where `mount` (a shell command) has been done, which nobody else sees."""
        run = shlex.join([*_HEADWORKS, "run", str(self.config), *arguments])
        return subprocess.run(
            [*_PRIVATE_MOUNTS, f"{mount} && exec {run}"],
            env=_environment(),
            text=True,
            capture_output=True,
            check=False,
        )


def text(header: str = HEADER, rows: tuple[str, ...] = ROWS) -> str:
    """A table as CSV."""
    return "\n".join([header, *rows]) + "\n"


def changed(change: Callable[[str], str], rows: slice = slice(None)) -> str:
    """The shop's table with some of its rows changed."""
    lines = list(ROWS)
    lines[rows] = [change(line) for line in lines[rows]]
    return text(rows=tuple(lines))


def can_mount() -> bool:
    """Whether this machine lets a process mount something for itself."""
    try:
        done = subprocess.run(
            [*_PRIVATE_MOUNTS, "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


_HEADWORKS = (sys.executable, "-m", "cli.main")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}
