"""Text on a device, as bytes and 64-bit integers in LiteRT's builtin ops: its own strings need ops of TensorFlow.

A text is uint8 `[rows, width]`: UTF-8, then zeros. It therefore holds no NUL, and an empty one is a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import tensorflow as tf

KEY_BYTES = 8
"""Bytes of text in one int64 key."""

Keys = npt.NDArray[np.int64]


def padded_width(length: int) -> int:
    """The least number of bytes that whole keys fill and that shows a text of `length` bytes to end there."""
    return (length // KEY_BYTES + 1) * KEY_BYTES


def pack(tokens: Sequence[bytes], width: int) -> Keys:
    """The tokens as `keys` makes them of their zero-padded text: `[tokens, width / 8]`."""
    padded = b"".join(token.ljust(width, b"\0") for token in tokens)
    return np.frombuffer(padded, "<i8").astype(np.int64).reshape(len(tokens), width // KEY_BYTES)


def keys(text: tf.Tensor) -> tf.Tensor:
    """uint8 `[rows, width]`, of a width that 8 divides, to int64 `[rows, width / 8]`."""
    rows, width = text.shape
    return tf.bitcast(tf.reshape(text, [rows, width // KEY_BYTES, KEY_BYTES]), tf.int64)


def positions(values: tf.Tensor, tables: Sequence[Keys]) -> tf.Tensor:
    """Where each row of keys stands in its table.

    A comparison with every entry: at 10,000 entries still a few microseconds, and no entry can be mistaken.

    Args:
      values: int64 `[rows, keys]`.
      tables: one for each row, or one for all: `[entries, keys]`, the first entry that of a missing value.

    Returns:
      int32 `[rows]`: 0 missing, else the entry's position, or the number of entries where there is none such.
    """
    longest = max(map(len, tables))
    # A short table ends with repetitions of its first entry, which is found where it first stands.
    stacked = np.stack(
        [np.concatenate([table, table[:1].repeat(longest - len(table), 0)]) for table in tables]
    )
    rows, width = values.shape
    found = tf.constant(True)
    for column in range(width):
        key = tf.reshape(values[:, column] if width > 1 else values, [rows, 1])
        matches = tf.equal(key, stacked[:, :, column])
        found = matches if column == 0 else tf.logical_and(found, matches)
    from_end = np.arange(longest, 0, -1, dtype=np.int32)[np.newaxis]
    first = longest - tf.reduce_max(tf.cast(found, tf.int32) * from_end, axis=1)
    return tf.minimum(first, np.array([len(table) for table in tables], np.int32))


def decimal(values: tf.Tensor, present: tf.Tensor, width: int) -> tf.Tensor:
    """Integers as text, as `tf.as_string` writes them, in ASCII.

    Args:
      values: int64 `[rows]`.
      present: bool `[rows]`; the text of others is empty.
      width: of the text, at least 20.

    Returns:
      int32 `[rows, width]`.
    """
    rows = values.shape[0]
    negative = tf.cast(values < 0, tf.int32)
    size = tf.reshape(tf.maximum(values, 0 - values), [rows, 1])
    powers = 10 ** np.arange(19, dtype=np.int64)
    # The digits at and below each place; 10**19, for the last place, is beyond an int64.
    below = tf.concat([tf.math.floormod(size, powers[np.newaxis, 1:]), size], axis=1)
    # Without a division, which LiteRT has not for int64: how many times the power of ten is in it.
    multiples = powers[:, np.newaxis] * np.arange(1, 10)
    digits = _count(tf.reshape(below, [rows, 19, 1]) >= multiples[np.newaxis], axis=2)
    count = 1 + _count(size >= powers[np.newaxis, 1:], axis=1)
    length = tf.where(present, count + negative, 0)
    place = tf.reshape(length, [rows, 1]) - 1 - np.arange(width, dtype=np.int32)[np.newaxis]
    in_row = tf.clip_by_value(place, 0, 18) + 19 * np.arange(rows, dtype=np.int32)[:, np.newaxis]
    characters = ord("0") + tf.gather(tf.reshape(digits, [-1]), in_row)
    signed = tf.logical_and(tf.reshape(negative, [rows, 1]) > 0, np.arange(width)[np.newaxis] == 0)
    return tf.where(place >= 0, tf.where(signed, ord("-"), characters), 0)


def _count(conditions: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(conditions, tf.int32), axis=axis)


_SPACES = b" \t\n\v\f\r"

_PAIR_START, _CONTINUATION = 0xC0, 0x80
"""First bytes of characters of two bytes begin here, second bytes there; either has 6 bits or less of its own."""


def tokens(text: tf.Tensor, most: int, width: int, *, is_ascii: bool) -> tf.Tensor:
    """Lower-cased words between ASCII white space, as `transforms.ops.tokens` makes them.

    Lower case is that of `tf.strings.lower` for ASCII and for letters of two bytes that stay two bytes: Latin, Greek,
    Cyrillic, Armenian. All other letters stay as they are, a capital sigma at a word's end becomes σ, and bytes that
    are no UTF-8 do not become U+FFFD. Whoever sends such text lower-cases it first: what is lower case already is
    the same on both sides.

    Args:
      text: uint8 `[1, bytes]`.
      most: words that count.
      width: bytes of a word that count, a multiple of 8.
      is_ascii: whether only words in ASCII matter, which fewer steps find.

    Returns:
      The words' keys, int64 `[most, width / 8]`, zeros where there is none.
    """
    length = text.shape[1]
    letters = _lowered(tf.cast(tf.reshape(text, [length]), tf.int32), is_ascii)
    is_start = tf.logical_and(letters > 0, tf.equal(_delayed(letters), 0))
    # The first words are those with the most bytes from their start to the end.
    from_end = tf.where(is_start, np.arange(length, 0, -1, dtype=np.int32), 0)
    count = min(most, (length + 1) // 2)
    starts = length - tf.math.top_k(from_end, count).values
    places = tf.reshape(starts, [count, 1]) + np.arange(width, dtype=np.int32)[np.newaxis]
    window = tf.gather(tf.concat([letters, tf.zeros([width], tf.int32)], 0), places)
    is_within = tf.equal(tf.cumsum(tf.cast(tf.equal(window, 0), tf.int32), axis=1), 0)
    words = keys(tf.cast(tf.where(is_within, window, 0), tf.uint8))
    return (
        tf.concat([words, tf.zeros([most - count, width // KEY_BYTES], tf.int64)], 0)
        if count < most
        else words
    )


def _lowered(letters: tf.Tensor, is_ascii: bool) -> tf.Tensor:
    """Bytes int32 `[length]` in lower case, white space as 0."""
    first, second = _lower_case()
    if is_ascii:
        return tf.gather(first[:256], letters)
    start, end = letters - _PAIR_START, _advanced(letters) - _CONTINUATION
    is_pair = tf.logical_and(tf.logical_and(start >= 0, start < 32), tf.logical_and(end >= 0, end < 64))
    place = tf.where(is_pair, 256 + start * 64 + end, letters)
    return tf.where(_delayed(place) >= 256, tf.gather(second, _delayed(place)), tf.gather(first, place))


def _delayed(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([tf.zeros([1], tf.int32), values[:-1]], 0)


def _advanced(values: tf.Tensor) -> tf.Tensor:
    return tf.concat([values[1:], tf.zeros([1], tf.int32)], 0)


@cache
def _lower_case() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """First and second byte in lower case: of a byte, and from 256 on of each pair of bytes."""
    single = [0 if byte in _SPACES else bytes([byte]).lower()[0] for byte in range(256)]
    pairs = [bytes([_PAIR_START + start, _CONTINUATION + end]) for start in range(32) for end in range(64)]
    with tf.init_scope():
        lowered = tf.strings.lower(pairs, encoding="utf-8").numpy()
    kept = [low if len(low) == len(pair) else pair for pair, low in zip(pairs, lowered, strict=True)]
    both = np.array([list(pair) for pair in kept], np.int32)
    return (
        np.concatenate([np.array(single, np.int32), both[:, 0]]),
        np.concatenate([np.zeros(256, np.int32), both[:, 1]]),
    )


_K0, _K1, _K2 = (
    np.uint64(constant).astype(np.int64)
    for constant in (0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F)
)

HASH_WIDTHS = (32, 64)
"""Widths of text that `hash_ids` takes: the hash treats longer texts another way."""


def hash_ids(characters: tf.Tensor, buckets: Sequence[int]) -> tf.Tensor:
    """What `tf.strings.to_hash_bucket_fast` gives, from 1.

    Args:
      characters: int32 `[rows, width]`, of one of `HASH_WIDTHS`, with zeros after the text.
      buckets: number of buckets for each row.

    Returns:
      int64 `[rows]`: 1..buckets, 0 where the text is empty.
    """
    length = _count(tf.not_equal(characters, 0), axis=1)
    signed = _fingerprint(characters, length)
    modulus = np.array(buckets, np.int64)
    # The hash is unsigned: where the sign bit is set it is 2**64 more than the int64 says.
    beyond = np.array([2**64 % count for count in buckets], np.int64)
    unsigned = tf.math.floormod(signed, modulus) + tf.cast(signed < 0, tf.int64) * beyond
    return tf.where(length > 0, tf.math.floormod(unsigned, modulus) + 1, tf.constant(0, tf.int64))


def _fingerprint(characters: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """FarmHash's Fingerprint64, as int64, whose sums and products wrap: int64 `[rows]`.

    Every length class is computed for every row, all classes together where their steps are the same, and the
    length chooses; a graph without branches is the fastest for one row.
    """
    rows, width = characters.shape
    start = _columns(keys(tf.cast(characters, tf.uint8)))
    end_32, end_24, end_16, end_8 = _columns(_last_words(characters, length))
    size = tf.cast(length, tf.int64)
    factor = size * 2 + _K2
    is_long = width > HASH_WIDTHS[0]

    a, a_long, b, c, d = start[0] * _K1, start[0] * _K2, start[1], end_8 * factor, end_16 * _K2
    turned = [(a + b, 43), (c, 30), (b + _K2, 18), (end_8, 37), (start[0] + _K2, 25)]
    if is_long:
        turned.append((a_long + b, 43))
    r_ab, r_c, r_b, r_end, r_start, *r_long = _rotated(turned)

    tiny_left, tiny_right = _tiny(characters, length)
    four, last_four = _low_half(start[0]), _high_half(end_8)
    pairs = [
        (size + four * 8, last_four),
        (r_end * factor + start[0] + _K2, (r_start + end_8) * factor),
        (r_ab + r_c + d, a + r_b + c),
    ]
    if is_long:
        pairs.append((r_long[0] + r_c + d, a_long + r_b + c))
    count = len(pairs)
    left, right = (tf.concat(sides, 0) for sides in zip(*pairs, strict=True))
    factors = tf.tile(factor, [count])
    # The hash of three bytes and less is the first half of that of longer ones, with a factor of its own.
    mixed = _mixed(
        tf.concat([tiny_left, left], 0),
        tf.concat([tiny_right, right], 0),
        tf.concat([tf.ones([rows], tf.int64), factors], 0),
    )
    tiny = mixed[:rows] * _K2
    long_hashes = _mixed(right, mixed[rows:], factors) * factors
    hashes = [long_hashes[rows * index : rows * (index + 1)] for index in range(count)]
    chosen = [(3, tiny), (7, hashes[0]), (16, hashes[1]), (32, hashes[2])]
    if is_long:
        e, f = start[2] * factor, start[3]
        g, h = (pairs[3][0] + end_32) * factor, (hashes[3] + end_24) * factor
        r_ef, r_g, r_fa = _rotated([(e + f, 43), (g, 30), (f + a_long, 18)])
        left, right = r_ef + r_g + h, e + r_fa + g
        hashes.append(_mixed(right, _mixed(left, right, factor), factor) * factor)
    result = hashes[-1]
    for most, value in reversed(chosen if is_long else chosen[:-1]):
        result = tf.where(length <= most, value, result)
    return result


def _last_words(characters: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """The 32 bytes up to the text's end as int64 `[rows, 4]`; of a shorter text, the end of that is right."""
    rows, width = characters.shape
    place = tf.reshape(length, [rows, 1]) + np.arange(-32, 0, dtype=np.int32)[np.newaxis]
    in_row = tf.maximum(place, 0) + width * np.arange(rows, dtype=np.int32)[:, np.newaxis]
    return keys(tf.cast(tf.gather(tf.reshape(characters, [-1]), in_row), tf.uint8))


