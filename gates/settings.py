"""The settings of the gates: plain values, checked when they are read."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", strict=True)


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("say something")
    return text


def _as_date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a date such as 2026-01-31") from error
    return text


Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, AfterValidator(_said)]

Severity = Literal["refused", "warned"]
"""An `Outcome` that a failed check may have."""


@dataclass(frozen=True, config=STRICT)
class Override:
    """`overrides`: a refusal that somebody answers for."""

    check: Annotated[
        Text, Field(description="Name of the check as the refusal says it; * stands for anything.")
    ]
    owner: Annotated[Text, Field(description="Who answers for it.")]
    reason: Annotated[Text, Field(description="Why it may pass.")]
    until: Annotated[
        Annotated[str, AfterValidator(_as_date)] | None,
        Field(description="Last day on which it counts; absent: always."),
    ] = None


@dataclass(frozen=True, config=STRICT)
class AnomalyRule:
    """`data_gate.rules`: what follows from anomalies of some kind, in some column. The first that fits counts."""

    action: Annotated[
        Literal["fail", "quarantine", "warn"],
        Field(description="Stop the run, set the rows aside, or only say so."),
    ]
    column: Annotated[Text, Field(description="Column, or * for all.")] = "*"
    kind: Annotated[Text, Field(description="TFDV's name of the anomaly, or * for all.")] = "*"


@dataclass(frozen=True, config=STRICT)
class DriftSettings:
    """`data_gate.drift`: how far the distribution of a column may move."""

    categorical: Annotated[
        Share, Field(description="Largest L-infinity distance: the largest change of a value's share.")
    ] = 0.1
    numeric: Annotated[Share, Field(description="Largest Jensen-Shannon divergence, base 2.")] = 0.1
    max_factor: Annotated[
        float,
        Field(
            gt=1.0,
            description="Largest factor by which the deciles of a numeric column may grow or shrink together, as they "
            "do where its unit changes.",
        ),
    ] = 1.4
    columns: Annotated[
        dict[str, Share], Field(description="Bounds of single columns, instead of the first two.")
    ] = Field(default_factory=dict)
    min_rows: Annotated[Count, Field(description="Fewer rows on either side are not judged.")] = 500
    between_splits: Annotated[
        Severity, Field(description="What follows where validation or test drift from train.")
    ] = "warned"
    from_previous: Annotated[
        Severity, Field(description="What follows where train drifts from the train split accepted before.")
    ] = "refused"


@dataclass(frozen=True, config=STRICT)
class LeakageSettings:
    """`data_gate.leakage`: columns that know the label, and rows that are in two splits."""

    max_auc: Annotated[
        Fraction,
        Field(description="AUC of all columns together, on train, above which they are searched for a leak."),
    ] = 0.85
    max_r_squared: Annotated[Fraction, Field(description="The same for regression.")] = 0.95
    max_gain: Annotated[
        Fraction,
        Field(description="Most AUC (or R squared) that a score above it may owe to a single column."),
    ] = 0.12
    max_shared_rows: Annotated[
        Fraction, Field(description="Largest share of a split's rows that an earlier split holds too.")
    ] = 0.01
    most_rows: Annotated[
        int, Field(ge=1000, description="Most rows of train that are looked at for leaks, evenly spread.")
    ] = 50_000


@dataclass(frozen=True, config=STRICT)
class DataGateSettings:
    """`data_gate`: what stops a run before it trains."""

    min_rows: Annotated[Count, Field(description="Fewest rows in each split.")] = 50
    rules: Annotated[
        tuple[AnomalyRule, ...],
        BeforeValidator(_listed),
        Field(description="What follows from an anomaly; what no rule names stops the run."),
    ] = ()
    max_quarantined: Annotated[
        Fraction, Field(description="Largest share of a split's rows that may be set aside.")
    ] = 0.01
    max_row_change: Annotated[
        float,
        Field(gt=0.0, description="Largest change of the number of rows against the data accepted before."),
    ] = 0.5
    max_new_values: Annotated[
        Fraction,
        Field(description="Largest share of a column's values in validation or test that train lacks."),
    ] = 0.1
    max_missing_change: Annotated[
        Fraction,
        Field(
            description="Largest change of a column's share of missing values against train, and of train against "
            "the train split accepted before."
        ),
    ] = 0.2
    drift: Annotated[DriftSettings, Field(description="Distributions.")] = Field(
        default_factory=DriftSettings
    )
    leakage: Annotated[LeakageSettings, Field(description="Leaks.")] = Field(default_factory=LeakageSettings)


Baseline = Literal["majority", "one_rule", "linear", "lightgbm"]


@dataclass(frozen=True, config=STRICT)
class SliceSettings:
    """`model_gate.slices`: no part of the data may be served much worse than the whole where it could be better."""

    min_rows: Annotated[Count, Field(description="Smaller slices are shown and not judged.")] = 500
    max_gap: Annotated[
        float,
        Field(
            gt=0.0,
            description="How much worse than on all rows a slice may be, beyond the interval: of the AUC, or as a "
            "share of the loss for several classes and for numbers. Refused where a naive model or the champion keeps "
            "within it on the slice; a slice that is hard for all is warned of.",
        ),
    ] = 0.15


@dataclass(frozen=True, config=STRICT)
class CostSettings:
    """`model_gate.costs`: what the two errors cost; the threshold of the positive class follows from them."""

    false_positive: Annotated[float, Field(gt=0.0, description="Cost of a false alarm.")] = 1.0
    false_negative: Annotated[float, Field(gt=0.0, description="Cost of a miss.")] = 1.0


@dataclass(frozen=True, config=STRICT)
class FairnessSettings:
    """`model_gate.fairness`: a gap between the slices of one column."""

    column: Annotated[Text, Field(description="Column whose values are the groups.")]
    max_gap: Annotated[Share, Field(description="Largest difference between two groups.")]
    metric: Annotated[
        Literal["selection_rate", "true_positive_rate", "false_positive_rate"],
        Field(description="What is compared, at the threshold of `model_gate.costs`."),
    ] = "true_positive_rate"
    groups: Annotated[Names, Field(description="Values to compare; absent: all with enough rows.")] = ()


@dataclass(frozen=True, config=STRICT)
class Invariance:
    """A column that must not matter."""

    kind: Literal["invariance"]
    name: Annotated[Text, Field(description="Name of the test.")]
    column: Annotated[Text, Field(description="Column whose values are shuffled among the rows.")]
    max_change: Annotated[float, Field(ge=0.0, description="Largest change of any row's score.")] = 1e-6


@dataclass(frozen=True, config=STRICT)
class Direction:
    """A change of a column that must move the answer one way, on average."""

    kind: Literal["direction"]
    name: Annotated[Text, Field(description="Name of the test.")]
    column: Annotated[Text, Field(description="Numeric column that is changed.")]
    expect: Annotated[
        Literal["increase", "decrease", "not_increase", "not_decrease"],
        Field(description="What the mean score of the positive (or last) class, or the prediction, must do."),
    ]
    add: Annotated[float | None, Field(description="Added to the column.")] = None
    set: Annotated[float | str | None, Field(description="Put in place of the column's values.")] = None

    @model_validator(mode="after")
    def _one_change(self) -> Direction:
        if (self.add is None) == (self.set is None):
            raise ValueError(f"{self.name}: give either add or set")
        return self


@dataclass(frozen=True, config=STRICT)
class NamedRow:
    """One row and what the model has to say of it."""

    values: Annotated[
        dict[str, str | int | float | None], Field(description="Columns of the row; absent ones are missing.")
    ]
    expect: Annotated[str | None, Field(description="Class that must get the largest score.")] = None
    min: Annotated[float | None, Field(description="Least score of the positive class, or prediction.")] = (
        None
    )
    max: Annotated[float | None, Field(description="Largest score of the positive class, or prediction.")] = (
        None
    )

    @model_validator(mode="after")
    def _has_an_expectation(self) -> NamedRow:
        if self.expect is None and self.min is None and self.max is None:
            raise ValueError("a row needs expect, min or max")
        return self


@dataclass(frozen=True, config=STRICT)
class MinimumFunctionality:
    """Rows on which the model must not be wrong."""

    kind: Literal["rows"]
    name: Annotated[Text, Field(description="Name of the test.")]
    rows: Annotated[
        tuple[NamedRow, ...], BeforeValidator(_listed), Field(min_length=1, description="The rows.")
    ]


BehaviourTest: TypeAlias = Annotated[
    Invariance | Direction | MinimumFunctionality, Field(discriminator="kind")
]


@dataclass(frozen=True, config=STRICT)
class ModelGateSettings:
    """`model_gate`: what a model has to show on the test split before it may be pushed."""

    must_beat: Annotated[
        tuple[Baseline, ...],
        BeforeValidator(_listed),
        Field(
            description="Naive models that the trained one has to beat beyond the interval: the shares of the classes "
            "(or the mean), the best single column, logistic (or ridge) regression. The others are shown; "
            "lightgbm is fitted only where it is named."
        ),
    ] = ("majority", "one_rule", "linear")
    level: Annotated[Share, Field(description="Level of the intervals.")] = 0.95
    resamples: Annotated[int, Field(ge=50, le=2_000, description="Resamples of the bootstrap.")] = 200
    most_rows: Annotated[
        int, Field(ge=1000, description="Most rows of train and of test that are looked at, evenly spread.")
    ] = 100_000
    too_good: Annotated[
        float | None,
        Field(
            gt=0.5,
            le=1.0,
            description="An AUC (or accuracy, or R squared) above this is taken for a leak. Absent: none is.",
        ),
    ] = None
    max_calibration_error: Annotated[
        Share | None,
        Field(
            description="Largest expected calibration error (ten bins of equally many rows). Absent: shown only."
        ),
    ] = None
    champion_tolerance: Annotated[
        float,
        Field(
            ge=0.0,
            lt=1.0,
            description="How much worse than the champion a model may be, beyond the interval, because training it "
            "again with another seed does as much: of the AUC, or as a share of the loss for several classes and for "
            "numbers.",
        ),
    ] = 0.004
    slices: Annotated[SliceSettings, Field(description="Bounds of the slices of `evaluate.slices`.")] = Field(
        default_factory=SliceSettings
    )
    costs: Annotated[CostSettings, Field(description="Costs of the two errors of a binary label.")] = Field(
        default_factory=CostSettings
    )
    fairness: Annotated[
        tuple[FairnessSettings, ...], BeforeValidator(_listed), Field(description="Gaps between groups.")
    ] = ()
    behaviour: Annotated[
        tuple[BehaviourTest, ...],
        BeforeValidator(_listed),
        Field(description="Tests of the model's behaviour."),
    ] = ()


@dataclass(frozen=True, config=STRICT)
class ServingCheckSettings:
    """`serving_check`: the exported model, alone in a fresh process."""

    rows: Annotated[
        int, Field(ge=1, le=512, description="Rows of validation that every signature has to answer.")
    ] = 256
    max_difference: Annotated[
        float,
        Field(
            gt=0.0,
            description="Largest difference of a score from the network in memory; of a prediction, as a share of the "
            "largest.",
        ),
    ] = 1e-5
    max_p99_milliseconds: Annotated[
        float, Field(gt=0.0, description="Longest answer for a single row, at the 99th percentile.")
    ] = 100.0
    max_load_seconds: Annotated[float, Field(gt=0.0, description="Longest time to load the model.")] = 120.0
    docker: Annotated[
        bool, Field(description="Also run TFX's InfraValidator with TensorFlow Serving; needs Docker.")
    ] = False


@dataclass(frozen=True, config=STRICT)
class DeviceBudget:
    """`tflite.budget`: what a device model may cost; one outside is not blessed."""

    max_bytes: Annotated[int | None, Field(gt=0, description="Largest file. Absent: any size.")] = None
    max_auc_drop: Annotated[
        float | None,
        Field(
            ge=0.0,
            lt=1.0,
            description="How much less than the server model's the AUC may be on the same rows; for several classes "
            "and for numbers, how much larger the loss, as a share of it. Absent: any loss of quality.",
        ),
    ] = 0.002
    max_p99_milliseconds: Annotated[
        float | None,
        Field(
            gt=0.0,
            description="Longest answer to one row at the 99th percentile, on one thread of the machine that runs the "
            "pipeline. Absent: any time.",
        ),
    ] = None
