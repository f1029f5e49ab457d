"""What a compiled pipeline remembers between its runs, as files in its home: a folder or `gs://BUCKET/FOLDER`.

Locally ML Metadata answers these questions. Vertex AI and Kubeflow keep stores of their own that differ, so compiled
pipelines leave notes: which data the data gate accepted (`accepted/`), and what serves (`serving/N/manifest.json`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from pipeline.container import REHEARSAL
from schemas.features import FeatureSet

SERVING = "serving"
DEVICE = "device"
TRAINING = "training"
_ACCEPTED = "accepted"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class AcceptedData:
    """Data that a data gate let pass.

    Attributes:
      statistics: URI of their statistics.
      split_names: of the statistics, as TFX writes them.
      fingerprint: of the rows; empty where their maker left none.
    """

    statistics: str
    split_names: str
    fingerprint: str


@dataclass(frozen=True)
class PushedVersion:
    """A version that serves.

    Attributes:
      folder: URI of the version.
      version: its number.
      model: URI of the model as the Trainer left it.
      label: what it predicts, as `label_of` says it.
      fingerprint: of the rows it learned from.
    """

    folder: str
    version: int
    model: str
    label: str
    fingerprint: str


def folder(home: str, name: str, elsewhere: str | None) -> str:
    """Where versions are pushed: the folder that was given, or one below the home, as in every rehearsal."""
    is_rehearsed = os.environ.get(REHEARSAL) == "1"
    return elsewhere if elsewhere and not is_rehearsed else f"{home}/{name}"


def note_accepted(home: str, data: AcceptedData) -> None:
    """Notes that data was accepted now."""
    folder = f"{home}/{_ACCEPTED}"
    fileio.makedirs(folder)
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = f"{folder}/{now}.json"
    # A reader sees the note whole: an object appears when it is complete, a file when it is renamed.
    with fileio.open(f"{path}.partial", "w") as file:
        file.write(json.dumps(asdict(data), indent=1))
    fileio.rename(f"{path}.partial", path)


def accepted(home: str) -> Iterator[AcceptedData]:
    """What was accepted and is still there, the last one first."""
    for path in sorted(fileio.glob(f"{home}/{_ACCEPTED}/*.json"), reverse=True):
        found = AcceptedData(**_read(path))
        if exists(found.statistics):
            yield found


def pushed(serving: str) -> Iterator[PushedVersion]:
    """The versions in a serving folder, the last one first; one without a manifest is not whole yet."""
    names = fileio.listdir(serving) if fileio.exists(serving) else []
    for version in sorted(
        (int(name.rstrip("/")) for name in names if name.rstrip("/").isdigit()), reverse=True
    ):
        folder = f"{serving}/{version}"
        if not fileio.exists(f"{folder}/{_MANIFEST}"):
            continue
        manifest = _read(f"{folder}/{_MANIFEST}")
        if not {"rows", "model", "data_fingerprint"} <= manifest.keys():
            continue  # Not made by this pipeline.
        features = FeatureSet.from_json(json.dumps(manifest["rows"]["features"]))
        yield PushedVersion(
            folder, version, str(manifest["model"]), label_of(features), str(manifest["data_fingerprint"])
        )


def copy(uri: str, target: str) -> None:
    """Copies the folder of an artifact."""
    io_utils.copy_dir(uri, target)


def exists(uri: str) -> bool:
    """Whether an artifact is still there."""
    return bool(fileio.exists(uri))


def label_of(features: FeatureSet) -> str:
    """What a model predicts, as text that is equal for models that can be compared."""
    label = features.label
    return json.dumps([label.name, label.kind, list(label.classes)])


def _read(path: str) -> Any:
    with fileio.open(path, "r") as file:
        return json.loads(file.read())
