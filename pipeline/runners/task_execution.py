"""Run one task of a rehearsal: its command with its hook, cache and retries, or its import or query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tenacity
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipeline.runners.artifact_records import (
    Artifact,
    Query,
    Records,
    TaskRecord,
    Values,
    digest,
    sizes_of,
)
from pipeline.runners.container_process import CommandFailedError, Commands
from pipeline.runners.pipeline_spec import Task, constant
from pipeline.runners.placeholders import PlaceholderError, Scope
from pipeline.runners.task_inputs import (
    InputError,
    after_driver,
    declared_outputs,
    executor_input,
    output_parameters,
    read_output,
    with_artifacts,
)

_LOG = "task.log"
# What the service does where the policy says nothing.
_BACKOFF_FACTOR = 2.0
# A policy's pauses wait for services to come back; nothing does on this machine.
_LONGEST_PAUSE_SECONDS = 2.0


class TaskFailedError(Exception):
    """A task that failed, after so many attempts at its command."""

    def __init__(self, cause: str, attempts: int = 0) -> None:
        super().__init__(cause)
        self.attempts = attempts


@dataclass(frozen=True)
class Executed:
    """A task that succeeded; one from the cache has made no attempt."""

    outputs: Values
    attempts: int = 0
    is_cached: bool = False


@dataclass(frozen=True)
class TaskRunner:
    """Runs tasks of one job; its tasks may run side by side.

    Attributes:
      job: its name.
      folder: of the job; each task has a folder of its own in it.
      root: pipeline root.
      records: of what was made so far.
      commands: those that run.
      code: tells the code that is here.
      use_cache: whether tasks that allow it may reuse an earlier result.
    """

    job: str
    folder: Path
    root: Path
    records: Records
    commands: Commands
    code: str
    use_cache: bool

    @property
    def job_resource(self) -> str:
        """The job's name as the service writes it out."""
        return f"projects/rehearsal/locations/local/pipelineJobs/{self.job}"

    def log_of(self, task: Task) -> Path:
        """Where a task's command says what it says."""
        return self.folder / task.path / _LOG

    def run(self, task: Task, inputs: Values) -> Executed:
        """Runs a task and puts it on record.

        Raises:
          TaskFailedError: if it failed.
        """
        assert task.executor is not None
        folder = self.folder / task.path
        folder.mkdir(parents=True)
        work = _Work(self, task, folder, inputs, declared_outputs(task, self.job, folder, _now()))
        try:
            match task.executor.WhichOneof("spec"):
                case "importer":
                    done = Executed(work.imported(task.executor.importer))
                case "resolver":
                    done = Executed(work.resolved(task.executor.resolver))
                case _:
                    return work.executed(task.executor.container)
        except TaskFailedError:
            work.record_failure()
            raise
        except (PlaceholderError, InputError, CommandFailedError) as error:
            work.record_failure()
            raise TaskFailedError(str(error)) from error
        work.record("succeeded", done.outputs)
        return done


