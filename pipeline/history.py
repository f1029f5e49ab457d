"""What the runner asks ML Metadata of the run under way: what ran and what it put out.

Every function takes an open `ml_metadata.MetadataStore`. None uses `filter_query`: this build of ML Metadata
has no ZetaSQL, so answers come from contexts, events and types. Questions across runs: `pipeline.lineage`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

_PIPELINE_RUN = "pipeline_run"
_NODE = "node"


@dataclass(frozen=True)
class NodeExecution:
    """One execution of one node; `state` is ML Metadata's name for it, such as COMPLETE or CACHED."""

    execution_id: int
    node_id: str
    state: str


@dataclass(frozen=True)
class NodeArtifact:
    """One artifact an execution put out under `key`."""

    artifact_id: int
    node_id: str
    key: str
    type_name: str
    uri: str


def open_store(metadata_path: Path) -> "ml_metadata.MetadataStore":
    """Open the SQLite store of a pipeline root; a file that does not exist yet is created."""
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(metadata_path)
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return ml_metadata.MetadataStore(connection)


def executions_of_run(store: "ml_metadata.MetadataStore", run_id: str) -> list[NodeExecution]:
    """Return the executions of one run, oldest first; none if the run is unknown."""
    return [_node_execution(store, execution) for execution in _executions(store, run_id)]


def outputs_of_execution(store: "ml_metadata.MetadataStore", execution: NodeExecution) -> list[NodeArtifact]:
    """Return the outputs of one execution in the order they were published."""
    from ml_metadata.proto import metadata_store_pb2

    events = [
        event
        for event in store.get_events_by_execution_ids([execution.execution_id])
        if event.type in (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT)
    ]
    # get_artifacts_by_id sorts and drops duplicates, so its answer must be matched by id, never by position.
    artifacts = {a.id: a for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
    return [
        NodeArtifact(
            artifact_id=event.artifact_id,
            node_id=execution.node_id,
            key=event.path.steps[0].key,
            type_name=artifacts[event.artifact_id].type,
            uri=artifacts[event.artifact_id].uri,
        )
        for event in events
    ]


def _executions(store: "ml_metadata.MetadataStore", run_id: str) -> list["metadata_store_pb2.Execution"]:
    context = store.get_context_by_type_and_name(_PIPELINE_RUN, run_id)
    if context is None:
        return []
    return sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)


def _node_execution(
    store: "ml_metadata.MetadataStore", execution: "metadata_store_pb2.Execution"
) -> NodeExecution:
    from ml_metadata.proto import metadata_store_pb2

    node = next(c for c in store.get_contexts_by_execution(execution.id) if c.type == _NODE)
    return NodeExecution(
        execution_id=execution.id,
        # TFX names the context `<pipeline>.<node>`.
        node_id=node.name.rpartition(".")[2],
        state=metadata_store_pb2.Execution.State.Name(execution.last_known_state),
    )
