"""Training without some of the features: what the network can do that never saw them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import tf_keras

from models.inputs import Split
from models.probe import scores
from models.trainer import Data, Settings, fit
from schemas.features import FeatureSet, LabelKind

_BATCH = 4096

Floats = npt.NDArray[np.float64]


def answers_without(data: Data, settings: Settings, dropped: Collection[str]) -> Floats:
    """Trains a new network that lacks the model columns of some features, and asks it about the validation split.

    The transform graph and the rows stay as they are; only the network has fewer inputs.

    Args:
      data: of the training.
      settings: of the training; they say with which seed.
      dropped: names of features; none trains the whole network.

    Returns:
      `[rows, classes]` probabilities, or `[rows]` predictions, in the order of the split.

    Raises:
      ValueError: for a name that is no feature, or if no feature is left.
      TrainingError: if the loss is not finite.
    """
    tf_keras.backend.clear_session()  # dozens of trainings in one process
    features = remaining(data.features, dropped)
    with warnings.catch_warnings():
        # The splits hold all columns; Keras warns of those that this network does not take.
        warnings.filterwarnings("ignore", message="Input dict contained keys")
        network = fit(dataclasses.replace(data, features=features), settings).network
        logits = network.predict(data.validation.batches(_BATCH), verbose=0)
    found = scores(np.asarray(logits, np.float64), features.label)
    return found[:, 0] if features.label.kind is LabelKind.REGRESSION else found


def remaining(features: FeatureSet, dropped: Collection[str]) -> FeatureSet:
    """The features without some.

    Raises:
      ValueError: for a name that is no feature, or if none is left.
    """
    names = [feature.name for feature in features]
    if unknown := sorted(set(dropped) - set(names)):
        raise ValueError(f"{', '.join(map(repr, unknown))}: no such feature; there are {', '.join(names)}")
    kept = tuple(feature for feature in features if feature.name not in dropped)
    if not kept:
        raise ValueError("without all features there is nothing to learn from: leave one in")
    return FeatureSet(kept, features.label)


def truth(split: Split) -> Floats:
    """`[rows]`: the labels of a split, in its order: index of the class, or the target."""
    labels = [element[1] for element in split.batches(_BATCH).as_numpy_iterator()]
    return np.concatenate(labels).astype(np.float64)[:, 0]
