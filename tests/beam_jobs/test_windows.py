"""Records of windows of event time."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream

from beam_jobs.rows import DeadLetter
from beam_jobs.scored import Scored, ScoredDeadLetter, ScoredRow
from beam_jobs.windows import StatisticsByWindow, Windows, added, lower_edge, record, split
from schemas.features import DType

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
WINDOWS = Windows(60.0, lateness_s=3600.0)


def row(name, seconds=0.0, score=0.5, x=1.0):
    time = NOW + timedelta(seconds=seconds)
    return ScoredRow(name, name, time, {"x": x}, {}, score, "yes" if score >= 0.5 else "no")


def batch(*rows, dead=(), version=1):
    letters = tuple(ScoredDeadLetter(DeadLetter("s", name, "why", b""), NOW) for name in dead)
    return Scored(version, ("x",), {"x": DType.FLOAT}, True, rows, letters)


def statistics(scored):
    return added(part.value[1] for part in split(scored, WINDOWS, keep_ids=True))


def test_a_record_counts_rows_missing_values_classes_and_scores():
    scored = batch(
        row("a", score=0.99), row("b", score=0.51, x=float("nan")), row("c", score=0.12, x=None), dead=["d"]
    )
    said = record("1", statistics(scored), 0.0, 60.0, is_late=False)
    assert (said["rows"], said["dead_letters"], said["late_rows"]) == (3, 1, 0)
    assert said["missing"] == {"x": 2}
    assert said["missing_rate"] == {"x": pytest.approx(2 / 3)}
    assert said["classes"] == {"no": 1, "yes": 2}
    assert said["scores"] == [[0.1, 1], [0.5, 1], [0.95, 1]]
    assert said["score_mean"] == pytest.approx(0.54)


def test_records_add_up_however_the_rows_were_cut_and_have_one_id():
    rows = [row(str(number), score=number / 10) for number in range(10)]
    whole = statistics(batch(*rows))
    parts = added([statistics(batch(*rows[7:])), statistics(batch(*rows[:7]))])
    assert record("1", whole, 0, 60, is_late=False) == record("1", parts, 0, 60, is_late=False)
    other = record("1", statistics(batch(*rows[:9])), 0, 60, is_late=False)
    assert other["id"] != record("1", whole, 0, 60, is_late=False)["id"]


def test_messages_too_old_or_of_the_future_count_where_they_come():
    scored = batch(row("old", seconds=-4000), row("future", seconds=4000), row("now"))
    parts = {part.value[1].misplaced: part for part in split(scored, WINDOWS, keep_ids=True)}
    assert set(parts[2].value[1].messages) == {"old", "future"}
    assert abs(float(parts[2].timestamp) - datetime.now(UTC).timestamp()) < 60
    assert parts[0].value[1].messages == ("now",)


@pytest.mark.parametrize(
    ("score", "is_probability", "edge"),
    [
        (0.0, True, 0.0),
        (1.0, True, 0.95),
        (0.05, True, 0.05),
        (5.0, False, 4.0),
        (-0.3, False, -0.25),
        (0, False, 0),
    ],
)
def test_a_score_is_in_the_bin_that_begins_at_or_below_it(score, is_probability, edge):
    assert lower_edge(score, is_probability) == edge


class Gathered:
    """A sink, and what confirms messages, in the process of the test."""

    records: ClassVar[list[Any]] = []
    confirmed: ClassVar[list[Any]] = []

    def write(self, rows):
        self.records.extend(rows)

    def __call__(self, ids, step):
        self.confirmed.extend(ids)


def test_a_window_is_written_when_the_watermark_passes_and_again_for_what_is_late():
    Gathered.records.clear()
    Gathered.confirmed.clear()
    start = NOW.timestamp()
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(start - 120)
        .add_elements([beam.window.TimestampedValue(batch(row("a"), row("b", 61), dead=["c"]), start)])
        .advance_watermark_to(start + 60)
        .add_elements([beam.window.TimestampedValue(batch(row("late", 30), version=2), start + 30)])
        .add_elements([beam.window.TimestampedValue(batch(row("e", 119)), start + 119)])
        .advance_watermark_to_infinity()
    )
    with beam.Pipeline(BundleBasedDirectRunner(), PipelineOptions(["--streaming"])) as pipeline:
        pipeline | stream | StatisticsByWindow(WINDOWS, Gathered(), Gathered())
    seen = [
        (
            round(datetime.fromisoformat(said["window_start"]).timestamp() - start),
            said["model_version"],
            *(said["rows"], said["dead_letters"], said["late_rows"]),
        )
        for said in Gathered.records
    ]
    assert sorted(seen) == [(0, 1, 1, 1, 0), (0, 2, 1, 0, 1), (60, 1, 2, 0, 0)]
    assert sorted(Gathered.confirmed) == ["a", "b", "c", "e", "late"]
