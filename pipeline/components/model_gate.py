"""ModelGate: a TFX component that blesses a model only if every check on the test split holds.

The Evaluator's bounds hold a model against numbers that a person chose. Here it also meets, on the same rows, what
anybody gets without a network and the model that serves, part by part and with intervals; and it is asked about rows
that are not as they were. A refused model is an outcome and not a failure: the one that serves goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from gates.baselines import Rows, fit_baselines
from gates.examination import Subject, Validation, examine
from gates.intervals import Bootstrap
from gates.model import Contest
from gates.overrides import apply
from gates.record_counts import judge_counts
from gates.settings import ModelGateSettings
from gates.verdict import Verdict
from pipeline.changed_examples import AskedExamples
from pipeline.components.gate_output import GateVerdict, overrides, read_verdicts, write
from pipeline.evaluation import read_validation
from pipeline.example_rows import (
    ModelError,
    Records,
    SavedModel,
    champion_answers,
    column_types,
    count,
    read_rows,
    records,
)
from pipeline.mounts import local_path
from pipeline.push import DESTINATION
from schemas.features import FeatureSet

_ASKED_ROWS = 5000
"""Rows of the test split that the model is asked about again with other values."""

_TRAINING_RECORD = "training.json"
"""Custom property of a push, as TFX's Pusher has it: the folder of the version that serves."""


class ModelGateSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of ModelGate."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "settings": component_spec.ExecutionParameter(type=str),
        "slices": component_spec.ExecutionParameter(type=str),
        "overrides": component_spec.ExecutionParameter(type=str),
        "features": component_spec.ExecutionParameter(type=str),
        "time": component_spec.ExecutionParameter(type=str, optional=True),
        "source_digest": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {  # noqa: RUF012
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "evaluation": component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "serving_verdict": component_spec.ChannelParameter(type=GateVerdict),
        "champion": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "pushed": component_spec.ChannelParameter(type=standard_artifacts.PushedModel, optional=True),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun, optional=True),
        "transformed_examples": component_spec.ChannelParameter(
            type=standard_artifacts.Examples, optional=True
        ),
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
        """Writes the verdicts, what was measured, and the blessing.

        Raises:
          ModelError: if the candidate cannot be loaded or asked.
          BaselineError: if a naive model that has to be beaten cannot be fitted here.
        """
        settings = TypeAdapter(ModelGateSettings).validate_json(exec_properties["settings"])
        features = FeatureSet.from_json(exec_properties["features"])
        splits = _splits(input_dict, settings.most_rows)
        time = json.loads(exec_properties.get("time") or "null")
        subject = _subject(splits, input_dict, features, settings, time)
        resamples = Bootstrap.draw(len(subject.contest.truth), settings.resamples, settings.level)
        found = examine(subject, settings, json.loads(exec_properties["slices"]), resamples)
        verdicts = apply(
            (
                *read_validation(
                    artifact_utils.get_single_uri(input_dict["evaluation"]),
                    has_champion=bool(input_dict.get("champion") or input_dict.get("pushed")),
                ),
                _counts(splits, input_dict),
                *found.verdicts,
                *read_verdicts(Path(artifact_utils.get_single_uri(input_dict["serving_verdict"]))),
            ),
            overrides(exec_properties),
        )
        write(verdicts, found.evidence, Path(artifact_utils.get_single_uri(output_dict["verdict"])))
        _bless(
            artifact_utils.get_single_instance(output_dict["blessing"]),
            artifact_utils.get_single_instance(input_dict["model"]),
            all(verdict.passed for verdict in verdicts),
        )


def _splits(input_dict: dict[str, list[types.Artifact]], most_rows: int) -> dict[str, Records]:
    examples = artifact_utils.get_single_instance(input_dict["examples"])
    return {
        split: records(Path(artifact_utils.get_split_uri([examples], split)), most_rows)
        for split in artifact_utils.decode_split_names(examples.split_names)
    }


