"""A compiled pipeline as a file: the IR of Kubeflow Pipelines v2, which Vertex AI Pipelines runs too.

A file holds a whole job (PipelineJob: the specification, its labels and the values of its parameters) or the
specification alone (PipelineSpec), as JSON or YAML, of schema version 2.1.0 or the older 2.0.0.
"""

from __future__ import annotations

import difflib
import graphlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from google.protobuf import json_format
from google.protobuf.message import Message
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

SCHEMA_VERSIONS = ("2.0.0", "2.1.0")
CODE_LABEL = "headworks-code"
HOME = "home"
"""Parameter of our jobs: the place for what outlives a run. The pipeline root lies below it."""

M = TypeVar("M", bound=Message)

_EXECUTOR_KINDS = ("container", "importer", "resolver")
_LEGACY_TYPES = {"INT": "NUMBER_INTEGER", "DOUBLE": "NUMBER_DOUBLE", "STRING": "STRING"}
_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


class SpecError(Exception):
    """A specification that cannot be run here; the message has one line per fault."""


@dataclass(frozen=True)
class Task:
    """A task of a specification.

    Attributes:
      path: its name, after those of the tasks whose DAG it is part of: `tfx-dag/Trainer`.
      parent: path of the task whose DAG it is part of; empty for the root's.
      spec: its inputs, trigger and policies.
      component: its interface.
      executor: what runs; None where the component is a DAG.
      upstream: names of the tasks beside it that have to end first.
    """

    path: str
    parent: str
    spec: ir.PipelineTaskSpec
    component: ir.ComponentSpec
    executor: ir.PipelineDeploymentConfig.ExecutorSpec | None
    upstream: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name among the tasks beside it."""
        return self.path.rpartition("/")[2]

    def beside(self, name: str) -> str:
        """The path of a task beside it."""
        return f"{self.parent}/{name}" if self.parent else name


@dataclass(frozen=True)
class Job:
    """A specification and what its parameters are set to.

    Attributes:
      file: it was read from.
      pipeline: name of the pipeline.
      labels: of the job; a specification alone has none.
      root: interface of the whole; its component is a DAG.
      tasks: with those of inner DAGs, each after what it waits for.
      parameters: values of the root's parameters.
    """

    file: Path
    pipeline: str
    labels: Mapping[str, str]
    root: ir.ComponentSpec
    tasks: tuple[Task, ...]
    parameters: Mapping[str, Any]

    def with_parameters(self, assignments: Sequence[str]) -> Job:
        """The job with parameters set by `NAME=VALUE`; lists and structs in JSON.

        Raises:
          SpecError: naming each parameter that does not exist, has a value of another type, or needs one.
        """
        declared = self.root.input_definitions.parameters
        given = dict(self.parameters)
        faults = []
        for assignment in assignments:
            name, is_assigned, text = assignment.partition("=")
            if not is_assigned:
                faults.append(f"--parameter {assignment}: want NAME=VALUE")
            elif name not in declared:
                faults.append(f"--parameter {name}: {self.file} has no such parameter{meant(name, declared)}")
            else:
                kind = parameter_type(declared[name])
                try:
                    given[name] = _read_value(text, kind)
                except ValueError:
                    faults.append(f"--parameter {name}={text}: want a value of type {kind}")
        for name, parameter in declared.items():
            if name not in given and not parameter.is_optional:
                faults.append(
                    f"parameter {name} ({parameter_type(parameter)}) has no value; give --parameter {name}=VALUE"
                )
        if faults:
            raise SpecError("\n".join(faults))
        return replace(self, parameters=given)

    @property
    def tells_code_apart(self) -> bool:
        """Whether it matters which code is here: it says what it was compiled from, or caches results."""
        return CODE_LABEL in self.labels or any(task.spec.caching_options.enable_cache for task in self.tasks)

    def check_code(self, code: str) -> None:
        """Compares the code the job was compiled from with the code that is here.

        Raises:
          SpecError: if they differ.
        """
        compiled = self.labels.get(CODE_LABEL, code)
        if compiled != code:
            raise SpecError(
                f"{self.file}: compiled from code {compiled}, the code here is {code}; "
                "compile it again, or give --any-code to run this code with that job"
            )


def load(file: Path, folder: str) -> Job:
    """Reads a specification to be run with a folder as its pipeline root, and as its home if it has one.

    Texts in it that name the root or home it was compiled for, or a place below, name this folder or one below.

    Raises:
      SpecError: if the file cannot be read, or is no specification that makes sense, one line a fault.
    """
    document = _document(file)
    is_job = "pipelineSpec" in document
    plain = document["pipelineSpec"] if is_job else document
    runtime = document.get("runtimeConfig", {}) if is_job else {}
    if not isinstance(plain, dict) or "root" not in plain or "deploymentSpec" not in plain:
        raise SpecError(
            f"{file}: not a compiled pipeline: want a PipelineJob with pipelineSpec, or a PipelineSpec with "
            "root, components and deploymentSpec"
        )
    version = plain.get("schemaVersion") or SCHEMA_VERSIONS[0]
    if version not in SCHEMA_VERSIONS:
        raise SpecError(f"{file}: schemaVersion {version}: want {' or '.join(SCHEMA_VERSIONS)}")
    places = _places(plain, runtime)
    plain, runtime = _moved(plain, places, folder), _moved(runtime, places, folder)
    spec = _parse(file, "pipelineSpec", plain, ir.PipelineSpec())
    executors = _executors(file, plain["deploymentSpec"].get("executors", {}))
    faults: list[str] = []
    tasks = tuple(_Reader(spec.components, executors, faults).tasks(spec.root, "", ()))
    parameters = _parameters(spec.root, runtime, faults)
    if HOME in spec.root.input_definitions.parameters:
        parameters.setdefault(HOME, folder)
    if faults:
        raise SpecError("\n".join(f"{file}: {fault}" for fault in dict.fromkeys(faults)))
    return Job(
        file=file,
        pipeline=spec.pipeline_info.name or "pipeline",
        labels=document.get("labels") or {} if is_job else {},
        root=spec.root,
        tasks=tasks,
        parameters=parameters,
    )


def parameter_type(parameter: Message) -> str:
    """Name of a parameter's type in the newer schema, whichever schema declares it."""
    plain = json_format.MessageToDict(parameter)
    return str(plain.get("parameterType") or _LEGACY_TYPES.get(plain.get("type", ""), "STRING"))


