"""What the commands that speak to Vertex AI have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cloud.vertex_pipelines import JobRequest, RunStatus, Target
    from pipeline.environment import Place

SKIPPABLE = ("root", "image", "code")


def environment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds CONFIG, --env, and --endpoint, by which tests have their own service asked."""
    for option in (
        click.option("--endpoint", hidden=True, help="Of a service on this machine instead of Google's."),
        click.option(
            "--env", "environment", required=True, help="Environment: environments/NAME.yaml beside it."
        ),
        click.argument("config", type=click.Path(dir_okay=False, path_type=Path)),
    ):
        command = option(command)
    return command


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what says which job, with which values, and which checks are left out."""
    for option in (
        click.option(
            "--skip-check",
            "skipped",
            multiple=True,
            type=click.Choice(SKIPPABLE),
            help="Do not ask whether the root may be written, the image holds the code, or the code is that of the "
            "file. May be repeated.",
        ),
        click.option(
            "--parameter",
            "assignments",
            multiple=True,
            metavar="NAME=VALUE",
            help="Of the pipeline. May be repeated.",
        ),
        click.option(
            "--image",
            help="Image of all components, by digest, instead of the environment's; without --spec.",
        ),
        click.option(
            "--spec",
            type=click.Path(dir_okay=False, path_type=Path),
            help="What `headworks compile` wrote. Absent: CONFIG is compiled now.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class WantedJob:
    """A job as the options say it."""

    config: Path
    place: Place
    spec: Path | None
    assignments: tuple[str, ...]
    skipped: tuple[str, ...]

    @classmethod
    def of(
        cls,
        config: Path,
        environment: str,
        spec: Path | None,
        image: str | None,
        assignments: tuple[str, ...],
        skipped: tuple[str, ...],
    ) -> WantedJob:
        """Reads the environment that the options name."""
        if image is not None and spec is not None:
            raise click.UsageError("--image goes without --spec, which has its image")
        from pipeline import environment as environments

        place = environments.load(config, environment, (f"image={image}",) if image else ())
        return cls(config, place, spec, assignments, skipped)

    def request(self, run_id: str | None = None, *, repeats: bool = False) -> JobRequest:
        """What makes the run, or each run of a schedule, after the checks that ask nobody."""
        from cloud import snapshots
        from cloud.submission_checks import check_environment, check_job, parameter_values
        from cloud.vertex_pipelines import job_request

        check_environment(self.place)
        job = self._compiled() if self.spec is None else _read(self.spec)
        check_job(job, self.place, str(self.spec or self.config), self._code())
        values = parameter_values(job, self.assignments)
        if repeats:
            values = snapshots.at_every_start(job, values)
        return job_request(snapshots.uncached_at_start(job, values), self.place.settings, values, run_id)

    def check_online(self, request: JobRequest, endpoint: str | None) -> None:
        """Asks the registry and Cloud Storage; prints warnings."""
        from cloud.submission_checks import check_image, check_root

        if "image" not in self.skipped:
            check_image(request.job)
        if "root" not in self.skipped:
            for warning in check_root(self.place, endpoint):
                click.echo(f"warning: {warning}", err=True)

    def _compiled(self) -> dict[str, Any]:
        from cli.library_logs import dropped
        from cloud.compiled_pipeline import compile_pipeline
        from pipeline.runners.fork_server import set_environment

        set_environment()
        with dropped():
            return compile_pipeline(self.config, self.place, "vertex")

    def _code(self) -> str | None:
        """The digest of the code here; None where it need not be compared, for to find it out takes seconds."""
        if self.spec is None or "code" in self.skipped:
            return None
        from pipeline.source_digest import code_digest

        return code_digest()


def _read(spec: Path) -> dict[str, Any]:
    import json

    from cloud.submission_checks import SubmissionError

    try:
        job = json.loads(spec.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SubmissionError(
            f"{spec}: cannot be read as JSON ({error}); make it with: headworks compile --runner vertex"
        ) from error
    if not isinstance(job, dict):
        raise SubmissionError(f"{spec}: holds no job; make it with: headworks compile --runner vertex")
    return job


def target_of(place: Place, endpoint: str | None) -> Target:
    """Where an environment's runs are made."""
    from cloud.vertex_pipelines import Target

    return Target(place.require("project"), place.require("region"), endpoint)


def task_lines(now: RunStatus, before: RunStatus | None) -> list[str]:
    """One line for each task whose state is another than before, and for the run's own."""
    earlier = {task.name: task.state for task in before.tasks} if before is not None else {}
    lines = [
        f"{task.name}: {task.state}" + (f": {task.error}" if task.error else "")
        for task in now.tasks
        if task.state != earlier.get(task.name) and task.state not in ("pending", "not triggered")
    ]
    if before is None or now.state != before.state:
        lines.append(f"run {now.run_id}: {now.state}" + (f": {now.error}" if now.error else ""))
    return lines


def wait(target: Target, run_id: str, poll_seconds: float) -> RunStatus:
    """Prints what changes until a run has ended; an interrupt leaves the run alone."""
    from cloud.vertex_pipelines import follow

    before: RunStatus | None = None
    for now in follow(target, run_id, poll_seconds):
        for line in task_lines(now, before):
            click.echo(line)
        before = now
    assert before is not None, "a run has a state"
    return before