@dataclass(frozen=True)
class _Work:
    """One task under way: what it is given, and its outputs as they are declared."""

    runner: TaskRunner
    task: Task
    folder: Path
    inputs: Values
    outputs: Mapping[str, Artifact]

    def executed(self, container: ir.PipelineDeploymentConfig.PipelineContainerSpec) -> Executed:
        """Runs a container's command, if no earlier result will do."""
        work = self._with_texts_resolved()._after_hook(container)
        output_file = Path(work._message()["outputs"]["outputFile"])
        from_hook = output_file.read_bytes() if output_file.exists() else None
        key = work._key(container) if self.task.spec.caching_options.enable_cache else None
        if key and self.runner.use_cache and (found := self.runner.records.cached(key)):
            work.record("cached", found.outputs, key)
            return Executed(found.outputs, is_cached=True)
        attempts = 0
        try:
            for attempt in self._retrying():
                with attempt:
                    attempts = attempt.retry_state.attempt_number
                    _put_back(output_file, from_hook)
                    work._command([*container.command, *container.args], container)
            outputs = work._made(output_file, from_hook)
        except (CommandFailedError, InputError, PlaceholderError) as error:
            raise TaskFailedError(str(error), attempts) from error
        work.record("succeeded", outputs, key)
        return Executed(outputs, attempts)

    def imported(self, importer: ir.PipelineDeploymentConfig.ImporterSpec) -> Values:
        """Registers what lies at a URI; a second import of the same is the same artifact, unless wanted anew."""
        scope = self._scope()
        ((name, declared),) = self.outputs.items()
        source = importer.artifact_uri
        uri = constant(source)
        if uri is None:
            uri = self.inputs.parameters.get(source.runtime_parameter)
        if not isinstance(uri, str) or not uri:
            raise InputError(
                f"there is no URI to import: {source.runtime_parameter or 'artifactUri'} is {uri!r}"
            )
        metadata = {**declared.metadata, **_resolved(json_format.MessageToDict(importer.metadata), scope)}
        kind = json_format.MessageToDict(importer.type_schema) or declared.type
        artifact = replace(declared, uri=scope.resolve(uri), metadata=metadata, type=kind)
        known = [
            other
            for other in self.runner.records.live()
            if (other.uri, other.metadata, other.type) == (artifact.uri, artifact.metadata, artifact.type)
        ]
        return Values({name: (known[0] if known and not importer.reimport else artifact,)})

    def resolved(self, resolver: ir.PipelineDeploymentConfig.ResolverSpec) -> Values:
        """Asks the records; a question that itself depends on an artifact of which there is none finds none."""
        live = self.runner.records.live()
        found: dict[str, tuple[Artifact, ...]] = {}
        for name, query in resolver.output_artifact_queries.items():
            if not all(self.inputs.artifacts.values()):
                found[name] = ()
                continue
            wanted = Query.parse(self._scope().resolve(query.filter))
            found[name] = tuple(artifact for artifact in live if wanted.matches(artifact))[: query.limit or 1]
        return Values(found)

    def record(self, state: str, outputs: Values, key: str | None = None) -> None:
        """Puts on record how the task ended."""
        sizes = sizes_of(outputs) if key else {}
        record = TaskRecord(self.runner.job, self.task.path, state, key, outputs, sizes)
        self.runner.records.add(record, self.folder)

    def record_failure(self) -> None:
        """Puts on record that it failed; what it left of its outputs stays, for whoever looks into it."""
        self.record("failed", Values({name: (made,) for name, made in self.outputs.items()}))

    def _message(self) -> dict[str, Any]:
        return executor_input(self.task, self.inputs, self.outputs, self.folder)

    def _scope(self) -> Scope:
        job = self.runner.job
        facts = {
            "pipeline_job_name": job,
            "pipeline_job_resource_name": self.runner.job_resource,
            "pipeline_job_uuid": digest(job)[:16],
            "pipeline_job_create_time_utc": _now(),
            "pipeline_job_schedule_time_utc": _now(),
            "pipeline_task_name": self.task.name,
            "pipeline_task_uuid": digest([job, self.task.path])[:16],
            "pipeline_root": str(self.runner.root),
        }
        return Scope(self._message(), facts)

    def _with_texts_resolved(self) -> _Work:
        """With placeholders in its parameters replaced: such as refer to its other parameters."""
        parameters = _resolved(dict(self.inputs.parameters), self._scope())
        return replace(self, inputs=replace(self.inputs, parameters=parameters))

    def _after_hook(self, container: ir.PipelineDeploymentConfig.PipelineContainerSpec) -> _Work:
        """With what the hook before the cache check has found out, where there is one."""
        hook = container.lifecycle.pre_cache_check
        if not hook.command:
            return self
        self._command([*hook.command, *hook.args], container)
        output = read_output(Path(self._message()["outputs"]["outputFile"]))
        outputs = {name: made[0] for name, made in with_artifacts(self.outputs, output).items() if made}
        return replace(self, inputs=after_driver(self.inputs, output), outputs=outputs)

    def _command(
        self, command: Sequence[str], container: ir.PipelineDeploymentConfig.PipelineContainerSpec
    ) -> None:
        scope = self._scope()
        env = {variable.name: scope.resolve(variable.value) for variable in container.env}
        (self.folder / "output_parameters").mkdir(exist_ok=True)
        self.runner.commands.run([scope.resolve(part) for part in command], env, self.folder / _LOG)

    def _made(self, output_file: Path, from_hook: bytes | None) -> Values:
        is_hooks = from_hook is not None and output_file.exists() and output_file.read_bytes() == from_hook
        output = ir.ExecutorOutput() if is_hooks else read_output(output_file)
        artifacts = with_artifacts(self.outputs, output)
        return Values(artifacts, output_parameters(self.task, output, self._message()))

    def _key(self, container: ir.PipelineDeploymentConfig.PipelineContainerSpec) -> str:
        """Equal for tasks that would make the same: of one container, code and inputs."""
        given = self._message()["inputs"]
        return digest(
            {
                "container": json_format.MessageToDict(container),
                "component": json_format.MessageToDict(self.task.component),
                "artifacts": given.get("artifacts", {}),
                "parameters": given.get("parameterValues", {}),
                "key": self.task.spec.caching_options.cache_key,
                "code": self.runner.code,
            }
        )

    def _retrying(self) -> tenacity.Retrying:
        policy = self.task.spec.retry_policy
        stopped = self.runner.commands.stopped
        return tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(policy.max_retry_count + 1), tenacity.stop_when_event_set(stopped)
            ),
            wait=tenacity.wait_exponential(
                _seconds(policy.backoff_duration),
                max=_LONGEST_PAUSE_SECONDS,
                exp_base=policy.backoff_factor or _BACKOFF_FACTOR,
            ),
            sleep=tenacity.sleep_using_event(stopped),
            retry=tenacity.retry_if_exception_type(CommandFailedError),
            reraise=True,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / 1e9


def _put_back(file: Path, content: bytes | None) -> None:
    """Every attempt finds the file as the first one did."""
    if content is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(content)


def _resolved(value: Any, scope: Scope) -> Any:
    match value:
        case str():
            return scope.resolve(value)
        case list():
            return [_resolved(item, scope) for item in value]
        case dict():
            return {key: _resolved(item, scope) for key, item in value.items()}
    return value
