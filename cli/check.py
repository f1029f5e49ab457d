"""`headworks check`: does the data fit the configuration and the schema?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.check import CheckReport
    from pipeline.config import Project


@click.command("check")
@click.argument("config", type=click.Path(path_type=Path), default=Path("pipeline.yaml"))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key, e.g. train.epochs=3."
)
def check(config: Path, overrides: tuple[str, ...]) -> None:
    """Check CONFIG, its SQL and its schema against the data, without running anything.

    CONFIG is pipeline.yaml by default.
    """
    from pipeline.check import check as check_project
    from pipeline.config import load

    project = load(config, overrides)
    report = check_project(project)
    for line in summary(project, report):
        click.echo(line)


def summary(project: Project, report: CheckReport) -> list[str]:
    """Return what fits, one fact a line."""
    label = report.feature_set.label
    lines = [
        f"{project.config.name}: configuration, SQL, schema and data fit; a run compares the values",
        f"  label     {label.name} ({label.kind})",
        f"  features  {len(report.feature_set.features)}: {_kinds(report)}",
    ]
    if report.rows is not None:
        rows = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
        lines.append(f"  rows      {rows}")
    if report.classes:
        total = sum(report.classes.values())
        shares = ", ".join(f"{value} {count / total:.1%}" for value, count in report.classes.items())
        lines.append(f"  classes   {shares}")
    if report.rows is None:
        lines.append(f"  rows      not read: data.source.kind is {project.config.data.source.kind}")
    return [*lines, *(f"note: {note}" for note in report.notes)]


def _kinds(report: CheckReport) -> str:
    counts: dict[str, int] = {}
    for feature in report.feature_set:
        counts[feature.kind.value] = counts.get(feature.kind.value, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
