"""What a task is given: its inputs from the tasks before it, and the ExecutorInput that its command reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipeline.runners.artifact_records import Artifact, Values
from pipeline.runners.pipeline_spec import Task, constant, is_of_type, parameter_type

OUTPUT_FILE = "executor_output.json"
_RESOURCE = "projects/rehearsal/locations/local/metadataStores/default/artifacts"


class InputError(Exception):
    """An input that is not there, or an output that is not as declared."""


@dataclass(frozen=True)
class Finished:
    """A task that has ended: its outputs, if it succeeded, and how it ended as a PipelineTaskFinalStatus."""

    outputs: Values | None
    final_status: Mapping[str, Any]


def inputs_of(task: Task, around: Values, finished: Mapping[str, Finished]) -> Values:
    """The inputs of a task.

    Args:
      task: whose.
      around: inputs of the DAG it is part of.
      finished: the tasks beside it that have ended, by name.

    Raises:
      InputError: if a required one is not there.
    """
    declared = task.component.input_definitions
    artifacts: dict[str, tuple[Artifact, ...]] = {}
    for name, source in task.spec.inputs.artifacts.items():
        found = _artifact(source, around, finished)
        if found is not None:
            artifacts[name] = found
        elif not _is_optional(declared.artifacts, name):
            raise InputError(f"input {name}: {_origin(source)} has none")
    parameters: dict[str, Any] = {
        name: json_format.MessageToDict(parameter.default_value)
        for name, parameter in declared.parameters.items()
        if parameter.HasField("default_value")
    }
    for name, given in task.spec.inputs.parameters.items():
        kind = parameter_type(declared.parameters[name]) if name in declared.parameters else "STRUCT"
        value = _parameter(given, around, finished, kind)
        if value is not None:
            parameters[name] = _typed(name, value, kind)
        elif name not in parameters and not _is_optional(declared.parameters, name):
            raise InputError(f"input {name}: {_origin(given)} has none")
    return Values(artifacts, parameters)


def outputs_of_dag(task: Task, children: Mapping[str, Finished]) -> Values:
    """The outputs of a task that is a DAG: those of its tasks, by name, of several the first that is there."""
    declared = task.component.dag.outputs
    artifacts: dict[str, tuple[Artifact, ...]] = {}
    for name, output in declared.artifacts.items():
        for selector in output.artifact_selectors:
            made = _outputs(children, selector.producer_subtask).artifacts
            if selector.output_artifact_key in made and name not in artifacts:
                artifacts[name] = made[selector.output_artifact_key]
    parameters: dict[str, Any] = {}
    for name, choice in declared.parameters.items():
        selectors = (
            choice.value_from_oneof.parameter_selectors
            if choice.WhichOneof("kind") == "value_from_oneof"
            else [choice.value_from_parameter]
        )
        for selector in selectors:
            values = _outputs(children, selector.producer_subtask).parameters
            if selector.output_parameter_key in values:
                parameters.setdefault(name, values[selector.output_parameter_key])
    return Values(artifacts, parameters)


def declared_outputs(task: Task, job: str, folder: Path, now: str) -> dict[str, Artifact]:
    """Artifacts as a task finds them before it runs: named, with a place of their own below its folder."""
    return {
        key: Artifact(
            name=f"{_RESOURCE}/{job}-{task.path.replace('/', '-')}-{key}",
            type=json_format.MessageToDict(output.artifact_type),
            uri=str(folder / key),
            metadata=json_format.MessageToDict(output.metadata),
            created_at=now,
        )
        for key, output in task.component.output_definitions.artifacts.items()
    }


def executor_input(
    task: Task, inputs: Values, outputs: Mapping[str, Artifact], folder: Path
) -> dict[str, Any]:
    """The ExecutorInput of a task in JSON, for components of either schema."""
    legacy = {name: _legacy(value) for name, value in inputs.parameters.items()}
    parameters = task.component.output_definitions.parameters
    return {
        "inputs": _filled(
            artifacts={key: _list(made) for key, made in inputs.artifacts.items()},
            parameterValues=dict(inputs.parameters),
            parameters={name: value for name, value in legacy.items() if value is not None},
        ),
        "outputs": {
            **_filled(
                artifacts={key: _list((artifact,)) for key, artifact in outputs.items()},
                parameters={
                    key: {"outputFile": str(folder / "output_parameters" / key)} for key in parameters
                },
            ),
            "outputFile": str(folder / OUTPUT_FILE),
        },
    }


def read_output(file: Path) -> ir.ExecutorOutput:
    """What a command wrote about its outputs; empty where it wrote nothing.

    Raises:
      InputError: if it is no ExecutorOutput.
    """
    if not file.exists():
        return ir.ExecutorOutput()
    try:
        return json_format.Parse(file.read_text(encoding="utf-8"), ir.ExecutorOutput())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not an ExecutorOutput: {error}") from error


def with_artifacts(
    declared: Mapping[str, Artifact], output: ir.ExecutorOutput
) -> dict[str, tuple[Artifact, ...]]:
    """The artifacts of a task with what its command says of them.

    Raises:
      InputError: if it speaks of one that is not declared.
    """
    made: dict[str, tuple[Artifact, ...]] = {key: (artifact,) for key, artifact in declared.items()}
    for key, written in output.artifacts.items():
        if key not in declared:
            raise InputError(f"the command put out artifact {key}, which the component does not declare")
        made[key] = tuple(
            _amended(declared[key], artifact, i) for i, artifact in enumerate(written.artifacts)
        )
    return made


def output_parameters(task: Task, output: ir.ExecutorOutput, message: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters a command put out, in its ExecutorOutput or in the files it was given.

    Raises:
      InputError: for a value of another type than declared.
    """
    found: dict[str, Any] = {
        name: getattr(value, value.WhichOneof("value")) for name, value in output.parameters.items()
    }
    found |= {name: json_format.MessageToDict(value) for name, value in output.parameter_values.items()}
    declared = task.component.output_definitions.parameters
    for name, place in message["outputs"].get("parameters", {}).items():
        file = Path(place["outputFile"])
        if file.is_file():
            found[name] = _from_file(file, name, parameter_type(declared[name]))
    return {
        name: _typed(name, value, parameter_type(declared[name]))
        for name, value in found.items()
        if name in declared
    }


