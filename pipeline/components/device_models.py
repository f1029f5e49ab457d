"""DeviceModels: a TFX component that makes LiteRT files of a pushed model, and pushes those inside the budget.

Every file is asked for real rows in a fresh process that has no TensorFlow, through the client that ships with it,
before anything is said of it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact, artifact_utils, component_spec, standard_artifacts

from gates.device import Failed, Judged, Ran, Served, judge_devices, judge_rows
from gates.evidence import DeviceEvidence
from gates.intervals import Bootstrap
from gates.overrides import apply
from gates.verdict import Verdict
from pipeline import device_process
from pipeline.components.gate_output import GateVerdict, overrides, write_or_stop
from pipeline.config import TfliteConfig
from pipeline.example_rows import SavedModel, read_rows, records
from pipeline.mounts import local_path
from pipeline.probe_rows import raw_columns
from pipeline.push import DESTINATION, MANIFEST, last_noted, note, push
from schemas.features import MISSING_INT, DType, FeatureSet
from tflite import client
from tflite.analysed import Analysed, DeviceError
from tflite.learning import TreatmentError
from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach, source_digest_of
from tflite.preprocessing import input_layout
from tflite.production import Production, Source
from tflite.quantization import QuantizationError
from tflite.variants import UNTREATED, Variant

RECOMMENDED = "model.tflite"
"""The file of a pushed folder that holds the recommended variant."""

_CLIENT = Path(client.__file__)
_MAKERS = ("headworks", "tensorflow", "ai-edge-quantizer")
_LEVEL = 0.95
_RESAMPLES = 200
_TRAINING_RECORD = "training.json"


class DeviceModelFiles(artifact.Artifact):
    """A LiteRT file for each variant, also for those that are not blessed."""

    TYPE_NAME = "pipeline.DeviceModelFiles"


class DeviceModelsSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of DeviceModels."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        "name": component_spec.ExecutionParameter(type=str),
        "settings": component_spec.ExecutionParameter(type=str),
        "overrides": component_spec.ExecutionParameter(type=str),
        "features": component_spec.ExecutionParameter(type=str),
        "units": component_spec.ExecutionParameter(type=str),
        "order_column": component_spec.ExecutionParameter(type=str),
        "folder": component_spec.ExecutionParameter(type=str),
        "source_digest": component_spec.ExecutionParameter(type=str),
        "home": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {  # noqa: RUF012
        "pushed_model": component_spec.ChannelParameter(type=standard_artifacts.PushedModel),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
    }
    OUTPUTS = {  # noqa: RUF012
        "device_models": component_spec.ChannelParameter(type=DeviceModelFiles),
        "verdict": component_spec.ChannelParameter(type=GateVerdict),
    }


class Executor(base_executor.BaseExecutor):
    """Makes the files, asks them, judges their answers, and pushes the blessed ones."""

    def Do(  # noqa: N802 (TFX's interface)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes files, verdicts and figures, and pushes.

        Raises:
          RefusedError: if no variant is inside the budget, or the device prepares rows otherwise than the server.
          DeviceError: if the model cannot be converted at all.
          PushError: if the blessed files could not be copied.
        """
        settings = TypeAdapter(TfliteConfig).validate_json(exec_properties["settings"])
        pushed = artifact_utils.get_single_instance(input_dict["pushed_model"])
        version = Path(local_path(pushed.get_string_custom_property(DESTINATION)))
        source = _source(version, input_dict, exec_properties)
        metadata = _metadata(version, source, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        made = artifact_utils.get_single_instance(output_dict["device_models"])
        files, verdict = Path(made.uri), Path(artifact_utils.get_single_uri(output_dict["verdict"]))
        files.mkdir(parents=True, exist_ok=True)
        production = Production(
            source, settings, lambda float32: _samples(attach(float32, metadata), examples, source, settings)
        )
        variants = _variants(settings)
        failed = _make(variants, production, metadata, files)
        taken = _taken(files / f"{UNTREATED.name}.tflite", examples, source, settings)
        if not taken.verdict.passed:
            write_or_stop(apply([taken.verdict], overrides(exec_properties)), None, verdict)
        judged = _judge(variants, failed, files, taken, version, source, metadata, settings)
        verdicts = apply((taken.verdict, *judged.verdicts), overrides(exec_properties))
        write_or_stop(verdicts, judged.evidence, verdict)
        with tempfile.TemporaryDirectory(prefix="device-models-") as staged:
            facts = _stage(judged.evidence, files, Path(staged), metadata)
            number, destination = self.push(Path(staged), exec_properties, facts, files)
        made.set_string_custom_property(DESTINATION, destination)
        made.set_string_custom_property("pushed_version", str(number))

    def push(
        self, staged: Path, exec_properties: Mapping[str, Any], facts: Mapping[str, Any], artifact: Path
    ) -> tuple[int, str]:
        """Pushes to a folder of this machine; returns version and place."""
        folder = Path(exec_properties["folder"])
        pushed = push(staged, folder, facts, last_noted(artifact.parent, folder))
        note(artifact, pushed)
        return pushed.version, str(pushed.folder)


def _source(
    version: Path, input_dict: Mapping[str, list[types.Artifact]], exec_properties: Mapping[str, Any]
) -> Source:
    record = json.loads(
        (Path(artifact_utils.get_single_uri(input_dict["model_run"])) / _TRAINING_RECORD).read_text(
            encoding="utf-8"
        )
    )
    examples = input_dict["examples"]
    return Source(
        saved_model=str(version),
        transform_graph=artifact_utils.get_single_uri(input_dict["transform_graph"]),
        train_files=[f"{artifact_utils.get_split_uri(examples, 'train')}/*.gz"],
        validation_files=[f"{artifact_utils.get_split_uri(examples, 'validation')}/*.gz"],
        features=FeatureSet.from_json(exec_properties["features"]),
        training=record,
        order_column=json.loads(exec_properties["order_column"]),
    )


def _metadata(version: Path, source: Source, exec_properties: Mapping[str, Any]) -> Metadata:
    """What the file of the untreated model says of itself; others differ in the variant."""
    manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
    features, units = source.features, json.loads(exec_properties["units"])
    widths = {
        place.name: place.width
        for place in input_layout(features, Analysed.read(features, source.transform_graph))
    }
    return Metadata(
        name=exec_properties["name"],
        version=manifest["version"],
        run_id=manifest["run_id"],
        source_sha256=source_digest_of(version),
        variant=UNTREATED.name,
        label=DeviceLabel(features.label.name, features.label.kind.value, features.label.classes),
        features=tuple(
            DeviceFeature(
                feature.name,
                feature.graph_name,
                feature.dtype.value,
                feature.kind.value,
                feature.is_required,
                widths[feature.name],
                units.get(feature.name),
            )
            for feature in features
        ),
        threshold=manifest["threshold"],
        created_by=", ".join(f"{name} {version_of(name)}" for name in _MAKERS),
    )


def _variants(settings: TfliteConfig) -> tuple[Variant, ...]:
    """Those that are asked for, and the one that vouches for the preprocessing."""
    asked = tuple(Variant.from_name(name) for name in settings.variants)
    return asked if UNTREATED in asked else (UNTREATED, *asked)


@dataclass(frozen=True)
class _Taken:
    """Rows of test that the client takes, serialized, and what is said of the others."""

    rows: Sequence[bytes]
    verdict: Verdict


def _taken(float32: Path, examples: types.Artifact, source: Source, settings: TfliteConfig) -> _Taken:
    """Asks the client for each row, as it is the same for all variants."""
    tried = _rows(examples, "test", settings.rows)
    model = client.DeviceModel(float32)
    taken, refused = [], []
    for serialized, row in zip(tried, _callers(tried, source.features), strict=True):
        try:
            model.tensors(row)
        except client.RowError as error:
            refused.append(str(error))
        else:
            taken.append(serialized)
    first = refused[0] if refused else ""
    return _Taken(taken, judge_rows(len(tried), len(refused), first, settings.max_refused_rows))


def _samples(
    float32: bytes, examples: types.Artifact, source: Source, settings: TfliteConfig
) -> Sequence[Mapping[str, Any]]:
    """Rows of train as the inputs of a device model, through the client that ships with it."""
    taken = _rows(examples, "train", settings.calibration_rows)
    with tempfile.TemporaryDirectory(prefix="device-models-") as folder:
        path = Path(folder) / "calibrated.tflite"
        path.write_bytes(float32)
        model = client.DeviceModel(path)
        samples = []
        for row in _callers(taken, source.features):
            with suppress(client.RowError):  # Rows of test tell how many it refuses.
                samples.append(model.tensors(row))
        return samples


def _rows(examples: types.Artifact, split: str, count: int) -> Sequence[bytes]:
    """So many rows of a split, or all it has, evenly spread over it."""
    found = records(Path(artifact_utils.get_split_uri([examples], split)), 2 * count - 1).taken
    if len(found) <= count:
        return found
    return [found[place] for place in np.linspace(0, len(found) - 1, count).astype(int)]


def _callers(serialized: Sequence[bytes], features: FeatureSet) -> Iterator[dict[str, Any]]:
    """Rows as a caller has them."""
    columns = _columns(serialized, features)
    names = [feature.name for feature in features]
    for row in zip(*(_values(columns[f.name], f.dtype) for f in features), strict=True):
        yield dict(zip(names, row, strict=True))


def _columns(serialized: Sequence[bytes], features: FeatureSet) -> dict[str, Any]:
    """Raw values `[rows]` by column."""
    found = raw_columns(serialized, features)
    return {feature.name: found[feature.graph_name] for feature in features}


def _values(column: Any, dtype: DType) -> list[Any]:
    """Values as a caller has them: a missing integer is None; the client knows other missing values."""
    values = column.tolist()
    if dtype is not DType.INT:
        return list(values)
    return [None if value == MISSING_INT else value for value in values]


def _make(
    variants: Sequence[Variant], production: Production, metadata: Metadata, folder: Path
) -> dict[str, Failed]:
    """Writes a file for each variant; those that cannot be had come back with the reason."""
    failed = {}
    for variant in variants:
        try:
            model = production.make(variant)
        except (DeviceError, QuantizationError, TreatmentError) as error:
            if variant == UNTREATED:
                raise
            failed[variant.name] = Failed(variant.name, str(error))
            continue
        described = attach(model, replace(metadata, variant=variant.name))
        (folder / f"{variant.name}.tflite").write_bytes(described)
    return failed


def _judge(
    variants: Sequence[Variant],
    failed: Mapping[str, Failed],
    files: Path,
    taken: _Taken,
    version: Path,
    source: Source,
    metadata: Metadata,
    settings: TfliteConfig,
) -> Judged:
    """Lets every file and the server's model answer for the same rows of test."""
    test = taken.rows
    label = source.features.label
    with device_process.rows_file(_columns(test, source.features), label.kind) as rows:
        found: list[Ran | Failed] = [
            failed.get(variant.name)
            or device_process.ask(variant.name, files / f"{variant.name}.tflite", _CLIENT, rows)
            for variant in variants
        ]
    served = Served(
        label=label,
        truth=read_rows(test, source.features).truth,
        answers=SavedModel(version, label.kind)(test),
        bytes=sum(path.stat().st_size for path in version.rglob("*") if path.is_file()),
        threshold=metadata.threshold,
    )
    bootstrap = Bootstrap.draw(len(test), _RESAMPLES, _LEVEL)
    return judge_devices(
        served, found, settings.variants, settings.budget, settings.max_difference, bootstrap
    )


def _stage(found: DeviceEvidence, files: Path, staged: Path, metadata: Metadata) -> dict[str, Any]:
    """The blessed files, the recommended one under a name of its own, and the client that reads them; with facts."""
    assert found.recommended is not None, "the gate refuses where none is blessed"
    blessed = [variant for variant in found.variants if variant.is_blessed]
    for variant in blessed:
        shutil.copyfile(files / f"{variant.name}.tflite", staged / f"{variant.name}.tflite")
    shutil.copyfile(files / f"{found.recommended}.tflite", staged / RECOMMENDED)
    shutil.copyfile(_CLIENT, staged / _CLIENT.name)
    return {
        "pipeline": metadata.name,
        "model_version": metadata.version,
        "run_id": metadata.run_id,
        "source_sha256": metadata.source_sha256,
        "recommended": found.recommended,
        "reason": found.reason,
    }


class DeviceModels(base_component.BaseComponent):
    """A pushed model to LiteRT files; none inside the budget is a failed component."""

    SPEC_CLASS = DeviceModelsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        pushed_model: types.BaseChannel,
        model_run: types.BaseChannel,
        examples: types.BaseChannel,
        transform_graph: types.BaseChannel,
        name: str,
        settings: str,
        overrides: str,
        features: str,
        units: str,
        order_column: str,
        folder: str,
        source_digest: str,
    ) -> None:
        """Describes the step.

        Args:
          pushed_model: the version that serves.
          model_run: of the Trainer, with the settings of the training.
          examples: raw, with the splits train, validation and test.
          transform_graph: of Transform.
          name: of the pipeline.
          settings: the configuration's `tflite`, as JSON.
          overrides: those of the configuration that count today, as JSON.
          features: the `FeatureSet`, as JSON.
          units: of features, by name, as JSON.
          order_column: what orders the rows, or null, as JSON.
          folder: where the blessed files go.
          source_digest: changes with the code that makes and judges; only there to be part of the cache key.
        """
        super().__init__(
            DeviceModelsSpec(
                pushed_model=pushed_model,
                model_run=model_run,
                examples=examples,
                transform_graph=transform_graph,
                name=name,
                settings=settings,
                overrides=overrides,
                features=features,
                units=units,
                order_column=order_column,
                folder=folder,
                source_digest=source_digest,
                device_models=types.Channel(type=DeviceModelFiles),
                verdict=types.Channel(type=GateVerdict),
            )
        )
