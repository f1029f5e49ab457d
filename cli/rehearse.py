"""`headworks rehearse`: a compiled pipeline, run on this machine as the service would run it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.runners.rehearsal import Rehearsal, TaskResult


@click.command("rehearse")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="FOLDER",
    help="Stands for the pipeline root the job was compiled for; what is made lies below it.",
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the job; may be repeated.",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Tasks at a time.")
@click.option("--no-cache", is_flag=True, help="Run every task, whatever earlier rehearsals made.")
@click.option(
    "--any-code", is_flag=True, help="Run the code here even if the job was compiled from other code."
)
@click.pass_context
def rehearse(
    context: click.Context,
    spec: Path,
    root: Path,
    parameters: tuple[str, ...],
    jobs: int,
    no_cache: bool,
    any_code: bool,
) -> None:
    """Run the job that SPEC holds on this machine: a PipelineJob or PipelineSpec as compiled, JSON or YAML.

    Every container's own command runs, in this environment. Exits 1 if a task fails.
    """
    from pipeline.runners import rehearsal
    from pipeline.runners.pipeline_spec import load
    from pipeline.source_digest import code_digest

    job = load(spec, str(root.resolve())).with_parameters(parameters)
    # A digest of all our code takes seconds.
    code = code_digest() if job.tells_code_apart else ""
    if not any_code:
        job.check_code(code)
    with _ended_by_signal():
        result = rehearsal.rehearse(
            job,
            root,
            code=code,
            jobs=jobs,
            use_cache=not no_cache,
            on_end=lambda task: click.echo(line(task)),
        )
    for text in lines(result):
        click.echo(text)
    if result.failed:
        context.exit(1)


def line(task: TaskResult) -> str:
    """A task that has ended."""
    again = f"  {task.attempts} attempts" if task.attempts > 1 else ""
    return f"  {task.task:<36} {task.state.value:<15} {task.seconds:7.1f} s{again}"


def lines(result: Rehearsal) -> Iterator[str]:
    """Yield what came of a rehearsal."""
    yield ""
    for task in result.failed:
        yield f"failed: {task.task}: {task.error}"
    yield f"{result.job}: {'failed' if result.failed else 'succeeded'}"
    for task in result.tasks.values():
        for pushed in task.outputs.artifacts.get("pushed_model", ()):
            if place := pushed.metadata.get("pushed_destination"):
                yield f"pushed: {place}"
    yield f"outputs and logs: {result.folder}/TASK/task.log"


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """SIGTERM is an exception meanwhile, as Ctrl-C is, so that the commands end with this process."""

    def leave(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
