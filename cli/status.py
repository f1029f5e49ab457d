"""`headworks status`: the runs on Vertex AI, or one of them task by task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.tables import display
from cli.vertex_options import environment_options, target_of, wait

if TYPE_CHECKING:
    from datetime import datetime

    from rich.table import Table

    from cloud.vertex_pipelines import RunStatus

LATEST = 20
POLL_SECONDS = 30.0
NEWEST = "latest"


@click.command("status")
@environment_options
@click.argument("run", required=False)
@click.option("--watch", is_flag=True, help="Print what changes until the run has ended.")
@click.option("--json", "as_json", is_flag=True, help="One run with all its tasks, as JSON.")
@click.option(
    "--poll-seconds", default=POLL_SECONDS, show_default=True, help="With --watch: between two looks."
)
@click.pass_context
def status(
    context: click.Context,
    config: Path,
    environment: str,
    endpoint: str | None,
    run: str | None,
    watch: bool,
    as_json: bool,
    poll_seconds: float,
) -> None:
    """List the latest runs of CONFIG on Vertex AI, or show RUN task by task; latest is the newest.

    Exits 1 if RUN failed or was cancelled.
    """
    if run is None and (watch or as_json):
        raise click.UsageError("--watch and --json want a RUN, such as latest")
    if watch and as_json:
        raise click.UsageError("give --watch or --json, not both")
    from cloud import vertex_pipelines
    from pipeline import environment as environments
    from pipeline.config import load

    place = environments.load(config, environment)
    pipeline = load(config, (), place.layers).config.name
    target = target_of(place, endpoint)
    if run is None or run == NEWEST:
        runs = vertex_pipelines.recent(target, pipeline, environment, LATEST if run is None else 1)
        if not runs:
            raise click.ClickException(
                f"no run of {pipeline} in {environment} yet; make one with: headworks submit"
            )
        if run is None:
            display(_listed(runs))
            return
        run = runs[0].run_id
    found = wait(target, run, poll_seconds) if watch else vertex_pipelines.status(target, run)
    if as_json:
        click.echo(_json(found))
    else:
        for part in _shown(found):
            display(part)
    if found.has_ended and not found.is_success:
        context.exit(1)


def _listed(runs: list[RunStatus]) -> Table:
    from rich.table import Table

    table = Table("run", "state", "made", "seconds", box=None, pad_edge=False)
    for run in runs:
        table.add_row(run.run_id, run.state, _time(run.created), _seconds(run.seconds))
    return table


def _shown(run: RunStatus) -> Iterator[str | Table]:
    from rich.table import Table

    yield f"run {run.run_id}: {run.state}" + (f": {run.error}" if run.error else "")
    yield f"  made {_time(run.created)}, " + (
        f"took {_seconds(run.seconds)} s" if run.ended else "has not ended"
    )
    yield f"  {run.page}"
    table = Table("task", "state", "started", "seconds", box=None, pad_edge=False)
    for task in run.tasks:
        table.add_row(task.name, task.state, _time(task.started), _seconds(task.seconds))
    yield table
    for task in run.failed_tasks:
        yield f"{task.name} failed: {task.error or 'the service gives no reason'}"
        if task.job is not None:
            yield f"  its logs: {_logs(run, task.job)}"


def _logs(run: RunStatus, job: str) -> str:
    """The page of the console with what the task's container printed."""
    number = job.rpartition("/")[2]
    query = f'resource.type%3D"ml_job"%20resource.labels.job_id%3D"{number}"'.replace('"', "%22")
    return f"https://console.cloud.google.com/logs/query;query={query}?project={run.target.project}"


def _json(run: RunStatus) -> str:
    import json

    facts = {
        "run_id": run.run_id,
        "state": run.state,
        "error": run.error,
        "created": _iso(run.created),
        "started": _iso(run.started),
        "ended": _iso(run.ended),
        "labels": dict(run.labels),
        "page": run.page,
        "tasks": [
            {
                "name": task.name,
                "state": task.state,
                "seconds": task.seconds,
                "error": task.error,
                "job": task.job,
            }
            for task in run.tasks
        ],
    }
    return json.dumps(facts, indent=1)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M} UTC"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"
