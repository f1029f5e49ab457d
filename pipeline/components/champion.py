"""The champion: the model that serves, unless that is the candidate itself."""

from __future__ import annotations

from collections.abc import Mapping

import ml_metadata
from tfx import types
from tfx.dsl.components.common import resolver

PUSHED_MODEL = "PushedModel"
MODEL_ID = "model_id"
"""Custom property of a push: the id of the model that was pushed."""
LABEL = "label"
"""Custom property of a push: what its model predicts, as `label_of` says it."""

MODEL = "model"
CANDIDATE = "candidate"
PUSHED = "pushed"


def pushed_models(store: ml_metadata.MetadataStore, label: str) -> list[int]:
    """Ids of the models with this label that were pushed, the last one last; one may come twice."""
    return [
        push.custom_properties[MODEL_ID].int_value
        for push in sorted(store.get_artifacts_by_type(PUSHED_MODEL), key=lambda push: int(push.id))
        if push.custom_properties[LABEL].string_value == label
    ]


class ChampionStrategy(resolver.ResolverStrategy):
    """Resolves `model`: of all models that were pushed, but for the candidate, the one that was pushed last.

    A model that predicts something else, or has other classes, is no champion: there is nothing to compare. TFX's own
    latest-blessed strategy would hand a cached candidate to the evaluator as its own baseline, and takes a model for
    the champion that was never pushed. `pushed` is the push of that model, if it still serves: it answers where the
    model's own artifact is lost.
    """

    def __init__(self, label: str) -> None:
        self._label = label

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: Mapping[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Picks from all pushes in the store, those whose version no longer serves too."""
        models = {model.id: model for model in input_dict[MODEL]}
        candidates = {candidate.id for candidate in input_dict[CANDIDATE]}
        pushed = pushed_models(store, self._label)
        # An older model must not stand in for the last one: a candidate would have it easier.
        champion = next((number for number in reversed(pushed) if number not in candidates), None)
        serving = [push for push in input_dict[PUSHED] if push.get_int_custom_property(MODEL_ID) == champion]
        return {
            MODEL: [models[champion]] if champion in models else [],
            PUSHED: [max(serving, key=lambda push: push.id)] if serving else [],
            CANDIDATE: list(input_dict[CANDIDATE]),
        }
