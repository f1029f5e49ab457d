"""The model that a warm start begins with: the champion, unless it has learned from these very rows."""

from __future__ import annotations

from collections.abc import Mapping

import ml_metadata
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.dsl.components.common import resolver
from tfx.dsl.io import fileio

from pipeline.components.champion import MODEL, pushed_models
from pipeline.components.previous_statistics import EXAMPLES, content

_OUTPUTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
_INPUTS = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)


class BaseModelStrategy(resolver.ResolverStrategy):
    """Resolves `model`: of the models that were pushed last and are still there, one that learned from other rows.

    A run that is repeated on unchanged rows thus begins with what it began with the first time, and the Trainer
    answers from the cache although its model has been pushed in between. Otherwise every repetition would go on
    where the last one ended, and learn the same rows by heart.
    """

    def __init__(self, label: str) -> None:
        self._label = label

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: Mapping[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Picks from all pushes in the store; none where there is no such model."""
        models = {model.id: model for model in input_dict[MODEL] if fileio.exists(model.uri)}
        present = {artifact.id for artifact in input_dict[EXAMPLES]}
        contents = {content(artifact.mlmd_artifact) for artifact in input_dict[EXAMPLES]} - {""}
        found: list[types.Artifact] = []
        for number in reversed(pushed_models(store, self._label)):
            if number not in models:
                continue
            learned = _learned_from(store, number)
            if not any(one.id in present or content(one) in contents for one in learned):
                found = [models[number]]
                break
        return {MODEL: found, EXAMPLES: list(input_dict[EXAMPLES])}


def _learned_from(store: ml_metadata.MetadataStore, model: int) -> list[metadata_store_pb2.Artifact]:
    """The examples that went into the training of a model."""
    makers = {one.execution_id for one in store.get_events_by_artifact_ids([model]) if one.type in _OUTPUTS}
    rows = {
        event.artifact_id
        for event in (store.get_events_by_execution_ids(sorted(makers)) if makers else [])
        if event.type in _INPUTS and event.path.steps and event.path.steps[0].key == EXAMPLES
    }
    return list(store.get_artifacts_by_id(sorted(rows))) if rows else []
