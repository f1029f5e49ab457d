"""The champion: the latest blessed model that is not the candidate itself."""

from __future__ import annotations

from collections.abc import Mapping

import ml_metadata
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.common import resolver

GATE = "gate"
"""Custom property of a blessing that the last gate gave."""

MODEL = "model"
BLESSING = "model_blessing"
CANDIDATE = "candidate"


class ChampionStrategy(resolver.ResolverStrategy):
    """Resolves `model` and its `model_blessing`; nothing where no other model was ever blessed.

    TFX's own latest-blessed strategy would hand a cached candidate to the evaluator as its own baseline: the
    comparison would be void, and a rerun with nothing changed would evaluate again.
    """

    def resolve_artifacts(
        self, store: ml_metadata.MetadataStore, input_dict: Mapping[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Picks from all models and blessings in the store."""
        del store
        blessings = {
            blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in input_dict[BLESSING]
            if blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1
            and blessing.get_string_custom_property(GATE)  # the Evaluator's alone is not enough
        }
        candidates = {candidate.id for candidate in input_dict[CANDIDATE]}
        blessed = [
            model for model in input_dict[MODEL] if model.id in blessings and model.id not in candidates
        ]
        newest = max(blessed, key=lambda model: model.id, default=None)
        return {
            MODEL: [newest] if newest else [],
            BLESSING: [blessings[newest.id]] if newest else [],
            CANDIDATE: list(input_dict[CANDIDATE]),
        }
