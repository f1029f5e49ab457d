"""The preprocessing graph in LiteRT's builtin ops: one row of raw tensors to model columns.

Features of a kind are prepared together, as one vector, because a device pays for each op and hardly for its length.
LiteRT computes in float32: what would lose digits there is taken off as an integer, or in two parts. Columns equal
those of the server up to float32's rounding, but for integers beyond 2**53, which the server rounds to doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from schemas.features import MISSING_INT, DType, Feature, FeatureSet, Kind
from tflite import text
from tflite.analysed import Analysed, DeviceError, Moments
from transforms import ops

HASHED_WIDTH = max(text.HASH_WIDTHS)
"""Bytes of a hashed text that count; a longer one is the client's error."""

TEXT_WIDTH = 256
"""Bytes of a free text that count; a longer one is cut."""

_SMALL_TABLE = 256
"""Vocabularies up to this size are padded to the same length, so that one comparison serves them all."""

_FAR = 2.0**62
"""Integers up to here differ by an int64."""

_LARGE = 2.0**64

_INT64_BITS = 63

_FIXED_POINT = 2.0**39
"""Steps of a cycle whose period no float32 holds: to 2**23 cycles from zero they are told apart."""

Columns = dict[str, tf.Tensor]
"""Model columns by name, one row."""


@dataclass(frozen=True)
class DeviceInput:
    """A raw feature as a device gives it.

    Attributes:
      name: of the feature.
      graph_name: of the input tensor.
      dtype: FLOAT is float32 `[1]`, NaN where missing; INT int64 `[1]`, `MISSING_INT` where missing; BYTES uint8
        `[1, width]`, UTF-8 with zeros after it, all zeros where missing.
      width: of BYTES.
    """

    name: str
    graph_name: str
    dtype: DType
    width: int | None = None


def input_layout(features: FeatureSet, analysed: Analysed) -> tuple[DeviceInput, ...]:
    """The inputs of a device model, in the order of the features.

    Raises:
      DeviceError: naming a feature that no device takes.
    """
    return tuple(
        DeviceInput(
            feature.name,
            feature.graph_name,
            feature.dtype,
            _width(feature, analysed) if feature.dtype is DType.BYTES else None,
        )
        for feature in features
    )


def _width(feature: Feature, analysed: Analysed) -> int:
    match feature.kind:
        case Kind.CATEGORICAL:
            return _token_width(feature, analysed)
        case Kind.TEXT:
            return TEXT_WIDTH
        case Kind.ENCODED:
            raise _no_encoder(feature)
        case _:
            return HASHED_WIDTH


def _token_width(feature: Feature, analysed: Analysed) -> int:
    # One byte more than the longest token at least: what is cut there is no token.
    return text.padded_width(max(map(len, analysed.vocabularies[feature.name]), default=0))


def prepare(inputs: Mapping[str, tf.Tensor], features: FeatureSet, analysed: Analysed) -> Columns:
    """One row, prepared as `transforms.preprocessing` does.

    Args:
      inputs: by `DeviceInput.graph_name`.
      features: those of the row.
      analysed: of the same features.

    Returns:
      A tensor for each of `FeatureSet.columns()`, `[1, width]`: float32, or int64 ids.

    Raises:
      DeviceError: naming the feature that no builtin ops can prepare.
    """
    row = _Row(inputs, analysed)
    columns: Columns = {}
    for kind, prepare_kind in _PREPARATIONS.items():
        alike = [feature for feature in features if feature.kind is kind]
        if alike:
            columns.update(prepare_kind(row, alike))
    return {column.name: columns[column.name] for column in features.columns()}


@dataclass(frozen=True)
class _Row:
    """The raw tensors of one row and what the analysis of the data says about them."""

    inputs: Mapping[str, tf.Tensor]
    analysed: Analysed

    def joined(self, features: Sequence[Feature]) -> tf.Tensor:
        """The raw values of features of one type and width, one after another."""
        return _concat([self.inputs[feature.graph_name] for feature in features])

    def floats(self, features: Sequence[Feature]) -> tf.Tensor:
        """Numbers of one type as float32 `[features]`, where they are missing NaN or as infinite as they came."""
        values = self.joined(features)
        if values.dtype == tf.float32:
            return values
        return tf.where(ops.is_present(values), tf.cast(values, tf.float32), math.nan)


