"""The batch job from files to files: every row once, all or nothing, and a clear word on what went wrong."""

import gzip
import json
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_jobs import batch
from beam_jobs.batch import BatchJob
from beam_jobs.core import Answer
from beam_jobs.handler import ScoringHandler
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import PredictionError
from beam_jobs.writers import RowsFormat
from ingest.records import to_examples, to_frames
from tests.beam_jobs.pushed_model import chance


@pytest.fixture
def days(tmp_path):
    """Some days as CSV, two of them unusable."""
    path = tmp_path / "days.csv"
    path.write_text(
        'day,humidity,gusts,place\nmon,40,3,A\ntue,damp,1,B\nwed,80.5,NA,"C, D"\nthu,,2,A\nfri,99,1,A\n'
    )
    return str(path)


@pytest.fixture
def job(pushed, tmp_path):
    return partial(BatchJob, pushed, output=str(tmp_path / "out"), max_bad_fraction=0.5)


def rows(job):
    files = sorted((path for path in _folder(job, "predictions").iterdir()), key=lambda path: path.name)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def dead_letters(job):
    files = sorted(_folder(job, "dead_letters").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _folder(job, kind):
    return Path(job.output) / job.name / kind


def test_usable_rows_become_predictions_and_the_others_dead_letters(job, days):
    done = job(inputs=(days,), carry=("place",))
    summary = batch.run(done)
    assert (summary.rows_read, summary.predicted, summary.dead_letters) == (5, 3, 2)
    found = rows(done)
    assert [row["day"] for row in found] == ["mon", "wed", "fri"]
    assert [row["place"] for row in found] == ["A", "C, D", "A"]
    expected = [chance(40, 3), chance(80.5), chance(99, 1)]
    assert [row["probability_wet_day"] for row in found] == pytest.approx(expected, abs=1e-6)
    assert [(d["position"], d["reason"], d["raw"]) for d in dead_letters(done)] == [
        ("2", "humidity is b'damp', not a number", "tue,damp,1,B"),
        ("4", "misses humidity, which the model requires", "thu,,2,A"),
    ]


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_what_one_job_wrote_another_can_read_in_every_format(job, days, tmp_path, format_):
    """The output carries the model's inputs here, so it is an input again."""
    first = job(inputs=(days,), output_format=format_, carry=("humidity", "gusts", "place"), job_id="first")
    batch.run(first)
    again = job(inputs=(str(tmp_path / "out" / "first" / "predictions"),), job_id="again")
    assert batch.run(again).predicted == 3
    assert [row["probability_wet_day"] for row in rows(again)] == pytest.approx(
        [chance(40, 3), chance(80.5), chance(99, 1)], abs=1e-6
    )


def test_the_same_job_again_replaces_its_output(job, days, tmp_path):
    batch.run(job(inputs=(days,)))
    with Path(days).open("a") as file:
        file.write("sat,10,0,A\n")
    done = job(inputs=(days,))
    assert batch.run(done).predicted == 4
    assert [row["day"] for row in rows(done)] == ["mon", "wed", "fri", "sat"]
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")] == [
        done.name
    ]


def test_too_many_dead_letters_fail_the_job_and_leave_what_was_there(job, days):
    batch.run(job(inputs=(days,), job_id="daily"))
    strict = job(inputs=(days,), job_id="daily", max_bad_fraction=0.39)
    with pytest.raises(PredictionError, match=r"2 of 5 rows got no prediction, at most 0\.39"):
        batch.run(strict)
    assert len(rows(strict)) == 3


def test_a_file_of_bad_rows_only_can_be_let_through(job, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"humidity": "x"}\n[1]\n' + "[" * 100_000 + "\n")
    done = job(inputs=(str(tmp_path / "bad.jsonl"),), max_bad_fraction=1.0)
    summary = batch.run(done)
    assert (summary.predicted, summary.dead_letters) == (0, 3)
    assert list(_folder(done, "predictions").iterdir()) == []


