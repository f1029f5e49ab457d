"""`headworks schedule`: the compiled pipeline again and again on Vertex AI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.tables import display
from cli.vertex_options import WantedJob, environment_options, job_options, target_of

if TYPE_CHECKING:
    from cloud.vertex_pipelines import Target
    from cloud.vertex_schedules import Change, ScheduleRequest

_DONE = {"pause": "paused", "resume": "resumed", "delete": "deleted"}


@click.command("schedule")
@environment_options
@job_options
@click.option("--cron", metavar="FIELDS", help='Make or change a schedule; "0 5 * * *" is every day at five.')
@click.option("--time-zone", default="Etc/UTC", show_default=True, help="Of --cron, such as Europe/Berlin.")
@click.option(
    "--max-concurrent",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Runs under way at a time; one more is left out.",
)
@click.option("--name", help="Of the schedule.  [default: PIPELINE-ENV]")
@click.option("--pause", "change", flag_value="pause", help="Make no more runs until --resume.")
@click.option("--resume", "change", flag_value="resume", help="Make runs again.")
@click.option("--delete", "change", flag_value="delete", help="Delete it; its runs stay.")
def schedule(
    config: Path,
    environment: str,
    endpoint: str | None,
    spec: Path | None,
    image: str | None,
    assignments: tuple[str, ...],
    skipped: tuple[str, ...],
    cron: str | None,
    time_zone: str,
    max_concurrent: int,
    name: str | None,
    change: Change | None,
) -> None:
    """Run CONFIG on Vertex AI at the times of --cron, pause, resume or delete that, or list what there is.

    A schedule of the same name is changed. Without --cron, --pause, --resume and --delete: list.
    """
    if cron is not None and change is not None:
        raise click.UsageError(f"give --cron or --{change}, not both")
    if cron is None and (spec is not None or image is not None or assignments):
        raise click.UsageError("--spec, --image and --parameter go with --cron")
    from cloud.vertex_schedules import ScheduleRequest
    from cloud.vertex_schedules import change as change_schedule
    from pipeline.config import load

    wanted = WantedJob.of(config, environment, spec, image, assignments, skipped)
    target = target_of(wanted.place, endpoint)
    pipeline = load(config, (), wanted.place.layers).config.name
    named = name or f"{pipeline}-{environment}"
    if cron is not None:
        request = ScheduleRequest(named, cron, time_zone, max_concurrent, wanted.request(repeats=True))
        wanted.check_online(request.job, endpoint)
        _put(request, target)
    elif change is not None:
        click.echo(f"schedule {change_schedule(target, named, change).name}: {_DONE[change]}")
    else:
        _list(target, pipeline, environment)


def _put(request: ScheduleRequest, target: Target) -> None:
    from cloud.vertex_schedules import put

    done = put(request, target)
    click.echo(f"schedule {done.schedule.name}: {done.outcome}: {done.schedule.cron}")
    values = request.job.job["runtimeConfig"]["parameterValues"]
    if "span" in values:
        click.echo(f"note: every run takes span {values['span']}; runs of new spans come from a trigger")
    for note in _snapshot_notes(values):
        click.echo(f"note: {note}")
    click.echo(done.schedule.page)


def _snapshot_notes(values: Mapping[str, Any]) -> Iterator[str]:
    from cloud import snapshots
    from pipeline.bigquery_query import AT_START

    time = values.get(snapshots.PARAMETER)
    if time == AT_START:
        yield "every run reads BigQuery's tables as of its own start; no cache answers for them"
    elif time is not None:
        yield (
            f"every run reads BigQuery's tables as of {time}, and BigQuery keeps the past for seven days; without "
            f"--parameter {snapshots.PARAMETER} each reads as of its own start"
        )


def _list(target: Target, pipeline: str, environment: str) -> None:
    from rich.table import Table

    from cloud.vertex_schedules import schedules

    found = schedules(target, pipeline, environment)
    if not found:
        click.echo(f'no schedule of {pipeline} in {environment}; make one with --cron "0 5 * * *"')
        return
    table = Table("schedule", "state", "times", "at a time", "next run", box=None, pad_edge=False)
    for one in found:
        coming = f"{one.next_run:%Y-%m-%d %H:%M} UTC" if one.next_run else ""
        table.add_row(one.name, one.state, one.cron, str(one.max_concurrent), coming)
    display(table)
