"""ML Metadata's SQLite file, read as rows: the one place that knows its tables.

ML Metadata's own client asks for one thing at a time, has no query engine in this build, and turns every row into a
message; with a thousand runs that is seconds. This reads only, so it never waits for a run nor disturbs one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_SCHEMA_VERSION = 10
"""Of the tables that ML Metadata 1.0 to 1.21 makes."""
_PATIENCE_SECONDS = 30.0
"""How long to wait for a run that is writing at this moment."""
_LIVE = 2


class MetadataReadError(Exception):
    """The store is not there, or is not one whose tables are known."""


class EventType(IntEnum):
    """The two kinds of event that say what was made of what; those of resolvers say it of nothing."""

    INPUT = 3
    OUTPUT = 4


_STATES = ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED")


@dataclass(frozen=True)
class Artifact:
    """One artifact; `properties` are those of the type and the custom ones together."""

    artifact_id: int
    type_name: str
    uri: str
    is_live: bool
    created_ms: int
    properties: Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Execution:
    """One execution of a node in a run; times in milliseconds since 1970, UTC."""

    execution_id: int
    node_id: str
    run_id: str
    state: str
    started_ms: int
    ended_ms: int

    @property
    def is_success(self) -> bool:
        """Whether it put something out, made now or found in the cache."""
        return self.state in ("COMPLETE", "CACHED")


@dataclass(frozen=True)
class Event:
    """An artifact went in or came out under a key."""

    artifact_id: int
    execution_id: int
    key: str


class MetadataRows:
    """Questions to an open store. All take and give ids in bulk, and an unknown id gives nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def artifacts(self, ids: Collection[int]) -> dict[int, Artifact]:
        """Artifacts by id."""
        return self._artifacts("a.id IN (SELECT value FROM json_each(?))", json.dumps(sorted(ids)))

    def artifacts_of_type(self, type_name: str) -> dict[int, Artifact]:
        """All artifacts of a type, oldest first."""
        return self._artifacts("t.name = ?", type_name)

    def artifacts_at(self, uri: str, type_name: str) -> dict[int, Artifact]:
        """Those of a type that lie at a URI."""
        found = self._artifacts("a.uri = ?", uri)
        return {number: artifact for number, artifact in found.items() if artifact.type_name == type_name}

    def executions(self, ids: Collection[int]) -> dict[int, Execution]:
        """Executions by id, oldest first."""
        # No index leads from an execution to its contexts. Left to itself, SQLite looks up every run for every
        # execution; the order of a CROSS JOIN is kept, and reads the associations once.
        rows = self._connection.execute(
            "SELECT e.id, e.last_known_state, e.create_time_since_epoch, e.last_update_time_since_epoch, c.name, t.name"
            " FROM (SELECT context_id, execution_id FROM Association"
            " WHERE execution_id IN (SELECT value FROM json_each(?))) s"
            " CROSS JOIN Execution e ON e.id = s.execution_id"
            " CROSS JOIN Context c ON c.id = s.context_id"
            " CROSS JOIN Type t ON t.id = c.type_id"
            " WHERE t.name IN ('pipeline_run', 'node')",
            (json.dumps(sorted(ids)),),
        )
        found: dict[int, Execution] = {}
        for number, state, started, ended, name, kind in rows:
            known = found.get(number) or Execution(number, "", "", _STATES[state or 0], started, ended)
            # TFX names the context of a node `<pipeline>.<node>`.
            node_id = name.rpartition(".")[2] if kind == "node" else known.node_id
            run_id = name if kind == "pipeline_run" else known.run_id
            found[number] = Execution(number, node_id, run_id, known.state, started, ended)
        return dict(sorted(found.items()))

    def executions_of_run(self, run_id: str) -> dict[int, Execution]:
        """The executions of one run, oldest first."""
        rows = self._connection.execute(
            "SELECT s.execution_id FROM Type t JOIN Context c ON c.type_id = t.id AND c.name = ?"
            " JOIN Association s ON s.context_id = c.id WHERE t.name = 'pipeline_run'",
            (run_id,),
        )
        return self.executions([row[0] for row in rows])

    def texts_of_executions(self, ids: Collection[int], names: Collection[str]) -> dict[int, dict[str, str]]:
        """Parameters that are texts and have one of the names, by execution and name."""
        found: dict[int, dict[str, str]] = {}
        for execution_id, name, value in self._connection.execute(
            "SELECT execution_id, name, string_value FROM ExecutionProperty"
            " WHERE execution_id IN (SELECT value FROM json_each(?))"
            " AND name IN (SELECT value FROM json_each(?)) AND string_value IS NOT NULL",
            (json.dumps(sorted(ids)), json.dumps(sorted(names))),
        ):
            found.setdefault(execution_id, {})[name] = value
        return found

    def inputs_of(self, executions: Collection[int]) -> list[Event]:
        """What went into executions."""
        return self._events("execution_id", executions, EventType.INPUT)

    def outputs_of(self, executions: Collection[int]) -> list[Event]:
        """What executions put out, made or found in the cache."""
        return self._events("execution_id", executions, EventType.OUTPUT)

    def uses_of(self, artifacts: Collection[int]) -> list[Event]:
        """Into what artifacts went."""
        return self._events("artifact_id", artifacts, EventType.INPUT)

    def put_out(self, artifacts: Collection[int]) -> list[Event]:
        """Who put artifacts out: the maker first, then those that took them from the cache."""
        return self._events("artifact_id", artifacts, EventType.OUTPUT)

    def _events(self, column: str, ids: Collection[int], kind: EventType) -> list[Event]:
        rows = self._connection.execute(
            "SELECT v.artifact_id, v.execution_id, p.step_key FROM Event v"
            " LEFT JOIN EventPath p ON p.event_id = v.id AND p.is_index_step = 0"
            f" WHERE v.type = ? AND v.{column} IN (SELECT value FROM json_each(?))"
            " ORDER BY v.execution_id, v.id",
            (int(kind), json.dumps(sorted(ids))),
        )
        return [Event(artifact_id, execution_id, key or "") for artifact_id, execution_id, key in rows]

    def _artifacts(self, condition: str, value: str) -> dict[int, Artifact]:
        chosen = f"Artifact a JOIN Type t ON t.id = a.type_id WHERE {condition}"
        properties: dict[int, dict[str, str | int | float | None]] = {}
        for number, name, *values in self._connection.execute(
            "SELECT artifact_id, name, string_value, int_value, double_value FROM ArtifactProperty"
            f" WHERE artifact_id IN (SELECT a.id FROM {chosen})",
            (value,),
        ):
            given = next((v for v in values if v is not None), None)
            properties.setdefault(number, {})[name] = given
        rows = self._connection.execute(
            f"SELECT a.id, t.name, a.uri, a.state, a.create_time_since_epoch FROM {chosen} ORDER BY a.id",
            (value,),
        )
        return {
            number: Artifact(number, kind, uri or "", state == _LIVE, created, properties.get(number, {}))
            for number, kind, uri, state, created in rows
        }


@contextmanager
def reading(path: Path) -> Iterator[MetadataRows]:
    """Opens a store for reading.

    Raises:
      MetadataReadError: if it is not there, is no SQLite file, or has tables of an unknown version.
    """
    if not path.is_file():
        raise MetadataReadError(f"{path}: no such file; nothing has run in this folder yet")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_SECONDS)
    try:
        _check_version(connection, path)
        yield MetadataRows(connection)
    except sqlite3.DatabaseError as error:
        raise MetadataReadError(f"{path}: cannot be read: {error}") from error
    finally:
        connection.close()


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    try:
        versions = [row[0] for row in connection.execute("SELECT schema_version FROM MLMDEnv")]
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        raise MetadataReadError(f"{path}: not a store of ML Metadata") from error
    if versions != [_SCHEMA_VERSION]:
        told = ", ".join(map(str, versions)) or "none"
        raise MetadataReadError(
            f"{path}: its tables are of version {told}; this Headworks reads version {_SCHEMA_VERSION}: "
            "use the Headworks that made it"
        )
