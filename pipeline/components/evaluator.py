"""Evaluator: TFX's, which goes on alone where the champion cannot answer the rows.

TFX's stops the run if the folder of the champion is gone, and if it reads a column as another type. What could then not
be compared is noted beside the evaluation, for ModelGate to judge.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components import Evaluator as TfxEvaluator
from tfx.components.evaluator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

from pipeline.evaluation import write_not_compared
from pipeline.example_rows import column_types, misfit, records
from pipeline.mounts import local_path

_LOGGER = logging.getLogger(__name__)
_SPLIT = "test"
_TYPED_ROWS = 100_000


class Executor(executor.Executor):
    """Leaves out a champion that cannot answer."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates as TFX does."""
        examples = artifact_utils.get_single_instance(input_dict[standard_component_specs.EXAMPLES_KEY])
        able, fault = [], ""
        for champion in input_dict.get(standard_component_specs.BASELINE_MODEL_KEY) or []:
            folder = path_utils.serving_model_path(champion.uri, path_utils.is_old_model_artifact(champion))
            rows = records(
                Path(local_path(artifact_utils.get_split_uri([examples], _SPLIT))), _TYPED_ROWS
            ).taken
            if fault := misfit(Path(local_path(folder)), column_types(rows), may_lack=True):
                _LOGGER.warning("the champion is not evaluated: %s", fault)
            else:
                able.append(champion)
        inputs = {**input_dict, standard_component_specs.BASELINE_MODEL_KEY: able}
        super().Do(inputs, output_dict, exec_properties)
        if not able:
            evaluation = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
            config = exec_properties[standard_component_specs.EVAL_CONFIG_KEY]
            write_not_compared(config, fault, Path(local_path(evaluation)))


class Evaluator(TfxEvaluator):
    """Examples and a model to metrics and a blessing."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
