"""What a run tells whoever watches it: plain records, no TFX, safe to pickle between processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class NodeState(StrEnum):
    """How one node of a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CACHED = "cached"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"

    @property
    def is_success(self) -> bool:
        """Return whether the node's outputs are there to be used."""
        return self in (NodeState.SUCCEEDED, NodeState.CACHED)


@dataclass(frozen=True)
class Output:
    """One artifact a node published.

    `file_count` and `size_bytes` are those of the folder when it was published: a later run compares them
    before it reuses the artifact, so that a folder emptied by hand is not mistaken for a result.
    """

    key: str
    artifact_id: int
    type_name: str
    uri: str
    file_count: int
    size_bytes: int


@dataclass(frozen=True)
class NodeResult:
    """What became of one node. `error` is one line: the exception and its root cause, never a trace."""

    node_id: str
    state: NodeState
    seconds: float = 0.0
    attempts: int = 0
    error: str | None = None
    outputs: tuple[Output, ...] = ()
    peak_rss_bytes: int | None = None

    def uris(self, key: str) -> tuple[str, ...]:
        """Return the URIs published under `key`, in the order they were published."""
        return tuple(output.uri for output in self.outputs if output.key == key)


@dataclass(frozen=True)
class NodePlan:
    """A node about to be scheduled; `expected_seconds` is what it took when it last ran, if it ever did."""

    node_id: str
    component_type: str
    upstream_ids: tuple[str, ...]
    expected_seconds: float | None = None


@dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline ready to be run node by node: its serialized IR, and its nodes in topological order."""

    ir: bytes
    nodes: tuple[NodePlan, ...]


@dataclass(frozen=True)
class NodeOutcome:
    """What one attempt at a node came to, seen from inside its process."""

    state: NodeState
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True)
class Progress:
    """How far a node is, in units it names itself ("rows", "steps"); `total` is None where it cannot know."""

    done: int
    total: int | None
    unit: str


class Observer(Protocol):
    """Watches a run. Calls come from several threads but never two at once."""

    def run_preparing(self, run_id: str) -> None:
        """The folder is locked and the pipeline is being compiled."""

    def run_started(self, run_id: str, nodes: Sequence[NodePlan]) -> None:
        """The nodes are known, in topological order."""

    def node_started(self, node_id: str, attempt: int) -> None:
        """Attempt number `attempt` (from 1) begins."""

    def node_progressed(self, node_id: str, progress: Progress) -> None:
        """The node reported how far it is."""

    def node_finished(self, result: NodeResult) -> None:
        """The node reached a final state."""


class SilentObserver:
    """Watches without a word; a base for observers that care about some of the events."""

    def run_preparing(self, run_id: str) -> None:
        """See `Observer`."""

    def run_started(self, run_id: str, nodes: Sequence[NodePlan]) -> None:
        """See `Observer`."""

    def node_started(self, node_id: str, attempt: int) -> None:
        """See `Observer`."""

    def node_progressed(self, node_id: str, progress: Progress) -> None:
        """See `Observer`."""

    def node_finished(self, result: NodeResult) -> None:
        """See `Observer`."""
