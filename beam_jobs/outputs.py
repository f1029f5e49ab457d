"""A job's output folder, of which a reader sees all or nothing.

    OUT/JOB_ID/predictions/part-00000-of-00002.csv
               dead_letters/part-00000-of-00001.jsonl
               summary.json

Of a job that failed for its dead letters these are kept, in `OUT/JOB_ID.failed`, until it succeeds. Their summary says
`"failed": true`; nothing else in that place is replaced or removed.

Workers write one shard a bundle, under names of their own, into `OUT/.JOB_ID.partial`. A bundle that is tried again
leaves a shard of which nobody was told, and only those that were told of are published. On a file system the folder
appears, or takes the place of an earlier one, in one step. An object store has no folders to exchange: there each
attempt writes into a folder and publishes parts under names of its own, `summary.json` then lists the new parts in
place of the old, and the old ones go last. What `summary.json` lists is always whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import logging
import os
import re
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.transforms.combiners import ToListCombineFn
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.rows import PredictionError
from beam_jobs.writers import Format, Reason, Reasons, Sink, add_reason
from ingest.flushing import flush

PREDICTIONS = "predictions"
DEAD_LETTERS = "dead_letters"
SUMMARY = "summary.json"

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FAILED = ".failed"
_SAYS_FAILED = "failed"
"""What is true in the summary of what is kept of a failed job, and tells it from the output of a job of that name."""
_RECORDS = "records.json"
_ATTEMPT = 12
"""Digits that tell attempts apart."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceRead:
    """A source that was read to its end.

    Attributes:
      source: a file or table.
      rows: how many it has.
      size_bytes: as it is stored.
      absent: columns that were to be read and that none of its rows has.
    """

    source: str
    rows: int
    size_bytes: int
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """A file that a worker wrote for the output.

    Attributes:
      kind: `PREDICTIONS` or `DEAD_LETTERS`.
      path: of the worker's own choice; in the order of time.
      rows: at least 1.
      size_bytes: as it is stored.
      reasons: of dead letters.
    """

    kind: str
    path: str
    rows: int
    size_bytes: int
    reasons: Reasons


@dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
      job_id: its name.
      facts: what the job says of itself.
      sources: what it read.
      shards: what it wrote.
      reasons: why rows became dead letters.
      attempt: as `JobFolder` has it.
      has_failed: whether of the shards the dead letters alone are kept.
    """

    job_id: str
    facts: Mapping[str, Any]
    sources: tuple[SourceRead, ...]
    shards: tuple[Shard, ...]
    reasons: Reasons
    attempt: str = ""
    has_failed: bool = False

    @property
    def parts(self) -> Mapping[str, Shard]:
        """The shards that are published by their names there, below the job's folder."""
        published = (shard for shard in self.shards if shard.kind == DEAD_LETTERS or not self.has_failed)
        return _parts(published, self.attempt)

    @property
    def predicted(self) -> int:
        return sum(shard.rows for shard in self.shards if shard.kind == PREDICTIONS)

    @property
    def dead_letters(self) -> int:
        return sum(shard.rows for shard in self.shards if shard.kind == DEAD_LETTERS)

    @property
    def rows_read(self) -> int:
        return sum(source.rows for source in self.sources)

    def to_json(self) -> str:
        content = {
            "job_id": self.job_id,
            **({_SAYS_FAILED: True} if self.has_failed else {}),
            **self.facts,
            "rows_read": self.rows_read,
            "predicted": self.predicted,
            "dead_letters": self.dead_letters,
            "reasons": {kind: asdict(reason) for kind, reason in self.reasons.items()},
            "bytes_read": sum(source.size_bytes for source in self.sources),
            "bytes_written": sum(shard.size_bytes for shard in self.parts.values()),
            "sources": [asdict(source) for source in self.sources],
            "files": [
                {"name": name, "rows": shard.rows, "size_bytes": shard.size_bytes}
                for name, shard in self.parts.items()
            ],
        }
        return json.dumps(content, indent=1) + "\n"


