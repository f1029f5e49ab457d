"""`headworks run`: from the data to a pushed model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.config import Project
    from pipeline.runners.events import Observer
    from pipeline.runners.local import NodePolicy, RunSpec
    from pipeline.runners.records import RunRecord
    from pipeline.summary_file import Summary

FACTORY = "pipeline.dag:build"
SCHEMA_FACTORY = "pipeline.dag:build_schema"
EVERY_NODE = "*"
REFUSED = "RefusedError"
"""How the error of a gate that stops the run begins."""
AGAINST_CHAMPION = "*against the champion*"
"""Name of every check that compares with the champion."""


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path), default=Path("pipeline.yaml"))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key, e.g. train.epochs=3; may be repeated.",
)
@click.option("--from", "start_from", metavar="NODE", help="Run NODE and all after it again, e.g. Trainer.")
@click.option(
    "--no-cache",
    is_flag=False,
    flag_value=EVERY_NODE,
    multiple=True,
    metavar="[NODE]",
    help="Run NODE again even if nothing changed; without NODE, all. May be repeated.",
)
@click.option("--rebaseline", is_flag=True, help="Push even a model that is worse than the champion.")
@click.option("--owner", help="With --rebaseline: who answers for it.")
@click.option("--reason", help="With --rebaseline: why.")
@click.pass_context
def run(
    context: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    start_from: str | None,
    no_cache: tuple[str, ...],
    rebaseline: bool,
    owner: str | None,
    reason: str | None,
) -> None:
    """Run the pipeline that CONFIG describes, from the data to a pushed model.

    CONFIG is pipeline.yaml by default. Exits 1 if a component fails.
    """
    if rebaseline != bool(owner and reason):
        raise click.UsageError("--rebaseline, --owner NAME and --reason TEXT go together")
    from rich.console import Console

    from pipeline.config import load
    from pipeline.runners import fork_server, local
    from pipeline.runners.progress import watching

    project = load(config, overrides)
    if owner and reason:
        overrides = (*overrides, rebaselined(project, owner, reason))
        project = load(config, overrides)
    # TFX takes seconds to load; the data is checked meanwhile.
    fork_server.start(extra_modules=("pipeline.dag",))
    from pipeline.check import check

    spec = run_spec(project, overrides, start_from, no_cache)
    if project.lacks_schema:
        with watching(Console(stderr=True)) as observer:
            inferred = infer_schema(project, spec, observer)
        click.echo(f"schema: {_shown(inferred)} was inferred by SchemaGen; read it before you trust this run")
    for note in check(project).notes:
        click.echo(f"note: {note}")
    with watching(Console(stderr=True)) as observer:
        record = local.run(spec, observer)
    for line in lines(project, record, summarize(project, record)):
        click.echo(line)
    if record.failed_nodes:
        context.exit(1)


def rebaselined(project: Project, owner: str, reason: str) -> str:
    """Return the assignment that adds to a project's overrides the one that lets a worse model replace the champion."""
    given = [asdict(override) for override in project.config.overrides]
    ours = {"check": AGAINST_CHAMPION, "owner": owner, "reason": reason}
    return f"overrides={json.dumps([*given, ours])}"


def run_spec(
    project: Project,
    overrides: Sequence[str] = (),
    start_from: str | None = None,
    no_cache: Sequence[str] = (),
) -> RunSpec:
    """Return what the local runner needs to know of a project."""
    from pipeline.config import NO_SNAPSHOT
    from pipeline.runners.local import RunSpec

    config = project.config
    # BigQuery does not tell whether tables have changed that it is not asked for as of a time.
    unseen = ["BigQueryExampleGen"] if getattr(config.data.source, "snapshot", None) == NO_SNAPSHOT else []
    return RunSpec(
        root=project.root,
        name=config.name,
        factory=FACTORY,
        factory_kwargs={"config_file": str(project.file), "overrides": tuple(overrides)},
        policies={node_id: _policy(project, node_id) for node_id in config.run.nodes},
        default_policy=_policy(project, None),
        no_cache=None if EVERY_NODE in no_cache else frozenset([*no_cache, *unseen]),
        start_from=start_from,
        config_hash=project.digest(),
        project_path=project.file.parent,
    )


