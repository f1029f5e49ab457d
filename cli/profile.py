"""`headworks profile`: whether a run's training is bound by input, compute or memory."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from cli.runs import output_folder
from cli.tables import display

if TYPE_CHECKING:
    from rich.table import Table


@click.command("profile")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option(
    "--steps", type=click.IntRange(1), default=200, show_default=True, help="Steps to time, of each kind."
)
@click.option("--json", "as_json", is_flag=True, help="Everything that was measured, as JSON.")
def profile(run: str, config: Path | None, root: Path | None, steps: int, as_json: bool) -> None:
    """Say in words whether RUN's training is bound by input, compute or memory, and what to change.

    RUN is a run's id, the beginning of one, or `latest`. Steps are timed anew on this machine, with the run's data
    and settings, in one process; nothing of the run changes.
    """
    from pipeline.finished_run import find
    from pipeline.runners import fork_server
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.records import load_run
    from pipeline.runners.root_folder import RootFolder

    folder = RootFolder(output_folder(config, root).resolve())
    record = load_run(folder.path, run)
    find(folder.path, record)
    fork_server.start()
    child = NodeProcess(folder.log_path(record.run_id, "profile"), "profile")
    found = child.run("cli.profile:measured", str(folder.path), record.run_id, steps).value
    if as_json:
        click.echo(json.dumps({"run": record.run_id, **found}, indent=1))
        return
    display(_table(found["measured"]))
    click.echo(f"\nbound by {found['bound']}")
    for sentence in found["reasons"]:
        click.echo(f"  {sentence}")
    click.echo("what to change")
    for change in found["changes"]:
        click.echo(f"  {change}")


def measured(root: str, run_id: str, steps: int) -> dict[str, Any]:
    """Times the training of a run. For a process that has TensorFlow.

    Returns:
      The diagnosis, and under `measured` the figures, as plain data.

    Raises:
      FinishedRunError: if the run trained no model, or something of it is gone.
    """
    from models.profile import profiled
    from pipeline.finished_run import find
    from pipeline.runners.records import load_run

    run = find(Path(root), load_run(Path(root), run_id))
    arguments = SimpleNamespace(
        custom_config=run.learning,
        train_files=[str(run.training_examples / "Split-train" / "*")],
        eval_files=[str(run.training_examples / "Split-validation" / "*")],
        transform_graph_path=str(run.transform_graph),
    )
    figures, diagnosis = profiled(arguments, run.hyperparameters, steps)
    return {**asdict(diagnosis), "measured": asdict(figures)}


def _table(figures: dict[str, Any]) -> Table:
    from rich.table import Table

    size = figures["batch_size"]
    rows = (
        ("training as it is", size, figures["step_seconds"]),
        ("network alone, rows in memory", size, figures["compute_seconds"]),
        ("input pipeline alone", size, figures["input_seconds"]),
        ("network alone, one row", 1, figures["one_row_seconds"]),
        ("network alone, twice the rows", 2 * size, figures["doubled_seconds"]),
    )
    table = Table("step", box=None, pad_edge=False)
    for name in ("rows", "ms", "rows/s"):
        table.add_column(name, justify="right")
    for name, count, seconds in rows:
        table.add_row(name, f"{count:,}", f"{seconds * 1e3:.2f}", f"{count / seconds:,.0f}")
    return table
