"""Run a TFX pipeline on this machine, one forked process a node.

What TFX's own local runner leaves out: independent nodes side by side, retries and time limits, a lock on the
folder, recovery from a killed run, a check of what was really published, and an answer that cannot be missed.
This process loads neither TFX nor TensorFlow; see `fork_server`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tenacity

from pipeline.git import git_revision
from pipeline.runners import fork_server, records
from pipeline.runners.events import (
    CompiledPipeline,
    NodeOutcome,
    NodePlan,
    NodeResult,
    NodeState,
    Observer,
    Output,
    SilentObserver,
)
from pipeline.runners.node_process import (
    ChildFailedError,
    ChildKilledError,
    ChildRefusedError,
    ChildTimedOutError,
    NodeProcess,
)
from pipeline.runners.records import RunRecord, RunState
from pipeline.runners.root_folder import RootFolder, exclusive

_TASKS = "pipeline.runners.node_tasks"
_LONGEST_PAUSE_SECONDS = 60.0


class PipelineBuildError(Exception):
    """The pipeline could not be built or compiled; no node has run."""


@dataclass(frozen=True)
class NodePolicy:
    """How hard to try one node. The time limit is per attempt and kills the node's whole process group."""

    retries: int = 0
    timeout_seconds: float | None = None


@dataclass(frozen=True)
class RunSpec:
    """One run to make.

    `factory` is the dotted path (`package.module:name`) of a function that returns a TFX Pipeline called
    `name`; it is called with `factory_kwargs` (picklable) in a child. The runner, not the factory, says where
    artifacts and metadata go. `no_cache` names nodes that have to run again, None meaning all. `start_from`
    makes one node and all after it run again; what lies before comes from the cache where nothing about it
    changed. `project_path` is where to ask git for the revision.
    """

    root: Path
    name: str
    factory: str
    factory_kwargs: Mapping[str, Any] = field(default_factory=dict)
    policies: Mapping[str, NodePolicy] = field(default_factory=dict)
    default_policy: NodePolicy = NodePolicy()
    no_cache: frozenset[str] | None = frozenset()
    start_from: str | None = None
    max_parallel: int = 2
    first_pause_seconds: float = 2.0
    config_hash: str | None = None
    project_path: Path | None = None


def run(spec: RunSpec, observer: Observer | None = None) -> RunRecord:
    """Run the pipeline and return what became of it; a failed node is told in the record, not raised.

    Raises:
        RootFolderError, PipelineBusyError: the output folder cannot be used, or not now.
        PipelineBuildError: the pipeline cannot be built.
        KeyboardInterrupt: passed on after all children are dead and the record says so.
    """
    fork_server.start()
    root = RootFolder(spec.root.resolve())
    with exclusive(root):
        return _Run(spec, root, observer or SilentObserver()).execute()


