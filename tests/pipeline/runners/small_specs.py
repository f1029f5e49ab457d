"""Compiled pipelines of a few lines, whose containers run `python -c`."""

import json
from pathlib import Path
from typing import Any

from pipeline.runners.pipeline_spec import load
from pipeline.runners.rehearsal import Rehearsal, rehearse

ROOT = "gs://bucket/root"
WRITE = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def uri(key: str, side: str = "outputs") -> str:
    return f"{{{{$.{side}.artifacts['{key}'].uri}}}}"


def kind(title: str) -> dict[str, Any]:
    return {"artifactType": {"instanceSchema": f"title: {title}\ntype: object\n"}}


def step(
    code: str = "",
    *arguments: str,
    takes: dict[str, str] | None = None,
    makes: dict[str, str] | None = None,
    given: dict[str, Any] | None = None,
    declares: dict[str, str] | None = None,
    returns: dict[str, str] | None = None,
    executor: dict[str, Any] | None = None,
    container: dict[str, Any] | None = None,
    **task: Any,
) -> dict[str, Any]:
    """A step of a pipeline.

    Args:
      code: of its container.
      arguments: of the code.
      takes: artifacts, as `{input: "Producer.key"}`.
      makes: artifacts, as `{key: title of its type}`.
      given: parameters; a dict is a source in IR, anything else a constant.
      declares: types of the parameters; absent: STRING.
      returns: types of the output parameters.
      executor: instead of a container.
      container: more of the container.
      task: more of the task, in IR.
    """
    parameters = given or {}
    inputs: dict[str, Any] = {"artifacts": {}, "parameters": {}}
    for name, source in (takes or {}).items():
        producer, _, key = source.partition(".")
        inputs["artifacts"][name] = {
            "taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}
        }
    for name, value in parameters.items():
        inputs["parameters"][name] = (
            value if isinstance(value, dict) else {"runtimeValue": {"constant": value}}
        )
    command = {"image": "x", "command": ["python", "-c", code], "args": list(arguments)}
    return {
        "task": {"inputs": inputs, **task},
        "component": {
            "inputDefinitions": {
                "artifacts": {name: kind("tfx.Any") for name in takes or {}},
                "parameters": {
                    name: {"parameterType": (declares or {}).get(name, "STRING")} for name in parameters
                },
            },
            "outputDefinitions": {
                "artifacts": {key: kind(title) for key, title in (makes or {}).items()},
                "parameters": {key: {"parameterType": type_} for key, type_ in (returns or {}).items()},
            },
        },
        "executor": executor or {"container": {**command, **(container or {})}},
    }


def pipeline(
    steps: dict[str, dict[str, Any]],
    parameters: dict[str, dict[str, Any]] | None = None,
    values: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A PipelineJob in JSON; a step with `dag` in place of an executor holds steps of its own."""
    components: dict[str, Any] = {}
    executors: dict[str, Any] = {}
    root = _dag(steps, components, executors)
    root["inputDefinitions"] = {"parameters": parameters or {}}
    return {
        "labels": {},
        "pipelineSpec": {
            "pipelineInfo": {"name": "small"},
            "schemaVersion": "2.1.0",
            "root": root,
            "components": components,
            "deploymentSpec": {"executors": executors},
        },
        "runtimeConfig": {"gcsOutputDirectory": ROOT, "parameterValues": values or {}},
    }


def _dag(steps: dict[str, Any], components: dict[str, Any], executors: dict[str, Any]) -> dict[str, Any]:
    tasks = {}
    for name, made in steps.items():
        tasks[name] = {"componentRef": {"name": name}, "taskInfo": {"name": name}, **made["task"]}
        if "dag" in made:
            inner = _dag(made["dag"], components, executors)
            inner["dag"]["outputs"] = made.get("outputs", {})
            components[name] = {**made.get("component", {}), **inner}
        else:
            components[name] = {**made["component"], "executorLabel": f"{name}_executor"}
            executors[f"{name}_executor"] = made["executor"]
    return {"dag": {"tasks": tasks}}


def write(folder: Path, job: dict[str, Any]) -> Path:
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    return file


def run(folder: Path, steps: dict[str, dict[str, Any]], *assignments: str, **settings: Any) -> Rehearsal:
    """Rehearse steps below a folder."""
    root = folder / "root"
    parameters = settings.pop("parameters", None)
    job = load(write(folder, pipeline(steps, parameters)), str(root)).with_parameters(assignments)
    return rehearse(job, root, **settings)


def states(result: Rehearsal) -> dict[str, str]:
    return {task: found.state.value for task, found in result.tasks.items()}


def content(result: Rehearsal, task: str, key: str = "out") -> str:
    return Path(result.tasks[task].outputs.artifacts[key][0].uri).read_text()
