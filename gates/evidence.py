"""What the gates measured, as numbers: written beside their verdicts, read by the report.

Every class is plain data that `write` and `read` carry through JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

FILE = "evidence.json"


@dataclass(frozen=True)
class ColumnFigures:
    """One column as the data gate saw it; shares are 0 to 1, None is what could not be measured.

    Attributes:
      column: its name.
      missing: share of missing values by split.
      drift: distance from train, by what is compared with it: `validation`, `test`, `previous`.
      measure: of the distance: `L-infinity` or `Jensen-Shannon`.
      bound: of the distance.
      new_values: share of values that train lacks, by split.
      auc: of the column alone, on train (R squared for regression).
      gain: what a model of all columns loses without it.
    """

    column: str
    missing: Mapping[str, float]
    drift: Mapping[str, float]
    measure: str
    new_values: Mapping[str, float]
    auc: float | None = None
    gain: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class DataEvidence:
    """What the data gate measured.

    Attributes:
      rows: by split.
      previous_rows: by split, of the data accepted before; empty on the first run.
      columns: one entry a feature.
    """

    rows: Mapping[str, int]
    previous_rows: Mapping[str, int]
    columns: tuple[ColumnFigures, ...]


@dataclass(frozen=True)
class Estimate:
    """A metric of one model on some rows with its interval.

    Attributes:
      subject: `model`, `champion`, or the name of a baseline.
      metric: its name.
      rows: how many it was measured on.
      slice: which; empty for all rows.
      is_judged: whether a bound was held against it.
    """

    subject: str
    metric: str
    value: float
    low: float
    high: float
    rows: int
    slice: str = ""
    is_judged: bool = True


@dataclass(frozen=True)
class Curve:
    """Points of a line, at most some hundreds.

    Attributes:
      subject: `model`, `champion`, or the name of a baseline.
      x: ascending.
      y: as many.
    """

    subject: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar score: mean score, share of positives (or mean of the target), and how many."""

    predicted: float
    observed: float
    rows: int