def _numeric(row: _Row, features: Sequence[Feature]) -> Columns:
    logs = _by_type([feature for feature in features if feature.log])
    plain = [feature for feature in features if not feature.log]
    floats = [feature for feature in plain if feature.dtype is DType.FLOAT]
    integers = [feature for feature in plain if feature.dtype is DType.INT]
    ordered = [feature for alike in (*logs, floats, integers) for feature in alike]
    centres = np.zeros(len(ordered))
    parts = []
    if logs:
        parts.append(_signed_log(_concat([row.floats(alike) for alike in logs])))
    if floats:
        parts.append(row.floats(floats))
    if integers:
        offsets = np.array([_centre(row.analysed.moments[feature.name]) for feature in integers])
        centres[-len(integers) :] = offsets
        parts.append(_centred(row.joined(integers), offsets))
    values = _concat(parts)
    present = ops.is_present(values)
    scaled = _z_score(values, [row.analysed.moments[feature.name] for feature in ordered], centres)
    return _dense(ordered, tf.where(present, scaled, 0.0), present)


def _by_type(features: Sequence[Feature]) -> list[list[Feature]]:
    groups = [[feature for feature in features if feature.dtype is dtype] for dtype in DType]
    return [group for group in groups if group]


def _signed_log(values: tf.Tensor) -> tf.Tensor:
    """`ops.signed_log`, of which LiteRT's own `log(1 + x)` would lose the small values."""
    size = tf.abs(values)
    rounded = 1.0 + size
    # In two parts, for XNNPACK's logarithm, which LiteRT uses, ends at 2**127.5.
    logarithm = tf.math.log(tf.minimum(rounded, _LARGE)) + tf.math.log(tf.maximum(rounded / _LARGE, 1.0))
    # What the sum lost of the value, to first order.
    return tf.sign(values) * (logarithm - ((rounded - 1.0) - size) / rounded)


def _centre(moments: Moments) -> int:
    """What to subtract from an integer before it becomes a float32: 0 where that loses nothing that matters."""
    if abs(moments.mean) <= 4 * math.sqrt(moments.variance):
        return 0
    # Within bounds that leave room for the difference to a value as large.
    return round(min(max(moments.mean, -_FAR), _FAR))


def _centred(integers: tf.Tensor, centres: npt.NDArray[np.int64]) -> tf.Tensor:
    """`integers - centres` as float32, NaN where missing."""
    floats = tf.cast(integers, tf.float32)
    if centres.any():
        near = tf.cast(integers - centres, tf.float32)
        floats = tf.where(tf.abs(floats) < _FAR, near, floats - centres.astype(np.float32))
    return tf.where(ops.is_present(integers), floats, math.nan)


def _z_score(values: tf.Tensor, moments: Sequence[Moments], centres: npt.NDArray[np.float64]) -> tf.Tensor:
    """As `tft.scale_to_z_score`, which divides by nothing where the deviation is zero."""
    deviation = np.array([math.sqrt(moment.variance) or 1.0 for moment in moments])
    mean = np.array([moment.mean for moment in moments]) - centres
    # In two parts: a mean of many digits is no float32. The rest comes off behind the division, where no optimizer
    # of graphs adds the two up again.
    rounded = mean.astype(np.float32)
    rest = ((mean - rounded) / deviation).astype(np.float32)
    divisor = np.maximum(deviation.astype(np.float32), np.finfo(np.float32).tiny)
    return (values - rounded) / divisor - rest


def _cyclical(row: _Row, features: Sequence[Feature]) -> Columns:
    phases = _concat(
        [_PHASES[feature.dtype](feature, row.inputs[feature.graph_name]) for feature in features]
    )
    present = ops.is_present(phases)
    both = tf.stack([tf.sin(phases), tf.cos(phases)], axis=1)
    return _dense(features, tf.where(tf.reshape(present, [-1, 1]), both, 0.0), present)


