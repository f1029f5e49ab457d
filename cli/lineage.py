"""`headworks lineage`: what made a model, and which models saw some data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cli.runs import output_folder
from cli.tables import display

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.lineage_answers import Data, DataLineage, Judgement, ModelLineage, Push, SeenBy

_Row = TypeVar("_Row")

LATEST = 20
_SHORT = 12


@click.command("lineage")
@click.argument("what", metavar="MODEL|SPAN|FILE")
@click.option("--span", "is_span", is_flag=True, help="The number is that of a span, not of a version.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; pipeline.yaml by default.")
@click.option("--root", type=click.Path(path_type=Path), help="Output folder, instead of a configuration.")
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as JSON.")
@click.option("--all", "show_all", is_flag=True, help=f"All runs and models, not the latest {LATEST} only.")
def lineage(
    what: str, is_span: bool, config: Path | None, root: Path | None, as_json: bool, show_all: bool
) -> None:
    """Tell what made a model, or which runs and models saw a span or a file of data.

    MODEL is the number of a pushed version, the path of its folder or of any copy of it, the path of a model among
    the artifacts, or model:ID, its number in ML Metadata. SPAN is span:12, or 12 with --span. FILE is the path of a
    data file, gone or not, or sha256:DIGEST.
    """
    from pipeline.lineage import ask
    from pipeline.lineage_answers import ModelLineage

    found = ask(output_folder(config, root), what, is_span)
    if as_json:
        click.echo(_json(found))
        return
    for part in _model(found) if isinstance(found, ModelLineage) else _data_lineage(found, show_all):
        display(part)


def _json(found: ModelLineage | DataLineage) -> str:
    import json
    from dataclasses import asdict

    kind = type(found).__name__.removesuffix("Lineage").lower()
    return json.dumps({"kind": kind, **asdict(found)}, indent=1)


def _model(found: ModelLineage) -> Iterator[str | Table]:
    yield f"model {found.model_id}: {found.uri}{'' if found.is_there else ' (deleted or damaged since)'}"
    yield f"  trained {found.trained_at} by run {found.run_id}"
    yield f"  revision {found.git_revision or 'not recorded'}"
    kept = "" if found.config is not None or found.config_hash is None else "; its values were not kept"
    yield f"  configuration {(found.config_hash or 'not recorded')[:_SHORT]}{kept}"
    yield from (f"  schema {uri}" for uri in found.schemas)
    if found.reused_by:
        yield f"  reused from the cache by {_listed(found.reused_by[::-1])}"
    yield from ("", "pushed as" if found.pushes else "never pushed")
    yield from (f"  {_push(push)}" for push in found.pushes)
    for folder, files in found.damaged.items():
        yield f"  {folder} is not as it was pushed: {_listed(files)}"
    yield from ("", "compared with" if found.champions else "compared with no champion")
    yield from (f"  model {push.model_id}, {_push(push)}" for push in found.champions)
    for data in found.data:
        yield ""
        yield from _data(data)
    yield from ("", "judged by")
    for judgement in found.judgements:
        yield from _judgement(judgement)
    yield from ("", "made by")
    yield _table(
        ("node", "state", "seconds", "executed in run", "revision", "code"),
        (
            (
                step.node_id,
                step.state.lower(),
                f"{step.seconds:.1f}",
                step.run_id,
                step.git_revision or "",
                (step.source_digest or "")[:_SHORT],
            )
            for step in found.steps
        ),
    )


def _data(data: Data) -> Iterator[str | Table]:
    yield f"data {(data.fingerprint or 'of an unknown source')[:_SHORT]}"
    if data.rows:
        yield "  rows " + ", ".join(f"{split} {count:,}" for split, count in data.rows.items())
    origin = data.origin
    if origin is None:
        yield "  its files were not recorded when it was read"
        return
    if origin.first_span is not None:
        yield f"  spans {origin.first_span} to {origin.last_span}"
    if origin.sql is not None:
        yield f"  SQL of {origin.sql_source}:"
        yield from (f"    {line}" for line in origin.sql.strip().splitlines())
    if origin.files:
        rows = (
            (file.table, "" if file.span is None else str(file.span), file.sha256[:_SHORT], file.paths[-1])
            for file in origin.files
        )
        yield _table(("table", "span", "SHA-256", "file"), rows)


def _judgement(judgement: Judgement) -> Iterator[str]:
    said = "passed" if judgement.passed else "refused"
    champion = "" if judgement.champion_id is None else f", against model {judgement.champion_id}"
    checks = f", {len(judgement.verdicts)} checks" if judgement.verdicts else ""
    yield f"  {judgement.node_id} in {judgement.run_id}: {said}{checks}{champion}"
    for verdict in judgement.verdicts:
        if verdict.outcome != "passed":
            yield f"    {verdict.outcome.value}: {verdict.reason}"


def _data_lineage(found: DataLineage, show_all: bool) -> Iterator[str | Table]:
    yield from _found(found)
    serving = [model for model in found.models if model.is_serving]
    pushed = [model for model in found.models if model.pushes]
    made = f"{_count(len(found.models), 'model')} made with it" if found.models else "no model made with it"
    yield f"read by {_count(len(found.readers), 'run')}; {made}, {len(pushed)} of them pushed"
    for model in serving:
        live = ", ".join(push.folder for push in model.pushes if push.is_serving)
        yield f"SERVING NOW: {live} (model {model.model_id}) has seen it"
    if not serving:
        yield "no model that serves now has seen it"
    if found.unrecorded:
        yield f"what these runs read was not recorded, so it may be this: {_listed(found.unrecorded)}"
    if found.models:
        yield from ("", "models made with it: trained, stopped or tested on its rows, as the split had it")
        # What serves is what somebody has to act on, however old.
        first = sorted(found.models, key=lambda model: (not model.is_serving, not model.pushes))
        yield from _shown(("model", "trained", "by run", "pushed as"), first, _seen_by, show_all)
    if found.judged:
        yield from (
            "",
            "models only compared on it, such as a champion: what was said of them then may be wrong",
        )
        yield from _shown(("model", "trained", "by run", "pushed as"), found.judged, _seen_by, show_all)
    yield from ("", "runs that read it")
    yield from _shown(
        ("run", "examples", "model", "failed in"),
        found.readers,
        lambda reader: (
            reader.run_id,
            "from cache" if reader.from_cache else "made",
            ", ".join(map(str, reader.model_ids)),
            ", ".join(reader.failed_nodes),
        ),
        show_all,
    )


def _found(found: DataLineage) -> Iterator[str | Table]:
    yield found.question
    if found.found:
        rows = (
            (
                file.table,
                "" if file.span is None else str(file.span),
                file.sha256[:_SHORT],
                ", ".join(file.paths),
                "" if found.digest in (None, file.sha256) else "the path holds something else now",
            )
            for file in found.found
        )
        yield _table(("table", "span", "SHA-256", "file", ""), rows)
    for digest in found.other_contents:
        yield f"other runs read something else at this path: headworks lineage sha256:{digest}"


def _seen_by(model: SeenBy) -> tuple[str, ...]:
    return (
        str(model.model_id),
        model.trained_at,
        model.run_id,
        ", ".join(f"{p.version}{' (serving)' if p.is_serving else ''}" for p in model.pushes),
    )


def _shown(
    heads: Sequence[str], rows: Sequence[_Row], cells: Callable[[_Row], Sequence[str]], show_all: bool
) -> Iterator[str | Table]:
    yield _table(heads, map(cells, rows if show_all else rows[:LATEST]))
    if not show_all and len(rows) > LATEST:
        yield f"… and {len(rows) - LATEST:,} more (--all)"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _push(push: Push) -> str:
    state = "serving" if push.is_serving else "no longer serving" if push.is_there else "deleted since"
    return f"version {push.version} on {push.pushed_at} by run {push.run_id}, {state}: {push.folder}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LATEST]) + (f" and {len(names) - LATEST} more" if len(names) > LATEST else "")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
