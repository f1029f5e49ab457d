"""How Beam's stages run in one process of this machine."""

from __future__ import annotations

from collections.abc import Sequence

BEAM_ARGS = ("--runner=FnApiRunner", "--direct_num_workers=1", "--sdk_container_image=local")
"""Without a named runner Beam downloads Prism for every pipeline; one in-process worker is fastest at laptop size.
Without an image, which such a worker never uses, TFX packs itself anew for every component."""

_ANYWHERE = ("--tfxio_", "--project=", "--temp_location=")
"""Options that say nothing of where stages run; the last two are also how BigQuery is read."""


def brought_here(options: Sequence[str]) -> list[str]:
    """Options for the same stages in this process."""
    return [*BEAM_ARGS, *(option for option in options if option.startswith(_ANYWHERE))]
