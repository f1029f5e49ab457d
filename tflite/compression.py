"""Treatments of the trained network that train it again: zeros, shared values, weights that bear int8's rounding.

Each goes on from the weights that serve, with the loss and the data of the Trainer and a tenth of its learning
rate, and gives back a plain network of the same layers. Gradual pruning: Zhu and Gupta 2017, arXiv:1710.01878;
shared values: Han et al. 2016, arXiv:1510.00149; quantisation in training: Jacob et al. 2018, arXiv:1712.05877.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from models import warm_start
from models.callbacks import BestEpoch, monitored
from models.inputs import Split
from models.network import Bias, Dropout, Network
from models.settings import TrainSettings, WarmStartSettings
from models.tasks import TASKS
from models.trainer import Data, Fitted, Settings, untrained
from models.warm_start import WarmStartError
from tflite import learning
from tflite.learning import TreatmentError
from tflite.settings import ClusteringSettings, PruningSettings, QuantizationAwareSettings

BLOCK = (4, 1)
"""Inputs and outputs of a block of zeros in a kernel `[inputs, outputs]`.

LiteRT stores kernels as `[outputs, inputs]`, and multiplies sparse ones in blocks of 1 x 4.
"""

_SINGLE = (1, 1)

SMALLEST = 256
"""Weights that a matrix must have to be treated: smaller ones weigh little in the file and much in the answer."""

_RATE = 0.1
"""Of the Trainer's peak learning rate: the network has learned already."""

_SPARSITY_STEPS = 20
"""Times that the share of zeros rises until it is the one asked for."""

_ALIKE_ROWS = 512