@dataclass(frozen=True)
class JobFolder:
    """Where a job's output appears, and where it is made.

    Attributes:
      out: folder of all jobs.
      job_id: the job's name.
      attempt: tells attempts apart that may be under way at the same time; empty where there cannot be two.
      has_failed: whether what appears is what is kept of a job that failed.
    """

    out: str
    job_id: str
    attempt: str = ""
    has_failed: bool = False

    @property
    def path(self) -> str:
        return FileSystems.join(self.out, self.job_id + (_FAILED if self.has_failed else ""))

    @property
    def failed(self) -> JobFolder:
        """The place of the job's dead letters, should it fail for them."""
        return replace(self, has_failed=True)

    @property
    def partial(self) -> str:
        folder = FileSystems.join(self.out, f".{self.job_id}.partial")
        return FileSystems.join(folder, self.attempt) if self.attempt else folder

    @property
    def staged(self) -> str:
        """Below `partial`: what becomes `path`."""
        return FileSystems.join(self.partial, "output")


@contextlib.contextmanager
def job_folder(out: str, job_id: str) -> Iterator[JobFolder]:
    """A place for a job to write to, alone; what is not published by the end of the block is removed.

    What an earlier attempt published stays until this one publishes. On a file system a second attempt at the same
    time is refused, and what killed attempts left is removed. In an object store nothing can hold a second attempt off:
    each keeps to its own files, the last to publish counts, and what a killed one left stays.

    Raises:
      PredictionError: if the folder cannot be written, another attempt is under way, or what is there is no
        job's output.
    """
    check_job_id(job_id)
    if FileSystems.get_scheme(out) is None:
        job = JobFolder(str(Path(out).absolute()), job_id)
    else:
        job = JobFolder(out, job_id, uuid.uuid4().hex[:_ATTEMPT])
    with _place(job).opened():
        yield job


def check_job_id(job_id: str) -> None:
    """Refuses what cannot name a folder.

    Raises:
      PredictionError: saying what can.
    """
    if not _JOB_ID.fullmatch(job_id) or job_id.endswith(_FAILED):
        raise PredictionError(
            f"job id {job_id!r}: use letters, digits and . _ - and begin with a letter or digit; {_FAILED} at the end "
            "is for what is kept of a job that failed"
        )


class WriteShards(beam.DoFn):
    """Writes the items of each bundle to a shard of its own, and tells of it when the shard is on disk.

    In: what the format takes; out: `Shard`, in the global window.
    """

    def __init__(self, job: JobFolder, kind: str, format_: Format) -> None:
        self._job = job
        self._kind = kind
        self._format = format_
        self._shard: _OpenShard | None = None

    def start_bundle(self) -> None:
        self._shard = None

    def process(self, element: Any) -> None:
        with _writing(self._job):
            if self._shard is None:
                self._shard = _OpenShard(_place(self._job), self._kind, self._format)
            self._shard.sink.write(element)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._shard is not None:
            with _writing(self._job):
                shard = self._shard.close()
            yield WindowedValue(shard, GlobalWindow().max_timestamp(), [GlobalWindow()])


class WriteRecords(beam.PTransform):
    """Writes down what a pipeline's shards and sources are, for `read_records` when it is done.

    In: a tuple of collections of `Shard` and `SourceRead`.
    """

    def __init__(self, job: JobFolder) -> None:
        super().__init__()
        self._job = job

    def expand(self, collections: Any) -> Any:
        return (
            collections
            | "all" >> beam.Flatten()
            | "as one" >> beam.CombineGlobally(ToListCombineFn())
            | "write" >> beam.Map(_write_records, self._job)
        )


def read_records(job: JobFolder) -> list[Shard | SourceRead]:
    """What `WriteRecords` wrote.

    Raises:
      PredictionError: if the pipeline did not come so far.
    """
    path = _records_path(job)
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            found = json.loads(file.read())
    except OSError as error:
        raise PredictionError(f"{path}: the job did not say what it wrote: {_cause(error)}") from error
    for shard in found["shards"]:
        shard["reasons"] = {kind: Reason(**reason) for kind, reason in shard["reasons"].items()}
    for source in found["sources"]:
        source["absent"] = tuple(source["absent"])
    return [
        *(Shard(**shard) for shard in found["shards"]),
        *(SourceRead(**source) for source in found["sources"]),
    ]