def _subject(
    splits: dict[str, Records],
    input_dict: dict[str, list[types.Artifact]],
    features: FeatureSet,
    settings: ModelGateSettings,
    time: str | None,
) -> Subject:
    """Lets all models answer."""
    label = features.label
    train, validation, test = (splits[name].taken for name in ("train", "validation", "test"))
    model = SavedModel(_folder(artifact_utils.get_single_instance(input_dict["model"])), label.kind)
    column_dtypes = column_types(test)
    of_test = read_rows(test, features, also=column_dtypes)
    names = [feature.name for feature in features]
    ours = model(test)
    champion, fault = _champion(input_dict, ours, test, features)
    contest = Contest(
        label=label,
        truth=of_test.truth,
        ours=ours,
        baselines=fit_baselines(
            label.kind,
            len(label.classes),
            read_rows(train, features),
            Rows(of_test.columns[names], of_test.truth),
            optional=settings.must_beat,
        ),
        champion=champion,
        champion_fault=fault,
    )
    places = _spread(len(test), _ASKED_ROWS)
    some = [test[place] for place in places]
    also = {time: column_dtypes[time]} if time in column_dtypes else {}
    of_validation = read_rows(validation, features, also=also)
    types_of = {**column_dtypes, **{feature.name: feature.dtype for feature in features}}
    return Subject(
        contest=contest,
        columns=of_test.columns,
        validation=Validation(of_validation.truth, model(validation), of_validation.columns),
        asked=AskedExamples(model, some, of_test.columns.iloc[places], types_of, label.name),
        asked_truth=of_test.truth[places],
        features=features,
        time=time,
    )


def _champion(
    input_dict: dict[str, list[types.Artifact]],
    ours: npt.NDArray[np.float64],
    test: list[bytes],
    features: FeatureSet,
) -> tuple[npt.NDArray[np.float64] | None, str]:
    """The champion's answers, or why there are none; of one that was lost, the copy that serves answers."""
    folders = [
        *(_folder(champion) for champion in input_dict.get("champion") or []),
        *(
            Path(local_path(push.get_string_custom_property(DESTINATION)))
            for push in input_dict.get("pushed") or []
        ),
    ]
    if not folders:
        return None, ""
    try:
        answers = champion_answers(folders[0], test, features)
    except ModelError as error:
        return None, str(error)
    if answers.shape != ours.shape:
        return None, f"it gives answers of shape {answers.shape}, the model {ours.shape}"
    if broken := int((~np.isfinite(answers)).sum()):
        return None, f"it answers {broken:,} times with NaN or infinity"
    return answers, ""


def _spread(rows: int, most: int) -> npt.NDArray[np.int64]:
    """Places of at most so many rows, all over."""
    return np.arange(0, rows, max(1, -(-rows // most)), dtype=np.int64)


def _counts(splits: dict[str, Records], input_dict: dict[str, list[types.Artifact]]) -> Verdict:
    trained: dict[str, int] = {}
    for run in input_dict.get("model_run") or []:
        path = Path(run.uri) / _TRAINING_RECORD
        if path.exists():
            trained = json.loads(path.read_text(encoding="utf-8")).get("rows", {})
    transformed = {
        split: count(Path(artifact_utils.get_split_uri([written], split)))
        for written in input_dict.get("transformed_examples") or []
        for split in artifact_utils.decode_split_names(written.split_names)
    }
    return judge_counts({split: found.total for split, found in splits.items()}, trained, transformed)


def _folder(model: types.Artifact) -> Path:
    return Path(path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model)))


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
        evaluation: types.BaseChannel,
        serving_verdict: types.BaseChannel,
        settings: str,
        slices: str,
        overrides: str,
        features: str,
        source_digest: str,
        pushed: types.BaseChannel | None = None,
        model_run: types.BaseChannel | None = None,
        transformed_examples: types.BaseChannel | None = None,
        time: str | None = None,
    ) -> None:
        """Describes the step.

        Args:
          examples: raw, with the splits train, validation and test.
          model: the candidate.
          champion: the serving model, or nothing.
          evaluation: the Evaluator's, whose bounds have to hold too.
          serving_verdict: of ServingCheck, which has to hold too.
          settings: the configuration's `model_gate`, as JSON.
          slices: the configuration's `evaluate.slices`, as JSON.
          overrides: those of the configuration that count today, as JSON.
          features: the `FeatureSet`, as JSON.
          source_digest: changes with the code that judges; only there to be part of the cache key.
          pushed: the push of the champion, which answers where the champion's own artifact is lost.
          model_run: of the Trainer, which says how many rows it read.
          transformed_examples: of Transform, where it writes them.
          time: the column that orders the rows, or null, as JSON.
        """
        super().__init__(
            ModelGateSpec(
                examples=examples,
                model=model,
                champion=champion,
                evaluation=evaluation,
                serving_verdict=serving_verdict,
                pushed=pushed,
                model_run=model_run,
                transformed_examples=transformed_examples,
                settings=settings,
                slices=slices,
                overrides=overrides,
                features=features,
                time=time,
                source_digest=source_digest,
                verdict=types.Channel(type=GateVerdict),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