def _integer_phase(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    """The angle within the cycle, float32 `[1]`, NaN where missing, by the remainder of whole numbers."""
    period = Fraction(feature.period)
    steps, halvings = period.numerator, period.denominator.bit_length() - 1
    spare = _INT64_BITS - steps.bit_length()
    if spare < 1:
        raise DeviceError(
            f"feature {feature.name!r} (cyclical): a period of {feature.period} is beyond the integers of a "
            "device; give a shorter one, or leave tflite out"
        )
    # The period is a fraction of a power of two, as every float: steps / 2**halvings. Doubling goes on within int64.
    place = tf.math.floormod(values, np.int64(steps))
    while halvings:
        doublings = min(halvings, spare)
        place = tf.math.floormod(place * np.int64(2**doublings), np.int64(steps))
        halvings -= doublings
    phase = tf.cast(place, tf.float32) * np.float32(2 * math.pi / steps)
    return tf.where(ops.is_present(values), phase, math.nan)


def _float_phase(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    period = np.float32(feature.period)
    if float(period) == feature.period:
        return tf.math.floormod(values, period) * np.float32(2 * math.pi / feature.period)
    unit = 2.0 ** math.floor(math.log2(_FIXED_POINT / feature.period))
    steps = round(feature.period * unit)
    scaled = tf.where(ops.is_present(values), values * np.float32(unit), 0.0)
    place = tf.math.floormod(tf.cast(tf.clip_by_value(scaled, -_FAR, _FAR), tf.int64), np.int64(steps))
    phase = tf.cast(place, tf.float32) * np.float32(2 * math.pi / steps)
    return tf.where(ops.is_present(values), phase, math.nan)


_PHASES: Mapping[DType, Callable[[Feature, tf.Tensor], tf.Tensor]] = {
    DType.INT: _integer_phase,
    DType.FLOAT: _float_phase,
}


def _boolean(row: _Row, features: Sequence[Feature]) -> Columns:
    values = row.joined(features)
    return _dense(features, ops.flag(values), ops.is_present(values))


def _bucketized(row: _Row, features: Sequence[Feature]) -> Columns:
    groups = _by_type(features)
    ordered = [feature for alike in groups for feature in alike]
    values = _concat([row.floats(alike) for alike in groups])
    if any(feature.dtype is DType.FLOAT for feature in features):
        values = tf.where(ops.is_present(values), values, math.nan)
    boundaries = [row.analysed.boundaries[feature.name] for feature in ordered]
    # A first boundary below every number makes the count the id; NaN reaches none, and nothing reaches the last ones.
    longest = max(map(len, boundaries))
    table = np.full([len(ordered), longest + 1], np.inf, np.float32)
    table[:, 0] = np.finfo(np.float32).min
    for place, known in enumerate(boundaries):
        table[place, 1 : len(known) + 1] = known
    # TensorFlow takes subnormal numbers for zero, LiteRT does not.
    least = np.finfo(np.float32).tiny
    table[np.abs(table) < least] = np.nextafter(-least, np.float32(0))
    reached = tf.reshape(values, [-1, 1]) >= table
    return _ids(ordered, tf.reduce_sum(tf.cast(reached, tf.int32), axis=1))


def _categorical(row: _Row, features: Sequence[Feature]) -> Columns:
    columns: Columns = {}
    tables = {feature.name: _table(row.analysed, feature) for feature in features}
    groups: dict[tuple[int, int], list[Feature]] = {}
    for feature in features:
        entries, width = tables[feature.name].shape
        size_class = max(math.ceil(math.log(entries, 4)), math.ceil(math.log(_SMALL_TABLE, 4)))
        groups.setdefault((width, size_class), []).append(feature)
    for (width, _), alike in groups.items():
        ordered = [feature for group in _by_type(alike) for feature in group]
        values = _concat([_keys(row.joined(group), width) for group in _by_type(alike)])
        columns |= _ids(ordered, text.positions(values, [tables[feature.name] for feature in ordered]))
    return columns


def _keys(values: tf.Tensor, width: int) -> tf.Tensor:
    """Raw values as int64 `[rows, width]`: an integer is its own key."""
    return text.keys(values) if values.dtype == tf.uint8 else tf.reshape(values, [-1, width])


def _table(analysed: Analysed, feature: Feature) -> text.Keys:
    """The keys of a missing value and of the vocabulary: `[1 + tokens, keys]`."""
    tokens = analysed.vocabularies[feature.name]
    if feature.dtype is DType.BYTES:
        return text.pack([b"", *tokens], _token_width(feature, analysed))
    # In place of real tokens, of which a column without values has none, tf.Transform makes one up, which is no number.
    numbers = [int(token) if token.removeprefix(b"-").isdigit() else MISSING_INT for token in tokens]
    return np.array([MISSING_INT, *numbers], np.int64).reshape(-1, 1)


def _hashed(row: _Row, features: Sequence[Feature]) -> Columns:
    groups = _by_type(features)
    ordered = [feature for alike in groups for feature in alike]
    has_text = any(feature.dtype is DType.BYTES for feature in features)
    width = HASHED_WIDTH if has_text else min(text.HASH_WIDTHS)
    characters = _concat([_characters(row.joined(alike), width) for alike in groups])
    ids = text.hash_ids(characters, [feature.hash_buckets for feature in ordered])
    return _ids(ordered, tf.cast(ids, tf.int32))


def _characters(values: tf.Tensor, width: int) -> tf.Tensor:
    """int32 `[rows, width]`: text, or integers written out."""
    if values.dtype == tf.uint8:
        return tf.cast(values, tf.int32)
    return text.decimal(values, ops.is_present(values), width)


def _text(row: _Row, features: Sequence[Feature]) -> Columns:
    columns: Columns = {}
    for feature in features:
        table = _table(row.analysed, feature)
        width = _token_width(feature, row.analysed)
        is_ascii = all(token.isascii() for token in row.analysed.vocabularies[feature.name])
        words = text.tokens(row.inputs[feature.graph_name], feature.max_tokens, width, is_ascii=is_ascii)
        ids = tf.cast(text.positions(words, [table]), tf.int64)
        columns[feature.columns()[0].name] = tf.reshape(ids, [1, feature.max_tokens])
    return columns


def _encoded(_: _Row, features: Sequence[Feature]) -> Columns:
    raise _no_encoder(features[0])


def _no_encoder(feature: Feature) -> DeviceError:
    return DeviceError(
        f"feature {feature.name!r} (encoded): a device model holds no encoder of text or images; leave the "
        "feature out (features.exclude), or leave tflite out"
    )


_PREPARATIONS: Mapping[Kind, Callable[[_Row, Sequence[Feature]], Columns]] = {
    Kind.NUMERIC: _numeric,
    Kind.BUCKETIZED: _bucketized,
    Kind.CATEGORICAL: _categorical,
    Kind.HASHED: _hashed,
    Kind.CYCLICAL: _cyclical,
    Kind.BOOLEAN: _boolean,
    Kind.TEXT: _text,
    Kind.ENCODED: _encoded,
}


def _dense(features: Sequence[Feature], values: tf.Tensor, present: tf.Tensor) -> Columns:
    """The columns of dense kinds.

    Args:
      values: float32 `[features]` or `[features, width]`.
      present: bool `[features]`.
    """
    of_values = _apart(values, len(features))
    of_missing = _apart(ops.missing_flag(present), len(features))
    # A required feature has no second column.
    return {
        column.name: tensor
        for feature, *tensors in zip(features, of_values, of_missing, strict=True)
        for column, tensor in zip(feature.columns(), tensors, strict=False)
    }


def _ids(features: Sequence[Feature], ids: tf.Tensor) -> Columns:
    """The columns of features with one id each, int32 `[features]`."""
    return {
        feature.columns()[0].name: tf.cast(column, tf.int64)
        for feature, column in zip(features, _apart(ids, len(features)), strict=True)
    }


def _apart(values: tf.Tensor, count: int) -> list[tf.Tensor]:
    """One row for each of `count` features: `[1, width]` each."""
    row = tf.reshape(values, [1, -1])
    return [row] if count == 1 else tf.split(row, count, axis=1)


def _concat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]
