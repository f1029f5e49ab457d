"""Full pages of made-up runs, one for each kind of label."""

from __future__ import annotations

import math

from gates.ablation import Ablation, Contribution
from gates.evidence import (
    AnswerResiduals,
    BehaviourResult,
    CalibrationBin,
    ColumnFigures,
    ColumnResiduals,
    Confusion,
    Curve,
    DataEvidence,
    DeviceEvidence,
    DeviceFigures,
    Estimate,
    Gap,
    Importance,
    MeanResidual,
    ModelEvidence,
    ResidualBin,
    Residuals,
    ServingEvidence,
    SignatureFigures,
    WrongRow,
)
from gates.verdict import Outcome, Verdict
from report.page import (
    Anomaly,
    ArtifactUse,
    Column,
    Epoch,
    Gate,
    Histogram,
    Page,
    SliceRow,
    Step,
    TopValues,
)

SPLITS = ("train", "validation", "test")
COLUMNS = tuple(
    f"{kind}_{number}" for number in range(1, 4) for kind in ("hourly_temperature", "home_of_buyer")
)
BASELINES = ("majority", "one_rule", "linear")


def binary() -> Page:
    """A run whose model is pushed, with a warning and an override, and a champion."""
    return _page(
        model=ModelEvidence(
            kind="binary",
            classes=("stays", "leaves"),
            rows=82_609,
            estimates=(*_on_all_rows("auc", 0.701, 0.5, 0.606, 0.688), *_on_slices("auc", 0.701)),
            roc=_curves(lambda x, power: x**power),
            precision_recall=_curves(lambda x, power: 1 - (1 - power / 2) * x),
            calibration=_calibration(0.0, 0.6),
            calibration_error=0.0312,
            confusion=tuple(_confusion(number / 100) for number in range(101)),
            threshold=0.37,
            importance=_importance(),
            wrong=_wrong("leaves", "stays"),
            behaviour=_behaviour(),
            fairness=(
                Gap(
                    "region",
                    "true_positive_rate",
                    {"north": 0.71, "south": 0.64},
                    {"north": 900, "south": 812},
                ),
            ),
        ),
        pushed="/srv/shop/serving/7",
    )


def several() -> Page:
    """A run of a model for three classes that is refused."""
    refused = Verdict(
        "accuracy of region = south",
        Outcome.REFUSED,
        "0.41",
        "at least 0.66",
        "accuracy on the slice region = south is 0.41, beyond chance below the 0.66 it must have; look at these rows",
    )
    return _page(
        model=ModelEvidence(
            kind="multiclass",
            classes=("cash", "card", "later"),
            rows=4000,
            estimates=(
                *_on_all_rows("accuracy", 0.81, 0.6, 0.7, 0.79),
                *_on_all_rows("log_loss", 0.41, 0.9, 0.7, 0.5),
                *_on_slices("accuracy", 0.81),
            ),
            calibration=_calibration(0.3, 0.9),
            calibration_error=0.05,
            confusion_matrix=((1800, 100, 100), (150, 900, 50), (200, 100, 600)),
            importance=_importance(),
            wrong=_wrong("card", "cash"),
        ),
        extra=refused,
    )


def regression() -> Page:
    """A run of a model for numbers."""
    return _page(
        model=ModelEvidence(
            kind="regression",
            classes=(),
            rows=12_345,
            estimates=(
                *_on_all_rows("mean_squared_error", 12.1, 40.0, 22.0, 15.0),
                *_on_slices("mean_squared_error", 12.1),
            ),
            calibration=_calibration(-20.0, 180.0),
            importance=_importance(),
            wrong=_wrong("143.2", "12.8"),
        ),
        pushed="/srv/shop/serving/1",
    )


def stopped_early() -> Page:
    """A run that failed before there was anything to look at."""
    return Page(
        pipeline="shop",
        run_id="20260101T000000-ab12",
        state="failed",
        started_at="2026-01-01T00:00:00+00:00",
        ended_at=None,
        steps=(Step("QueryExampleGen", "failed", 1.25, error="DataError: column <age> is missing"),),
    )