def test_an_archive_that_is_cut_off_fails_the_job_and_nothing_appears(job, days, tmp_path):
    packed = gzip.compress(b"day,humidity\n" + b"mon,40\n" * 50_000)
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(PredictionError, match=r"cut\.csv\.gz: gone, damaged or cut off .* after \d+ rows"):
        batch.run(job(inputs=(str(tmp_path / "cut.csv.gz"),), job_id="cut"))
    assert not (tmp_path / "out" / "cut").exists()


def test_a_folder_that_cannot_be_written_is_named(pushed, days, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictionError, match="file"):
        batch.run(BatchJob(pushed, (days,), str(tmp_path / "file" / "out")))


def test_a_model_whose_folder_vanishes_while_it_scores_goes_on(serving, days, tmp_path):
    version = shutil.copytree(serving / "1", tmp_path / "serving" / "1")

    def reach(pushed):
        from beam_jobs.core import Direct

        model = Direct(pushed.load())
        shutil.rmtree(version)
        return model

    job = BatchJob(
        PushedModel.read(str(version)), (days,), str(tmp_path / "out"), max_bad_fraction=1, reach=reach
    )
    assert batch.run(job).predicted == 3
    assert not version.exists()


def test_a_model_whose_folder_is_gone_before_fails_the_job_by_name(serving, days, tmp_path):
    version = shutil.copytree(serving / "1", tmp_path / "serving" / "1")
    job = BatchJob(PushedModel.read(str(version)), (days,), str(tmp_path / "out"))
    shutil.rmtree(version)
    with pytest.raises(PredictionError, match=r"serving/1: .* missing or not what was pushed"):
        batch.run(job)


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_all_columns_that_a_file_lacks_are_named_at_once(job, tmp_path, format_):
    file = _written(pa.table({"Day": ["a"], "Humidity": [1.0], "gusts": [1]}), tmp_path, format_)
    with pytest.raises(PredictionError) as raised:
        batch.run(job(inputs=(file,), carry=("note",), max_bad_fraction=1))
    assert str(raised.value).startswith(
        f"{file}: there is no column 'humidity', which the model requires and no column 'day', which names the row "
        "and no column 'note', which is to be carried; of those asked for there are gusts; rename them"
    )
    assert "[while running" not in str(raised.value)


@pytest.mark.parametrize("format_", ["jsonl", "tfrecord"])
def test_rows_without_a_header_say_one_by_one_what_they_lack(job, tmp_path, format_):
    file = _written(pa.table({"day": ["a"], "Humidity": [1.0]}), tmp_path, format_)
    done = job(inputs=(file,), max_bad_fraction=1)
    assert batch.run(done).dead_letters == 1
    assert dead_letters(done)[0]["reason"] == "misses humidity, which the model requires"


def test_a_job_that_fails_for_its_dead_letters_keeps_these_and_nothing_else(job, days, tmp_path):
    failing = job(inputs=(days,), job_id="j", max_bad_fraction=0.1)
    with pytest.raises(
        PredictionError, match=r"\(--max-bad-fraction\).* all are in .*/j\.failed/dead_letters: mend"
    ):
        batch.run(failing)
    (kept,) = Path(failing.output).iterdir()
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*")) == [
        "dead_letters",
        "dead_letters/part-00000-of-00001.jsonl",
        "summary.json",
    ]
    lines = (kept / "dead_letters" / "part-00000-of-00001.jsonl").read_text().splitlines()
    assert {json.loads(line)["header"] for line in lines} == {Path(days).read_text().splitlines()[0]}
    batch.run(job(inputs=(days,), job_id="j", max_bad_fraction=1))
    assert [path.name for path in Path(failing.output).iterdir()] == ["j"], "what succeeded needs no excuse"