def summarize(
    job: JobFolder, records: Iterable[Shard | SourceRead], facts: Mapping[str, Any] | None = None
) -> Summary:
    """Adds up what a job did.

    Args:
      job: whose output it is.
      records: of all its shards and sources.
      facts: what else is to stand in `summary.json`.

    Raises:
      PredictionError: if the rows that were read are not as many as predictions and dead letters.
    """
    records = list(records)
    shards = sorted((r for r in records if isinstance(r, Shard)), key=lambda shard: Path(shard.path).name)
    sources = sorted((r for r in records if isinstance(r, SourceRead)), key=lambda source: source.source)
    reasons: Reasons = {}
    for shard in shards:
        for kind, reason in shard.reasons.items():
            add_reason(reasons, kind, reason)
    summary = Summary(job.job_id, facts or {}, tuple(sources), tuple(shards), reasons, job.attempt)
    if summary.rows_read != summary.predicted + summary.dead_letters:
        raise PredictionError(
            f"{job.path}: nothing was published: {summary.rows_read} rows were read, but {summary.predicted} "
            f"predicted and {summary.dead_letters} refused; run the job again, and report it if that stays so"
        )
    return summary


def publish(job: JobFolder, summary: Summary) -> None:
    """Lets the output appear, instead of what an earlier attempt at the job published.

    Raises:
      PredictionError: if the folder cannot be written.
    """
    with _writing(job):
        _place(job).publish(summary)
    with _tidying(job.failed.path):
        _place(job.failed).withdraw()


def keep_dead_letters(job: JobFolder, summary: Summary) -> str:
    """Lets the dead letters alone of a job appear that failed for them, with its summary; says where.

    Raises:
      PredictionError: if the folder cannot be written, or what is there is not what is kept of a failed job.
    """
    with _writing(job):
        _place(job.failed).publish(replace(summary, has_failed=True))
    return cast(str, FileSystems.join(job.failed.path, DEAD_LETTERS))


class _Place(ABC):
    """Where a job's files are."""

    def __init__(self, job: JobFolder) -> None:
        self._job = job

    @abstractmethod
    def opened(self) -> contextlib.AbstractContextManager[None]: ...

    @abstractmethod
    def create(self, path: str) -> BinaryIO: ...

    @abstractmethod
    def close(self, stream: BinaryIO, path: str) -> int:
        """Closes a file for good and says how many bytes it has."""

    @abstractmethod
    def publish(self, summary: Summary) -> None: ...

    @abstractmethod
    def withdraw(self) -> None:
        """Removes what was published of this job, if anything was."""

    def _is_ours(self, summary: Any) -> bool:
        """Whether what has this summary may give way to what this job publishes in the same place."""
        if not isinstance(summary, dict):
            return False
        return not self._job.has_failed or summary.get(_SAYS_FAILED) is True

    def _not_replaced(self) -> PredictionError:
        what, do = (
            ("is not what is kept of a failed job", "move it, or choose another job id")
            if self._job.has_failed
            else ("is no job's output", "choose another job id")
        )
        return PredictionError(f"{self._job.path}: is there and {what}, so it is not replaced; {do}")

    def new_shard(self, kind: str, suffix: str) -> str:
        """A path that no other attempt has, in the order of time."""
        name = f"{time.time_ns():020}-{uuid.uuid4().hex}{suffix}"
        return cast(str, FileSystems.join(self._job.staged, kind, name))


