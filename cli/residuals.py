"""`headworks residuals`: where a run's model is wrong on average, and which columns have changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.runs import output_folder
from cli.tables import display

if TYPE_CHECKING:
    from rich.table import Table

    from gates.evidence import Residuals

_SENTENCES = 5
_ROWS = 15


@click.command("residuals")
@click.argument("run", default="latest")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Rows to look at; test is held against validation, validation against train.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything that was measured, as JSON.")
def residuals(run: str, config: Path | None, root: Path | None, split: str, as_json: bool) -> None:
    """Show where the truth is not what RUN's model answers, over time and over the values of every feature.

    RUN is a run's id, the beginning of one, or `latest`. The run's report shows the figures from its next writing on.
    """
    from pipeline import explanations
    from pipeline.finished_run import find
    from pipeline.runners import fork_server
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.records import load_run
    from pipeline.runners.root_folder import RootFolder

    folder = RootFolder(output_folder(config, root).resolve())
    record = load_run(folder.path, run)
    find(folder.path, record)  # what is missing is told before anything is loaded
    fork_server.start()
    child = NodeProcess(folder.log_path(record.run_id, "residuals"), "residuals")
    found: Residuals = child.run("pipeline.residuals:measure", str(folder.path), record.run_id, split).value
    written = explanations.path(folder.path, record.run_id, type(found))
    if as_json:
        click.echo(written.read_text(encoding="utf-8"))
        return
    for part in _parts(found):
        display(part)
    click.echo(f"written: {written}; headworks report {record.run_id} shows it")


def _parts(found: Residuals) -> Iterator[str | Table]:
    from gates.residuals import changed_columns, tell_all_rows, tell_bin, tell_change, worst_bins

    yield from tell_all_rows(found)
    yield ""
    changed = changed_columns(found)
    if found.earlier_split is not None:
        yield (
            "changed relationships" if changed else f"no relationship has changed since {found.earlier_split}"
        )
    yield from (f"  {tell_change(found, column)}" for column in changed[:_SENTENCES])
    if len(changed) > _SENTENCES:
        yield f"  and {len(changed) - _SENTENCES} more columns: {', '.join(c.column for c in changed[_SENTENCES:])}"
    worst = worst_bins(found, _ROWS)
    yield ""
    yield (
        f"worst bins in {found.split}" if worst else f"no bin of a feature is away from zero in {found.split}"
    )
    yield from (f"  {tell_bin(found, column, one)}" for column, one in worst[:_SENTENCES])
    if worst:
        yield ""
        yield _worst(found, _ROWS)
    for answer in found.answers:
        if answer.over_time:
            yield ""
            yield _over_time(found, answer.answer)


def _worst(found: Residuals, most: int) -> Table:
    from rich.table import Table

    from gates.residuals import worst_bins

    table = Table("feature", "value", box=None, pad_edge=False)
    if len(found.answers) > 1:
        table.add_column("class")
    for head in ("rows", "residual", "between", found.earlier_split or ""):
        table.add_column(head, justify="right")
    for column, one in worst_bins(found, most):
        table.add_row(
            column.column,
            one.name,
            *([column.answer] if len(found.answers) > 1 else []),
            f"{one.residual.rows:,}",
            f"{one.residual.mean:+.4g}",
            _between(one.residual.low, one.residual.high),
            "" if one.earlier is None else f"{one.earlier.mean:+.4g}",
        )
    return table


def _over_time(found: Residuals, answer: str) -> Table:
    from rich.table import Table

    [told] = [one for one in found.answers if one.answer == answer]
    title = f"over {found.time}" + (f": {answer}" if len(found.answers) > 1 else "")
    table = Table(found.time or "", "split", title=title, title_justify="left", box=None, pad_edge=False)
    for head in ("rows", "residual", "between"):
        table.add_column(head, justify="right")
    table.add_column("")
    for one in told.over_time:
        table.add_row(
            one.name,
            one.split,
            f"{one.residual.rows:,}",
            f"{one.residual.mean:+.4g}",
            _between(one.residual.low, one.residual.high),
            "away from zero" if one.is_away else "",
        )
    return table


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.4g} to {high:+.4g}"
