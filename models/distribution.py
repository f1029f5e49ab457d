"""Distribution strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf


def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy that `train.strategy` names.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    try:
        build = _BUILDERS[name]
    except KeyError:
        raise ValueError(f"train.strategy: no strategy {name!r}; there are {', '.join(_BUILDERS)}") from None
    return build()


def _auto() -> tf.distribute.Strategy:
    several = len(tf.config.list_logical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


_BUILDERS: Mapping[str, Callable[[], tf.distribute.Strategy]] = {
    "auto": _auto,
    "none": tf.distribute.get_strategy,
    "mirrored": tf.distribute.MirroredStrategy,
}