def test_why_a_job_failed_is_told_also_where_its_dead_letters_cannot_be_kept(job, days, tmp_path):
    (tmp_path / "out" / "j.failed").mkdir(parents=True)
    (tmp_path / "out" / "j.failed" / "notes.txt").write_text("mine")
    with pytest.raises(PredictionError) as raised:
        batch.run(job(inputs=(days,), job_id="j", max_bad_fraction=0.1))
    told = str(raised.value)
    assert "2 of 5 rows got no prediction" in told
    assert "mend the input, or raise the bound (they could not be kept: " in told
    assert "j.failed: is there and is not what is kept of a failed job, so it is not replaced" in told


def test_rows_that_a_service_refuses_become_dead_letters(job, days):
    class Service:
        def answer(self, examples):
            import numpy as np

            return Answer(np.full((len(examples), 2), 0.5), {0: "the service answered 400"})

    done = job(inputs=(days,), max_bad_fraction=1, reach=lambda pushed: Service())
    summary = batch.run(done)
    assert (summary.predicted, summary.dead_letters) == (2, 3)
    assert "the service answered 400" in [letter["reason"] for letter in dead_letters(done)]


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_a_column_to_carry_that_is_nowhere_fails_the_job_by_name(job, tmp_path, format_):
    """It would be NULL in every row, without a word."""
    pa_rows = pa.table({"day": ["a"], "humidity": [1.0], "note": ["x"]})
    file = _written(pa_rows, tmp_path, format_)
    with pytest.raises(
        PredictionError, match=rf"rows\.{format_}: there is no column 'note_', which is to be"
    ):
        batch.run(job(inputs=(file,), carry=("note_",)))
    done = job(inputs=(file,), carry=("note",))
    assert batch.run(done).predicted == 1
    assert rows(done)[0]["note"] == "x"


@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_column_to_carry_that_the_schema_has_has_to_be_in_a_header(job, tmp_path, format_):
    file = _written(pa.table({"day": ["a"], "humidity": [1.0]}), tmp_path, format_)
    with pytest.raises(PredictionError) as raised:
        batch.run(job(inputs=(file,), carry=("day", "humidity", "hour")))
    assert "there is no column 'hour', which is to be carried; of those asked" in str(raised.value)


def test_a_column_to_carry_that_the_schema_has_no_row_without_a_header_needs(job, tmp_path):
    done = job(
        inputs=(_written(pa.table({"day": ["a"], "humidity": [1.0]}), tmp_path, "jsonl"),), carry=("hour",)
    )
    batch.run(done)
    assert rows(done)[0]["hour"] is None


@pytest.mark.parametrize("rest", ['"tags": {"note": 5}', '"place": "note"', '"place": "a \\"note\\": b"'])
def test_a_name_inside_of_a_json_value_is_no_column(job, tmp_path, rest):
    (tmp_path / "a.jsonl").write_text('{"day": "a", "humidity": 1, ' + rest + "}\n")
    with pytest.raises(PredictionError, match="there is no column 'note', which is to be carried"):
        batch.run(job(inputs=(str(tmp_path / "a.jsonl"),), carry=("note",)))


def test_a_name_may_be_escaped_where_its_value_is_null(job, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"day": "a", "humidity": 1, "n\\u006fte": null}\n')
    assert batch.run(job(inputs=(str(tmp_path / "a.jsonl"),), carry=("note",))).predicted == 1


def test_what_is_carried_may_begin_after_the_first_rows_and_a_broken_record(job, tmp_path):
    first = to_examples(pa.RecordBatch.from_pydict({"day": ["a"], "humidity": pa.array([1.0], pa.float32())}))
    later = to_examples(
        pa.RecordBatch.from_pydict(
            {"day": ["b"] * 6, "humidity": pa.array([1.0] * 6, pa.float32()), "note": ["x"] * 6}
        )
    )
    records = pa.array([*first.to_pylist(), b"\xffgarbage", *later.to_pylist()], pa.binary())
    (tmp_path / "a.tfrecord").write_bytes(to_frames(records))
    done = job(inputs=(str(tmp_path / "a.tfrecord"),), carry=("note",))
    summary = batch.run(done)
    assert (summary.predicted, summary.dead_letters) == (7, 1)
    assert sorted(row["note"] or "" for row in rows(done)) == ["", *["x"] * 6]


