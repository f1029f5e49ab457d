"""What rehearsed tasks made, on record: one JSON file a task, read by later resolvers and for the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.runners.pipeline_spec import SpecError
from pipeline.runners.records import RunRecordError

FOLDER = "rehearsal"
_RECORD = "task.json"
_CLAUSE = re.compile(r'\s*([\w.-]+)\s*=\s*("[^"]*"|[^\s"]+)\s*')
_METADATA_FIELD = re.compile(r"metadata\.(.+)\.(number_value|string_value|bool_value)")


@dataclass(frozen=True)
class Artifact:
    """An artifact: `type` is its ArtifactTypeSchema as JSON, `created_at` UTC in ISO 8601."""

    name: str
    type: Mapping[str, Any]
    uri: str
    metadata: Mapping[str, Any]
    created_at: str

    def message(self) -> dict[str, Any]:
        """As RuntimeArtifact in JSON."""
        plain = {"name": self.name, "type": dict(self.type), "uri": self.uri}
        return {**plain, "metadata": dict(self.metadata)} if self.metadata else plain

    @property
    def schema_title(self) -> str:
        """The name of its type."""
        if "schemaTitle" in self.type:
            return str(self.type["schemaTitle"])
        schema = yaml.safe_load(self.type.get("instanceSchema", "")) or {}
        return str(schema.get("title", ""))


@dataclass(frozen=True)
class Values:
    """Inputs or outputs of a task, by name; parameters are JSON values."""

    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskRecord:
    """What became of one task.

    Attributes:
      job: it was part of.
      task: its path.
      state: `succeeded`, `cached` or `failed`; only what a task that succeeded made is ever used again.
      key: under which a later task finds its outputs; None where there is no cache for it.
      outputs: what it made.
      sizes: files and bytes at each URI on this machine when it ended, where there is a key.
    """

    job: str
    task: str
    state: str
    key: str | None
    outputs: Values
    sizes: Mapping[str, Sequence[int]]

    @property
    def is_intact(self) -> bool:
        """Whether its outputs are still there as they were."""
        return all(size_of(uri) == tuple(size) for uri, size in self.sizes.items())


class Records:
    """All records below a folder; those of tasks of the present run are added as they end."""

    def __init__(self, root: Path) -> None:
        self._records = [_load(path) for path in (root / FOLDER).glob(f"**/{_RECORD}")]

    def add(self, record: TaskRecord, folder: Path) -> None:
        """Writes a record so that a reader, or a crash, sees all of it or nothing.

        Raises:
          RunRecordError: if it cannot be written.
        """
        path = folder / _RECORD
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(record), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise RunRecordError(f"{path}: cannot be written ({error.strerror})") from error
        self._records.append(record)

    def cached(self, key: str) -> TaskRecord | None:
        """A task of the same key whose outputs are there."""
        found = (
            record for record in tuple(self._records) if record.key == key and record.state == "succeeded"
        )
        return next((record for record in found if record.is_intact), None)

    def live(self) -> list[Artifact]:
        """Artifacts of all tasks that succeeded, the latest first."""
        made = {
            artifact.name: artifact
            for record in tuple(self._records)
            if record.state == "succeeded"
            for artifacts in record.outputs.artifacts.values()
            for artifact in artifacts
        }
        return sorted(made.values(), key=lambda artifact: artifact.created_at, reverse=True)


@dataclass(frozen=True)
class Query:
    """A resolver's filter: what each field has to be.

    Fields are `schema_title`, `state`, `name`, `uri` and `metadata.KEY.number_value` (or `string_value`, `bool_value`).
    """

    clauses: tuple[tuple[str, str], ...]

    @staticmethod
    def parse(text: str) -> Query:
        """Reads `FIELD=VALUE AND FIELD="VALUE" ...`.

        Raises:
          SpecError: for any other filter.
        """
        clauses = []
        for part in _split(text):
            found = _CLAUSE.fullmatch(part)
            if not found or not _is_known(found[1]):
                raise SpecError(
                    f"filter {text!r}: {part.strip()!r} is not understood; want schema_title, state, name, uri or "
                    "metadata.KEY.number_value = VALUE, joined by AND"
                )
            clauses.append((found[1], found[2].strip('"')))
        return Query(tuple(clauses))

    def matches(self, artifact: Artifact) -> bool:
        """Whether an artifact that is there for use is meant."""
        return all(_holds(artifact, name, value) for name, value in self.clauses)


def size_of(uri: str) -> tuple[int, int]:
    """Number of files and bytes at a place of this machine; none of either where there is nothing."""
    path = Path(uri)
    paths = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    return len(paths), sum(found.stat().st_size for found in paths)


def sizes_of(outputs: Values) -> dict[str, tuple[int, int]]:
    """Sizes at all URIs that name places of this machine."""
    uris = {artifact.uri for artifacts in outputs.artifacts.values() for artifact in artifacts}
    return {uri: size_of(uri) for uri in sorted(uris) if uri and "://" not in uri}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> TaskRecord:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        outputs = plain.pop("outputs")
        artifacts = {
            key: tuple(Artifact(**artifact) for artifact in made)
            for key, made in outputs["artifacts"].items()
        }
        return TaskRecord(**plain, outputs=Values(artifacts, outputs["parameters"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunRecordError(
            f"{path}: not the record of a task ({error}); remove the folder it is in"
        ) from error


def _split(text: str) -> Iterator[str]:
    """At each AND that is in no quotes."""
    yield from re.split(r'\bAND\b(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _is_known(name: str) -> bool:
    return name in ("schema_title", "state", "name", "uri") or bool(_METADATA_FIELD.fullmatch(name))


def _holds(artifact: Artifact, name: str, value: str) -> bool:
    match name:
        case "state":
            return value == "LIVE"
        case "schema_title":
            return artifact.schema_title == value
        case "name" | "uri":
            return bool(getattr(artifact, name) == value)
    found = _METADATA_FIELD.fullmatch(name)
    assert found  # Query.parse lets no other field through
    there = artifact.metadata.get(found[1])
    match found[2]:
        case "number_value":
            return isinstance(there, int | float) and not isinstance(there, bool) and there == float(value)
        case "bool_value":
            return there is (value.lower() == "true")
    return there == value
