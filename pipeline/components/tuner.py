"""Tuner: TFX's own, which also leaves every trial for the report, and clears the search's state away when all is safe.

TFX writes the one best trial alone, and of the others those that succeeded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.tuner import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils, standard_component_specs

from pipeline import cluster_role
from pipeline.trials import FILE

ENSEMBLE = "ensemble"
"""Entry of the best hyperparameters: values by dotted name of each of the best trials, where several are wanted."""


class Executor(executor.Executor):
    """Runs the search that `tuner_fn` sets up."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Searches; writes the best hyperparameters and all trials, unless another machine of the search does.

        Raises:
          SearchError: if no trial succeeded.
        """
        # Any, because the pipeline knows models by dotted path only: a `models.tuner.SettingsTuner`.
        tuner: Any = executor.search(
            input_dict, exec_properties, self._get_tmp_dir(), print_tuning_summary=False
        )
        if not cluster_role.role().publishes:
            return
        executor.write_best_hyperparameters(tuner, output_dict)
        found = _folder(output_dict, standard_component_specs.BEST_HYPERPARAMETERS_KEY)
        _add_ensemble(found, tuner.ensemble())
        results = _folder(output_dict, standard_component_specs.TUNER_RESULTS_KEY)
        (results / FILE).write_text(json.dumps(tuner.summary(), indent=1), encoding="utf-8")
        tuner.forget()


class Tuner(component.Tuner):
    """The hyperparameter search."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def _folder(output_dict: dict[str, list[types.Artifact]], key: str) -> Path:
    return Path(artifact_utils.get_single_uri(output_dict[key]))


def _add_ensemble(folder: Path, members: list[dict[str, Any]]) -> None:
    """Into TFX's own file: the Trainer reads the only file of the artifact."""
    if len(members) < 2:
        return
    [path] = folder.iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, ENSEMBLE: members}), encoding="utf-8")
