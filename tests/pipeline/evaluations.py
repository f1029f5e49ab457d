"""An evaluation as TFMA writes it, without a model: its metrics are given, its validation is TFMA's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.evaluators.metrics_validator import validate_metrics
from tensorflow_model_analysis.metrics.metric_types import MetricKey
from tensorflow_model_analysis.writers.metrics_plots_and_validations_writer import (
    convert_slice_metrics_to_proto,
)

from pipeline.config import EvaluateConfig
from pipeline.evaluation import BASELINE, eval_config
from schemas.features import Label

CANDIDATE = "candidate"


def write_evaluation(
    folder: Path,
    config: EvaluateConfig,
    label: Label,
    metrics: Mapping[str, float],
    champion: Mapping[str, float] | None = None,
) -> None:
    """Writes what `pipeline.evaluation` reads, for all rows."""
    folder.mkdir(parents=True)
    full = tfma.utils.update_eval_config_with_defaults(
        eval_config(config, label), has_baseline=champion is not None, rubber_stamp=True
    )
    found = {}
    for name, value in metrics.items():
        found[MetricKey(name, model_name="" if champion is None else CANDIDATE)] = value
        if champion is not None:
            found[MetricKey(name, model_name=BASELINE)] = champion[name]
            found[MetricKey(name, model_name=CANDIDATE, is_diff=True)] = value - champion[name]
    overall = ((), found)
    _write(folder / "metrics-00000-of-00001.tfrecord", convert_slice_metrics_to_proto(overall, ()))
    _write(folder / "validations.tfrecord", validate_metrics(overall, full))
    (folder / "eval_config.json").write_text(
        json.dumps({"evalConfig": json.loads(json_format.MessageToJson(full))})
    )


def _write(path: Path, message) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(message.SerializeToString())
