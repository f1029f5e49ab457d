"""Makes the device models of a pushed model, variant by variant; what several share is made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from types import SimpleNamespace
from typing import Any, Protocol

import tensorflow as tf

from models.network import Network
from models.trainer import Data, Settings, load_data
from schemas.features import FeatureSet
from tflite.analysed import Analysed
from tflite.device_model import convert
from tflite.quantization import Sample, quantize
from tflite.settings import (
    ClusteringSettings,
    PruningSettings,
    QuantizationAwareSettings,
    StudentSettings,
    TrainableSettings,
)
from tflite.slimming import slimmed
from tflite.variants import NumberFormat, Treatment, Variant

_WITH_ZEROS = (Treatment.PRUNED, Treatment.BLOCK_PRUNED)
"""Treatments whose float32 file leaves zeros out; the quantizer takes no file in which they are."""


class Treatments(Protocol):
    """How far each treatment goes."""

    @property
    def pruned(self) -> PruningSettings: ...

    @property
    def block_pruned(self) -> PruningSettings: ...

    @property
    def clustered(self) -> ClusteringSettings: ...

    @property
    def quantization_aware(self) -> QuantizationAwareSettings: ...

    @property
    def trainable(self) -> TrainableSettings: ...

    @property
    def distilled(self) -> StudentSettings: ...


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
      saved_model: its folder, as `models.signatures.export` wrote it.
      transform_graph: place of the tf.Transform output that it was trained with.
      train_files: patterns of the raw rows that it learned from; read only where a treatment is asked for.
      validation_files: patterns of the raw rows that chose its epoch.
      features: the columns.
      training: the record of its training, with the settings `model` and `train`.
      order_column: orders the rows, where training weighed them by age.
    """

    saved_model: str
    transform_graph: str
    train_files: Sequence[str]
    validation_files: Sequence[str]
    features: FeatureSet
    training: Mapping[str, Any]
    order_column: str | None = None


class Production:
    """Device models of one source."""

    def __init__(
        self, source: Source, treatments: Treatments, samples: Callable[[bytes], Sequence[Sample]]
    ) -> None:
        """Makes nothing yet.

        Args:
          source: the pushed model.
          treatments: how far each goes.
          samples: rows of training as the inputs of a float32 file; asked for where a number format has to see some.
        """
        self._source = source
        self._treatments = treatments
        self._samples = samples
        self._treated = cache(self._treat)
        self._float32 = cache(self._convert)

    def make(self, variant: Variant) -> bytes:
        """The file of a variant, without metadata.

        Raises:
          DeviceError: a feature or an op that LiteRT has not.
          QuantizationError: a number format that the network cannot have.
          TreatmentError: a treatment that the network, or its data, does not allow.
        """
        if variant.treatment is Treatment.TRAINABLE:
            return self._learning()
        if variant.number_format is NumberFormat.FLOAT32 and variant.treatment in _WITH_ZEROS:
            return slimmed(self._float32(variant.treatment, are_zeros_packed=True))
        samples = self._rows if variant.number_format.is_calibrated else ()
        # Last, because the quantizer tells the network from the preprocessing by the names that go here.
        return slimmed(quantize(self._float32(variant.treatment), variant.number_format, samples))

    @cached_property
    def _rows(self) -> Sequence[Sample]:
        return self._samples(self._float32(None))

    def _convert(self, treatment: Treatment | None, are_zeros_packed: bool = False) -> bytes:
        network = self._treated(treatment) if treatment else self._loaded.network
        model = convert(network, self._source.features, self._analysed, are_zeros_packed=are_zeros_packed)
        if treatment is Treatment.DISTILLED:
            from tflite.distillation import check_size

            check_size(self._treatments.distilled, len(model), "its float32 file")
        return model

    def _learning(self) -> bytes:
        from tflite import training

        return training.convert(
            self._trained, self._source.features, self._analysed, self._treatments.trainable
        )

    @cached_property
    def _loaded(self) -> Any:
        return tf.saved_model.load(self._source.saved_model)

    @cached_property
    def _analysed(self) -> Analysed:
        return Analysed.read(self._source.features, self._source.transform_graph)

    def _treat(self, treatment: Treatment) -> Network:
        # Imported where it is used: the optimization toolkit takes seconds, and most device models need none of it.
        from tflite.compression import block_pruned, clustered, pruned, quantization_aware
        from tflite.distillation import distilled

        data, settings, asked = self._data, self._settings, self._treatments
        if treatment is Treatment.DISTILLED:
            return distilled(data, settings, self._loaded.network, asked.distilled).network
        network = self._trained
        made = {
            Treatment.PRUNED: partial(pruned, data, settings, network, asked.pruned),
            Treatment.BLOCK_PRUNED: partial(block_pruned, data, settings, network, asked.block_pruned),
            Treatment.CLUSTERED: partial(clustered, data, settings, network, asked.clustered),
            Treatment.QUANTIZATION_AWARE: partial(
                quantization_aware, data, settings, network, asked.quantization_aware
            ),
        }
        return made[treatment]().network

    @cached_property
    def _trained(self) -> Network:
        from tflite.compression import trained_network

        return trained_network(self._data, self._settings, self._source.saved_model)

    @cached_property
    def _settings(self) -> Settings:
        return Settings.from_config({part: self._source.training[part] for part in ("model", "train")})

    @cached_property
    def _data(self) -> Data:
        source = self._source
        arguments = SimpleNamespace(
            train_files=list(source.train_files),
            eval_files=list(source.validation_files),
            transform_graph_path=source.transform_graph,
            custom_config={"features": source.features.to_json(), "order_column": source.order_column},
        )
        return load_data(arguments, self._settings.train)
