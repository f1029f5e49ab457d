"""The settings of a training beside its logs, for TensorBoard's HParams plugin, and where a service shows logs."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tf_keras
from tensorboard.plugins.hparams import api

from models.settings import NetworkSettings, TrainSettings

_SERVICE_LOGS = "AIP_TENSORBOARD_LOG_DIR"
"""Environment variable in which Vertex AI names the folder that its TensorBoard reads."""


def service_logs(name: str) -> tuple[Path, ...]:
    """The folder of this name for logs that a TensorBoard service is to show, if there is such a service.

    Vertex AI names a `gs://` folder, and mounts all buckets under `/gcs`.
    """
    folder = os.environ.get(_SERVICE_LOGS)
    if not folder:
        return ()
    mounted = f"/gcs/{folder.removeprefix('gs://')}" if folder.startswith("gs://") else folder
    return (Path(mounted, name),)


def hparams_callback(
    network: NetworkSettings, train: TrainSettings, logs: Path
) -> tf_keras.callbacks.Callback:
    """Writes the settings into the folder of logs in which TensorBoard's own callback writes `train` and `validation`.

    The plugin takes what lies below that folder for the metrics of these settings, so both need the same folder. It
    takes trials of one name for repetitions and shows their mean; every training therefore has a name of its own,
    and one that goes on in its folder is still one.

    Args:
      network: `model`.
      train: `train`, as this training uses it, with what a search found.
      logs: folder of the logs.
    """
    callback: tf_keras.callbacks.Callback = api.KerasCallback(
        str(logs),
        hyperparameters({"model": asdict(network), "train": asdict(train)}),
        trial_id=secrets.token_hex(8),
    )
    return callback


def hyperparameters(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | str]:
    """Nested settings by dotted name, as the plugin takes them.

    What is None is left out, since a column of the plugin holds values of one type; a list becomes JSON.
    """
    flat: dict[str, bool | float | str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(hyperparameters(value, f"{prefix}{name}."))
        elif value is not None:
            flat[f"{prefix}{name}"] = (
                value if isinstance(value, bool | int | float | str) else json.dumps(value)
            )
    return flat