def _tiny(characters: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The two numbers that are mixed for one to three bytes: int64 `[rows]`."""
    first, second, third = _columns(characters[:, :3])
    middle = tf.where(length > 1, second, first)
    last = tf.where(length > 2, third, middle)
    return tf.cast(first + middle * 256, tf.int64) * _K2, tf.cast(length + last * 4, tf.int64) * _K0


def _mixed(left: tf.Tensor, right: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    product = _xor(left, right) * factor
    return _xor(product, _shifted(_halves(product)[:, 1], 47 - 32))


def _rotated(turned: Sequence[tuple[tf.Tensor, int]]) -> list[tf.Tensor]:
    """Each int64 `[rows]` rotated to the right by its number of bits."""
    return [_rotate(value, bits) for value, bits in turned]


def _rotate(value: tf.Tensor, bits: int) -> tf.Tensor:
    halves = _halves(value)
    low, high = halves[:, 0], halves[:, 1]
    left = value * np.int64(2 ** (64 - bits)) if bits > 1 else value
    if bits >= 32:
        return left + _shifted(high, bits - 32)
    return left + tf.cast(high, tf.int64) * np.int64(2 ** (32 - bits)) + _shifted(low, bits)


def _columns(values: tf.Tensor) -> list[tf.Tensor]:
    # Slices: LiteRT splits and unpacks no int64.
    return [values[:, column] for column in range(values.shape[1])]


def _xor(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    # On halves: LiteRT has the operation for 32 bits at most.
    halves = tf.bitwise.bitwise_xor(tf.bitcast(left, tf.int32), tf.bitcast(right, tf.int32))
    return tf.bitcast(halves, tf.int64)


def _halves(values: tf.Tensor) -> tf.Tensor:
    """uint32 `[rows, 2]`, the low half first."""
    return tf.bitcast(values, tf.uint32)


def _shifted(half: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.cast(tf.bitwise.right_shift(half, tf.constant(bits, tf.uint32)), tf.int64)


def _low_half(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(_halves(values)[:, 0], tf.int64)


def _high_half(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(_halves(values)[:, 1], tf.int64)
