"""Trainer of a compiled pipeline: TFX's, with settings that a run may give as parameters."""

from __future__ import annotations

import json
from typing import Any

from tfx import types
from tfx.components.trainer import executor
from tfx.types import standard_component_specs

from models.settings import OUTPUTS_FOLLOW
from pipeline import home
from pipeline.cluster_role import role
from pipeline.components import tuner
from pipeline.mounts import local_path

HOME = "home"
EPOCHS = "epochs"
STRATEGY = "strategy"
_CONFIG = standard_component_specs.CUSTOM_CONFIG_KEY


class Executor(executor.GenericExecutor):
    """Puts the parameters of the run into `custom_config`, and trains."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Trains as TFX's executor does."""
        super().Do(input_dict, output_dict, with_parameters(exec_properties))


class TunerExecutor(tuner.Executor):
    """Puts the parameters of the run into `custom_config`, and searches."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches as the local Tuner does."""
        super().Do(input_dict, output_dict, with_parameters(exec_properties))


def with_parameters(exec_properties: dict[str, Any]) -> dict[str, Any]:
    """Execution properties with the run's parameters where the training looks for them."""
    properties = dict(exec_properties)
    config = json.loads(properties[_CONFIG])
    config["training_folder"] = local_path(f"{properties.pop(HOME)}/{home.TRAINING}")
    # Alone, a container copies outputs when the training has ended; until then its checkpoints are all there is.
    config[OUTPUTS_FOLLOW] = not role().is_clustered
    train = config["train"]
    if (epochs := properties.pop(EPOCHS, None)) is not None:
        train["epochs"] = int(epochs)
    if strategy := properties.pop(STRATEGY, None):
        train["strategy"] = strategy
    return {**properties, _CONFIG: json.dumps(config)}