def test_examples_of_another_type_than_the_features_are_scored_where_nothing_is_lost(job, tmp_path):
    whole, halves = (
        to_examples(pa.RecordBatch.from_pydict({"day": ["a"], "humidity": humidity, "gusts": gusts}))
        for humidity, gusts in (
            (pa.array([40]), pa.array([3.0], pa.float32())),
            (pa.array([40.0], pa.float32()), pa.array([2.5], pa.float32())),
        )
    )
    records = pa.array([*whole.to_pylist(), *halves.to_pylist()], pa.binary())
    (tmp_path / "a.tfrecord").write_bytes(to_frames(records))
    done = job(inputs=(str(tmp_path / "a.tfrecord"),), max_bad_fraction=1)
    batch.run(done)
    assert [row["probability_wet_day"] for row in rows(done)] == pytest.approx([chance(40, 3)], abs=1e-6)
    assert [letter["reason"] for letter in dead_letters(done)] == ["gusts is 2.5, not a whole number"]


def test_a_json_null_is_a_column_that_is_there(job, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"day": "a", "humidity": 1, "note": null}\n')
    done = job(inputs=(str(tmp_path / "a.jsonl"),), carry=("note",))
    assert batch.run(done).sources[0].absent == ("gusts", "place")
    assert rows(done)[0]["note"] is None


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_features_that_a_file_lacks_stand_in_the_summary(job, tmp_path, format_):
    file = _written(pa.table({"day": ["a"], "humidity": [1.0], "Gusts": [3]}), tmp_path, format_)
    done = job(inputs=(file,))
    batch.run(done)
    summary = json.loads((Path(done.output) / done.name / "summary.json").read_text())
    assert [source["absent"] for source in summary["sources"]] == [["gusts", "place"]]


def test_a_feature_that_only_later_json_rows_have_is_not_absent(job, tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"day": "a", "humidity": 1}\n' * 3 + '{"day": "b", "humidity": 1, "gusts": 1}\n'
    )
    summary = batch.run(job(inputs=(str(tmp_path / "a.jsonl"),), batch_rows=2))
    assert summary.sources[0].absent == ("place",)


def test_processes_may_share_copies_of_the_model(job, days):
    done = job(inputs=(days,), model_copies=1)
    assert batch.run(done).predicted == 3
    assert [row["probability_wet_day"] for row in rows(done)] == pytest.approx(
        [chance(40, 3), chance(80.5), chance(99, 1)], abs=1e-6
    )
    handler = ScoringHandler(done.model, model_copies=2)
    assert (handler.share_model_across_processes(), handler.model_copies()) == (True, 2)
    assert not ScoringHandler(done.model).share_model_across_processes()


def _written(table, folder, format_):
    path = folder / f"rows.{format_}"
    sink = RowsFormat(format_, table.schema)
    with path.open("wb") as file:
        opened = sink.sink(file)
        for part in table.to_batches():
            opened.write(part)
        opened.close()
    return str(path)


def test_the_name_of_a_job_follows_from_model_and_input(job, days):
    assert job(inputs=(days,)).name == job(inputs=(days,)).name
    assert job(inputs=(days,)).name != job(inputs=(days,), carry=("place",)).name
    queried = [job(inputs=(file,), fingerprint="f").name for file in ("/tmp/1", "/tmp/2")]
    assert queried[0] == queried[1] != job(inputs=("/tmp/1",), fingerprint="g").name
    assert queried[0] != job(inputs=("/tmp/1",), fingerprint="f", output_format="csv").name