@dataclass(frozen=True)
class Confusion:
    """Right and wrong answers at a threshold of the positive class, and the mean cost of a row."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    cost: float


@dataclass(frozen=True)
class Importance:
    """What the metric loses when a column is shuffled among the rows (Breiman, 2001), with the spread of repeats."""

    column: str
    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class WrongRow:
    """A row on which the model was confidently wrong; `values` as text."""

    values: Mapping[str, str]
    truth: str
    answer: str
    score: float


@dataclass(frozen=True)
class BehaviourResult:
    """What a behavioural test found; `failing` are at most some rows, as text, that broke it."""

    name: str
    kind: str
    passed: bool
    figure: str
    failing: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Gap:
    """A metric by group, at the chosen threshold."""

    column: str
    metric: str
    by_group: Mapping[str, float]
    rows: Mapping[str, int]


@dataclass(frozen=True)
class MeanResidual:
    """The mean of truth minus answer on some rows: of a class, how much more often it happens than is answered.

    Attributes:
      rows: how many.
      mean: of their residuals.
      low: lower end of its interval; None where too few rows are there for one.
      high: upper end.
    """

    rows: int
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ResidualBin:
    """Rows of one range of a number, or of one value, of a column.

    Attributes:
      name: the range or the value.
      residual: on the split that is looked at.
      earlier: on the split that it is compared with; None where it has no such row, and in bins of time.
      p_value: that the true mean is zero, corrected for the number of bins; None where too few rows are there.
      is_away: whether it is not zero, beyond what chance explains.
      change: how much more it has moved between the splits than the other bins; None where that is not known.
      split: of the rows; in bins of time the earlier split has bins of its own.
    """

    name: str
    residual: MeanResidual
    earlier: MeanResidual | None
    p_value: float | None
    is_away: bool
    change: float | None
    split: str


@dataclass(frozen=True)
class ColumnResiduals:
    """Residuals by the values of one column.

    Attributes:
      column: its name.
      answer: the class that is looked at; empty for regression.
      bins: numbers ascending, words by frequency, then other values and missing ones.
      change: how far bins have moved apart between the splits, in units of the residual; None where that is not known.
      p_value: that they have not, corrected for the number of columns.
      has_changed: whether they have, beyond what chance explains: the column tells of the label otherwise than before.
    """

    column: str
    answer: str
    bins: tuple[ResidualBin, ...]
    change: float | None
    p_value: float | None
    has_changed: bool


@dataclass(frozen=True)
class AnswerResiduals:
    """Residuals of one class (or of the number that is predicted).

    Attributes:
      answer: the class; empty for regression.
      all_rows: of the split that is looked at.
      earlier: all rows of the split that it is compared with, if there is one.
      over_time: bins of equally many rows in the order of time, the earlier split's first; empty without a time.
    """

    answer: str
    all_rows: MeanResidual
    earlier: MeanResidual | None
    over_time: tuple[ResidualBin, ...]


@dataclass(frozen=True)
class Residuals:
    """Truth minus answer over time and over the values of every column.

    Attributes:
      label: name of the label.
      split: that is looked at.
      earlier_split: that it is compared with; None where there is none.
      level: of the intervals; 1 minus it is the share of false finds that is put up with.
      time: the column that orders the rows, if there is one.
      answers: one entry a class that is looked at.
      columns: those that have changed first, then by how far their worst bin is away from zero.
    """

    label: str
    split: str
    earlier_split: str | None
    level: float
    time: str | None
    answers: tuple[AnswerResiduals, ...]
    columns: tuple[ColumnResiduals, ...]


@dataclass(frozen=True)
class ModelEvidence:
    """What the model gate measured on the test split.

    Attributes:
      kind: of the label.
      classes: in the order of the scores, the positive one last; empty for regression.
      rows: of the test split that were looked at.
      estimates: of model, champion and baselines on all rows, and of the model on slices.
      roc: false against true positive rate; binary only.
      precision_recall: recall against precision; binary only.
      calibration: by score.
      calibration_error: expected (ECE); None for regression.
      confusion: over a range of thresholds; binary only.
      threshold: chosen by cost on the validation split; binary only.
      confusion_matrix: rows by true class and answered class, for several classes.
      importance: by column, the largest first.
      wrong: the most confident first.
      behaviour: one a configured test.
      fairness: one a configured gap.
      residuals: over time and by column; None where the split lacks what they need.
    """

    kind: str
    classes: tuple[str, ...]
    rows: int
    estimates: tuple[Estimate, ...]
    roc: tuple[Curve, ...] = ()
    precision_recall: tuple[Curve, ...] = ()
    calibration: tuple[CalibrationBin, ...] = ()
    calibration_error: float | None = None
    confusion: tuple[Confusion, ...] = ()
    threshold: float | None = None
    confusion_matrix: tuple[tuple[int, ...], ...] = ()
    importance: tuple[Importance, ...] = ()
    wrong: tuple[WrongRow, ...] = ()
    behaviour: tuple[BehaviourResult, ...] = ()
    fairness: tuple[Gap, ...] = ()
    residuals: Residuals | None = None


@dataclass(frozen=True)
class SignatureFigures:
    """One signature of the exported model in a fresh process.

    Attributes:
      name: of the signature.
      max_difference: from the network in memory; None where the signature gives no scores.
      single_p50_milliseconds: for one row.
      single_p99_milliseconds: for one row.
      batch_rows_per_second: in batches of the check's rows.
    """

    name: str
    max_difference: float | None
    single_p50_milliseconds: float
    single_p99_milliseconds: float
    batch_rows_per_second: float


@dataclass(frozen=True)
class ServingEvidence:
    """What the serving check measured: bytes of the exported model, seconds to load it, and its signatures."""

    model_bytes: int
    load_seconds: float
    signatures: tuple[SignatureFigures, ...]


@dataclass(frozen=True)
class DeviceFigures:
    """A device model that answered in a fresh process.

    Attributes:
      name: of the variant: treatment and number format.
      bytes: of the file.
      compressed_bytes: of the file as an app's package holds it (deflate).
      value: its metric.
      drop: how much worse than the server model's metric on the same rows; of a loss, as a share of it.
      low: lower end of the drop's interval.
      high: upper end.
      max_difference: largest difference of a score from the server model's; of predictions, as a share of the largest.
      mean_difference: mean of the same.
      flips: rows that it decides otherwise than the server model; None for regression.
      cold_start_milliseconds: from opening the file to the first answer.
      p50_milliseconds: for one row on one thread, preprocessing included; of several passes the shortest.
      p99_milliseconds: the same.
      memory_bytes: by which the process grew at most until its first answer.
      is_blessed: whether it is inside the budget.
      fault: why it is not; empty where it is.
    """

    name: str
    bytes: int
    compressed_bytes: int
    value: float
    drop: float
    low: float
    high: float
    max_difference: float
    mean_difference: float
    flips: int | None
    cold_start_milliseconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    memory_bytes: int
    is_blessed: bool
    fault: str = ""


@dataclass(frozen=True)
class DeviceEvidence:
    """What the device models of a pushed version are, beside that version.

    Attributes:
      metric: its name.
      value: the server model's.
      server_bytes: of its SavedModel.
      rows: of the test split that all of them answered.
      level: of the intervals.
      variants: those that ran, in the order of the configuration.
      failed: why the others did not, by name.
      recommended: name of the one to ship; None where none is blessed.
      reason: why that one.
    """

    metric: str
    value: float
    server_bytes: int
    rows: int
    level: float
    variants: tuple[DeviceFigures, ...]
    failed: Mapping[str, str]
    recommended: str | None
    reason: str


_Evidence = TypeVar("_Evidence", DataEvidence, ModelEvidence, ServingEvidence, DeviceEvidence)


def write(evidence: DataEvidence | ModelEvidence | ServingEvidence | DeviceEvidence, folder: Path) -> None:
    """Writes `evidence.json` into an existing folder."""
    with (folder / FILE).open("wb") as file:
        file.write(TypeAdapter(type(evidence)).dump_json(evidence, indent=1))
        file.flush()
        os.fsync(file.fileno())


def read(kind: type[_Evidence], folder: Path) -> _Evidence:
    """Reads what `write` wrote.

    Raises:
      FileNotFoundError: if there is none.
      pydantic.ValidationError: if it is not of that kind.
    """
    return TypeAdapter(kind).validate_json((folder / FILE).read_bytes())