def constant(value: ir.ValueOrRuntimeParameter) -> Any:
    """The value that a task sets, of either schema; None where it names a parameter instead."""
    kind = value.WhichOneof("value")
    if kind == "constant":
        return json_format.MessageToDict(value.constant)
    if kind == "constant_value":
        legacy = value.constant_value
        return getattr(legacy, legacy.WhichOneof("value"))
    return None


def is_of_type(value: Any, kind: str) -> bool:
    """Whether a JSON value is of a parameter's type; types of the service's own take any value."""
    want = _JSON_TYPES.get(kind)
    if want is None:
        return True
    if isinstance(value, bool):
        return kind == "BOOLEAN"
    if kind == "NUMBER_INTEGER" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, want)


def meant(name: str, known: Iterator[str] | Mapping[str, Any] | Sequence[str]) -> str:
    """What to add to an error about a name that is not known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"


def producers(task: ir.PipelineTaskSpec) -> Iterator[tuple[str, str, str, str]]:
    """Yields what a task takes from tasks beside it: name of the input, producer, kind of output and its key."""
    for name, artifact in task.inputs.artifacts.items():
        if artifact.WhichOneof("kind") == "task_output_artifact":
            source = artifact.task_output_artifact
            yield name, source.producer_task, "artifacts", source.output_artifact_key
    for name, parameter in task.inputs.parameters.items():
        match parameter.WhichOneof("kind"):
            case "task_output_parameter":
                output = parameter.task_output_parameter
                yield name, output.producer_task, "parameters", output.output_parameter_key
            case "task_final_status":
                yield name, parameter.task_final_status.producer_task, "", ""


def _document(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        # A second YAML document holds what only Kubernetes needs to know.
        document = json.loads(text) if text.lstrip().startswith("{") else next(yaml.safe_load_all(text), None)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise SpecError(f"{file}: neither JSON nor YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise SpecError(
            f"{file}: not a compiled pipeline: holds {type(document).__name__}, want keys and values"
        )
    return document


def _places(plain: Mapping[str, Any], runtime: Mapping[str, Any]) -> list[str]:
    """The home and the pipeline root that a specification was compiled for, the shorter first."""
    declared = plain["root"].get("inputDefinitions", {}).get("parameters", {})
    home = (runtime.get("parameterValues") or {}).get(HOME) or declared.get(HOME, {}).get("defaultValue")
    root = runtime.get("gcsOutputDirectory") or plain.get("defaultPipelineRoot")
    found = {place.rstrip("/") for place in (home, root) if isinstance(place, str)}
    return sorted(found - {""}, key=len)


def _moved(plain: Any, places: Sequence[str], folder: str) -> Any:
    """With places replaced by a folder in every text, where they stand as a whole or with something below them."""
    if not places:
        return plain
    place = re.compile(f"(?:{'|'.join(map(re.escape, places))})(?![\\w.-])")

    def moved(value: Any) -> Any:
        match value:
            case str():
                return place.sub(lambda _: folder, value)
            case list():
                return [moved(item) for item in value]
            case dict():
                return {key: moved(item) for key, item in value.items()}
        return value

    return moved(plain)


def _parse(file: Path, where: str, plain: Any, message: M) -> M:
    try:
        return json_format.ParseDict(plain, message)
    except json_format.ParseError as error:
        raise SpecError(f"{file}: {where}: {error}") from error


def _executors(file: Path, plain: Mapping[str, Any]) -> dict[str, ir.PipelineDeploymentConfig.ExecutorSpec]:
    executors = {}
    for label, executor in plain.items():
        unknown = sorted(set(executor) - set(_EXECUTOR_KINDS))
        if unknown:
            raise SpecError(
                f"{file}: executor {label} is a {', '.join(unknown)}, which cannot be rehearsed; "
                f"what can: {', '.join(_EXECUTOR_KINDS)}"
            )
        where = f"executor {label}"
        executors[label] = _parse(file, where, executor, ir.PipelineDeploymentConfig.ExecutorSpec())
    return executors


def _parameters(root: ir.ComponentSpec, runtime: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """The root's parameters with a value: its default, or what the job sets."""
    declared = root.input_definitions.parameters
    values = {
        name: json_format.MessageToDict(parameter.default_value)
        for name, parameter in declared.items()
        if parameter.HasField("default_value")
    }
    for name, legacy in (runtime.get("parameters") or {}).items():
        value = json_format.ParseDict(legacy, ir.Value())
        values[name] = getattr(value, value.WhichOneof("value"))
    values |= runtime.get("parameterValues") or {}
    for name, value in values.items():
        if name not in declared:
            faults.append(
                f"runtimeConfig sets parameter {name}, which the pipeline lacks{meant(name, declared)}"
            )
        elif not is_of_type(value, kind := parameter_type(declared[name])):
            faults.append(f"parameter {name}: {value!r} is not of type {kind}")
        elif kind == "NUMBER_INTEGER":
            # A number of a Struct is a double, whatever was meant.
            values[name] = int(value)
    return values


