"""`headworks compare`: runs side by side, in the terminal and as a page with their curves."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.runs import output_folder
from cli.tables import display

if TYPE_CHECKING:
    from report.comparison import Row

_FILE = "compare.html"


@click.command("compare")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File for the page with the curves; by default {_FILE} in the output folder of the first run.",
)
@click.option(
    "--to-vertex",
    metavar="PROJECT/LOCATION/EXPERIMENT",
    help="Log the runs to Vertex AI Experiments too.",
)
@click.option(
    "--tensorboard",
    metavar="NAME",
    help="With --to-vertex: resource name of a Vertex AI TensorBoard, for the curves.",
)
def compare(
    runs: tuple[str, ...],
    config: Path | None,
    root: Path | None,
    html: Path | None,
    to_vertex: str | None,
    tensorboard: str | None,
) -> None:
    """Put RUNs side by side: what differs in their parameters and data, their metrics and trainings.

    RUN is a run's id, the beginning of one, `latest`, `champion` (the run that pushed what serves), or the folder
    of a run, OUTPUT/runs/ID, which may be another pipeline's.
    """
    if len(runs) < 2 and to_vertex is None:
        raise click.UsageError("name two runs or more; headworks runs lists them")
    if tensorboard and to_vertex is None:
        raise click.UsageError("--tensorboard goes with --to-vertex")
    if html is not None and not html.resolve().parent.is_dir():
        raise click.UsageError(f"--html {html}: there is no folder {html.resolve().parent}")
    from pipeline.comparison import compare as read
    from pipeline.comparison import link_logs
    from report.comparison import render
    from report.whole_file import write_whole

    all_by_folder = all((Path(name) / "run.json").is_file() for name in runs)
    comparison = read(None if all_by_folder and not (config or root) else output_folder(config, root), runs)
    ids = [run.run_id for run in comparison.runs]
    for caution in comparison.cautions:
        click.echo(f"note: {caution}")
    for run in comparison.runs:
        for note in run.notes:
            click.echo(f"note: {run.run_id}: {note}")
    _display("", ids, comparison.outcomes)
    _display("metrics on the test split", ids, comparison.metrics)
    _display("training", ids, comparison.training)
    _display(f"parameters ({comparison.unchanged} more are the same)", ids, comparison.parameters)
    _display("data", ids, comparison.data)
    path = html or Path(comparison.runs[0].folder).parents[1] / _FILE
    logs = link_logs(comparison.runs, path.with_suffix(".logs"))
    shown = f"tensorboard --logdir {shlex.quote(str(logs))}" if logs else None
    write_whole(path, render(comparison, shown))
    click.echo(f"curves: {path}")
    if shown:
        click.echo(f"TensorBoard: {shown}")
    if to_vertex is not None:
        from cloud.experiments import Destination, log

        for line in log(comparison.runs, Destination.parse(to_vertex, tensorboard)):
            click.echo(line)


def _display(title: str, ids: Iterable[str], rows: Iterable[Row]) -> None:
    from rich.table import Table

    table = Table(title, *ids, box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, *row.values)
    if not table.row_count:
        table.add_row("none")
    display(table)
    click.echo()
