"""What went through a streaming job, by window of event time: counts, missing values, scores.

Records add up: a window gives one record a model version when the watermark has passed its end, and one for each batch
of rows that comes later; the sum of them counts every message at least once. A record's id is made of the messages that
it counts, so that one which is written again with the same messages has its id again and readers can leave it out. A
job that is killed after it has written a record and before it has said so gets the messages anew, and other ones with
them perhaps: that record then has another id, and those messages count twice. Messages that Dataflow tries again may
be grouped otherwise, too. Predictions are the exact account, records are for watching.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
from apache_beam.transforms import trigger
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.windowed_value import PaneInfoTiming

from beam_jobs.row_sinks import RowSink
from beam_jobs.scored import Confirm, Scored, ScoredDeadLetter, ScoredRow

_LOG = logging.getLogger(__name__)
STEP = "statistics"
_PROBABILITY_BINS = 20
_FINGERPRINTS = 1 << 64
LATENESS_S = 7 * 24 * 3600.0
_AHEAD_S = 300.0
"""How far clocks of publishers may be ahead."""


@dataclass(frozen=True)
class WindowStatistics:
    """What some messages of a window add to it.

    Attributes:
      rows: predictions.
      dead_letters: messages without one.
      misplaced: messages whose own window is not waited for; counted in the one in which they came.
      missing: by feature, rows without a value.
      classes: by predicted class, rows.
      scores: by lower edge of a bin, rows.
      score_sum: of all scores.
      fingerprint: sum of hashes of the messages' ids.
      messages: their ids, where they have to be acknowledged.
    """

    rows: int = 0
    dead_letters: int = 0
    misplaced: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[float, int] = field(default_factory=dict)
    score_sum: float = 0.0
    fingerprint: int = 0
    messages: tuple[str, ...] = ()


def added(parts: Iterable[WindowStatistics]) -> WindowStatistics:
    """The sum."""
    parts = list(parts)
    return WindowStatistics(
        rows=sum(part.rows for part in parts),
        dead_letters=sum(part.dead_letters for part in parts),
        misplaced=sum(part.misplaced for part in parts),
        missing=_summed(part.missing for part in parts),
        classes=_summed(part.classes for part in parts),
        scores=_summed(part.scores for part in parts),
        score_sum=math.fsum(part.score_sum for part in parts),
        fingerprint=sum(part.fingerprint for part in parts) % _FINGERPRINTS,
        messages=tuple(name for part in parts for name in part.messages),
    )


def _summed(counts: Iterable[Mapping[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


@dataclass(frozen=True)
class Windows:
    """Windows of event time.

    Attributes:
      size_s: length of a window.
      lateness_s: how old a message may be and still count in its own window; an older one counts in the window in
        which it comes, so that none is dropped. So does one that says it is of the future, whose window would not end.
    """

    size_s: float
    lateness_s: float = LATENESS_S

    def place(self, time: datetime, now: datetime) -> tuple[float, bool]:
        """Start of the window that a message of that time counts in, and whether that is not its own."""
        age_s = (now - time).total_seconds()
        is_misplaced = not -_AHEAD_S <= age_s <= self.lateness_s
        seconds = (now if is_misplaced else time).timestamp()
        return seconds // self.size_s * self.size_s, is_misplaced

    def into(self) -> beam.WindowInto:
        """Beam's transform: on time when the watermark passes, and again for whatever comes late."""
        return beam.WindowInto(
            FixedWindows(self.size_s),
            trigger=trigger.AfterWatermark(late=trigger.AfterCount(1)),
            accumulation_mode=trigger.AccumulationMode.DISCARDING,
            allowed_lateness=self.lateness_s,
        )


class StatisticsByWindow(beam.PTransform):
    """Written batches to one record a window, version and firing."""

    def __init__(self, windows: Windows, sink: RowSink, confirm: Confirm | None) -> None:
        super().__init__()
        self._windows = windows
        self._sink = sink
        self._confirm = confirm

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return (
            batches
            | "Split" >> beam.FlatMap(split, self._windows, keep_ids=self._confirm is not None)
            | "Window" >> self._windows.into()
            | "Add" >> beam.CombinePerKey(added)
            | "Write" >> beam.ParDo(_WriteRecords(self._sink, self._confirm))
        )


