"""Asks device models in fresh processes without the project's code and without TensorFlow, as a device would."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gates.device import Failed, Ran
from pipeline import device_script
from pipeline.fresh_process import KERAS, ROOMS, packed, run_alone
from schemas.features import LabelKind

_TIMEOUT_SECONDS = 600.0
_DEFLATE_LEVEL = 9


@dataclass(frozen=True)
class Rows:
    """Raw rows in a file that every device model is asked about.

    Attributes:
      path: of the file.
      columns: names, in the order of the features.
      kind: of the label.
    """

    path: Path
    columns: tuple[str, ...]
    kind: LabelKind


@contextmanager
def rows_file(columns: Mapping[str, npt.NDArray[Any]], kind: LabelKind) -> Iterator[Rows]:
    """Writes raw columns, `[rows]` each, missing values as `transforms.ops` takes them; removes the file after."""
    with tempfile.TemporaryDirectory(prefix="device-models-") as name:
        path = Path(name) / "rows.npz"
        np.savez(path, allow_pickle=False, **packed(columns))
        yield Rows(path, tuple(columns), kind)


def ask(name: str, model: Path, client: Path, rows: Rows) -> Ran | Failed:
    """Has a device model answer all rows, one at a time on one thread.

    Args:
      name: of the variant.
      model: its file.
      client: the stand-alone module that turns raw rows into tensors.
      rows: what it is asked.
    """
    with tempfile.TemporaryDirectory(prefix="device-model-") as temporary:
        folder = Path(temporary)
        question = {
            "model": str(model.resolve()),
            "client": str(client.resolve()),
            "rows": str(rows.path),
            "columns": rows.columns,
            "forbidden": [*ROOMS, *KERAS, "tensorflow"],
        }
        (folder / "question.json").write_text(json.dumps(question), encoding="utf-8")
        if fault := run_alone(Path(device_script.__file__), folder, _TIMEOUT_SECONDS):
            return Failed(name, fault)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        answers = np.load(folder / "answers.npy").astype(np.float64)
    content = model.read_bytes()
    return Ran(
        name=name,
        answers=answers[:, 0] if rows.kind is LabelKind.REGRESSION else answers,
        bytes=len(content),
        compressed_bytes=len(zlib.compress(content, _DEFLATE_LEVEL)),
        **report,
    )
