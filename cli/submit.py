"""`headworks submit`: one run of the compiled pipeline on Vertex AI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.tables import display
from cli.vertex_options import WantedJob, environment_options, job_options, target_of, wait

if TYPE_CHECKING:
    from rich.table import Table

    from cloud.machine_hours import Durations, PlannedTask
    from cloud.vertex_pipelines import JobRequest, Submitted
    from pipeline.environment import Place

POLL_SECONDS = 30.0
_SMALL = "<0.01"


@click.command("submit")
@environment_options
@job_options
@click.option("--run-id", help="Name of the run. Absent: derived from what it does.")
@click.option(
    "--dry-run", is_flag=True, help="Print what would be made, and stop; asks nothing of the network."
)
@click.option(
    "--durations",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --dry-run: a run.json, or the output of `headworks status --json`, that machine-hours are estimated "
    "from. Absent: the local runs of CONFIG.",
)
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for the end; exit 1 if the run fails.")
@click.option(
    "--poll-seconds", default=POLL_SECONDS, show_default=True, help="With --wait: between two looks."
)
@click.pass_context
def submit(
    context: click.Context,
    config: Path,
    environment: str,
    endpoint: str | None,
    spec: Path | None,
    image: str | None,
    assignments: tuple[str, ...],
    skipped: tuple[str, ...],
    run_id: str | None,
    dry_run: bool,
    durations: Path | None,
    is_waiting: bool,
    poll_seconds: float,
) -> None:
    """Run CONFIG on Vertex AI, in an environment.

    The same work has the same run id: what has been submitted before is not submitted again. To do it once more, give
    it another --run-id. What reads BigQuery, without --parameter snapshot_time=TIME, has another run id each day (UTC).
    """
    if durations is not None and not dry_run:
        raise click.UsageError("--durations goes with --dry-run")
    from cloud.vertex_pipelines import submit as submit_request

    wanted = WantedJob.of(config, environment, spec, image, assignments, skipped)
    request = wanted.request(run_id)
    if dry_run:
        for part in _dry_run(request, wanted.place, _durations(wanted, durations)):
            display(part)
        return
    wanted.check_online(request, endpoint)
    target = target_of(wanted.place, endpoint)
    submitted = submit_request(request, target)
    for line in _told(submitted, request, is_named=run_id is not None):
        click.echo(line)
    if is_waiting and not wait(target, request.job_id, poll_seconds).is_success:
        context.exit(1)


def _told(submitted: Submitted, request: JobRequest, *, is_named: bool) -> Iterator[str]:
    run = submitted.run
    yield f"run {run.run_id}: {'submitted' if submitted.is_new else f'already submitted; {run.state}'}"
    if not submitted.is_new and run.has_ended:
        yield "to do the same once more, give it another --run-id"
    if request.snapshot_time is not None:
        until = "" if is_named else "; the same submitted again is this run until the day ends (UTC)"
        yield f"BigQuery's tables are read as of {run.snapshot_time}{until}"
    yield run.page


def _durations(wanted: WantedJob, file: Path | None) -> Durations | None:
    from cloud.machine_hours import local_durations, read_durations
    from pipeline.config import load

    if file is not None:
        return read_durations(file)
    return local_durations(load(wanted.config, (), wanted.place.layers).root)


def _dry_run(request: JobRequest, place: Place, durations: Durations | None) -> Iterator[str | Table]:
    from rich.table import Table

    from cloud.machine_hours import planned
    from cloud.spec_tasks import tasks

    settings, job = place.settings, request.job
    yield f"would make run {request.job_id} in {settings.project}/{settings.region} (environment {place.name})"
    facts = {
        "writes to": job["runtimeConfig"]["gcsOutputDirectory"],
        "runs as": job["serviceAccount"],
        "network": settings.network or "none of yours",
        "encrypted with": settings.kms_key or "Google's keys",
        "parameters": _assigned(job["runtimeConfig"]["parameterValues"]),
        "labels": _assigned(job["labels"]),
    }
    yield from (f"  {name}: {value}" for name, value in facts.items())
    plan = planned(tasks(job), settings, _strategy(job), durations)
    table = Table("task", "machine", "beside it", "more tries", "machine-hours", box=None, pad_edge=False)
    for one in plan:
        table.add_row(
            one.task.name,
            one.task.machine,
            "; ".join(map(str, one.pools)),
            str(one.task.retries) if one.task.image else "",
            _hours(one.hours),
        )
    yield table
    yield from _registry(place)
    yield from _estimate(plan, durations)
    yield "nothing was made; neither the root nor the image was looked at"


def _strategy(job: Mapping[str, Any]) -> str:
    values = job["runtimeConfig"]["parameterValues"]
    declared = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    return str(values.get("strategy", declared.get("strategy", {}).get("defaultValue", "")))


def _registry(place: Place) -> Iterator[str]:
    registry = place.settings.registry
    if registry is None:
        return
    aliases = f", aliases {', '.join(registry.aliases)}" if registry.aliases else ""
    yield f"Model Registry: a version of {registry.model}{aliases}"
    if registry.endpoint is not None:
        yield (
            f"endpoint {registry.endpoint}: {registry.min_machines} to {registry.max_machines} x "
            f"{registry.machine_type} with {registry.traffic_percent} % of the traffic; they stay until undeployed"
        )


def _estimate(plan: list[PlannedTask], durations: Durations | None) -> Iterator[str]:
    from cloud.machine_hours import estimate

    if durations is None:
        yield "machine-hours: not known; no run to estimate them from, see --durations"
        return
    found = estimate(plan)
    yield f"machine-hours: {_hours((found.least, found.most))}, if no task is tried twice or comes from the cache"
    yield f"  rests on {durations.source}"
    if found.unknown:
        yield f"  without {', '.join(found.unknown)}, of which no duration is known"


def _hours(hours: tuple[float, float] | None) -> str:
    if hours is None:
        return ""
    least, most = (
        _SMALL if value < 0.01 else f"{value:.2g}" if value < 10 else f"{value:.0f}" for value in hours
    )
    return least if least == most else f"{least}-{most}"


def _assigned(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "none"
