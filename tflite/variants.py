"""The device models that can be had, by name: a treatment of the network and a number format."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar


class NumberFormat(enum.StrEnum):
    """How the network's weights and activations are stored and computed; preprocessing is the same in all."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    DYNAMIC_INT8 = "dynamic_int8"
    INT8 = "int8"
    INT16X8 = "int16x8"

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs to see rows of training, to know how far activations reach."""
        return self in (NumberFormat.INT8, NumberFormat.INT16X8)


class Treatment(enum.StrEnum):
    """What is done to the trained network before it is converted; all but TRAINABLE train it on."""

    PRUNED = "pruned"
    BLOCK_PRUNED = "block_pruned"
    CLUSTERED = "clustered"
    QUANTIZATION_AWARE = "quantization_aware"
    DISTILLED = "distilled"
    TRAINABLE = "trainable"


@dataclass(frozen=True)
class Variant:
    """One device model.

    Attributes:
      number_format: of the network.
      treatment: None for the network as it serves.
    """

    number_format: NumberFormat
    treatment: Treatment | None = None

    @property
    def name(self) -> str:
        """`FORMAT`, or `TREATMENT+FORMAT`: also the stem of the file."""
        return f"{self.treatment}+{self.number_format}" if self.treatment else str(self.number_format)

    @classmethod
    def from_name(cls, name: str) -> Variant:
        """Reads a name.

        Raises:
          ValueError: naming the part that nobody knows, and what there is.
        """
        treatment, _, number_format = name.rpartition("+")
        variant = cls(
            _member(NumberFormat, number_format, name),
            _member(Treatment, treatment, name) if treatment else None,
        )
        if variant.treatment is Treatment.TRAINABLE and variant.number_format is not NumberFormat.FLOAT32:
            raise ValueError(f"{name!r}: a file that learns on the device is float32: trainable+float32")
        return variant


UNTREATED = Variant(NumberFormat.FLOAT32)
"""Says the same as the server's model, up to rounding."""


_Kind = TypeVar("_Kind", NumberFormat, Treatment)


def _member(kind: type[_Kind], text: str, name: str) -> _Kind:
    try:
        return kind(text)
    except ValueError:
        known = ", ".join(kind)
        raise ValueError(
            f"{name!r}: {text!r} is no {'number format' if kind is NumberFormat else 'treatment'}; there are {known}. "
            "A device model is FORMAT or TREATMENT+FORMAT, such as int8 or distilled+int8"
        ) from None
