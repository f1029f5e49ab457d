"""Weights of a saved model to begin with, and layers that stay as they are for a while.

A warm start reads the checkpoint inside the SavedModel, by layer name: no graph is loaded and no code of the old
model runs. Ids differ from run to run, so the rows of an id column's weights are carried by the token they stood
for, which the SavedModel's own vocabularies say.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from models.settings import UnfreezeStep, WarmStartSettings
from schemas.features import Form, ModelColumn

_LOG = logging.getLogger(__name__)

_COLUMNS = "assets.extra/columns.json"
"""TensorFlow leaves `assets.extra` of a SavedModel to its owner."""

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_NOT_OF_LAYERS = ("network/optimizer/", "network/keras_api/")
_LAST = "logits/bias"
"""Every network ends with this weight: a saved model with several of them holds several networks."""

_PART = re.compile(r"/part_\d+$")
_NEW = -1


class WarmStartError(ValueError):
    """Weights that cannot be carried over, or layers that are not there."""


@dataclass(frozen=True)
class Carried:
    """What a layer took over.

    Attributes:
      layer: its name.
      rows_carried: rows of its first weight that came from the saved model: ids, or inputs of a dense layer.
      rows_new: rows that begin as in a new network.
    """

    layer: str
    rows_carried: int
    rows_new: int


def base_model(fn_args: Any, settings: WarmStartSettings | None) -> str | None:
    """The folder of the model that training begins with, or None for random weights.

    It is the champion that the pipeline found, `fn_args.base_model`, or the folder that the configuration names,
    `base_model` in `fn_args.custom_config`.
    """
    if settings is None:
        return None
    folder = fn_args.base_model or fn_args.custom_config.get("base_model")
    if folder is None:
        _LOG.warning("warm start: no model that learned from other rows was pushed yet; training begins cold")
    return folder


def note_columns(columns: Sequence[ModelColumn], folder: str) -> None:
    """Writes into a SavedModel which columns its network reads, in their order: that of its weights' rows."""
    file = f"{folder}/{_COLUMNS}"
    tf.io.gfile.makedirs(file.rpartition("/")[0])
    with tf.io.gfile.GFile(file, "w") as stream:
        json.dump([_layout(column) for column in columns], stream)


def embedding_widths(folder: str, settings: WarmStartSettings) -> dict[str, int]:
    """Width of the embedding of each id column that a warm start carries, by column.

    A network chooses its widths by the number of ids. One more token may therefore change the shape of every
    layer above: a network that is to take the weights has to take the widths too.
    """
    saved = _Saved(folder)
    return {
        name.removeprefix("deep_"): saved.shape(f"{name}/embeddings")[1]
        for name in saved.layers
        if name.startswith("deep_")
        and f"{name}/embeddings" in saved.keys
        and _is_chosen(name, settings.layers)
    }


def begin_from(
    network: tf_keras.Model,
    folder: str,
    settings: WarmStartSettings,
    columns: Sequence[ModelColumn],
    vocabularies: Mapping[str, Sequence[bytes]],
) -> tuple[Carried, ...]:
    """Gives the chosen layers of a new network the weights of a saved one.

    The id of a missing value and that of unseen values are carried as such, hashed and bucketized ids by number.
    Tokens, and id columns, that the saved model does not know begin as in a new network.

    Args:
      network: as `build_network` made it; under a strategy, in its scope.
      folder: a SavedModel that `signatures.export` wrote.
      settings: which layers.
      columns: those of the network.
      vocabularies: the tokens of each vocabulary, in the order of their ids, by its name.

    Returns:
      What each of the chosen layers took.

    Raises:
      WarmStartError: nothing has been changed: the folder is no such model, a pattern names no layer, or a layer
        that was chosen does not fit.
    """
    saved = _Saved(folder)
    own = {layer.name: _weights_of(layer) for layer in network.layers if layer.trainable_weights}
    chosen = _chosen(own, settings.layers, "train.warm_start.layers")
    by_layer = {f"{part}_{column.name}": column for column in columns for part in ("wide", "deep")}
    if any(name not in by_layer for name in chosen):
        saved.check_order(columns)
    values: list[tuple[Sequence[Any], np.ndarray]] = []
    carried = []
    for name in chosen:
        column = by_layer.get(name)
        if column is not None and name not in saved.layers:
            carried.append(Carried(name, 0, _rows(own[name])))
            continue
        vocabulary = column.vocabulary if column is not None else None
        origins = _origins(saved.tokens(vocabulary), vocabularies[vocabulary]) if vocabulary else None
        values += [(parts, _combined(saved, weight, parts, origins)) for weight, parts in own[name].items()]
        new = 0 if origins is None else int(np.sum(origins == _NEW))
        carried.append(Carried(name, _rows(own[name]) - new, new))
    for targets, value in values:
        _assign(targets, value)
    _LOG.info("warm start: %d layers begin with the weights in %s", len(carried), folder)
    return tuple(carried)