@dataclass(frozen=True)
class Share:
    """What of a batch counts in one window.

    Attributes:
      members: what became of each message.
      is_misplaced: whether it is not their own window.
      time: event time of the oldest, in seconds since 1970; of misplaced ones, when they came.
    """

    members: Sequence[ScoredRow | ScoredDeadLetter]
    is_misplaced: bool
    time: float

    @property
    def rows(self) -> list[ScoredRow]:
        """Those with a prediction."""
        return [member for member in self.members if isinstance(member, ScoredRow)]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of their messages."""
        return tuple(member.message_id for member in self.members)


def shares(batch: Scored, windows: Windows) -> Iterator[Share]:
    """A batch by window."""
    now = datetime.now(UTC)
    members: dict[tuple[float, bool], list[ScoredRow | ScoredDeadLetter]] = {}
    for member in batch.members:
        members.setdefault(windows.place(member.time, now), []).append(member)
    for (start, is_misplaced), some in members.items():
        oldest = now if is_misplaced else min(member.time for member in some)
        yield Share(some, is_misplaced, max(start, oldest.timestamp()))


def split(batch: Scored, windows: Windows, *, keep_ids: bool) -> Iterator[TimestampedValue]:
    """A batch's statistics by window, each at the event time of the oldest message in it."""
    for share in shares(batch, windows):
        rows, count = share.rows, len(share.members)
        statistics = replace(
            _of_rows(rows, batch),
            dead_letters=count - len(rows),
            misplaced=count if share.is_misplaced else 0,
            fingerprint=sum(map(_hash, share.ids)) % _FINGERPRINTS,
            messages=share.ids if keep_ids else (),
        )
        yield TimestampedValue((str(batch.version), statistics), share.time)


def _of_rows(rows: Sequence[ScoredRow], batch: Scored) -> WindowStatistics:
    return WindowStatistics(
        rows=len(rows),
        missing={name: sum(_is_missing(row.inputs.get(name)) for row in rows) for name in batch.features},
        classes=dict(Counter(row.predicted_class for row in rows if row.predicted_class is not None)),
        scores=dict(Counter(lower_edge(row.score, batch.has_probabilities) for row in rows)),
        score_sum=math.fsum(row.score for row in rows),
    )


def lower_edge(score: float, is_probability: bool) -> float:
    """Lower edge of a score's bin: a twentieth for probabilities, else a power of two with the score's sign."""
    if is_probability:
        return min(math.floor(score * _PROBABILITY_BINS), _PROBABILITY_BINS - 1) / _PROBABILITY_BINS
    if score == 0:
        return 0.0
    return math.copysign(2.0 ** (math.frexp(score)[1] - 1), score)


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class _WriteRecords(beam.DoFn):
    def __init__(self, sink: RowSink, confirm: Confirm | None) -> None:
        self._sink = sink
        self._confirm = confirm

    def process(
        self,
        element: tuple[str, WindowStatistics],
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> None:
        version, statistics = element
        is_late = pane.timing == PaneInfoTiming.LATE
        written = record(version, statistics, float(window.start), float(window.end), is_late)
        self._sink.write([written])
        _LOG.info(
            "window from %s to %s, version %s: %d rows, %d dead letters, %d late",
            *(written["window_start"], written["window_end"], version),
            *(written["rows"], written["dead_letters"], written["late_rows"]),
        )
        if self._confirm:
            self._confirm(statistics.messages, STEP)


def record(
    version: str, statistics: WindowStatistics, start: float, end: float, is_late: bool
) -> dict[str, Any]:
    """A window's statistics as they are written."""
    messages = statistics.rows + statistics.dead_letters
    named = f"{start}/{end}/{version}/{statistics.fingerprint}"
    return {
        "id": hashlib.sha256(named.encode()).hexdigest()[:32],
        "window_start": datetime.fromtimestamp(start, UTC).isoformat(),
        "window_end": datetime.fromtimestamp(end, UTC).isoformat(),
        "model_version": int(version),
        "rows": statistics.rows,
        "dead_letters": statistics.dead_letters,
        "late_rows": messages if is_late else statistics.misplaced,
        "missing": dict(sorted(statistics.missing.items())),
        "missing_rate": {
            name: count / statistics.rows if statistics.rows else None
            for name, count in sorted(statistics.missing.items())
        },
        "classes": dict(sorted(statistics.classes.items())),
        "scores": _histogram(statistics.scores),
        "score_mean": statistics.score_sum / statistics.rows if statistics.rows else None,
    }


def _histogram(scores: Mapping[float, int]) -> list[Sequence[float]]:
    return [[edge, count] for edge, count in sorted(scores.items())]
