"""What the children of a local run do: compile the pipeline, run one node, clean up after a killed one.

Called in forked children by dotted path, with plain data in and out. This module loads TFX; the parent never
imports it.
"""

import difflib
import json
import os
import pkgutil
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline import history
from pipeline.components.gate_output import REFUSED_FOLDER
from pipeline.runners import metadata_upkeep
from pipeline.runners.events import CompiledPipeline, NodeOutcome, NodePlan, NodeState, Output
from pipeline.runners.root_folder import RootFolder


class PipelineFactoryError(Exception):
    """The factory did not return a pipeline this runner can run."""


class UnknownNodeError(Exception):
    """A node was named that the pipeline does not have."""


class NodeFailedError(Exception):
    """TFX returned normally although the node's execution failed."""


def repair(root: RootFolder, known_outputs: Sequence[Output]) -> None:
    """Clear up after earlier runs: abandoned executions fail, what was damaged is no longer reused."""
    store = history.open_store(root.metadata_path)
    metadata_upkeep.abandon_all(store, root)
    metadata_upkeep.retire_damaged(store, root, known_outputs)
    metadata_upkeep.retire_lost_pushes(store)


def abandon_node(root: RootFolder, run_id: str, node_id: str) -> None:
    """Clear up after a node whose process was killed in the middle of it."""
    store = history.open_store(root.metadata_path)
    metadata_upkeep.abandon_node(store, root, run_id, node_id)


def compile_pipeline(
    root: RootFolder,
    name: str,
    run_id: str,
    factory: str,
    factory_kwargs: Mapping[str, Any],
    uncached: Collection[str] | None,
    start_from: str | None,
) -> CompiledPipeline:
    """Build the pipeline, compile it, and say which nodes must not use the cache.

    `uncached` are node ids, None meaning all; `start_from` adds one node and everything after it.

    Raises:
        PipelineFactoryError: the factory did not return a pipeline called `name`, without sub-pipelines.
        UnknownNodeError: `uncached` or `start_from` names a node that is not there.
    """
    built = pkgutil.resolve_name(factory)(**factory_kwargs)
    if not isinstance(built, tfx_pipeline.Pipeline):
        raise PipelineFactoryError(
            f"{factory} returned {type(built).__name__}; it has to return a TFX Pipeline"
        )
    if built.pipeline_info.pipeline_name != name:
        raise PipelineFactoryError(
            f"{factory} built a pipeline called {built.pipeline_info.pipeline_name!r}, the run is of {name!r}"
        )
    built.pipeline_info.pipeline_root = str(root.artifacts_path)
    ir = compiler.Compiler().compile(built)
    runtime_parameter_utils.substitute_runtime_parameter(
        ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    nodes = [_pipeline_node(node, factory) for node in ir.nodes]
    for node in _forced(nodes, uncached, start_from):
        node.execution_options.caching_options.enable_cache = False
    plans = tuple(NodePlan(n.node_info.id, n.node_info.type.name, tuple(n.upstream_nodes)) for n in nodes)
    return CompiledPipeline(ir=ir.SerializeToString(), nodes=plans)


def _pipeline_node(node: pipeline_pb2.Pipeline.PipelineOrNode, factory: str) -> pipeline_pb2.PipelineNode:
    if not node.HasField("pipeline_node"):
        raise PipelineFactoryError(
            f"{factory} nests pipeline {node.sub_pipeline.pipeline_info.id!r}; flatten it"
        )
    return node.pipeline_node


def _forced(
    nodes: Sequence[pipeline_pb2.PipelineNode], uncached: Collection[str] | None, start_from: str | None
) -> list[pipeline_pb2.PipelineNode]:
    names = {node.node_info.id for node in nodes}
    if uncached is None:
        return list(nodes)
    forced = {*uncached, *([start_from] if start_from else [])}
    if unknown := sorted(forced - names):
        close = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UnknownNodeError(
            f"no node called {', '.join(unknown)}{hint}; the pipeline has: {', '.join(sorted(names))}"
        )
    after = {start_from}
    for node in nodes:  # topological order, so one pass finds all descendants
        if after.intersection(node.upstream_nodes):
            after.add(node.node_info.id)
    return [node for node in nodes if node.node_info.id in forced | after]


def run_node(root: RootFolder, ir: bytes, run_id: str, node_id: str) -> NodeOutcome:
    """Run one node: resolve its inputs, look into the cache, execute, publish; then check what was published.

    Raises whatever the component raised, or `NodeFailedError` where TFX wrote a failure down and returned.
    """
    store = history.open_store(root.metadata_path)
    metadata_upkeep.reopen_node(store, root, run_id, node_id)
    refused = root.run_path(run_id) / "refused" / node_id
    shutil.rmtree(refused, ignore_errors=True)  # of an earlier attempt
    os.environ[REFUSED_FOLDER] = str(refused)
    pipeline = pipeline_pb2.Pipeline.FromString(ir)
    node = next(n.pipeline_node for n in pipeline.nodes if n.pipeline_node.node_info.id == node_id)
    deployment = runner_utils.extract_local_deployment_config(pipeline)
    launcher.Launcher(
        pipeline_node=node,
        mlmd_connection=metadata.Metadata(
            metadata.sqlite_metadata_connection_config(str(root.metadata_path))
        ),
        pipeline_info=pipeline.pipeline_info,
        pipeline_runtime_spec=pipeline.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
    ).launch()
    return _published(root, run_id, node_id)


def _published(root: RootFolder, run_id: str, node_id: str) -> NodeOutcome:
    store = history.open_store(root.metadata_path)
    executions = [e for e in history.executions_of_run(store, run_id) if e.node_id == node_id]
    if not executions:
        return NodeOutcome(NodeState.SKIPPED)
    execution = executions[-1]
    if execution.state not in ("COMPLETE", "CACHED"):
        [stored] = store.get_executions_by_id([execution.execution_id])
        raise NodeFailedError(_recorded_cause(stored))
    artifacts = history.outputs_of_execution(store, execution)
    outputs = tuple(
        Output(a.key, a.artifact_id, a.type_name, a.uri, *metadata_upkeep.measure(root, a.uri))
        for a in artifacts
    )
    state = NodeState.CACHED if execution.state == "CACHED" else NodeState.SUCCEEDED
    return NodeOutcome(state, outputs)


def _recorded_cause(execution: metadata_store_pb2.Execution) -> str:
    """Return the last line of the trace TFX stored with a failed execution."""
    recorded = execution.custom_properties[metadata_upkeep.EXECUTION_RESULT].string_value
    trace = json.loads(recorded).get("resultMessage", "") if recorded else ""
    lines = [line for line in trace.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "its execution is FAILED in ML Metadata and no cause was recorded"