def _page(model: ModelEvidence, pushed: str | None = None, extra: Verdict | None = None) -> Page:
    return Page(
        pipeline="shop",
        run_id="20260101T000000-ab12",
        state="succeeded" if pushed else "failed",
        started_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:02:10+00:00",
        steps=(
            Step("QueryExampleGen", "cached", 0.2, 5 * 10**8),
            Step("StatisticsGen", "succeeded", 22.0, 986 * 10**6),
            Step("Trainer", "succeeded", 139.7, 896 * 10**6),
            Step("ModelPusher", "succeeded" if pushed else "failed", 0.3, 515 * 10**6),
        ),
        gates=_gates(extra),
        rows={"train": 217_727, "validation": 27_010, "test": 82_609},
        columns=tuple(_column(name) for name in COLUMNS),
        data=_data(),
        epochs=tuple(
            Epoch(
                number,
                {
                    "loss": 0.5 + 0.1 / number,
                    "auc": 0.7 + number / 100,
                    "val_loss": 0.5 + abs(number - 5) / 100,
                    "val_auc": 0.7,
                },
                number == 5,
            )
            for number in range(1, 9)
        ),
        slices=(
            SliceRow("all rows", {"example_count": 82_609.0, "auc": 0.7011}, {"auc": 0.69}),
            SliceRow("region = north", {"example_count": 40_000.0, "auc": 0.71}),
        ),
        model=model,
        serving=ServingEvidence(
            1_234_567,
            2.31,
            (
                SignatureFigures("serving_default", 3.1e-7, 1.23, 4.56, 51_234.0),
                SignatureFigures("transform_features", None, 0.93, 3.9, 61_234.0),
            ),
        ),
        devices=_devices(),
        residuals=_residuals("kept", model.classes[1:] or ("",)),
        ablation=_ablation(),
        facts={
            "Data fingerprint": "245c13e0194956daee19d63763c09a1bfc436ab0ede7684bc6a3517be0f1a336",
            "Configuration": "0c8374275565",
            "Revision": "fcf58ef341f6b4e3417840eb011dd1f72777404c",
            "Champion": "model 12, version 6",
        },
        artifacts=(ArtifactUse("Trainer", "model", 18, "Model", "artifacts/Trainer/model/7", 1_234_567),),
        pushed=pushed,
    )


def _gates(extra: Verdict | None) -> tuple[Gate, ...]:
    return (
        Gate(
            "DataGate",
            (
                Verdict("rows in train", Outcome.PASSED, "217,727", "at least 50", "train has 217,727 rows"),
                Verdict(
                    "drift of hourly_temperature_1 in test",
                    Outcome.WARNED,
                    "0.31",
                    "at most 0.1",
                    "hourly_temperature_1 in test is far from train (0.31, at most 0.1): is it another season?",
                ),
            ),
        ),
        Gate(
            "ModelGate",
            (
                Verdict(
                    "against linear",
                    Outcome.OVERRIDDEN,
                    "0.69",
                    "better than 0.688",
                    "no better than linear; let pass by Kim: a <pilot> of one week",
                ),
                Verdict(
                    "against majority", Outcome.PASSED, "0.7", "better than 0.5", "better than the majority"
                ),
                *([extra] if extra else []),
            ),
        ),
    )


def _data() -> DataEvidence:
    return DataEvidence(
        rows={"train": 217_727, "validation": 27_010, "test": 82_609},
        previous_rows={"train": 210_000, "validation": 26_000, "test": 80_000},
        columns=tuple(
            ColumnFigures(
                column=name,
                missing={"train": 0.01, "validation": 0.0, "test": 0.5},
                drift={"validation": 0.012, "test": 0.31, "previous": 0.002},
                measure="Jensen-Shannon" if "temp" in name else "L-infinity",
                new_values={"validation": 0.0, "test": 0.013},
                auc=0.53,
                gain=0.004,
            )
            for name in COLUMNS
        ),
    )


def _column(name: str) -> Column:
    missing = {"train": 0.01, "validation": 0.0, "test": 0.5}
    anomalies = (Anomaly("test", f"{name} has <new> values"),) if name.endswith("_3") else ()
    if name.startswith("home"):
        words = tuple(f"Town number {number} by the sea" for number in range(8))
        shares = {
            split: tuple(0.3 / (rank + place + 1) for rank in range(8)) for place, split in enumerate(SPLITS)
        }
        return Column(
            name,
            TopValues(words, shares),
            missing,
            {"different values": dict.fromkeys(SPLITS, 102)},
            anomalies,
        )
    edges = tuple(-10.0 + 2 * number for number in range(21))
    histogram = Histogram(
        edges,
        {
            split: tuple(math.exp(-(((number - 8 - 2 * place) / 4) ** 2)) / 7 for number in range(20))
            for place, split in enumerate(SPLITS)
        },
        is_open_above=True,
    )
    return Column(
        name, histogram, missing, {"mean": {"train": 7.123, "validation": 9.1, "test": 11.0}}, anomalies
    )


def _on_all_rows(metric: str, ours: float, *theirs: float) -> tuple[Estimate, ...]:
    named = {"model": ours, "champion": ours * 0.98, **dict(zip(BASELINES, theirs, strict=True))}
    return tuple(
        Estimate(subject, metric, value, value * 0.985, value * 1.01, 82_609)
        for subject, value in named.items()
    )


def _on_slices(metric: str, ours: float) -> tuple[Estimate, ...]:
    return tuple(
        Estimate(
            "model",
            metric,
            ours * (1 - number / 60),
            ours * (0.97 - number / 50),
            ours * (1.03 - number / 70),
            9000 // (number + 1) ** 2,
            f"region = {'North-west and islands' if number == 2 else number}",
            is_judged=9000 // (number + 1) ** 2 >= 500,
        )
        for number in range(9)
    )