class Unfreezing(tf_keras.callbacks.Callback):
    """Opens layers to learning, each at its epoch.

    The number of the epoch alone decides, so that training which goes on after a crash finds them as they would
    have been. A closed layer does not move by a bit: its gradients are zero before they are clipped, and Adam
    takes no step on a history of zeros.
    """

    def __init__(self, network: Any, steps: Sequence[UnfreezeStep]) -> None:
        """Closes the layers that the steps name; under a strategy, in its scope.

        Args:
          network: a `models.network.Network`.
          steps: a layer that several name opens at the first of their epochs.

        Raises:
          WarmStartError: if a pattern names no layer.
        """
        super().__init__()
        layers = {layer.name: layer for layer in network.layers if layer.trainable_weights}
        first: dict[str, int] = {}
        for number, step in enumerate(steps):
            for name in _chosen(layers, step.layers, f"train.warm_start.unfreeze[{number}].layers"):
                first[name] = min(step.epoch, first.get(name, step.epoch))
        self._gates = {
            epoch: tf.Variable(0.0, trainable=False, name=f"gate_{epoch}") for epoch in set(first.values())
        }
        positions = {id(weight): place for place, weight in enumerate(network.trainable_variables)}
        network.hold(
            {
                positions[id(weight)]: self._gates[epoch]
                for name, epoch in first.items()
                for weight in layers[name].trainable_weights
            }
        )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Opens what is due in the epoch, counted from 0 here."""
        for first, gate in self._gates.items():
            gate.assign(float(epoch + 1 >= first))


class _Saved:
    """The weights of a SavedModel's network, by `LAYER/WEIGHT`, and its vocabularies."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        try:
            self._reader = tf.train.load_checkpoint(f"{folder}/variables/variables")
        except (tf.errors.OpError, ValueError) as error:
            raise WarmStartError(
                f"{folder}: no SavedModel with readable variables; train.warm_start.source takes the folder that "
                "holds saved_model.pb, such as one version in the serving folder"
            ) from error
        graph = TrackableObjectGraph.FromString(self._reader.get_tensor(_OBJECT_GRAPH))
        weights = [
            (_PART.sub("", attribute.full_name), attribute.checkpoint_key)
            for node in graph.nodes
            for attribute in node.attributes
            if attribute.checkpoint_key.startswith("network/")
            and not attribute.checkpoint_key.startswith(_NOT_OF_LAYERS)
        ]
        self.keys = dict(weights)
        self._twice = {name for name, count in Counter(name for name, _ in weights).items() if count > 1}
        if not self.keys:
            raise WarmStartError(f"{folder}: the SavedModel holds no network that Headworks exported")
        if _LAST in self._twice:
            raise WarmStartError(
                f"{folder}: the model is an ensemble, and train.warm_start takes the weights of one network: name "
                "a model of one network as train.warm_start.source, such as an earlier version in the serving "
                "folder, or leave train.warm_start out (with tune.ensemble: 1 the next champion is one network)"
            )

    @cached_property
    def layers(self) -> frozenset[str]:
        """Names of the layers that have weights."""
        return frozenset(name.partition("/")[0] for name in self.keys)

    def shape(self, weight: str) -> tuple[int, ...]:
        return tuple(self._reader.get_variable_to_shape_map()[self._key(weight)])

    def value(self, weight: str) -> np.ndarray:
        return np.asarray(self._reader.get_tensor(self._key(weight)))

    def tokens(self, vocabulary: str) -> Sequence[bytes]:
        """The tokens in the order of their ids, as tf.Transform stored them."""
        file = f"{self._folder}/assets/{vocabulary}"
        if not tf.io.gfile.exists(file):
            raise WarmStartError(
                f"{file}: no such vocabulary, so nobody knows what the rows of its column stand for; leave the "
                "layers of that column out of train.warm_start.layers"
            )
        with tf.io.gfile.GFile(file, "rb") as stream:
            return [line.removesuffix(b"\n") for line in stream]

    def check_order(self, columns: Sequence[ModelColumn]) -> None:
        """Refuses columns in another order: shapes alone would not tell that inputs have changed places."""
        file = f"{self._folder}/{_COLUMNS}"
        remedy = "carry only layers of id columns (train.warm_start.layers: ['wide_NAME', 'deep_NAME'])"
        if not tf.io.gfile.exists(file):
            raise WarmStartError(
                f"{file}: no such file, so nobody knows which column each input of the model's dense layers is; "
                f"{remedy}"
            )
        with tf.io.gfile.GFile(file) as stream:
            old = json.load(stream)
        new = [_layout(column) for column in columns]
        if old != new:
            gone, added = ([one[0] for one in a if one not in b] for a, b in ((old, new), (new, old)))
            what = (
                f"without {gone or 'none'}, with {added or 'none'}" if gone or added else "in another order"
            )
            raise WarmStartError(
                f"{self._folder}: its network reads other columns; now {what}, which dense layers cannot take: "
                f"keep the features as they were, or {remedy}"
            )

    def _key(self, weight: str) -> str:
        if weight not in self.keys:
            raise WarmStartError(
                f"layer {weight.partition('/')[0]!r}: {self._folder} has no {weight!r}; it has the layers "
                f"{', '.join(sorted(self.layers))}. Keep the architecture (model) as it was, or leave the layer "
                "out of train.warm_start.layers"
            )
        if weight in self._twice:
            raise WarmStartError(
                f"{self._folder}: it has several weights with the name {weight!r}, so nobody knows which is meant; "
                "leave their layers out of train.warm_start.layers"
            )
        return self.keys[weight]


