"""ModelGate: a TFX component that blesses a model only if it is better than none and no worse than the champion.

TFMA's bounds hold a model against numbers that a person chose. Here it meets, on the same rows of the test split, what
anybody gets without a network, and the model that serves.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.evaluator import constants
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from gates.baselines import fit_baselines
from gates.model import Contest, judge_model
from gates.verdict import Verdict
from pipeline.components.data_gate import FILE, GateVerdict
from pipeline.example_rows import answers, read_rows, records
from schemas.features import FeatureSet


class ModelGateSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of ModelGate."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "features": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "champion": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "model_blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }
    OUTPUTS = {  # noqa: RUF012
        "verdict": component_spec.ChannelParameter(type=GateVerdict),
        "blessing": component_spec.ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Executor(base_executor.BaseExecutor):
    """Lets candidate, champion and naive models answer for the test rows, and judges."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the verdicts and the blessing; a refused model is an outcome and not a failure."""
        settings = json.loads(exec_properties["settings"])
        features = FeatureSet.from_json(exec_properties["features"])
        candidate = artifact_utils.get_single_instance(input_dict["model"])
        champions = input_dict.get("champion") or []
        contest = _contest(
            artifact_utils.get_single_instance(input_dict["examples"]),
            _saved_model(candidate),
            _saved_model(champions[0]) if champions else None,
            features,
            settings["most_rows"],
        )
        verdicts = judge_model(
            contest, settings["must_beat"], resamples=settings["resamples"], level=settings["level"]
        )
        _write(verdicts, Path(artifact_utils.get_single_uri(output_dict["verdict"])))
        bounds = artifact_utils.get_single_instance(input_dict["model_blessing"])
        is_blessed = model_utils.is_model_blessed(bounds) and all(verdict.passed for verdict in verdicts)
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), candidate, is_blessed)


def _contest(
    examples: types.Artifact, model: Path, champion: Path | None, features: FeatureSet, most_rows: int
) -> Contest:
    label = features.label
    train, test = (
        records(Path(artifact_utils.get_split_uri([examples], split)), most_rows)
        for split in ("train", "test")
    )
    of_test = read_rows(test, features)
    return Contest(
        kind=label.kind,
        truth=of_test.truth,
        ours=answers(model, test, label.kind),
        baselines=fit_baselines(label.kind, len(label.classes), read_rows(train, features), of_test),
        champion=answers(champion, test, label.kind) if champion else None,
    )


def _saved_model(model: types.Artifact) -> Path:
    return Path(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))


def _write(verdicts: tuple[Verdict, ...], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("w", encoding="utf-8") as file:
        json.dump([verdict.to_json() for verdict in verdicts], file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _bless(blessing: types.Artifact, candidate: types.Artifact, is_blessed: bool) -> None:
    """Writes a blessing as TFX's Evaluator does, so that its readers understand it."""
    name = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    folder = Path(blessing.uri)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, candidate.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, candidate.id)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, int(is_blessed))


class ModelGate(base_component.BaseComponent):
    """A trained model to a verdict and a blessing."""

    SPEC_CLASS = ModelGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        champion: types.BaseChannel,
        model_blessing: types.BaseChannel,
        settings: str,
        features: str,
        source_digest: str,
    ) -> None:
        """Describes the step.

        Args:
          examples: with the splits train and test.
          model: the candidate.
          champion: the serving model, or nothing.
          model_blessing: the Evaluator's, which has to hold too.
          settings: the configuration's `model_gate`, as JSON.
          features: the `FeatureSet`, as JSON.
          source_digest: changes with the code that judges; only there to be part of the cache key.
        """
        super().__init__(
            ModelGateSpec(
                examples=examples,
                model=model,
                champion=champion,
                model_blessing=model_blessing,
                settings=settings,
                features=features,
                source_digest=source_digest,
                verdict=types.Channel(type=GateVerdict),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