class _LocalPlace(_Place):
    """A file system, in which folders are renamed in one step."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with _writing(self._job):
                stack.enter_context(_alone(self._partial, self._job))
                for place in (self, _LocalPlace(self._job.failed)):
                    place._recover()
                self._require_replaceable()
                _empty(self._partial)
                for kind in (PREDICTIONS, DEAD_LETTERS):
                    (self._staged / kind).mkdir(parents=True)
            try:
                yield
            finally:
                with _tidying(self._job.partial):
                    shutil.rmtree(self._partial)

    def create(self, path: str) -> BinaryIO:
        return Path(path).open("xb")

    def close(self, stream: BinaryIO, path: str) -> int:
        with stream:
            stream.flush()
            os.fsync(stream.fileno())
        return Path(path).stat().st_size

    def publish(self, summary: Summary) -> None:
        shards = {Path(shard.path): name for name, shard in summary.parts.items()}
        for kind in (PREDICTIONS, DEAD_LETTERS):
            for path in (self._staged / kind).iterdir():
                if path not in shards:
                    path.unlink()  # Of a bundle that was tried again.
        for path, name in shards.items():
            path.rename(self._staged / name)
        with (self._staged / SUMMARY).open("w", encoding="utf-8") as file:
            file.write(summary.to_json())
            file.flush()
            os.fsync(file.fileno())
        if self._job.has_failed:
            (self._staged / PREDICTIONS).rmdir()
        for folder in (*(path for path in self._staged.iterdir() if path.is_dir()), self._staged):
            flush(folder)
        self._appear()
        with _tidying(self._job.out):  # The output is there; only a loss of power could undo that.
            flush(self._path.parent)

    def withdraw(self) -> None:
        if self._is_replaceable():
            shutil.rmtree(self._path)

    def _require_replaceable(self) -> None:
        if self._path.exists() and not self._is_replaceable():
            raise self._not_replaced()

    def _is_replaceable(self) -> bool:
        path = self._path / SUMMARY
        return path.is_file() and self._is_ours(_parsed(path.read_bytes()))

    def _appear(self) -> None:
        """Puts the staged folder in the place of the published one."""
        self._require_replaceable()
        if not self._path.exists():
            self._staged.rename(self._path)
            return
        try:
            _exchange(self._staged, self._path)
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            # For a moment there is no output; killed in it, the next attempt begins by `_recover`.
            self._path.rename(self._replaced)
            self._staged.rename(self._path)

    def _recover(self) -> None:
        if self._replaced.exists() and not self._path.exists():
            self._replaced.rename(self._path)

    @property
    def _path(self) -> Path:
        return Path(self._job.path)

    @property
    def _partial(self) -> Path:
        return Path(self._job.partial)

    @property
    def _staged(self) -> Path:
        return Path(self._job.staged)

    @property
    def _replaced(self) -> Path:
        return self._partial / (f"replaced{_FAILED}" if self._job.has_failed else "replaced")


class _ObjectPlace(_Place):
    """An object store: objects appear whole, one at a time."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        with _writing(self._job):
            self._published()
        try:
            yield
        finally:
            with _tidying(self._job.partial):
                _delete(_listed(f"{self._job.partial}/**"))

    def create(self, path: str) -> BinaryIO:
        return cast(BinaryIO, FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED))

    def close(self, stream: BinaryIO, path: str) -> int:
        stream.close()
        (match,) = FileSystems.match([path])
        return int(match.metadata_list[0].size_in_bytes)

    def publish(self, summary: Summary) -> None:
        parts = [f"{self._job.path}/{name}" for name in summary.parts]
        self._published()  # Is refused before anything is there.
        try:
            FileSystems.rename([shard.path for shard in summary.parts.values()], parts)
            replaced = self._published()
            with self.create(f"{self._job.path}/{SUMMARY}") as file:
                file.write(summary.to_json().encode())
        except BaseException:
            with _tidying(self._job.path):
                # A store may have taken the summary and still have failed to say so.
                listed = self._published()
                _delete([path for path in parts if path not in listed and FileSystems.exists(path)])
            raise
        with _tidying(self._job.path):
            _delete([path for path in replaced if FileSystems.exists(path)])

    def withdraw(self) -> None:
        summary = self._summary()
        if self._is_ours(summary):
            _delete([*self._listed_in(summary), f"{self._job.path}/{SUMMARY}"])

    def _published(self) -> list[str]:
        """The parts of the output that is there now, if one is.

        Raises:
          PredictionError: if that is not this job's to replace.
        """
        if not FileSystems.exists(f"{self._job.path}/{SUMMARY}"):
            return []
        summary = self._summary()
        if not self._is_ours(summary):
            raise self._not_replaced()
        return self._listed_in(summary)

    def _summary(self) -> Any:
        """What the summary says that is there now; None if there is none, or it is no JSON."""
        path = f"{self._job.path}/{SUMMARY}"
        if not FileSystems.exists(path):
            return None
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return _parsed(file.read())

    def _listed_in(self, summary: Any) -> list[str]:
        try:
            return [f"{self._job.path}/{part['name']}" for part in summary["files"]]
        except (KeyError, TypeError) as error:
            raise self._not_replaced() from error