_ALIKE = {"off": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Largest difference, relative to the largest logit, by the precision in which the saved network computes."""

_LAST = "logits/bias"
"""Every network ends with this weight: a saved model with several of them holds several networks."""


def trained_network(data: Data, settings: Settings, saved_model: str) -> Network:
    """The network inside a SavedModel as a tf_keras network that can learn on.

    Args:
      data: with the features, the transform graph and the splits that the model was trained with.
      settings: those of its training.
      saved_model: folder that `models.signatures.export` wrote.

    Returns:
      A network whose logits are those of the saved one, in float32 throughout.

    Raises:
      TreatmentError: if a split is empty, or the folder holds no network, several, other layers, or one that says
        something else.
    """
    learning.check_rows(data)
    warm = WarmStartSettings(source=saved_model)
    train = replace(settings.train, warm_start=warm, mixed_precision="off", recompute=False)
    begun = replace(data, base_model=saved_model, train=_learned_from(data, settings.train))
    columns = data.features.columns()
    names = {column.vocabulary for column in columns if column.vocabulary}
    tokens = {name: data.graph.vocabulary_by_name(name) for name in names}
    try:
        if _is_ensemble(saved_model):
            raise TreatmentError(
                f"{saved_model}: the model is an ensemble, and pruned, block_pruned, clustered and "
                "quantization_aware train one network: distil it (distilled), or set tune.ensemble: 1"
            )
        network = untrained(begun, replace(settings, train=train))
        warm_start.begin_from(network, saved_model, warm, columns, tokens)
    except (WarmStartError, tf.errors.OpError) as error:
        raise TreatmentError(f"{saved_model}: its network cannot be built again: {error}") from error
    _check_alike(network, data, settings.train, saved_model)
    return network


def pruned(data: Data, settings: Settings, network: Network, pruning: PruningSettings) -> Fitted:
    """Zeros among the weights of dense layers and embeddings, the smallest first, wherever they are.

    Args:
      data: as for `trained_network`.
      settings: those of the network's training.
      network: trained; it is left as it is.
      pruning: how many.

    Returns:
      The network with as many zeros, of the best epoch among those that ended with all of them.

    Raises:
      TreatmentError: if a split is empty, or no matrix is large enough.
      TrainingError: if the loss is not finite.
    """
    kinds = (tf_keras.layers.Dense, tf_keras.layers.Embedding)
    return _pruned(data, settings, network, pruning, kinds, lambda _: _SINGLE)


def block_pruned(data: Data, settings: Settings, network: Network, pruning: PruningSettings) -> Fitted:
    """Zeros in whole blocks of dense layers' weights, as LiteRT's sparse kernels take them: otherwise as `pruned`.

    A kernel whose inputs do not divide into blocks gets single zeros: of such a one LiteRT's sparse encoding would
    silently leave out what is over.
    """
    kinds = (tf_keras.layers.Dense,)
    return _pruned(data, settings, network, pruning, kinds, _whole_blocks)


def clustered(data: Data, settings: Settings, network: Network, clustering: ClusteringSettings) -> Fitted:
    """Few different weights in each matrix of dense layers and embeddings. Arguments and errors are as in `pruned`.

    K-means finds the values; they and the choice among them then learn on.
    """
    keras = tfmot.clustering.keras
    start = keras.CentroidInitialization.KMEANS_PLUS_PLUS
    learning.seed_all(settings.train)
    wrapped = _wrapped(
        network,
        _chosen(network, (tf_keras.layers.Dense, tf_keras.layers.Embedding)),
        lambda layer: keras.cluster_weights(layer, clustering.clusters, start),
    )
    fitted = _fitted(wrapped, data, _tuned(settings.train, clustering.epochs))
    return replace(fitted, network=_plain(network, _weights_by_layer(keras.strip_clustering(wrapped))))


def quantization_aware(
    data: Data, settings: Settings, network: Network, awareness: QuantizationAwareSettings
) -> Fitted:
    """Weights of dense layers that have learned under the rounding of int8. Arguments and errors are as in `pruned`.

    The network that comes back computes in float32: whoever quantizes it finds weights that bear it.
    """
    keras = tfmot.quantization.keras
    learning.seed_all(settings.train)
    kinds = (tf_keras.layers.Dense, tf_keras.layers.Concatenate, tf_keras.layers.Add)
    names = {layer.name for layer in network.layers if isinstance(layer, kinds)}
    annotated = _wrapped(network, names, keras.quantize_annotate_layer)
    with tf_keras.utils.custom_object_scope({kind.__name__: kind for kind in (Network, Bias, Dropout)}):
        simulated = keras.quantize_apply(annotated)
    fitted = _fitted(simulated, data, _tuned(settings.train, awareness.epochs))
    return replace(fitted, network=_plain(network, _weights_by_layer(simulated)))


@dataclass(frozen=True)
class Matrix:
    """What a treatment has made of one weight matrix.

    Attributes:
      layer: its layer.
      weights: how many it has.
      zeros: share of them that is zero.
      values: different ones.
    """

    layer: str
    weights: int
    zeros: float
    values: int


def matrices(network: tf_keras.Model) -> tuple[Matrix, ...]:
    """The weight matrices of dense layers and embeddings that are large enough to be treated."""
    kinds = (tf_keras.layers.Dense, tf_keras.layers.Embedding)
    large = [layer for layer in network.layers if _is_large(layer, kinds)]
    return tuple(_described(layer.name, layer.get_weights()[0]) for layer in large)


def packed_bytes(network: tf_keras.Model) -> int:
    """Size of all weights as float32 under gzip, as a store or a download would pack them."""
    return len(gzip.compress(b"".join(weight.tobytes() for weight in network.get_weights()), mtime=0))


def _described(layer: str, weight: np.ndarray) -> Matrix:
    return Matrix(layer, weight.size, float(np.mean(weight == 0.0)), len(np.unique(weight)))


def _is_ensemble(saved_model: str) -> bool:
    try:
        checkpoint = tf.train.load_checkpoint(f"{saved_model}/variables/variables")
    except (tf.errors.OpError, ValueError):  # There is none: what reads the weights says so.
        return False
    graph = TrackableObjectGraph.FromString(checkpoint.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    names = [attribute.full_name for node in graph.nodes for attribute in node.attributes]
    return names.count(_LAST) > 1


def _learned_from(data: Data, train: TrainSettings) -> Split:
    """The training split, with the label's mean and spread in all rows that the exported network learned from."""
    if not train.refit:
        return data.train
    splits = (data.train, data.validation)
    rows = sum(split.rows for split in splits)
    mean = sum(split.rows * split.label_mean for split in splits) / rows
    square = sum(split.rows * (split.label_std**2 + split.label_mean**2) for split in splits) / rows
    return replace(data.train, label_mean=mean, label_std=math.sqrt(square - mean**2))


def _check_alike(network: Network, data: Data, train: TrainSettings, saved_model: str) -> None:
    inputs, *_ = next(iter(data.validation.batches(_ALIKE_ROWS)))
    saved = tf.saved_model.load(saved_model).network(inputs, training=False).numpy()
    apart = float(np.abs(network(inputs, training=False).numpy() - saved).max())
    if apart > _ALIKE[train.mixed_precision] * max(1.0, float(np.abs(saved).max())):
        raise TreatmentError(
            f"{saved_model}: the network built again with its weights answers otherwise, by up to {apart:g}: give the "
            "features, the transform graph, the splits and the settings (training.json) of its training"
        )


def _pruned(
    data: Data,
    settings: Settings,
    network: Network,
    pruning: PruningSettings,
    kinds: tuple[type[tf_keras.layers.Layer], ...],
    block: Callable[[Sequence[int]], tuple[int, int]],
) -> Fitted:
    keras = tfmot.sparsity.keras
    learning.check_rows(data)
    learning.seed_all(settings.train)
    train = _tuned(settings.train, pruning.epochs)
    steps = learning.epoch_steps(data.train, train)
    rising = max(1, pruning.epochs * steps // 2)
    every = max(1, rising // _SPARSITY_STEPS)
    last = (
        rising // every * every
    )  # The share rises on every such step alone: the last has to be one of them.
    schedule = keras.PolynomialDecay(0.0, pruning.sparsity, 0, last, frequency=every)
    wrapped = _wrapped(
        network,
        _chosen(network, kinds),
        lambda layer: keras.prune_low_magnitude(layer, schedule, block_size=block(layer.weights[0].shape)),
    )
    fitted = _fitted(wrapped, data, train, [keras.UpdatePruningStep()], first=-(-last // steps) - 1)
    return replace(fitted, network=_plain(network, _weights_by_layer(keras.strip_pruning(wrapped))))


def _whole_blocks(shape: Sequence[int]) -> tuple[int, int]:
    return _SINGLE if shape[0] % BLOCK[0] else BLOCK


def _tuned(train: TrainSettings, epochs: int) -> TrainSettings:
    return replace(
        train, epochs=epochs, learning_rate=_RATE * train.learning_rate, warmup_epochs=0.0, warm_start=None
    )


def _is_large(layer: tf_keras.layers.Layer, kinds: tuple[type[tf_keras.layers.Layer], ...]) -> bool:
    return isinstance(layer, kinds) and int(tf.size(layer.weights[0])) >= SMALLEST


def _chosen(network: Network, kinds: tuple[type[tf_keras.layers.Layer], ...]) -> set[str]:
    names = {layer.name for layer in network.layers if _is_large(layer, kinds)}
    if not names:
        raise TreatmentError(
            f"no layer has a matrix of {SMALLEST} weights or more: there is nothing to gain from treating a network "
            f"of {network.count_params()} weights; leave the treatment out of tflite.variants"
        )
    return names


def _wrapped(
    network: Network, names: set[str], wrap: Callable[[tf_keras.layers.Layer], tf_keras.layers.Layer]
) -> Network:
    """A copy of the network with some of its layers wrapped; what wraps them looks at their weights."""
    return tf_keras.models.clone_model(
        _copy(network), clone_function=lambda layer: wrap(layer) if layer.name in names else layer
    )


def _copy(network: Network) -> Network:
    copy = tf_keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


class _BestWhenDone(BestEpoch):
    """The best epoch from one on: those before it, counted from 0, do not have what the treatment is for."""

    def __init__(self, monitor: str, first: int) -> None:
        super().__init__(monitor, patience=0)
        self._first = first

    def _replaces(self, epoch: int) -> bool:
        return self.chosen < self._first or super()._replaces(epoch)


def _fitted(
    wrapped: Network,
    data: Data,
    train: TrainSettings,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    first: int = 0,
) -> Fitted:
    learning.check_rows(data)
    label = data.features.label
    task = TASKS[label.kind](data.train, label, train)
    kept = _BestWhenDone(monitored(train, label), first)
    seconds = learning.learn(
        wrapped,
        learning.batches(data.train, train),
        learning.epoch_steps(data.train, train),
        train,
        task.loss,
        kept,
        callbacks,
        task.metrics,
        data.validation.batches(learning.VALIDATION_ROWS),
    )
    return Fitted(wrapped, kept.history, kept.chosen, kept.monitor, seconds)


def _weights_by_layer(treated: tf_keras.Model) -> Mapping[str, Mapping[str, np.ndarray]]:
    """Values by the layer's name, of a wrapped one that of what it wraps, and by the weight's."""
    return {
        getattr(layer, "layer", layer).name: {
            _weight_name(weight): weight.numpy() for weight in layer.trainable_weights
        }
        for layer in treated.layers
    }


def _weight_name(weight: Any) -> str:
    return str(weight.name).rpartition("/")[2].partition(":")[0]


def _plain(network: Network, values: Mapping[str, Mapping[str, np.ndarray]]) -> Network:
    """A copy of the network with other weights."""
    plain = tf_keras.models.clone_model(network)
    for layer in plain.layers:
        for weight in layer.weights:
            # A negative zero, as masks leave it, becomes the zero that packs well.
            weight.assign(values[layer.name][_weight_name(weight)] + 0.0)
    return plain
