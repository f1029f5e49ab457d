"""Keep ML Metadata honest about crashes and missing folders. Runs in children only."""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline import history
from pipeline.push import DESTINATION, damaged, versions
from pipeline.runners.events import Output
from pipeline.runners.root_folder import RootFolder

_logger = logging.getLogger(__name__)

# Where TFX keeps the result of an execution that failed.
EXECUTION_RESULT = "__execution_result__"

# How TFX names a pushed model, and we the device models of one.
_PUSHES = ("PushedModel", "pipeline.DeviceModelFiles")

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)
_FAILED = metadata_store_pb2.Execution.FAILED
_LIVE = metadata_store_pb2.Artifact.LIVE


def abandon_all(store: MetadataStore, root: RootFolder) -> list[int]:
    """Mark every execution still NEW or RUNNING as FAILED, delete what it left, and return their ids.

    The caller holds the folder's lock and has no node going, so whoever ran them is dead.
    """
    return _abandon(store, root, store.get_executions())


def abandon_node(store: MetadataStore, root: RootFolder, run_id: str, node_id: str) -> list[int]:
    """Do what `abandon_all` does for one node of one run, whose process was killed."""
    return _abandon(store, root, _executions_of_node(store, run_id, node_id))


def reopen_node(store: MetadataStore, root: RootFolder, run_id: str, node_id: str) -> None:
    """Make a failed execution of this run RUNNING again before a retry; a no-op on a first attempt.

    TFX reuses the execution, and its output folders, but leaves it FAILED while the retry runs: killed then,
    its half-written folders would look like somebody else's business.
    """
    failed = [e for e in _executions_of_node(store, run_id, node_id) if e.last_known_state == _FAILED]
    for execution in failed:
        _delete_leftovers(root, execution.id)
        execution.last_known_state = metadata_store_pb2.Execution.RUNNING
        execution.custom_properties.pop(EXECUTION_RESULT, None)
    if failed:
        store.put_executions(failed)


def _executions_of_node(
    store: MetadataStore, run_id: str, node_id: str
) -> list[metadata_store_pb2.Execution]:
    ids = [e.execution_id for e in history.executions_of_run(store, run_id) if e.node_id == node_id]
    executions: list[metadata_store_pb2.Execution] = store.get_executions_by_id(ids) if ids else []
    return executions


def _abandon(
    store: MetadataStore, root: RootFolder, executions: Iterable[metadata_store_pb2.Execution]
) -> list[int]:
    abandoned = [e for e in executions if e.last_known_state in _UNFINISHED]
    for execution in abandoned:
        _delete_leftovers(root, execution.id)
        execution.last_known_state = metadata_store_pb2.Execution.FAILED
        _logger.warning("execution %d was abandoned; marked FAILED", execution.id)
    if abandoned:
        store.put_executions(abandoned)
    return [execution.id for execution in abandoned]


def _delete_leftovers(root: RootFolder, execution_id: int) -> None:
    """Delete the folders TFX made for one execution.

    They are `<node>/<output>/<execution id>` and `<node>/.system/executor_execution/<execution id>`. The
    globs only match inside the artifacts folder, and a link is removed without following it.
    """
    for pattern in (f"*/*/{execution_id}", f"*/.system/executor_execution/{execution_id}"):
        for leftover in root.artifacts_path.glob(pattern):
            _logger.info("deleting half-written %s", leftover)
            if leftover.is_symlink():
                leftover.unlink()
            else:
                shutil.rmtree(leftover)


def retire_damaged(store: MetadataStore, root: RootFolder, outputs: Iterable[Output]) -> list[int]:
    """Mark artifacts whose folder is gone or has lost files DELETED, so that no node reuses them.

    The cache and the resolvers only take LIVE artifacts: the node that made it runs again. Returns their ids.
    """
    changed = {o.artifact_id: o.uri for o in outputs if measure(root, o.uri) != (o.file_count, o.size_bytes)}
    found = store.get_artifacts_by_id(sorted(changed)) if changed else []
    # The records may be older than the store, whose numbers then mean other artifacts.
    return _retire(store, [artifact for artifact in found if artifact.uri == changed[artifact.id]])


def retire_lost_pushes(store: MetadataStore) -> list[int]:
    """Mark pushes DELETED whose version does not serve: a newer one does, or it is gone or damaged.

    What a push is good for lies outside the artifacts folder, so the artifact alone cannot tell: reused, it would
    report a model as pushed that no server loads. Returns the artifacts' ids.
    """
    live = (a for kind in _PUSHES for a in store.get_artifacts_by_type(kind) if a.state == _LIVE)
    return _retire(
        store, [a for a in live if (version := _destination(a)) and not _is_serving(Path(version))]
    )


def _is_serving(version: Path) -> bool:
    return versions(version.parent)[-1:] == [int(version.name)] and not damaged(version)


def _destination(artifact: metadata_store_pb2.Artifact) -> str | None:
    properties = artifact.custom_properties
    return properties[DESTINATION].string_value if DESTINATION in properties else None


def _retire(store: MetadataStore, artifacts: Iterable[metadata_store_pb2.Artifact]) -> list[int]:
    retired = [artifact for artifact in artifacts if artifact.state == _LIVE]
    for artifact in retired:
        artifact.state = metadata_store_pb2.Artifact.DELETED
        _logger.warning("%s is not as it was published; it will not be reused", artifact.uri)
    if retired:
        store.put_artifacts(retired)
    return [artifact.id for artifact in retired]


def measure(root: RootFolder, uri: str) -> tuple[int, int]:
    """Return the number of files and their size in bytes at or under `uri`.

    It is (0, 0) where there is nothing, and for whatever an importer brought in from outside the artifacts
    folder: that is not ours to guard.
    """
    path = Path(uri)
    if not path.is_relative_to(root.artifacts_path):
        return 0, 0
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return len(files), sum(file.stat().st_size for file in files)
