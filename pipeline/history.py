"""Questions to ML Metadata: what ran, what it made, what is blessed, what is live.

Every function takes an open `ml_metadata.MetadataStore`. None uses `filter_query`: this build of ML Metadata
has no ZetaSQL, so answers come from contexts, events and types.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2

_PIPELINE_RUN = "pipeline_run"
_NODE = "node"
_BLESSED = "blessed"
_CURRENT_MODEL_ID = "current_model_id"
_PUSHED = "pushed"


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


def artifacts_of_run(
    store: "ml_metadata.MetadataStore", run_id: str, node_id: str | None = None, key: str | None = None
) -> list[NodeArtifact]:
    """Return what the successful executions of a run put out (from the cache or not), in that order."""
    return [
        artifact
        for execution in executions_of_run(store, run_id)
        if execution.state in ("COMPLETE", "CACHED") and node_id in (None, execution.node_id)
        for artifact in outputs_of_execution(store, execution)
        if key in (None, artifact.key)
    ]


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


def latest_blessed_model(store: "ml_metadata.MetadataStore") -> NodeArtifact | None:
    """Return the model that passed evaluation last, or None if none ever did.

    It is the one TFX's `LatestBlessedModelStrategy` finds: the newest live Model that a live ModelBlessing
    with `blessed` = 1 names in `current_model_id`.
    """
    blessed = {
        blessing.custom_properties[_CURRENT_MODEL_ID].int_value
        for blessing in _newest_live(store, "ModelBlessing")
        if blessing.custom_properties[_BLESSED].int_value == 1
    }
    for model in _newest_live(store, "Model"):
        if model.id in blessed:
            return _as_put_out(store, model.id)
    return None


def latest_pushed_model(store: "ml_metadata.MetadataStore") -> NodeArtifact | None:
    """Return the newest live PushedModel with `pushed` = 1, or None if nothing was ever pushed."""
    for pushed in _newest_live(store, "PushedModel"):
        if pushed.custom_properties[_PUSHED].int_value == 1:
            return _as_put_out(store, pushed.id)
    return None


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


def _newest_live(store: "ml_metadata.MetadataStore", type_name: str) -> list["metadata_store_pb2.Artifact"]:
    from ml_metadata.proto import metadata_store_pb2

    artifacts = store.get_artifacts_by_type(type_name)
    live = (a for a in artifacts if a.state == metadata_store_pb2.Artifact.LIVE)
    return sorted(live, key=lambda artifact: artifact.id, reverse=True)


def _producer(store: "ml_metadata.MetadataStore", artifact_id: int) -> NodeExecution:
    """Return the execution that made the artifact: the first that put it out; later ones reused it."""
    from ml_metadata.proto import metadata_store_pb2

    events = store.get_events_by_artifact_ids([artifact_id])
    first = min(e.execution_id for e in events if e.type == metadata_store_pb2.Event.OUTPUT)
    [execution] = store.get_executions_by_id([first])
    return _node_execution(store, execution)


def _as_put_out(store: "ml_metadata.MetadataStore", artifact_id: int) -> NodeArtifact:
    outputs = outputs_of_execution(store, _producer(store, artifact_id))
    return next(output for output in outputs if output.artifact_id == artifact_id)
