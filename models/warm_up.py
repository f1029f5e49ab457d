"""Requests that a server answers before the first client asks, with the answers they should get.

TensorFlow Serving replays `assets.extra/tf_serving_warmup_requests` when it loads a version; the prediction jobs here
do so, too, and refuse a version whose answers are others. The rows are of the validation split.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from schemas.features import Label, LabelKind
from schemas.probe import Probe

FILE = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for them in a SavedModel (its page "SavedModel Warmup")."""

MOST_ROWS = 32

_SIGNATURE = "serving_default"


def write(probe: Probe, label: Label, folder: str) -> None:
    """Adds one request with its answer to a SavedModel: float32 `scores` or `prediction`, `[rows, outputs]`.

    Does nothing where training read rows that were transformed before: no raw row is at hand.
    """
    first = probe.first(MOST_ROWS)
    if not any(first.examples):
        return
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = _SIGNATURE
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto(list(first.examples), tf.string))
    response = predict_pb2.PredictResponse()
    name = "prediction" if label.kind is LabelKind.REGRESSION else "scores"
    response.outputs[name].CopyFrom(tf.make_tensor_proto(first.scores.astype(np.float32)))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request, response=response)
    )
    file = f"{folder}/{FILE}"
    tf.io.gfile.makedirs(file.rpartition("/")[0])
    with tf.io.TFRecordWriter(file) as records:
        records.write(log.SerializeToString())