def after_driver(inputs: Values, output: ir.ExecutorOutput) -> Values:
    """The inputs with parameters that the hook before the cache check has set."""
    updated = {name: json_format.MessageToDict(value) for name, value in output.parameter_values.items()}
    for name, value in output.parameters.items():
        updated[name] = getattr(value, value.WhichOneof("value"))
    return replace(inputs, parameters={**inputs.parameters, **updated})


def _artifact(
    source: ir.TaskInputsSpec.InputArtifactSpec, around: Values, finished: Mapping[str, Finished]
) -> tuple[Artifact, ...] | None:
    if source.WhichOneof("kind") == "component_input_artifact":
        return around.artifacts.get(source.component_input_artifact)
    output = source.task_output_artifact
    return _outputs(finished, output.producer_task).artifacts.get(output.output_artifact_key)


def _parameter(
    source: ir.TaskInputsSpec.InputParameterSpec,
    around: Values,
    finished: Mapping[str, Finished],
    kind: str,
) -> Any:
    match source.WhichOneof("kind"):
        case "component_input_parameter":
            return around.parameters.get(source.component_input_parameter)
        case "task_output_parameter":
            output = source.task_output_parameter
            return _outputs(finished, output.producer_task).parameters.get(output.output_parameter_key)
        case "task_final_status":
            status = finished[source.task_final_status.producer_task].final_status
            # TFX declares it as text.
            return json.dumps(status) if kind == "STRING" else dict(status)
    runtime = source.runtime_value
    if runtime.WhichOneof("value") == "runtime_parameter":
        return around.parameters.get(runtime.runtime_parameter)
    return constant(runtime)


def _outputs(finished: Mapping[str, Finished], name: str) -> Values:
    found = finished.get(name)
    return found.outputs if found is not None and found.outputs is not None else Values()


def _is_optional(declared: Mapping[str, Any], name: str) -> bool:
    return name in declared and bool(declared[name].is_optional)


def _origin(source: Message) -> str:
    plain = json_format.MessageToDict(source)
    place: Any = next(iter(plain.values()), "nothing")
    return (
        " of ".join(reversed(list(place.values()))) if isinstance(place, dict) else f"{place} of the pipeline"
    )


def _typed(name: str, value: Any, kind: str) -> Any:
    """JSON numbers of a Struct are doubles, whatever was meant."""
    if not is_of_type(value, kind):
        raise InputError(f"{name}: {value!r} is not of type {kind}")
    return int(value) if kind == "NUMBER_INTEGER" else value


def _from_file(file: Path, name: str, kind: str) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        if kind == "STRING":
            return text
        return json.loads(text.lower() if kind == "BOOLEAN" else text)
    except ValueError as error:
        raise InputError(f"output {name}: {file} holds no value of type {kind}") from error


def _amended(declared: Artifact, written: ir.RuntimeArtifact, index: int) -> Artifact:
    return replace(
        declared,
        # One of several of a list has a name of its own.
        name=f"{declared.name}-{index}" if index else declared.name,
        uri=written.uri or declared.uri,
        metadata={**declared.metadata, **json_format.MessageToDict(written.metadata)},
    )


def _legacy(value: Any) -> dict[str, Any] | None:
    match value:
        case bool():
            return None
        case int():
            return {"intValue": value}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
    return None


def _list(artifacts: tuple[Artifact, ...]) -> dict[str, Any]:
    return {"artifacts": [artifact.message() for artifact in artifacts]}


def _filled(**parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}
