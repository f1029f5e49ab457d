"""Rehearse a compiled pipeline: run the very job that Vertex AI or Kubeflow would run, on this machine.

Each task's container command runs as a process of this machine, with what the service would hand it. What it makes
lies below a folder, as it would below the pipeline root.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from kfp.pipeline_spec import pipeline_spec_pb2 as ir

from pipeline.runners import conditions, spec_checks
from pipeline.runners.artifact_records import FOLDER, Records, Values
from pipeline.runners.conditions import ConditionError
from pipeline.runners.container_process import Commands
from pipeline.runners.pipeline_spec import Job, Task
from pipeline.runners.root_folder import RootFolderError
from pipeline.runners.task_execution import Executed, TaskFailedError, TaskRunner
from pipeline.runners.task_inputs import Finished, InputError, executor_input, inputs_of, outputs_of_dag


class TaskState(StrEnum):
    """How a task of a rehearsal ended."""

    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    SKIPPED = "skipped"
    CONDITION_FALSE = "condition false"

    @property
    def is_success(self) -> bool:
        """Whether its outputs are there to be used."""
        return self in (TaskState.SUCCEEDED, TaskState.CACHED)


_SERVICE_STATES = {
    TaskState.SUCCEEDED: "SUCCEEDED",
    TaskState.CACHED: "SUCCEEDED",
    TaskState.FAILED: "FAILED",
    TaskState.SKIPPED: "NOT_TRIGGERED",
    TaskState.CONDITION_FALSE: "NOT_TRIGGERED",
}


@dataclass(frozen=True)
class TaskResult:
    """What became of one task.

    Attributes:
      task: its path, `tfx-dag/Trainer`.
      state: how it ended.
      seconds: it took, with all its attempts.
      attempts: how often its command ran.
      outputs: what it made; of a failed task, nothing.
      error: why it failed or was skipped, of a failed command with the end of its log; else empty.
      log: what its command said; None where it has none.
    """

    task: str
    state: TaskState
    seconds: float = 0.0
    attempts: int = 0
    outputs: Values = field(default_factory=Values)
    error: str = ""
    log: Path | None = None


@dataclass(frozen=True)
class Rehearsal:
    """A job that has ended.

    Attributes:
      job: its name.
      folder: where it left its outputs and logs.
      tasks: results by path, in the order in which the tasks ended.
    """

    job: str
    folder: Path
    tasks: Mapping[str, TaskResult]

    @property
    def failed(self) -> tuple[TaskResult, ...]:
        """The tasks that failed by themselves, the first to fail first."""
        return tuple(result for result in self.tasks.values() if result.state is TaskState.FAILED)


def rehearse(
    job: Job,
    root: Path,
    *,
    code: str = "",
    jobs: int = 1,
    use_cache: bool = True,
    on_end: Callable[[TaskResult], None] = lambda _: None,
) -> Rehearsal:
    """Run a job and return what became of it; a failed task is told in the result, not raised.

    Args:
      job: to run, its parameters set.
      root: pipeline root on this machine.
      code: tells the code that is here from other code; part of what a cached result is found by.
      jobs: how many tasks may run at a time.
      use_cache: whether tasks that allow it may reuse an earlier result.
      on_end: is told of each task as it ends, from the thread that calls.

    Raises:
      SpecError: something in the job cannot work here; nothing has run.
      RootFolderError: the folder cannot be written.
      KeyboardInterrupt: passed on when all that was started is dead.
    """
    spec_checks.check(job)
    name = f"{job.pipeline}-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(2)}"
    folder = root.resolve() / FOLDER / name
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise RootFolderError(
            f"{root}: cannot write here ({error.strerror}); choose another folder"
        ) from error
    commands = Commands()
    runner = TaskRunner(name, folder, root.resolve(), Records(root.resolve()), commands, code, use_cache)
    return _Run(job, runner, jobs, on_end).execute()


class _Run:
    """A rehearsal in progress. All of it happens in one thread, but for the tasks' own work."""

    def __init__(self, job: Job, runner: TaskRunner, jobs: int, on_end: Callable[[TaskResult], None]) -> None:
        self._job = job
        self._runner = runner
        self._jobs = jobs
        self._on_end = on_end
        self._waiting = {task.path: task for task in job.tasks}
        self._running: dict[Future[TaskResult], Task] = {}
        self._results: dict[str, TaskResult] = {}
        # Inputs of the DAGs that are under way; the root's path is empty.
        self._open = {"": Values(parameters=job.parameters)}
        self._dags: dict[str, tuple[Task, float]] = {}

    def execute(self) -> Rehearsal:
        """Run every task once those before it have ended as it wants them to."""
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="task") as pool:
            try:
                while self._waiting or self._running:
                    while self._advance(pool):
                        pass
                    for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                        del self._running[future]
                        self._finish(future.result())
            except BaseException:
                # Before the pool waits for its threads: they wait for the commands.
                self._runner.commands.stop()
                raise
        return Rehearsal(self._runner.job, self._runner.folder, self._results)

    def _advance(self, pool: ThreadPoolExecutor) -> bool:
        """Whether a task, or the end of a DAG, was got on with."""
        moved = [path for path, task in tuple(self._waiting.items()) if self._begin(task, pool)]
        for path in moved:
            del self._waiting[path]
        return bool(moved) or self._close_dag()

    def _begin(self, task: Task, pool: ThreadPoolExecutor) -> bool:
        """Whether a task has begun, or will never."""
        if task.parent not in self._open:
            return task.parent not in self._waiting and task.parent not in self._dags
        before = {name: self._results.get(task.beside(name)) for name in task.upstream}
        if any(result is None for result in before.values()):
            return False
        ended = {name: result for name, result in before.items() if result is not None}
        if blocker := _blocker(task, ended):
            self._finish(TaskResult(task.path, TaskState.SKIPPED, error=blocker))
            return True
        if task.executor is not None and len(self._running) >= self._jobs:
            return False
        try:
            inputs = inputs_of(task, self._open[task.parent], self._finished(ended))
            is_wanted = _is_wanted(task, inputs)
        except (InputError, ConditionError) as error:
            self._finish(TaskResult(task.path, TaskState.FAILED, error=str(error)))
            return True
        if not is_wanted:
            self._finish(TaskResult(task.path, TaskState.CONDITION_FALSE))
        elif task.executor is None:
            self._open[task.path] = inputs
            self._dags[task.path] = (task, time.monotonic())
        else:
            self._running[pool.submit(self._run_task, task, inputs)] = task
        return True

    def _close_dag(self) -> bool:
        """Whether a DAG has ended, all of its tasks having ended."""
        busy = {task.parent for task in (*self._waiting.values(), *self._running.values())}
        busy |= {task.parent for task, _ in self._dags.values()}
        for path, (task, started) in self._dags.items():
            if path not in busy:
                del self._dags[path], self._open[path]
                self._finish(self._dag_result(task, started))
                return True
        return False

    def _dag_result(self, task: Task, started: float) -> TaskResult:
        children = {
            path.rpartition("/")[2]: result
            for path, result in self._results.items()
            if path.rpartition("/")[0] == task.path
        }
        seconds = round(time.monotonic() - started, 3)
        failed = [name for name, result in children.items() if result.state is TaskState.FAILED]
        if failed:
            return TaskResult(task.path, TaskState.FAILED, seconds, error=f"{', '.join(failed)} failed")
        outputs = outputs_of_dag(task, self._finished(children))
        return TaskResult(task.path, TaskState.SUCCEEDED, seconds, outputs=outputs)

    def _finished(self, results: Mapping[str, TaskResult]) -> dict[str, Finished]:
        return {name: self._final(name, result) for name, result in results.items()}

    def _final(self, name: str, result: TaskResult) -> Finished:
        status = {
            "state": _SERVICE_STATES[result.state],
            "pipelineJobName": self._runner.job,
            "pipelineJobResourceName": self._runner.job_resource,
            "pipelineTaskName": name,
        }
        error = {"error": {"code": 9, "message": result.error}} if result.error else {}
        return Finished(result.outputs if result.state.is_success else None, {**status, **error})

    def _run_task(self, task: Task, inputs: Values) -> TaskResult:
        """Run in a thread of its own."""
        started = time.monotonic()
        result = TaskResult(task.path, TaskState.FAILED, log=self._runner.log_of(task))
        try:
            done = self._runner.run(task, inputs)
        except TaskFailedError as error:
            result = replace(result, error=str(error), attempts=error.attempts)
        else:
            result = replace(result, state=_state(done), outputs=done.outputs, attempts=done.attempts)
        has_log = result.log is not None and result.log.exists()
        seconds = round(time.monotonic() - started, 3)
        return replace(result, seconds=seconds, log=result.log if has_log else None)

    def _finish(self, result: TaskResult) -> None:
        self._results[result.task] = result
        self._on_end(result)


def _state(done: Executed) -> TaskState:
    return TaskState.CACHED if done.is_cached else TaskState.SUCCEEDED


def _blocker(task: Task, ended: Mapping[str, TaskResult]) -> str:
    if task.spec.trigger_policy.strategy == ir.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED:
        return ""
    for name, result in ended.items():
        if not result.state.is_success:
            return f"not run: {name}: {result.state.value}"
    return ""


def _is_wanted(task: Task, inputs: Values) -> bool:
    condition = task.spec.trigger_policy.condition
    return not condition or conditions.holds(condition, executor_input(task, inputs, {}, Path())["inputs"])
