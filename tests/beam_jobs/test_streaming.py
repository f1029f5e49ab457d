"""A streaming job on Google's Pub/Sub emulator, in a process of its own that is killed in the middle."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.beam_jobs.pubsub_emulator import Mailbox, until
from tests.beam_jobs.pushed_model import chance, push

# The story takes a minute, and several where the machine is busy.
pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
ROWS = 300
WEIGHTS = {1: 1.0, 2: 3.0}
POISON = {
    b"{": "the text is no JSON",
    b"\xff\xfe": "not UTF-8",
    b"[1]": "no JSON object",
    b'{"day": "p0", "day": "p0"}': "names 'day' twice",
    b'{"day": "p1"}': "misses humidity",
    b'{"day": "p2", "humidity": "wet"}': "humidity is 'wet'",
    b'{"day": "\\ud800", "humidity": 1}': "day is '\\ud800', not text",
    b'{"day": "p4", "humidity": ' + b"[" * 990 + b"]" * 990 + b"}": "nested more than 64 deep",
    b"[" * 100_000: "nested more than 64 deep",
    b'{"day": "p5", "note": "' + b"x" * 5_000_000 + b'"}': "bytes long, more than 1048576",
}
POISONOUS_TIMES = {
    b'{"day": "p6", "humidity": 1}': "yesterday",
    b'{"day": "p7"}': "0001-01-01T00:00:00+23:00",
}


@dataclass
class Story:
    """What was done to the job, and what was found at each stage."""

    table: Path
    spans: Path
    statistics: Mailbox
    dead_letters: Mailbox
    log: Path
    rows_at_kill: int = 0
    after_kill: list[dict[str, Any]] = field(default_factory=list)
    after_replay: list[dict[str, Any]] = field(default_factory=list)
    swapped: list[dict[str, Any]] = field(default_factory=list)
    after_refusal: list[dict[str, Any]] = field(default_factory=list)
    scored_messages: int = 0

    def predictions(self, like="%"):
        if not self.table.exists():
            return []
        with closing(sqlite3.connect(self.table, timeout=30)) as connection:
            try:
                connection.row_factory = sqlite3.Row
                query = "SELECT * FROM predictions WHERE day LIKE ? ORDER BY prediction_id"
                return [dict(row) for row in connection.execute(query, [like])]
            except sqlite3.OperationalError:
                return []  # The table is made with the first rows.

    def windows(self):
        """Each record once: one that was published again has its id again."""
        return list(
            {attributes["id"]: json.loads(data) for data, attributes in self.statistics.messages}.values()
        )


class Job:
    """`headworks stream` in a process of its own."""

    def __init__(self, log, *arguments):
        code = "import logging; logging.basicConfig(level='INFO'); from cli.stream import stream; stream()"
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = log

    def until(self, true, seconds=90):
        try:
            until(lambda: true() or self._process.poll() is not None, seconds)
        except TimeoutError as error:
            raise AssertionError(f"not so after {seconds} s: {self._log.read_text()[-3000:]}") from error
        assert self._process.poll() is None, self._log.read_text()[-3000:]

    def end(self, number):
        self._process.send_signal(number)
        self._process.wait(30)

    def clear_away(self):
        self._process.kill()
        self._process.wait(30)


@pytest.fixture(scope="module")
def start():
    """Starts jobs, and leaves none running where the story breaks off."""
    jobs = []

    def start(*arguments):
        jobs.append(Job(*arguments))
        return jobs[-1]

    yield start
    for job in jobs:
        job.clear_away()


@pytest.fixture(scope="module")
def story(pubsub, tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("stream")
    serving = folder / "serving"
    push(serving, 1, weight=WEIGHTS[1])
    topic, subscription = pubsub.topic("events")
    statistics_topic, statistics = pubsub.topic("statistics")
    dead_topic, dead = pubsub.topic("dead-letters")
    told = Story(folder / "out.db", folder / "spans", Mailbox(statistics), Mailbox(dead), folder / "job.log")
    arguments = [
        *(str(serving), "--from", subscription, "--to", f"sqlite:///{told.table}"),
        *("--dead-letters", dead_topic, "--statistics", statistics_topic, "--window", "2"),
        *("--land", f"{told.spans}/{{SPAN}}", "--land-every", "2", "--time-attribute", "at"),
        *("--batch-rows", "10", "--watch", "0.2", "--delay", "1"),
    ]
    publisher = pubsub.publisher

    def publish(rows):
        futures = [publisher.publish(topic, json.dumps(row).encode(), at=at) for row, at in rows]
        told.scored_messages += len(futures)
        for future in futures:
            future.result()

    # A job is killed in the middle of its work, with rows yet to come, and started again. It has written no record of a
    # window by then (--delay): one whose messages come again after it was written counts them twice, perhaps.
    first: list[tuple[dict[str, Any], str]] = []

    def publish_next(count):
        rows = [{"day": f"a{n}", "humidity": n, "place": None} for n in range(len(first), len(first) + count)]
        first.extend((row, _now()) for row in rows)
        publish(first[-count:])

    def is_in_the_middle():
        if len(first) < ROWS - 50:
            publish_next(1)
        return len(told.predictions()) >= 30

    job = start(told.log, *arguments, "--delay", "600")
    job.until(lambda: "is scored by" in told.log.read_text(), 180)
    job.until(is_in_the_middle)
    job.end(signal.SIGKILL)
    told.rows_at_kill = len(told.predictions())
    job = start(told.log, *arguments)
    publish_next(ROWS - len(first))
    job.until(lambda: len(told.predictions()) == ROWS, 180)
    told.after_kill = told.predictions()
    job.until(lambda: _counted(told) == ROWS)
    # The whole input comes a second time, with poison in it.
    for data in POISON:
        publisher.publish(topic, data).result()
    for data, at in POISONOUS_TIMES.items():
        publisher.publish(topic, data, at=at).result()
    publish(first)
    job.until(lambda: _counted(told) == ROWS * 2)
    told.after_replay = told.predictions()
    # A new version is pushed while rows come, and then one that is damaged.
    for number in range(40):
        if number == 10:
            push(serving, 2, weight=WEIGHTS[2])
        publish([({"day": f"b{number}.{n}", "humidity": n}, _now()) for n in range(10)])
        time.sleep(0.05)
    job.until(lambda: len(told.predictions("b%")) == 400)
    job.until(lambda: "version 2 takes over" in told.log.read_text())
    publish([({"day": f"c{n}", "humidity": n}, _now()) for n in range(20)])
    job.until(lambda: len(told.predictions("c%")) == 20)
    told.swapped = told.predictions("b%") + told.predictions("c%")
    _push_damaged(serving, 3)
    job.until(lambda: "version 3 is refused" in told.log.read_text())
    # A column that the model does not look at holds what none of its type can be.
    publish([({"day": f"d{n}", "humidity": n, "hour": 10**30}, _now()) for n in range(20)])
    job.until(lambda: len(told.predictions("d%")) == 20)
    told.after_refusal = told.predictions("d%")
    job.until(lambda: _counted(told) == told.scored_messages)
    job.until(lambda: len(told.dead_letters.messages) >= len(POISON) + len(POISONOUS_TIMES))
    job.end(signal.SIGTERM)
    told.statistics.close()
    told.dead_letters.close()
    return told


def _now():
    return str(round(time.time() * 1000))


def _counted(told):
    return sum(window["rows"] for window in told.windows())


def _push_damaged(serving, version):
    folder = push(serving.parent / "elsewhere", version)
    (folder / "saved_model.pb").write_bytes(b"cut short")
    folder.rename(serving / str(version))


def test_a_job_that_is_killed_and_started_again_loses_and_doubles_nothing(story):
    assert 0 < story.rows_at_kill < ROWS
    assert {row["day"] for row in story.after_kill} == {f"a{n}" for n in range(ROWS)}
    assert len(story.after_kill) == ROWS


def test_the_whole_input_once_more_leaves_the_table_as_it_is(story):
    assert story.after_replay == story.after_kill


def test_every_row_is_what_its_model_says_of_it(story):
    for row in story.after_kill:
        assert row["probability_wet_day"] == pytest.approx(chance(int(row["day"][1:]), weight=WEIGHTS[1]))
        assert (row["model_version"], row["run_id"]) == (1, "run-1")


def test_a_new_version_takes_over_without_a_lost_doubled_or_mixed_row(story):
    assert len({row["day"] for row in story.swapped}) == len(story.swapped) == 420
    assert {row["model_version"] for row in story.swapped} == {1, 2}
    assert {row["model_version"] for row in story.swapped if row["day"].startswith("c")} == {2}
    for row in story.swapped:
        humidity = int(row["day"].split(".")[-1].removeprefix("c"))
        said = chance(humidity, weight=WEIGHTS[row["model_version"]])
        assert row["probability_wet_day"] == pytest.approx(said)
        assert row["run_id"] == f"run-{row['model_version']}"


def test_a_damaged_version_is_refused_and_the_old_one_goes_on_answering(story):
    assert {row["model_version"] for row in story.after_refusal} == {2}
    assert "saved_model.pb missing or not what was pushed" in story.log.read_text()


def test_poison_goes_to_the_dead_letters_with_its_reason_and_as_it_came(story):
    letters = dict(story.dead_letters.messages)
    assert letters.keys() == POISON.keys() | POISONOUS_TIMES.keys()
    for data, reason in POISON.items():
        assert reason in letters[data]["reason"]
        assert letters[data]["position"]
    for data, at in POISONOUS_TIMES.items():
        assert f"attribute at is '{at}'" in letters[data]["reason"]


def test_the_windows_add_up_to_the_messages_where_no_record_was_written_at_the_kill(story):
    windows = story.windows()
    assert sum(window["rows"] for window in windows) == story.scored_messages
    assert sum(window["dead_letters"] for window in windows) == len(POISON) + len(POISONOUS_TIMES)
    for window in windows:
        assert sum(count for _, count in window["scores"]) == window["rows"]
        assert sum(window["classes"].values()) == window["rows"]
        assert window["missing"]["place"] == window["rows"]
    by_version: Counter[int] = Counter()
    for window in windows:
        by_version[window["model_version"]] += window["rows"]
    assert by_version[2] >= 40


def test_a_replay_is_late_in_windows_that_are_closed(story):
    assert sum(window["late_rows"] for window in story.windows()) >= ROWS


def test_every_event_is_landed_once_in_the_span_of_its_time(story):
    from ingest.locations import available_spans

    location = f"{story.spans}/{{SPAN}}/events.parquet"
    spans = available_spans([location], Path("/"))
    landed = [row for span in spans for row in _landed(story, span)]
    assert Counter(row["day"] for row in landed) == Counter(row["day"] for row in story.predictions())
    assert {row["hour"] for row in landed} == {None}
    for span in spans:
        times = [row["event_time"].timestamp() for row in _landed(story, span)]
        assert {time // 2 for time in times} == {span}


def _landed(story, span):
    return pq.read_table(story.spans / str(span) / "events.parquet").to_pylist()
