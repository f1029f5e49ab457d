"""Which data a new batch is compared with."""

from pathlib import Path
from typing import Any

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from pipeline import history
from pipeline.components.previous_statistics import GATE, PreviousStatisticsStrategy

Execution = metadata_store_pb2.Execution
Event = metadata_store_pb2.Event


class Batch:
    """Examples and their statistics in the store."""

    def __init__(self, examples: Any, statistics: Any) -> None:
        self.examples, self.statistics = examples, statistics


class Runs:
    """A store with what gates judged."""

    def __init__(self, folder: Path) -> None:
        self.store: MetadataStore = history.open_store(folder / "metadata.sqlite")
        self._folder = folder
        self._gate = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name=GATE))
        self._types = {
            name: self.store.put_artifact_type(metadata_store_pb2.ArtifactType(name=name))
            for name in ("Examples", "ExampleStatistics")
        }
        self._batches: list[Batch] = []

    def batch(self, content: str = "") -> Batch:
        examples = self._artifact(standard_artifacts.Examples(), content)
        made = Batch(examples, self._artifact(standard_artifacts.ExampleStatistics()))
        self._batches.append(made)
        return made

    def _artifact(self, artifact: Any, content: str = "") -> Any:
        folder = self._folder / f"{artifact.type_name}-{len(self.store.get_artifacts())}"
        folder.mkdir()
        artifact.uri = str(folder)
        if content:
            artifact.set_string_custom_property("input_fingerprint", content)
        artifact.mlmd_artifact.type_id = self._types[artifact.type_name]
        [artifact.id] = self.store.put_artifacts([artifact.mlmd_artifact])
        return artifact

    def judged(self, batch: Batch, state: int = Execution.COMPLETE) -> None:
        [number] = self.store.put_executions([Execution(type_id=self._gate, last_known_state=state)])
        for key, artifact in (("examples", batch.examples), ("statistics", batch.statistics)):
            event = Event(execution_id=number, artifact_id=artifact.id, type=Event.INPUT)
            event.path.steps.add(key=key)
            event.path.steps.add(index=0)
            self.store.put_events([event])

    def previous(self, batch: Batch) -> Any:
        """The statistics that the gate of a batch is given."""
        given = {"statistics": [one.statistics for one in self._batches], "examples": [batch.examples]}
        found = PreviousStatisticsStrategy().resolve_artifacts(self.store, given)["statistics"]
        return found[0] if found else None


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_the_first_batch_has_nothing_before_it(runs: Runs):
    assert runs.previous(runs.batch()) is None


def test_a_batch_is_compared_with_the_one_accepted_last(runs: Runs):
    first, second, third = (runs.batch() for _ in range(3))
    runs.judged(first)
    runs.judged(second, Execution.CACHED)
    assert runs.previous(third) is second.statistics
    runs.judged(first)
    assert runs.previous(third) is first.statistics, "taken back, and accepted again"


def test_a_refused_batch_is_nothing_to_compare_with(runs: Runs):
    first, refused, third = (runs.batch() for _ in range(3))
    runs.judged(first)
    runs.judged(refused, Execution.FAILED)
    assert runs.previous(third) is first.statistics


def test_a_batch_that_runs_again_meets_what_it_met_the_first_time(runs: Runs):
    first, second = runs.batch(), runs.batch()
    runs.judged(first)
    assert runs.previous(first) is None
    met = runs.previous(second)
    runs.judged(second)
    runs.judged(second, Execution.CACHED)
    assert runs.previous(second) is met is first.statistics


def test_the_same_rows_written_again_are_the_same_batch(runs: Runs):
    first, second, again = runs.batch("a"), runs.batch("b"), runs.batch("b")
    runs.judged(first)
    runs.judged(second)
    assert runs.previous(again) is first.statistics


def test_statistics_whose_files_are_gone_are_passed_over(runs: Runs):
    first, second, third = (runs.batch() for _ in range(3))
    runs.judged(first)
    runs.judged(second)
    Path(second.statistics.uri).rmdir()
    assert runs.previous(third) is first.statistics


def test_artifacts_are_left_as_they_are(runs: Runs):
    first, second = runs.batch(), runs.batch()
    runs.judged(first)
    before = second.examples.mlmd_artifact.SerializeToString(deterministic=True)
    runs.previous(second)
    assert second.examples.mlmd_artifact.SerializeToString(deterministic=True) == before