class _Run:
    """One run in progress: the record, the live children and the observer they report to."""

    def __init__(self, spec: RunSpec, root: RootFolder, observer: Observer) -> None:
        self._spec = spec
        self._root = root
        self._observer = observer
        self._observing = threading.Lock()
        self._stopped = threading.Event()
        self._children: set[NodeProcess] = set()
        self._record = RunRecord(
            run_id=records.new_run_id(),
            pipeline_name=spec.name,
            started_at=records.utc_now(),
            git_revision=git_revision(spec.project_path) if spec.project_path else None,
            config_hash=spec.config_hash,
        )

    def execute(self) -> RunRecord:
        past = _close_interrupted(self._root)
        self._save(self._record)
        try:
            compiled = self._prepare(past)
            self._schedule(compiled)
        except BaseException as error:
            self._stop()
            state = RunState.INTERRUPTED if isinstance(error, KeyboardInterrupt) else RunState.FAILED
            self._save(self._record.ended(state, str(error) or type(error).__name__))
            raise
        state = RunState.FAILED if self._record.failed_nodes else RunState.SUCCEEDED
        self._save(self._record.ended(state))
        return self._record

    def _save(self, record: RunRecord) -> None:
        self._record = record
        records.save(record, self._root.run_path(record.run_id))

    def _stop(self) -> None:
        self._stopped.set()
        for child in tuple(self._children):
            child.kill()

    def _prepare(self, past: Sequence[RunRecord]) -> CompiledPipeline:
        spec, run_id = self._spec, self._record.run_id
        self._observer.run_preparing(run_id)
        try:
            self._call("prepare", "repair", self._root, _published_outputs(past))
            compiled: CompiledPipeline = self._call(
                "prepare",
                "compile_pipeline",
                *(self._root, spec.name, run_id, spec.factory, dict(spec.factory_kwargs)),
                *(spec.no_cache, spec.start_from),
            )
        except ChildFailedError as error:
            log = self._root.log_path(run_id, "prepare")
            raise PipelineBuildError(
                f"pipeline {spec.name} cannot be built: {error}; details in {log}"
            ) from error
        known = {node.node_id for node in compiled.nodes}
        if unknown := sorted(set(spec.policies) - known):
            raise PipelineBuildError(
                f"retry policy for {', '.join(unknown)}: no such node; "
                f"the pipeline has: {', '.join(sorted(known))}"
            )
        nodes = tuple(
            replace(node, expected_seconds=_last_seconds(past, node.node_id)) for node in compiled.nodes
        )
        self._observer.run_started(run_id, nodes)
        return replace(compiled, nodes=nodes)

    def _call(self, log_name: str, task: str, *arguments: Any) -> Any:
        with self._child(log_name) as process:
            return process.run(f"{_TASKS}:{task}", *arguments).value

    @contextmanager
    def _child(self, name: str) -> Iterator[NodeProcess]:
        """Yield a child whose log is `<name>.log` and that is killed when the run is stopped."""
        process = NodeProcess(self._root.log_path(self._record.run_id, name), name)
        self._children.add(process)
        if self._stopped.is_set():
            process.kill()
        try:
            yield process
        finally:
            self._children.discard(process)

    def _schedule(self, compiled: CompiledPipeline) -> None:
        """Run every node once all its upstream nodes have succeeded; skip those that can no longer run."""
        waiting = {node.node_id: node for node in compiled.nodes}
        running: dict[Future[NodeResult], str] = {}
        with ThreadPoolExecutor(self._spec.max_parallel, thread_name_prefix="node") as pool:
            try:
                while waiting or running:
                    for node in tuple(waiting.values()):
                        if blocker := self._blocker(node):
                            del waiting[node.node_id]
                            self._finish(NodeResult(node.node_id, NodeState.SKIPPED, error=blocker))
                        elif self._is_ready(node) and len(running) < self._spec.max_parallel:
                            del waiting[node.node_id]
                            running[pool.submit(self._run_node, node, compiled.ir)] = node.node_id
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        self._finish(future.result())
            except BaseException:
                # Before the pool waits for its threads: they wait for the children.
                self._stop()
                raise

    def _is_ready(self, node: NodePlan) -> bool:
        return all(upstream in self._record.nodes for upstream in node.upstream_ids)

    def _blocker(self, node: NodePlan) -> str | None:
        for upstream in node.upstream_ids:
            result = self._record.nodes.get(upstream)
            if result is not None and not result.state.is_success:
                return f"not run: {upstream} {result.state.value.replace('_', ' ')}"
        return None

    def _finish(self, result: NodeResult) -> None:
        self._save(self._record.with_node(result))
        self._tell(self._observer.node_finished, result)

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        with self._observing:
            event(*arguments)

    def _run_node(self, node: NodePlan, ir: bytes) -> NodeResult:
        """Try one node as often as its policy allows. Runs in a thread of its own."""
        policy = self._spec.policies.get(node.node_id, self._spec.default_policy)
        retrying = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(policy.retries + 1), tenacity.stop_when_event_set(self._stopped)
            ),
            wait=tenacity.wait_exponential(self._spec.first_pause_seconds, max=_LONGEST_PAUSE_SECONDS),
            sleep=tenacity.sleep_using_event(self._stopped),
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, ChildFailedError) and not isinstance(error, ChildRefusedError)
            ),
            reraise=True,
        )
        started = time.monotonic()
        result = NodeResult(node.node_id, NodeState.FAILED)
        try:
            for attempt in retrying:
                with attempt:
                    result = replace(result, attempts=attempt.retry_state.attempt_number)
                    result = self._attempt(node, ir, policy, result)
        except ChildFailedError as error:
            state = NodeState.TIMED_OUT if isinstance(error, ChildTimedOutError) else NodeState.FAILED
            result = replace(result, state=state, error=str(error))
        return replace(result, seconds=round(time.monotonic() - started, 3))

    def _attempt(self, node: NodePlan, ir: bytes, policy: NodePolicy, result: NodeResult) -> NodeResult:
        run_id, node_id = self._record.run_id, node.node_id
        self._tell(self._observer.node_started, node_id, result.attempts)
        try:
            with self._child(node_id) as process:
                answer = process.run(
                    f"{_TASKS}:run_node",
                    *(self._root, ir, run_id, node_id),
                    timeout_seconds=policy.timeout_seconds,
                    on_progress=lambda progress: self._tell(
                        self._observer.node_progressed, node_id, progress
                    ),
                )
        except (ChildTimedOutError, ChildKilledError):
            if not self._stopped.is_set():
                self._call(node_id, "abandon_node", self._root, run_id, node_id)
            raise
        outcome: NodeOutcome = answer.value
        return replace(
            result, state=outcome.state, outputs=outcome.outputs, peak_rss_bytes=answer.peak_rss_bytes
        )


def _close_interrupted(root: RootFolder) -> list[RunRecord]:
    """Return past runs, oldest first. We hold the lock, so one that says it is running was killed."""
    past = []
    for record in records.load_runs(root.path):
        if record.state is RunState.RUNNING:
            record = record.ended(RunState.INTERRUPTED, "the process that ran it was killed")
            records.save(record, root.run_path(record.run_id))
        past.append(record)
    return past


def _published_outputs(past: Sequence[RunRecord]) -> tuple[Output, ...]:
    """Return every output on record, as it was when it was first published."""
    first: dict[int, Output] = {}
    for record in past:
        for result in record.nodes.values():
            for output in result.outputs:
                first.setdefault(output.artifact_id, output)
    return tuple(first.values())


def _last_seconds(past: Sequence[RunRecord], node_id: str) -> float | None:
    for record in reversed(past):
        result = record.nodes.get(node_id)
        if result is not None and result.state is NodeState.SUCCEEDED:
            return result.seconds
    return None
