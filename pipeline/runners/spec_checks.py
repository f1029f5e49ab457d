"""What would fail late in a rehearsal, found before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from shutil import which

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipeline.runners import conditions, placeholders
from pipeline.runners.artifact_records import Query
from pipeline.runners.conditions import ConditionError
from pipeline.runners.container_process import environment, is_module, modules_of
from pipeline.runners.pipeline_spec import Job, SpecError, Task

_STRUCTURED = ('{"Concat":', '{"IfPresent":')


def check(job: Job) -> None:
    """Checks every task's condition, filter and commands.

    Raises:
      SpecError: with one line a fault.
    """
    faults = [f"{job.file}: task {task.path}: {fault}" for task in job.tasks for fault in _faults(task)]
    if faults:
        raise SpecError("\n".join(dict.fromkeys(faults)))


def _faults(task: Task) -> Iterator[str]:
    if condition := task.spec.trigger_policy.condition:
        try:
            conditions.check(condition)
        except ConditionError as error:
            yield str(error)
    for parameter in task.spec.inputs.parameters.values():
        yield from _unknown([parameter.runtime_value.constant.string_value])
    if task.executor is None:
        return
    match task.executor.WhichOneof("spec"):
        case "container":
            yield from _container_faults(task.executor.container)
        case "importer":
            if len(task.component.output_definitions.artifacts) != 1:
                yield "imports an artifact, so its component has to have one output"
        case "resolver":
            for query in task.executor.resolver.output_artifact_queries.values():
                try:
                    Query.parse(query.filter)
                except SpecError as error:
                    yield str(error)
                yield from _unknown([query.filter])
        case _:
            yield "its executor says nothing"


def _container_faults(container: ir.PipelineDeploymentConfig.PipelineContainerSpec) -> Iterator[str]:
    if not container.command:
        yield f"runs the entry point of image {container.image}, which is not known here; compile it with a command"
    hook = container.lifecycle.pre_cache_check
    for command in ([*container.command, *container.args], [*hook.command, *hook.args]):
        yield from _command_faults(command)


def _command_faults(command: Sequence[str]) -> Iterator[str]:
    if not command:
        return
    for module in modules_of(command):
        if not is_module(module):
            yield f"runs module {module}, which is not found here; install what holds it, or mend the command"
    if "{{$" not in command[0] and which(command[0], path=environment()["PATH"]) is None:
        yield f"runs {command[0]}, which is not on this machine"
    if any(part.startswith(_STRUCTURED) for part in command):
        yield "has a command with Concat or IfPresent, which cannot be rehearsed"
    yield from _unknown(command)


def _unknown(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for placeholder in placeholders.unknown(text):
            yield f"{placeholder}: not a placeholder that is known here"
