"""What the model gate measured, as an evaluation of the Model Registry.

The registry's own schemas of metrics have no accuracy, no Brier score, no intervals and no costs: those stay in the
report of the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud.vertex_api import RegistryError

EVIDENCE = "evidence.json"
"""The file that the model gate leaves in its artifact."""

_SCHEMA = "gs://google-cloud-aiplatform/schema/modelevaluation/{}_metrics_1.0.0.yaml"
_REGRESSION = "regression"
_NAMES = {
    "auc": "auRoc",
    "average_precision": "auPrc",
    "log_loss": "logLoss",
    "mean_squared_error": "rootMeanSquaredError",
    "mean_absolute_error": "meanAbsoluteError",
    "r_squared": "rSquared",
}
"""Names of metrics here and in the registry's schemas."""
_OF = " = "
"""Between column and value in the name of a slice."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of one version.

    Attributes:
      schema_uri: of the metrics.
      metrics: on all rows of the test split.
      slices: metrics by column and value of a slice.
    """

    schema_uri: str
    metrics: Mapping[str, Any]
    slices: Mapping[tuple[str, str], Mapping[str, float]]


def read(path: str | Path) -> Evaluation:
    """Reads the evidence of a model gate.

    Args:
      path: the file, or the folder of the verdict that it is in.

    Raises:
      RegistryError: if it is not there, or no evidence of a model gate.
    """
    file = Path(path)
    file = file / EVIDENCE if file.is_dir() else file
    try:
        return _evaluation(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise RegistryError(
            f"{file}: cannot be read: {error.strerror}; name a verdict of ModelGate"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(
            f"{file}: no figures of a model gate ({type(error).__name__}: {error}); name the {EVIDENCE} of ModelGate"
        ) from error


def _evaluation(evidence: Mapping[str, Any]) -> Evaluation:
    kind = _REGRESSION if evidence["kind"] == _REGRESSION else "classification"
    ours = [one for one in evidence["estimates"] if one["subject"] == "model"]
    slices: dict[tuple[str, str], dict[str, float]] = {}
    for one in ours:
        column, of, value = one["slice"].partition(_OF)
        metrics = _metrics([one])
        if of and _OF not in value and metrics:  # Crossed columns have no form in the registry.
            slices.setdefault((column, value), {}).update(metrics)
    overall = _metrics([one for one in ours if not one["slice"]])
    return Evaluation(_SCHEMA.format(kind), {**overall, **_curves(evidence)}, slices)


def _metrics(estimates: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found = {}
    for one in estimates:
        name, value = _NAMES.get(one["metric"]), float(one["value"])
        if name is not None and math.isfinite(value):
            found[name] = math.sqrt(value) if one["metric"] == "mean_squared_error" else value
    return found


def _curves(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """The confusion at each threshold, and the matrix at the one that was chosen; none of a regression."""
    found: dict[str, Any] = {}
    by_threshold = sorted(evidence.get("confusion", ()), key=lambda one: float(one["threshold"]))
    if by_threshold:
        found["confidenceMetrics"] = list(map(_at_threshold, by_threshold))
    matrix = evidence.get("confusion_matrix") or next(_matrix(by_threshold, evidence.get("threshold")), None)
    if matrix:
        classes = [{"id": str(n), "displayName": name} for n, name in enumerate(evidence["classes"])]
        found["confusionMatrix"] = {"annotationSpecs": classes, "rows": matrix}
    return found


def _matrix(by_threshold: Sequence[Mapping[str, Any]], threshold: float | None) -> Iterator[list[list[int]]]:
    for one in by_threshold:
        if one["threshold"] == threshold:
            yield [
                [one["true_negatives"], one["false_positives"]],
                [one["false_negatives"], one["true_positives"]],
            ]


def _at_threshold(one: Mapping[str, Any]) -> dict[str, float]:
    hit, false_alarm, miss, rest = (
        one[name] for name in ("true_positives", "false_positives", "false_negatives", "true_negatives")
    )
    shares = {
        "precision": (hit, hit + false_alarm),
        "recall": (hit, hit + miss),
        "falsePositiveRate": (false_alarm, false_alarm + rest),
        "f1Score": (2 * hit, 2 * hit + false_alarm + miss),
    }
    counts = {
        "truePositiveCount": hit,
        "falsePositiveCount": false_alarm,
        "falseNegativeCount": miss,
        "trueNegativeCount": rest,
    }
    known = {name: part / whole for name, (part, whole) in shares.items() if whole}
    return {"confidenceThreshold": one["threshold"], **known, **counts}