def _curves(shape) -> tuple[Curve, ...]:
    places = tuple(number / 200 for number in range(201))
    powers = {"model": 0.4, "champion": 0.43, "linear": 0.5, "one_rule": 0.7, "majority": 1.0}
    return tuple(
        Curve(subject, places, tuple(shape(place, power) for place in places))
        for subject, power in powers.items()
    )


def _calibration(low: float, high: float) -> tuple[CalibrationBin, ...]:
    step = (high - low) / 10
    return tuple(CalibrationBin(low + step * n, low + step * n * 1.1, 8260) for n in range(1, 11))


def _confusion(threshold: float) -> Confusion:
    positives, negatives = 18_000, 64_609
    hits = round(positives * (1 - threshold) ** 1.2)
    alarms = round(negatives * (1 - threshold) ** 3)
    cost = (alarms + 3 * (positives - hits)) / (positives + negatives)
    return Confusion(threshold, hits, alarms, negatives - alarms, positives - hits, cost)


def _importance() -> tuple[Importance, ...]:
    return tuple(
        Importance(name, 0.08 / (rank + 1), 0.07 / (rank + 1), 0.09 / (rank + 1))
        for rank, name in enumerate(COLUMNS)
    )


def _wrong(truth: str, answer: str) -> tuple[WrongRow, ...]:
    return tuple(
        WrongRow(dict.fromkeys(COLUMNS, f"{number}.5"), truth, answer, 0.01 * number)
        for number in range(1, 11)
    )


def _residuals(label: str, answers: tuple[str, ...]) -> Residuals:
    """The first column has changed, by its first bin; all others are as they were."""
    earlier = MeanResidual(500, 0.001, -0.01, 0.012)

    def bins(is_changed: bool) -> tuple[ResidualBin, ...]:
        mean = -0.21 if is_changed else 0.002
        first = MeanResidual(480, mean, mean - 0.03, mean + 0.03)
        return (
            ResidualBin("Town <1>", first, earlier, 1e-9 if is_changed else 0.8, is_changed, mean, "test"),
            ResidualBin("missing", MeanResidual(5, 0.3, None, None), None, None, False, None, "test"),
        )

    in_time = tuple(
        ResidualBin(f"2026-0{number}-01 to 2026-0{number}-28", earlier, None, 0.9, False, None, split)
        for split, numbers in (("validation", (1, 2)), ("test", (3, 4, 5)))
        for number in numbers
    )
    columns = tuple(
        ColumnResiduals(name, answer, bins(rank == 0), 0.1, 1e-9 if rank == 0 else 0.9, rank == 0)
        for answer in answers
        for rank, name in enumerate(COLUMNS)
    )
    told = tuple(AnswerResiduals(answer, earlier, earlier, in_time) for answer in answers)
    return Residuals(label, "test", "validation", 0.95, "day", told, columns)


def _ablation() -> Ablation:
    """Of six columns one is decisive, one does harm, and the last two are not finished."""
    gains = (0.08, 0.001, 0.0, -0.02)
    contributions = tuple(
        Contribution(
            name, (name,), 0.7 - gain, gain, gain - 0.004, gain + 0.004, (gain - 0.001, gain + 0.001)
        )
        for name, gain in zip(COLUMNS, gains, strict=False)
    )
    return Ablation("auc", True, "validation", 27_010, 0.95, (1, 2), 6, 0.7, (0.699, 0.701), 6, contributions)


def _behaviour() -> tuple[BehaviourResult, ...]:
    return (
        BehaviourResult("the number of the flight does not matter", "invariance", True, "largest change 0"),
        BehaviourResult(
            "worse weather does not help",
            "direction",
            False,
            "mean change -0.013; it must not decrease",
            ({"hourly_temperature_1": "3.5", "score": "0.31 → 0.12"},),
        ),
    )


def _devices() -> DeviceEvidence:
    def figures(name: str, size: int, drop: float, fault: str = "") -> DeviceFigures:
        return DeviceFigures(
            name=name,
            bytes=size,
            compressed_bytes=size // 2,
            value=0.71 - drop,
            drop=drop,
            low=drop - 0.0004,
            high=drop + 0.0004,
            max_difference=abs(drop) * 3,
            mean_difference=abs(drop),
            flips=17,
            cold_start_milliseconds=3.1,
            p50_milliseconds=0.018,
            p99_milliseconds=0.041,
            memory_bytes=1_200_000,
            is_blessed=not fault,
            fault=fault,
        )

    return DeviceEvidence(
        metric="auc",
        value=0.71,
        server_bytes=1_546_120,
        rows=10_327,
        level=0.95,
        variants=(
            figures("float32", 62_000, 0.0),
            figures("int8", 43_000, 0.0003),
            figures("pruned+int8", 42_000, 0.0051, "its auc is 0.0051 worse than the server model's"),
        ),
        failed={"int16x8": "GATHER cannot be had in 16 bits"},
        recommended="int8",
        reason="the smallest of the 2 inside the budget: 43,000 bytes",
    )