class _OpenShard:
    """A shard under way."""

    def __init__(self, place: _Place, kind: str, format_: Format) -> None:
        self._place = place
        self._kind = kind
        self._path = place.new_shard(kind, format_.suffix)
        self._stream = place.create(self._path)
        self.sink: Sink = format_.sink(self._stream)

    def close(self) -> Shard:
        self.sink.close()
        size = self._place.close(self._stream, self._path)
        return Shard(self._kind, self._path, self.sink.rows, size, self.sink.reasons)


def _place(job: JobFolder) -> _Place:
    return _LocalPlace(job) if FileSystems.get_scheme(job.out) is None else _ObjectPlace(job)


def _parts(shards: Iterable[Shard], attempt: str) -> dict[str, Shard]:
    parts: dict[str, Shard] = {}
    for kind, group in itertools.groupby(
        sorted(shards, key=lambda shard: shard.kind), lambda shard: shard.kind
    ):
        members = list(group)
        whose = f"-{attempt}" if attempt else ""
        for number, shard in enumerate(members):
            suffix = shard.path[shard.path.index(".", shard.path.rindex("/")) :]
            parts[f"{kind}/part-{number:05}-of-{len(members):05}{whose}{suffix}"] = shard
    return parts


def _records_path(job: JobFolder) -> str:
    return cast(str, FileSystems.join(job.partial, _RECORDS))


def _write_records(records: Iterable[Shard | SourceRead], job: JobFolder) -> None:
    found: dict[str, list[Any]] = {"shards": [], "sources": []}
    for record in records:
        found["shards" if isinstance(record, Shard) else "sources"].append(asdict(record))
    with _writing(job):
        path = _records_path(job)
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(json.dumps(found).encode())


@contextlib.contextmanager
def _alone(folder: Path, job: JobFolder) -> Iterator[None]:
    """Holds a folder that one process can hold at a time; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, folder):
            raise BlockingIOError  # Its last holder removed it in the meantime.
    except BlockingIOError as error:
        os.close(descriptor)
        raise PredictionError(
            f"{job.path}: another process is at work on this job; wait for it or choose another job id"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    return folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _exchange(one: Path, other: Path) -> None:
    """Two folders take each other's names in one step, which Python has no function for: renameat2(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _listed(pattern: str) -> list[str]:
    (match,) = FileSystems.match([pattern])
    return [file.path for file in match.metadata_list]


def _delete(paths: list[str]) -> None:
    if paths:
        FileSystems.delete(paths)


def _parsed(content: bytes) -> Any:
    """What a text in JSON says; None if it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None


@contextlib.contextmanager
def _tidying(what: str) -> Iterator[None]:
    """Logs what goes wrong in the block, where the job's fate is settled already."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - every client of a store has errors of its own.
        _LOG.warning("%s: could not be tidied up: %s: %s", what, type(error).__name__, error)


@contextlib.contextmanager
def _writing(job: JobFolder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = "the disk is full" if error.errno in _FULL else _cause(error)
        raise PredictionError(
            f"{job.path}: the output cannot be written: {cause}; nothing was published; correct it and run again"
        ) from error


def _cause(error: OSError) -> str:
    return error.strerror or str(error)
