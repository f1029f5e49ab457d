"""`headworks schema`: curate the schema against the data of a run, one named change at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

    from pipeline.runners.records import RunRecord
    from pipeline.schema_proposal import ProposedSchemas
    from schemas.curation import Change, Proposal

_STATISTICS_GEN = "StatisticsGen"
_TRAIN = "train"


@dataclass(frozen=True)
class _Comparison:
    """The curated schema beside the data of a run.

    Attributes:
      file: the curated schema.
      text: its content when it was read.
      current: the same, parsed.
      proposal: what would fit the data.
      changes: how the two differ.
      splits: by the name of a change, where the data ask for it.
      run_id: the run whose statistics were taken.
    """

    file: Path
    text: str
    current: schema_pb2.Schema
    proposal: Proposal
    changes: tuple[Change, ...]
    splits: dict[str, tuple[str, ...]]
    run_id: str


@click.group("schema")
def schema() -> None:
    """Compare the curated schema with the data of a run, and take over what you name."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--root", type=click.Path(path_type=Path), help="Output folder, if not the configured one."
        ),
        click.option(
            "--run", "run", default="latest", help="Id of a run or its beginning; else the last one."
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            default=Path("pipeline.yaml"),
            help="Configuration; pipeline.yaml by default.",
        ),
    ):
        command = option(command)
    return command


@schema.command("diff")
@_options
@click.pass_context
def diff(context: click.Context, config: Path, run: str, root: Path | None) -> None:
    """Show what would change if the schema followed the data of the last run that computed statistics.

    A run that the data gate refused counts too. Exits 0 if nothing differs and 1 if something does. Writes nothing.
    """
    found = _compare(config, run, root)
    for line in _shown(found):
        click.echo(line)
    if found.changes:
        click.echo("next: headworks schema accept COLUMN or COLUMN:KIND, or mend the data")
        context.exit(1)


@schema.command("accept")
@click.argument("names", nargs=-1, metavar="[COLUMN[:KIND]]...")
@click.option("--all", "accept_all", is_flag=True, help="Every change that `headworks schema diff` shows.")
@_options
def accept(names: tuple[str, ...], accept_all: bool, config: Path, run: str, root: Path | None) -> None:
    """Write the named changes into the schema, and nothing else.

    The names are those that `headworks schema diff` shows. The file as it was before stays beside it, with .former
    at the end of its name.
    """
    from schemas import curation

    if accept_all == bool(names):
        raise click.UsageError("name the changes to accept, or give --all; headworks schema diff shows them")
    found = _compare(config, run, root)
    wanted = found.changes if accept_all else curation.chosen(found.changes, names)
    if not wanted:
        click.echo(f"nothing to accept: {found.file} fits the data of run {found.run_id}")
        return
    text = curation.text_of(curation.accepted(found.current, found.proposal, wanted), found.text)
    for line in _unified(found.text, text, found.file):
        click.echo(line)
    if curation.loses_comments(found.text):
        click.echo(f"comments inside {found.file} are lost; those at its top stay")
    copy = curation.replace_file(found.file, text, found.text)
    click.echo(f"accepted {', '.join(change.name for change in wanted)}")
    click.echo(f"wrote {found.file}; as it was before: {copy}")
    click.echo("next: headworks run")


def _compare(config: Path, run: str, root: Path | None) -> _Comparison:
    from pipeline.config import load
    from pipeline.runners import fork_server

    project = load(config)
    # TFX takes seconds to load; what else can be wrong is found meanwhile.
    fork_server.start()
    from tensorflow_metadata.proto.v0 import schema_pb2

    from schemas import curation
    from schemas.features import load_schema

    folder = (root or project.root).resolve()
    text = project.schema_file.read_text(encoding="utf-8")
    current = load_schema(str(project.schema_file))
    record = _run_with_statistics(folder, run)
    proposed = _proposed(current, record, folder)

    def proposal(updated: bytes) -> Proposal:
        return curation.Proposal(
            schema_pb2.Schema.FromString(updated), schema_pb2.Schema.FromString(proposed.inferred)
        )

    splits: dict[str, tuple[str, ...]] = {}
    for split, updated in proposed.updated_by_split.items():
        for change in curation.changes(current, proposal(updated)):
            splits[change.name] = (*splits.get(change.name, ()), split)
    whole = proposal(proposed.updated)
    return _Comparison(
        project.schema_file,
        text,
        current,
        whole,
        curation.changes(current, whole),
        splits,
        record.run_id,
    )


def _run_with_statistics(folder: Path, run: str) -> RunRecord:
    from pipeline.runners.records import load_run, load_runs
    from schemas.curation import CurationError

    candidates = load_runs(folder)[::-1] if run == "latest" else [load_run(folder, run)]
    for record in candidates:
        if _STATISTICS_GEN in record.nodes and record.nodes[_STATISTICS_GEN].uris("statistics"):
            return record
    which = f"{folder}: no run" if run == "latest" else f"run {candidates[0].run_id} has not"
    raise CurationError(f"{which} computed statistics yet; make one with: headworks run")


def _proposed(current: schema_pb2.Schema, record: RunRecord, folder: Path) -> ProposedSchemas:
    from pipeline.runners.node_process import NodeProcess
    from pipeline.runners.root_folder import RootFolder
    from schemas.curation import CurationError

    [uri] = record.nodes[_STATISTICS_GEN].uris("statistics")
    files = {
        path.parent.name.removeprefix("Split-"): str(path)
        for path in Path(uri).glob("Split-*/FeatureStats.pb")
    }
    if not files:
        raise CurationError(f"{uri}: the statistics of run {record.run_id} are gone; run again")
    ordered = {split: files[split] for split in sorted(files, key=lambda split: (split != _TRAIN, split))}
    child = NodeProcess(RootFolder(folder).log_path(record.run_id, "schema"), "schema")
    told: ProposedSchemas = child.run(
        "pipeline.schema_proposal:propose", current.SerializeToString(), ordered
    ).value
    return told


def _shown(found: _Comparison) -> Iterator[str]:
    if not found.changes:
        yield f"{found.file} fits the data of run {found.run_id}"
        return
    yield f"{found.file} beside the data of run {found.run_id}:"
    for change in found.changes:
        splits = found.splits.get(change.name, ())
        where = f" (in {', '.join(splits)})" if splits else ""
        yield f"  {change.name}{where}"
        yield f"    {change.words}"


def _unified(before: str, after: str, file: Path) -> Iterator[str]:
    import difflib

    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(file), f"{file} (new)", lineterm="", n=6
    )
    yield from lines