def _layout(column: ModelColumn) -> list[Any]:
    """What decides a column's place among the inputs of a dense layer."""
    return [column.name, str(column.form), column.width if column.form is Form.DENSE else None]


def _chosen(layers: Iterable[str], patterns: Sequence[str], key: str) -> list[str]:
    names = list(layers)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise WarmStartError(
                f"{key}: {pattern!r} names no layer with weights; there are {', '.join(sorted(names))}"
            )
    return [name for name in names if _is_chosen(name, patterns)]


def _is_chosen(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _weights_of(layer: tf_keras.layers.Layer) -> dict[str, list[Any]]:
    """A layer's variables by `LAYER/WEIGHT`, each in its parts: parameter servers hold a weight split by rows."""
    parts: dict[str, list[Any]] = {}
    for variable in layer.weights:
        parts.setdefault(_PART.sub("", variable.name.partition(":")[0]), []).append(variable)
    return parts


def _rows(weights: Mapping[str, Sequence[Any]]) -> int:
    return sum(int(part.shape[0]) for part in next(iter(weights.values())))


def _origins(old: Sequence[bytes], new: Sequence[bytes]) -> np.ndarray:
    """For each new id the old one of the same meaning, or `_NEW`: int64 `[len(new) + 2]`."""
    ids = {token: number for number, token in enumerate(old, start=1)}
    return np.array([0, *(ids.get(token, _NEW) for token in new), len(old) + 1], np.int64)


def _combined(saved: _Saved, weight: str, parts: Sequence[Any], origins: np.ndarray | None) -> np.ndarray:
    """The saved weight, by the new ids where they count."""
    value = saved.value(weight)
    fresh = np.concatenate([tf_keras.backend.get_value(part) for part in parts])
    if origins is None:
        fits = value.shape == fresh.shape
    else:
        fits = value.shape[1:] == fresh.shape[1:] and int(origins.max()) + 1 == len(value)
    if not fits:
        layer = weight.partition("/")[0]
        raise WarmStartError(
            f"layer {layer!r}: {weight} is {list(value.shape)} in the saved model and {list(fresh.shape)} now; "
            f"keep the architecture (model, features.overrides) as it was, or leave {layer!r} out of "
            "train.warm_start.layers"
        )
    if origins is None:
        return value
    return np.where((origins == _NEW)[:, np.newaxis], fresh, value[np.maximum(origins, 0)])


def _assign(parts: Sequence[Any], value: np.ndarray) -> None:
    start = 0
    for part in parts:
        rows = int(part.shape[0])
        part.assign(value[start : start + rows])
        start += rows
