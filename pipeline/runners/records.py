"""The written record of every run: `<root>/runs/<run_id>/run.json`. Reads and writes it without TFX."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.runners.events import NodeResult, NodeState, Output

_FILE_NAME = "run.json"


class RunState(StrEnum):
    """How a run stands. A run that says RUNNING while nobody holds the folder's lock was killed."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class RunRecordError(Exception):
    """No such run, or its record cannot be read or written."""


@dataclass(frozen=True)
class RunRecord:
    """One run. Times are UTC, ISO 8601. `nodes` maps node id to result, in the order they finished."""

    run_id: str
    pipeline_name: str
    started_at: str
    state: RunState = RunState.RUNNING
    ended_at: str | None = None
    git_revision: str | None = None
    config_hash: str | None = None
    error: str | None = None
    nodes: Mapping[str, NodeResult] = field(default_factory=dict)

    @property
    def failed_nodes(self) -> tuple[NodeResult, ...]:
        """Return the nodes that failed by themselves, the first to fail first."""
        return tuple(n for n in self.nodes.values() if n.state in (NodeState.FAILED, NodeState.TIMED_OUT))

    def with_node(self, result: NodeResult) -> "RunRecord":
        """Return this record with one node's result added or replaced."""
        return replace(self, nodes={**self.nodes, result.node_id: result})

    def ended(self, state: RunState, error: str | None = None) -> "RunRecord":
        """Return this record closed now."""
        return replace(self, state=state, error=error, ended_at=utc_now())


def utc_now() -> str:
    """Return the time now, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run_id() -> str:
    """Return an id that sorts by time and does not collide within a second: `20260101T120000-ab12`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def save(record: RunRecord, run_path: Path) -> None:
    """Write the record so that a reader, or a crash, sees either the old one or the new one, whole.

    Raises:
        RunRecordError: it cannot be written, for example because the disk is full.
    """
    try:
        run_path.mkdir(parents=True, exist_ok=True)
        _replace(run_path / _FILE_NAME, json.dumps(_to_json(record), indent=2) + "\n")
    except OSError as error:
        raise RunRecordError(
            f"{run_path}: the run's record cannot be written ({error.strerror}); free the disk and run again"
        ) from error


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_runs(root: Path) -> list[RunRecord]:
    """Return every run under the pipeline root, oldest first; none if there was never one."""
    return [_load(path) for path in sorted((root / "runs").glob(f"*/{_FILE_NAME}"))]


def load_run(root: Path, run_id_or_prefix: str = "latest") -> RunRecord:
    """Return the run whose id starts with the given text, or the `latest`.

    Raises:
        RunRecordError: there is none, or more than one.
    """
    paths = sorted((root / "runs").glob(f"*/{_FILE_NAME}"))
    if not paths:
        raise RunRecordError(f"{root}: no runs here yet")
    if run_id_or_prefix == "latest":
        return _load(paths[-1])
    found = [path for path in paths if path.parent.name.startswith(run_id_or_prefix)]
    if len(found) == 1:
        return _load(found[0])
    names = ", ".join(path.parent.name for path in (found or paths)[-5:])
    problem = "matches several runs" if found else "no such run"
    raise RunRecordError(f"{run_id_or_prefix}: {problem} in {root}; among them: {names}")


def _to_json(record: RunRecord) -> dict[str, Any]:
    plain = asdict(record)
    plain["nodes"] = [asdict(result) for result in record.nodes.values()]
    return plain


def _load(path: Path) -> RunRecord:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        nodes = [_node_from_json(node) for node in plain.pop("nodes")]
        state = RunState(plain.pop("state"))
        return RunRecord(state=state, nodes={node.node_id: node for node in nodes}, **plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunRecordError(
            f"{path}: not a run record ({error}); delete its folder to forget the run"
        ) from error


def _node_from_json(plain: dict[str, Any]) -> NodeResult:
    outputs = tuple(Output(**output) for output in plain.pop("outputs"))
    return NodeResult(state=NodeState(plain.pop("state")), outputs=outputs, **plain)
