"""The statistics of the data that was accepted before: what a DataGate that passed has seen last, of other rows."""

from __future__ import annotations

from collections.abc import Mapping

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.components.example_gen import utils as example_gen
from tfx.dsl.components.common import resolver
from tfx.dsl.io import fileio

GATE = "pipeline.components.data_gate.DataGate"
STATISTICS = "statistics"
EXAMPLES = "examples"

_ACCEPTED = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)
_INPUTS = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)


class PreviousStatisticsStrategy(resolver.ResolverStrategy):
    """Resolves `statistics`: those that the newest passing DataGate consumed, of other examples than `examples`.

    An unchanged pipeline that runs again thus meets what it met the first time, and its gate comes from the cache.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: Mapping[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Looks through the passing executions of the gate, the newest first."""
        present = {artifact.id for artifact in input_dict[EXAMPLES]}
        contents = {content(artifact.mlmd_artifact) for artifact in input_dict[EXAMPLES]} - {""}
        known = {artifact.id: artifact for artifact in input_dict[STATISTICS]}
        found: list[types.Artifact] = []
        for inputs in _accepted(store):
            statistics = known.get(inputs.get(STATISTICS, 0))
            examples = inputs.get(EXAMPLES, 0)
            if statistics is None or examples in present or not fileio.exists(statistics.uri):
                continue
            [artifact] = store.get_artifacts_by_id([examples])
            if content(artifact) not in contents:
                found = [statistics]
                break
        return {STATISTICS: found, EXAMPLES: list(input_dict[EXAMPLES])}


def _accepted(store: ml_metadata.MetadataStore) -> list[dict[str, int]]:
    """Ids of what each passing execution of the gate consumed, by input, the newest first."""
    executions = [one.id for one in store.get_executions_by_type(GATE) if one.last_known_state in _ACCEPTED]
    consumed: dict[int, dict[str, int]] = {number: {} for number in sorted(executions, reverse=True)}
    for event in store.get_events_by_execution_ids(executions) if executions else []:
        if event.type in _INPUTS and event.path.steps:
            consumed[event.execution_id][event.path.steps[0].key] = event.artifact_id
    return [inputs for inputs in consumed.values() if EXAMPLES in inputs]


def content(examples: metadata_store_pb2.Artifact) -> str:
    """The fingerprint of the rows, where the maker of the examples left one: equal rows may be written twice."""
    properties = examples.custom_properties
    # Looking up a key that is not there would put it there, without a value, and ML Metadata dies of that.
    name = example_gen.FINGERPRINT_PROPERTY_NAME
    return str(properties[name].string_value) if name in properties else ""