def infer_schema(project: Project, spec: RunSpec, observer: Observer) -> Path:
    """Make the first run of a pipeline without a schema: infer one, write it and return its path.

    Raises:
      NoSchemaError: if a component of that run fails.
    """
    from dataclasses import replace

    from pipeline.first_schema import NoSchemaError, write_first_schema
    from pipeline.runners import local

    # What concerns nodes that are not in this small pipeline does not concern it.
    first = replace(
        spec,
        factory=SCHEMA_FACTORY,
        policies={},
        no_cache=frozenset(spec.no_cache or ()) & {"BigQueryExampleGen"},
        start_from=None,
    )
    record = local.run(first, observer)
    if record.failed_nodes:
        raise NoSchemaError("\n".join(["no schema could be inferred", *_failure(project, record)]))
    return write_first_schema(project, record)


def _policy(project: Project, node_id: str | None) -> NodePolicy:
    from pipeline.runners.local import NodePolicy

    common = project.config.run
    node = common.nodes.get(node_id) if node_id else None
    retries = common.retries if node is None or node.retries is None else node.retries
    minutes = common.timeout_minutes if node is None or node.timeout_minutes is None else node.timeout_minutes
    return NodePolicy(retries, 60 * minutes)


def summarize(project: Project, record: RunRecord) -> Summary:
    """Read what a run left behind, and write its report, in a child that has TFX loaded."""
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.root_folder import RootFolder

    root = RootFolder(project.root.resolve())
    child = NodeProcess(root.log_path(record.run_id, "report"), "report")
    told: Summary = child.run("pipeline.summary:summarize", str(root.path), record.run_id).value
    return told


def lines(project: Project, record: RunRecord, summary: Summary) -> Iterator[str]:
    """Yield what came of a run, and the next command to type."""
    from cli.outcome import decisions, figures, idle

    yield ""
    yield f"{record.pipeline_name} {record.run_id}: {record.state.value}"
    for node in record.nodes.values():
        yield f"  {node.node_id:<28} {node.state.value.replace('_', ' '):<10} {node.seconds:7.1f} s"
    yield from figures(summary)
    if summary.report:
        yield f"report: {_shown(summary.report)}"
    if summary.tuned:
        yield f"hyperparameters: {_shown(summary.tuned)} (search no more: tune.enabled: false, tune.best: this file)"
    yield from decisions(summary)
    if not record.failed_nodes or summary.refusals:
        yield from idle(project.config.overrides, summary)
    # What was pushed serves, whatever failed after it.
    if summary.pushed:
        yield f"pushed: {_shown(summary.pushed)}"
    elif not record.failed_nodes:
        yield "not pushed"
    if summary.devices:
        yield f"device models: {_shown(summary.devices)}"
    yield from _failure(project, record)
    show = _show(project, record)
    if not record.failed_nodes:
        yield f"next: {show}"
    elif summary.refusals:
        yield f"next: {show}; a refusal stands until data, model or bound has changed"
    else:
        yield "next: mend it and give the same command again; what is done comes from the cache"


def _show(project: Project, record: RunRecord) -> str:
    """The command that shows a run; an output folder that was given for this run alone has to be given again."""
    is_overridden = project.place("output").startswith("--set")
    where = f"--root {_shown(project.root)}" if is_overridden else f"--config {_shown(project.file)}"
    return f"headworks show {record.run_id} {where}"


def _failure(project: Project, record: RunRecord) -> Iterator[str]:
    for node in record.failed_nodes:
        cause = (node.error or "").removeprefix(f"{node.node_id}: ")
        # What a gate refuses is told line by line.
        yield f"failed: {node.node_id}" if cause.startswith(REFUSED) else f"failed: {node.node_id}: {cause}"
        log = project.root / "runs" / record.run_id / "logs" / f"{node.node_id}.log"
        yield f"log: {_shown(log)}"


def _shown(path: Path | str) -> str:
    """The path as a person in the current folder would type it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
