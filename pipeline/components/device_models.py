"""DeviceModels: a TFX component that makes LiteRT files of a pushed model, and pushes those inside the budget.

Every file is asked for real rows in a fresh process that has no TensorFlow, through the client that ships with it,
before anything is said of it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact, artifact_utils, component_spec, standard_artifacts

from gates.device import Failed, Judged, Ran, Served, judge_devices
from gates.evidence import DeviceEvidence
from gates.intervals import Bootstrap
from gates.overrides import apply
from pipeline import device_process
from pipeline.components.gate_output import GateVerdict, overrides, write_or_stop
from pipeline.config import TfliteConfig
from pipeline.example_rows import SavedModel, read_rows, records
from pipeline.probe_rows import raw_columns
from pipeline.push import MANIFEST, push
from schemas.features import MISSING_INT, DType, FeatureSet
from tflite import client
from tflite.analysed import Analysed
from tflite.learning import TreatmentError
from tflite.metadata import DeviceFeature, DeviceLabel, Metadata, attach, source_digest_of
from tflite.preprocessing import input_layout
from tflite.production import Production, Source
from tflite.quantization import QuantizationError
from tflite.variants import UNTREATED, Variant

RECOMMENDED = "model.tflite"
"""The file of a pushed folder that holds the recommended variant."""

_CLIENT = Path(client.__file__)
_LEVEL = 0.95
_RESAMPLES = 200
_TRAINING_RECORD = "training.json"
_DESTINATION = "pushed_destination"
_FOLDER = "folder"
"""The file of the artifact that holds the path of the pushed folder."""


class DeviceModelFiles(artifact.Artifact):
    """A LiteRT file for each variant, also for those that are not blessed."""

    TYPE_NAME = "HeadworksDeviceModels"


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
        version = Path(
            artifact_utils.get_single_instance(input_dict["pushed_model"]).get_string_custom_property(
                _DESTINATION
            )
        )
        source = _source(version, input_dict, exec_properties)
        metadata = _metadata(version, source, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        made = artifact_utils.get_single_instance(output_dict["device_models"])
        files = Path(made.uri)
        files.mkdir(parents=True, exist_ok=True)
        production = Production(
            source, settings, lambda float32: _samples(attach(float32, metadata), examples, source, settings)
        )
        variants = _variants(settings)
        failed = _make(variants, production, metadata, files)
        judged = _judge(variants, failed, files, examples, version, source, metadata, settings)
        verdicts = apply(judged.verdicts, overrides(exec_properties))
        write_or_stop(verdicts, judged.evidence, Path(artifact_utils.get_single_uri(output_dict["verdict"])))
        _push(judged.evidence, files, made, Path(exec_properties["folder"]), metadata)


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
        created_by="headworks",
    )


def _variants(settings: TfliteConfig) -> tuple[Variant, ...]:
    """Those that are asked for, and the one that vouches for the preprocessing."""
    asked = tuple(Variant.from_name(name) for name in settings.variants)
    return asked if UNTREATED in asked else (UNTREATED, *asked)


def _samples(
    float32: bytes, examples: types.Artifact, source: Source, settings: TfliteConfig
) -> Sequence[Mapping[str, Any]]:
    """Rows of train as the inputs of a device model, through the client that ships with it."""
    split = Path(artifact_utils.get_split_uri([examples], "train"))
    taken = records(split, 2 * settings.calibration_rows - 1).taken[: settings.calibration_rows]
    columns = _columns(taken, source.features)
    with tempfile.TemporaryDirectory(prefix="device-models-") as folder:
        path = Path(folder) / RECOMMENDED
        path.write_bytes(float32)
        model = client.DeviceModel(path)
        rows = zip(*(_values(columns[f.name], f.dtype) for f in source.features), strict=True)
        names = [feature.name for feature in source.features]
        return [model.tensors(dict(zip(names, row, strict=True))) for row in rows]


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
        except (QuantizationError, TreatmentError) as error:
            failed[variant.name] = Failed(variant.name, str(error))
            continue
        described = attach(model, replace(metadata, variant=variant.name))
        (folder / f"{variant.name}.tflite").write_bytes(described)
    return failed


def _judge(
    variants: Sequence[Variant],
    failed: Mapping[str, Failed],
    files: Path,
    examples: types.Artifact,
    version: Path,
    source: Source,
    metadata: Metadata,
    settings: TfliteConfig,
) -> Judged:
    """Lets every file and the server's model answer for the same rows of test."""
    test = records(Path(artifact_utils.get_split_uri([examples], "test")), 2 * settings.rows - 1).taken
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
    return judge_devices(served, found, settings.budget, settings.max_difference, bootstrap)


def _push(found: DeviceEvidence, files: Path, made: types.Artifact, folder: Path, metadata: Metadata) -> None:
    """The blessed files, the recommended one under a name of its own, and the client that reads them."""
    assert found.recommended is not None, "the gate refuses where none is blessed"
    blessed = [variant for variant in found.variants if variant.is_blessed]
    with tempfile.TemporaryDirectory(prefix="device-models-") as temporary:
        staged = Path(temporary)
        for variant in blessed:
            shutil.copyfile(files / f"{variant.name}.tflite", staged / f"{variant.name}.tflite")
        shutil.copyfile(files / f"{found.recommended}.tflite", staged / RECOMMENDED)
        shutil.copyfile(_CLIENT, staged / _CLIENT.name)
        facts = {
            "pipeline": metadata.name,
            "model_version": metadata.version,
            "run_id": metadata.run_id,
            "source_sha256": metadata.source_sha256,
            "recommended": found.recommended,
            "reason": found.reason,
        }
        pushed = push(staged, folder, facts, _last_pushed(Path(made.uri).parent, folder))
    made.set_string_custom_property(_DESTINATION, str(pushed.folder))
    made.set_string_custom_property("pushed_version", str(pushed.version))
    (files / _FOLDER).write_text(str(pushed.folder), encoding="utf-8")


def _last_pushed(artifacts: Path, folder: Path) -> int:
    """The last set that this pipeline pushed into a folder, even if all of the folder was deleted since."""
    pushed = (Path(path.read_text(encoding="utf-8")) for path in artifacts.glob(f"*/{_FOLDER}"))
    return max((int(version.name) for version in pushed if version.parent == folder), default=0)


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
