import errno
import io
import json
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import outputs
from beam_jobs.outputs import (
    DEAD_LETTERS,
    PREDICTIONS,
    SUMMARY,
    JobFolder,
    Shard,
    SourceRead,
    Summary,
    WriteRecords,
    WriteShards,
    job_folder,
    keep_dead_letters,
    publish,
    read_records,
    summarize,
)
from beam_jobs.rows import DeadLetter, PredictionError
from beam_jobs.writers import DeadLettersFormat, RowsFormat

SCHEMA = pa.schema([("id", pa.int64())])
ROWS = RowsFormat("csv", SCHEMA)


def batch(*ids: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": list(ids)}, schema=SCHEMA)


def bundle(job: JobFolder, *items: Any, kind: str = PREDICTIONS) -> list[Shard]:
    """What a worker says of a bundle."""
    writer = WriteShards(job, kind, ROWS if kind == PREDICTIONS else DeadLettersFormat())
    writer.start_bundle()
    for item in items:
        writer.process(item)
    return [windowed.value for windowed in writer.finish_bundle()]


def run(out: Any, *ids: int, job_id: str = "daily", letters: int = 0) -> Summary:
    """A job that predicts rows."""
    with job_folder(str(out), job_id) as job:
        shards = [shard for row in ids for shard in bundle(job, batch(row))]
        for number in range(letters):
            shards += bundle(job, DeadLetter("f.csv", str(number), "no", b"x"), kind=DEAD_LETTERS)
        summary = summarize(job, [*shards, SourceRead("f.csv", len(ids) + letters, 10)], {"model_version": 3})
        publish(job, summary)
    return summary


def predicted(folder: Path) -> list[int]:
    paths = sorted((folder / PREDICTIONS).iterdir())
    return [int(line) for path in paths for line in path.read_text().splitlines()[1:]]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_output_is_numbered_parts_and_a_summary(tmp_path):
    run(tmp_path, 7, 8, letters=1)

    assert files(tmp_path) == [
        "daily/dead_letters/part-00000-of-00001.jsonl",
        "daily/predictions/part-00000-of-00002.csv",
        "daily/predictions/part-00001-of-00002.csv",
        "daily/summary.json",
    ]
    assert predicted(tmp_path / "daily") == [7, 8]
    assert json.loads((tmp_path / "daily/summary.json").read_text()) == {
        "job_id": "daily",
        "model_version": 3,
        "rows_read": 3,
        "predicted": 2,
        "dead_letters": 1,
        "reasons": {"no": {"rows": 1, "example": "f.csv: row 0: no"}},
        "bytes_read": 10,
        "bytes_written": 14 + 65,
        "sources": [{"source": "f.csv", "rows": 3, "size_bytes": 10, "absent": []}],
        "files": [
            {"name": "dead_letters/part-00000-of-00001.jsonl", "rows": 1, "size_bytes": 65},
            {"name": "predictions/part-00000-of-00002.csv", "rows": 1, "size_bytes": 7},
            {"name": "predictions/part-00001-of-00002.csv", "rows": 1, "size_bytes": 7},
        ],
    }


def test_nothing_is_visible_until_all_is_there_and_the_earlier_output_stays_so_long(tmp_path):
    run(tmp_path, 1, 2, 3)

    with job_folder(str(tmp_path), "daily") as job:
        shards = bundle(job, batch(4))
        assert predicted(tmp_path / "daily") == [1, 2, 3]
        publish(job, summarize(job, [*shards, SourceRead("f", 1, 1)]))
        assert predicted(tmp_path / "daily") == [4]

    assert [path.name for path in tmp_path.iterdir()] == ["daily"]


def test_a_reader_finds_a_whole_output_at_any_time(tmp_path):
    run(tmp_path, 0)
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(json.loads((tmp_path / "daily/summary.json").read_text())["predicted"])

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for _ in range(20):
            run(tmp_path, 1)
        done.set()
        reader.result()

    assert set(seen) == {1}


def test_a_job_that_fails_leaves_what_was_there(tmp_path):
    run(tmp_path, 1)

    with pytest.raises(PredictionError, match="0 rows were read"), job_folder(str(tmp_path), "daily") as job:
        summarize(job, bundle(job, batch(2)))

    assert predicted(tmp_path / "daily") == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["daily"]


def fail_for_dead_letters(out: Any, letters: int) -> str:
    """A job with too many of them; says where they are kept."""
    with job_folder(str(out), "daily") as job:
        shards = bundle(job, batch(1))
        for number in range(letters):
            shards += bundle(job, DeadLetter("f.csv", str(number), "no", b"x"), kind=DEAD_LETTERS)
        return keep_dead_letters(job, summarize(job, [*shards, SourceRead("f.csv", 1 + letters, 10)]))


def test_of_a_job_that_fails_for_its_dead_letters_the_last_ones_are_kept_until_it_succeeds(tmp_path):
    run(tmp_path, 1)
    assert fail_for_dead_letters(tmp_path, 2) == str(tmp_path / "daily.failed" / "dead_letters")
    fail_for_dead_letters(tmp_path, 1)

    assert files(tmp_path / "daily.failed") == ["dead_letters/part-00000-of-00001.jsonl", SUMMARY]
    assert sorted(path.name for path in (tmp_path / "daily.failed").iterdir()) == ["dead_letters", SUMMARY]
    assert predicted(tmp_path / "daily") == [1]

    run(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["daily"]


def test_a_folder_of_somebody_else_is_not_taken_for_what_is_kept(tmp_path):
    (tmp_path / "daily.failed").mkdir()
    (tmp_path / "daily.failed" / "notes.txt").write_text("mine")
    with pytest.raises(PredictionError, match="is not what is kept of a failed job, so it is not replaced"):
        fail_for_dead_letters(tmp_path, 1)
    run(tmp_path, 1)
    assert files(tmp_path / "daily.failed") == ["notes.txt"]


def test_what_is_kept_says_that_the_job_failed_and_counts_all_its_rows(tmp_path):
    fail_for_dead_letters(tmp_path, 2)
    summary = json.loads((tmp_path / "daily.failed" / SUMMARY).read_text())
    assert summary["failed"] is True
    assert [summary[count] for count in ("rows_read", "predicted", "dead_letters")] == [3, 1, 2]
    assert [file["name"].partition("/")[0] for file in summary["files"]] == ["dead_letters"] * 2
    assert summary["bytes_written"] == sum(file["size_bytes"] for file in summary["files"])


def test_the_output_of_a_job_that_was_named_like_what_is_kept_stays(tmp_path):
    """Such a name was once allowed."""
    run(tmp_path, 1)
    (tmp_path / "daily").rename(tmp_path / "daily.failed")
    with pytest.raises(PredictionError, match="is not what is kept of a failed job"):
        fail_for_dead_letters(tmp_path, 1)
    run(tmp_path, 2)
    assert predicted(tmp_path / "daily.failed") == [1]


def test_what_is_kept_survives_a_kill_between_two_renames(tmp_path):
    fail_for_dead_letters(tmp_path, 1)
    kept = files(tmp_path / "daily.failed")
    (tmp_path / ".daily.partial").mkdir()
    (tmp_path / "daily.failed").rename(tmp_path / ".daily.partial/replaced.failed")
    with job_folder(str(tmp_path), "daily"):
        pass
    assert files(tmp_path / "daily.failed") == kept


def test_a_bundle_that_was_tried_again_is_published_once(tmp_path):
    with job_folder(str(tmp_path), "daily") as job:
        failed = WriteShards(job, PREDICTIONS, ROWS)
        failed.start_bundle()
        failed.process(batch(1))
        bundle(job, batch(1))  # Written in full, and the worker lost before anybody was told.
        shards = bundle(job, batch(1))
        publish(job, summarize(job, [*shards, SourceRead("f", 1, 1)]))

    assert predicted(tmp_path / "daily") == [1]


def test_rows_that_got_lost_or_doubled_are_not_published(tmp_path):
    with job_folder(str(tmp_path), "daily") as job:
        shards = bundle(job, batch(1, 2))
        for rows in (1, 3):
            with pytest.raises(
                PredictionError, match=f"nothing was published: {rows} rows were read, but 2 pred"
            ):
                summarize(job, [*shards, SourceRead("f", rows, 1)])

    assert list(tmp_path.iterdir()) == []


def test_a_killed_attempt_leaves_nothing_that_matters(tmp_path):
    run(tmp_path, 1)
    child = os.fork()
    if not child:
        with job_folder(str(tmp_path), "daily") as job:
            bundle(job, batch(2))
            os._exit(0)
    os.waitpid(child, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"daily", ".daily.partial"}

    run(tmp_path, 3)

    assert predicted(tmp_path / "daily") == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["daily"]


def test_two_attempts_at_a_time_are_refused_and_two_jobs_are_not(tmp_path):
    with job_folder(str(tmp_path), "daily"):
        with pytest.raises(PredictionError, match=r"daily: another process is at work on this job"):
            run(tmp_path, 1)
        run(tmp_path, 2, job_id="weekly")

    run(tmp_path, 3)
    assert predicted(tmp_path / "daily") == [3]


def test_where_folders_cannot_be_exchanged_a_kill_between_two_renames_is_made_good(tmp_path, monkeypatch):
    def refuse(*_: Path) -> None:
        raise OSError(errno.EINVAL, "no exchange here")

    monkeypatch.setattr(outputs, "_exchange", refuse)
    run(tmp_path, 1)
    run(tmp_path, 2)
    assert predicted(tmp_path / "daily") == [2]

    (tmp_path / ".daily.partial").mkdir()
    (tmp_path / "daily").rename(tmp_path / ".daily.partial/replaced")
    with pytest.raises(RuntimeError), job_folder(str(tmp_path), "daily"):
        raise RuntimeError
    assert predicted(tmp_path / "daily") == [2]


def test_a_folder_that_is_no_jobs_output_is_not_replaced(tmp_path):
    (tmp_path / "daily").mkdir()
    (tmp_path / "daily/thesis.txt").write_text("")

    with pytest.raises(PredictionError, match=r"daily: is there and is no job's output"):
        run(tmp_path, 1)

    assert files(tmp_path) == ["daily/thesis.txt"]


@pytest.mark.parametrize("job_id", ["", ".", "../x", "a/b", "-x", "a b"])
def test_a_job_id_is_a_name(tmp_path, job_id):
    with pytest.raises(PredictionError, match="job id"):
        run(tmp_path, 1, job_id=job_id)


def test_a_sink_that_cannot_be_written_is_an_error_that_names_the_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictionError, match=r"file/daily: the output cannot be written: Not a directory"):
        run(tmp_path / "file", 1)

    with job_folder(str(tmp_path), "daily") as job:
        shutil.rmtree(job.partial)
        with pytest.raises(PredictionError, match=r"daily: the output cannot be written: No such file"):
            bundle(job, batch(1))

    monkeypatch.setattr(outputs._LocalPlace, "create", lambda *_: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(PredictionError, match=r"daily: the output cannot be written: the disk is full"):
        run(tmp_path, 1)
    assert files(tmp_path) == ["file"]


def test_a_job_without_rows_has_a_summary(tmp_path):
    run(tmp_path)

    assert json.loads((tmp_path / "daily/summary.json").read_text())["predicted"] == 0
    assert (tmp_path / "daily/predictions").is_dir()


def test_a_pipeline_writes_shards_and_records(tmp_path):
    with job_folder(str(tmp_path), "daily") as job:
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            rows = (
                pipeline
                | "rows" >> beam.Create([batch(1), batch(2, 3)])
                | "predictions" >> beam.ParDo(WriteShards(job, PREDICTIONS, ROWS))
            )
            letters = (
                pipeline
                | "letters" >> beam.Create([DeadLetter("f", "4", "no", b"x")])
                | "dead letters" >> beam.ParDo(WriteShards(job, DEAD_LETTERS, DeadLettersFormat()))
            )
            sources = pipeline | "sources" >> beam.Create([SourceRead("f", 4, 1)])
            (rows, letters, sources) | WriteRecords(job)
        summary = summarize(job, read_records(job))
        publish(job, summary)

    assert (summary.predicted, summary.dead_letters, summary.rows_read) == (3, 1, 4)
    assert summary.reasons["no"].rows == 1
    assert sorted(predicted(tmp_path / "daily")) == [1, 2, 3]


OBJECTS: dict[str, bytes] = {}
STEPS: list[tuple[str, str]] = []


class ObjectStore(FileSystem):
    """A store of objects in memory: no folders, no exchange, a copy for a rename."""

    @classmethod
    def scheme(cls):
        return "objects"

    def join(self, basepath, *paths):
        return "/".join([basepath, *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def mkdirs(self, path):
        raise AssertionError("there are no folders")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        yield from (FileMetadata(p, len(d)) for p, d in OBJECTS.items() if p.startswith(dir_or_prefix))

    def create(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        assert compression_type == CompressionTypes.UNCOMPRESSED

        class Upload(io.BytesIO):
            def close(self):
                if not self.closed:
                    OBJECTS[path] = self.getvalue()
                    STEPS.append(("create", path))
                super().close()

        return Upload()

    def open(self, path, mime_type="", compression_type=CompressionTypes.AUTO):
        return io.BytesIO(OBJECTS[path])

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            OBJECTS[target] = OBJECTS.pop(source)
            STEPS.append(("rename", target))

    def exists(self, path):
        return path in OBJECTS

    def size(self, path):
        return len(OBJECTS[path])

    def last_updated(self, path):
        raise NotImplementedError

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return FileMetadata(path, len(OBJECTS[path]))

    def delete(self, paths):
        for path in paths:
            if path not in OBJECTS:
                raise BeamIOError("no such object", {path: KeyError()})
            del OBJECTS[path]
            STEPS.append(("delete", path))


STORE = "objects://bucket/out"


@pytest.fixture
def store():
    """The objects; what was done to them is in `STEPS`."""
    OBJECTS.clear()
    STEPS.clear()
    return OBJECTS


def stored(folder: str = f"{STORE}/daily") -> list[bytes]:
    """The content of the predictions that a job's summary lists."""
    names = [part["name"] for part in json.loads(OBJECTS[f"{folder}/{SUMMARY}"])["files"]]
    return [OBJECTS[f"{folder}/{name}"] for name in names if name.startswith(PREDICTIONS)]


def fail(cause: Exception) -> None:
    """An attempt that writes a part and comes no further."""
    with job_folder(STORE, "daily") as job:
        bundle(job, batch(9))
        raise cause


def test_in_an_object_store_new_parts_come_first_then_the_summary_and_the_old_parts_go_last(store):
    run(STORE, 1, 2, letters=1)
    old = set(store)
    STEPS.clear()

    run(STORE, 3)

    assert stored() == [b'"id"\n3\n']
    (part,) = set(store) - {f"{STORE}/daily/{SUMMARY}"}
    assert part not in old
    visible = [step for step in STEPS if ".partial" not in step[1]]
    assert visible[:2] == [("rename", part), ("create", f"{STORE}/daily/{SUMMARY}")]
    assert {step for step, _ in visible[2:]} == {"delete"}


def test_in_an_object_store_dead_letters_are_kept_likewise(store):
    fail_for_dead_letters(STORE, 2)
    assert fail_for_dead_letters(STORE, 1) == f"{STORE}/daily.failed/dead_letters"
    kept = sorted(name.removeprefix(f"{STORE}/daily.failed/") for name in store)
    assert [name.partition("/")[0] for name in kept] == ["dead_letters", SUMMARY]
    run(STORE, 1)
    assert not [name for name in store if ".failed" in name]


def test_in_an_object_store_the_output_of_a_job_that_was_named_like_what_is_kept_stays(store):
    run(STORE, 1)
    for path in list(store):
        store[path.replace("/daily/", "/daily.failed/")] = store.pop(path)
    before = dict(store)
    with pytest.raises(PredictionError, match="is not what is kept of a failed job"):
        fail_for_dead_letters(STORE, 1)
    assert store == before
    run(STORE, 2)
    assert {path: store.get(path) for path in before} == before


def test_of_two_attempts_at_a_time_in_an_object_store_neither_harms_the_other(store):
    run(STORE, 1)

    with job_folder(STORE, "daily") as first:
        shards = bundle(first, batch(2))
        with pytest.raises(RuntimeError, match="a job of this name is running"):
            fail(RuntimeError("a job of this name is running"))
        assert stored() == [b'"id"\n1\n']
        publish(first, summarize(first, [*shards, SourceRead("f", 1, 1)]))

    assert stored() == [b'"id"\n2\n']
    assert len(store) == 2


@pytest.mark.parametrize("fault", ["rename", "create"])
def test_in_an_object_store_a_publication_that_fails_leaves_the_earlier_output(store, monkeypatch, fault):
    run(STORE, 1)
    before = dict(store)
    made = getattr(ObjectStore, fault)

    def faulty(self, path, *rest, **named):
        if fault == "rename":
            made(self, path[:1], rest[0][:1])
        if fault == "rename" or path.endswith(SUMMARY):
            raise BeamIOError("no")
        return made(self, path, *rest, **named)

    monkeypatch.setattr(ObjectStore, fault, faulty)
    with pytest.raises(PredictionError, match="nothing was published"):
        run(STORE, 2, 3)

    assert store == before


def test_a_store_that_cannot_be_tidied_up_hides_no_cause_and_undoes_nothing(store, monkeypatch, caplog):
    run(STORE, 1)

    def refuse(*_):
        raise BeamIOError("not allowed to delete")

    monkeypatch.setattr(ObjectStore, "delete", refuse)
    with caplog.at_level(logging.WARNING):
        with pytest.raises(RuntimeError, match="the cause"):
            fail(RuntimeError("the cause"))
        run(STORE, 3)

    assert stored() == [b'"id"\n3\n']
    assert "not allowed to delete" in caplog.text


def test_a_summary_in_a_store_that_is_no_jobs_is_not_replaced(store):
    store[f"{STORE}/daily/{SUMMARY}"] = b"my thesis"
    with pytest.raises(PredictionError, match="is there and is no job's output"):
        run(STORE, 1)
    assert list(store.values()) == [b"my thesis"]