def _read_value(text: str, kind: str) -> Any:
    """Raises ValueError for text that is no value of the type."""
    if kind == "STRING":
        return text
    value = json.loads(text.lower() if kind == "BOOLEAN" else text)
    if not is_of_type(value, kind):
        raise ValueError(f"{text} is not of type {kind}")
    return value


@dataclass(frozen=True)
class _Reader:
    """Collects the tasks of nested DAGs, and what is wrong with how they hang together."""

    components: Mapping[str, ir.ComponentSpec]
    executors: Mapping[str, ir.PipelineDeploymentConfig.ExecutorSpec]
    faults: list[str]

    def tasks(self, dag: ir.ComponentSpec, parent: str, around: tuple[str, ...]) -> Iterator[Task]:
        """Yields the tasks of a DAG, each after what it waits for, a task before those of its own DAG."""
        for name in self._order(dag.dag.tasks, parent):
            spec = dag.dag.tasks[name]
            path = f"{parent}/{name}" if parent else name
            component_name = spec.component_ref.name
            component = self.components.get(component_name)
            if component is None:
                self.faults.append(
                    f"task {path}: no component {component_name}{meant(component_name, self.components)}"
                )
                continue
            if component_name in around:
                self.faults.append(f"task {path}: component {component_name} contains itself")
                continue
            self._check(path, spec, dag)
            is_dag = component.WhichOneof("implementation") == "dag"
            label = component.executor_label
            if not is_dag and label not in self.executors:
                self.faults.append(f"task {path}: no executor {label}{meant(label, self.executors)}")
                continue
            upstream = tuple(dict.fromkeys(_upstream(spec)))
            yield Task(path, parent, spec, component, None if is_dag else self.executors[label], upstream)
            if is_dag:
                yield from self.tasks(component, path, (*around, component_name))

    def _order(self, tasks: Mapping[str, ir.PipelineTaskSpec], parent: str) -> list[str]:
        known = {name: [up for up in _upstream(task) if up in tasks] for name, task in sorted(tasks.items())}
        try:
            return list(graphlib.TopologicalSorter(known).static_order())
        except graphlib.CycleError as error:
            self.faults.append(
                f"tasks of {parent or 'the pipeline'} wait for each other: {' → '.join(error.args[1])}"
            )
            return []

    def _check(self, path: str, spec: ir.PipelineTaskSpec, dag: ir.ComponentSpec) -> None:
        beside = dag.dag.tasks
        for name in spec.dependent_tasks:
            if name not in beside:
                self.faults.append(f"task {path}: waits for {name}, which is no task{meant(name, beside)}")
        for name, producer, kind, key in producers(spec):
            if producer not in beside:
                self.faults.append(
                    f"task {path}: input {name} comes from {producer}, which is no task{meant(producer, beside)}"
                )
            elif kind:
                made = self._outputs(beside[producer], kind)
                if key not in made:
                    self.faults.append(
                        f"task {path}: input {name} is {key} of {producer}, which has no such output{meant(key, made)}"
                    )
        for name, parameter in spec.inputs.parameters.items():
            if parameter.parameter_expression_selector:
                self.faults.append(
                    f"task {path}: input {name} selects from a value, which cannot be rehearsed"
                )
            source = parameter.component_input_parameter
            if source and source not in dag.input_definitions.parameters:
                self.faults.append(f"task {path}: input {name} is parameter {source}, which is not there")
        for name, artifact in spec.inputs.artifacts.items():
            source = artifact.component_input_artifact
            if source and source not in dag.input_definitions.artifacts:
                self.faults.append(f"task {path}: input {name} is artifact {source}, which is not there")
        if spec.WhichOneof("iterator"):
            self.faults.append(f"task {path}: runs once for each item of a list, which cannot be rehearsed")

    def _outputs(self, task: ir.PipelineTaskSpec, kind: str) -> Mapping[str, Message]:
        component = self.components.get(task.component_ref.name)
        made: Mapping[str, Message] = getattr(component.output_definitions, kind) if component else {}
        return made


def _upstream(task: ir.PipelineTaskSpec) -> Iterator[str]:
    yield from task.dependent_tasks
    yield from (producer for _, producer, _, _ in producers(task))
