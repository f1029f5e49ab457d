"""BucketPusher: ModelPusher of a compiled pipeline, whose serving folder may lie in a bucket.

A bucket renames no folders. A version is therefore claimed by an object that only one pusher can make, and its manifest
is written last: what has none is not a version yet.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfx.dsl.components.base import executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import component_spec

from pipeline import home
from pipeline.components import model_pusher
from pipeline.mounts import MOUNTS, is_remote
from pipeline.push import MANIFEST, PushError, files_of, is_same, same_version, write_manifest

if TYPE_CHECKING:
    from google.cloud import storage

_CLAIMS = ".claims"
_SAVED_MODEL = "saved_model.pb"


class BucketPusherSpec(model_pusher.ModelPusherSpec):
    """Parameters, inputs and output of BucketPusher."""

    PARAMETERS = {  # noqa: RUF012 (TFX's interface)
        **model_pusher.ModelPusherSpec.PARAMETERS,
        "home": component_spec.ExecutionParameter(type=str),
    }


class Executor(model_pusher.Executor):
    """Pushes to a bucket, or to a folder as ModelPusher does."""

    def push(
        self, model: Path, exec_properties: Mapping[str, Any], facts: Mapping[str, Any], artifact: Path
    ) -> tuple[int, str]:
        """Pushes below the pipeline's home, unless there is a folder for it; returns version and place.

        Raises:
          PushError: if it could not be copied.
        """
        folder = home.folder(exec_properties["home"], home.SERVING, exec_properties["folder"])
        if is_remote(folder):
            return pushed_to(folder, model, facts, artifact)
        if (there := same_version(Path(folder), model, facts)) is not None:
            artifact.mkdir(parents=True, exist_ok=True)
            return there.version, str(there.folder)
        return super().push(model, {**exec_properties, "folder": folder}, facts, artifact)


def pushed_to(folder: str, files: Path, facts: Mapping[str, Any], artifact: Path) -> tuple[int, str]:
    """Pushes to a bucket for a component; returns version and place."""
    version = push(files, folder, facts)
    artifact.mkdir(parents=True, exist_ok=True)
    return version, f"{folder}/{version}"


class BucketPusher(model_pusher.ModelPusher):
    """A blessed model to the next version of a serving folder in a bucket."""

    SPEC_CLASS = BucketPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, home: str | RuntimeParameter, **given: Any) -> None:
        """Describes the step.

        Args:
          home: of the pipeline: `HOME/serving` is the serving folder where `folder` is empty.
          given: as ModelPusher takes it.
        """
        super().__init__(**given, home=home)


def push(model: Path, folder: str, facts: Mapping[str, Any], client: storage.Client | None = None) -> int:
    """Copies a model into a serving folder of a bucket as its next version, and returns its number.

    Args:
      model: folder of a SavedModel.
      folder: `gs://BUCKET/FOLDER`.
      facts: written into the version's `manifest.json`, beside SHA-256 and size of every file.
      client: of Cloud Storage.

    Raises:
      PushError: if it is no bucket of Cloud Storage, or if something could not be written.
    """
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    if not folder.startswith("gs://"):
        raise PushError(f"{folder}: nothing was pushed: only gs:// is known of {', '.join(MOUNTS)}")
    name, _, path = folder.removeprefix("gs://").strip("/").partition("/")
    below = f"{path}/" if path else ""
    try:
        bucket = (client or storage.Client()).bucket(name)
        if (there := _same_version(bucket, below, model, facts)) is not None:
            return there
        version = _claimed(bucket, below, PreconditionFailed)
        with tempfile.TemporaryDirectory(prefix="headworks-manifest-") as scratch:
            manifest = write_manifest(model, Path(scratch), version, facts)
            files = (file for file in model.rglob("*") if file.is_file())
            for file in sorted(files, key=_last_what_is_watched):
                _upload(bucket, f"{below}{version}/{file.relative_to(model)}", file)
            _upload(bucket, f"{below}{version}/{MANIFEST}", manifest)
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        raise PushError(f"{folder}: nothing was pushed: {error}; correct it and run again") from error
    return version


def _same_version(bucket: storage.Bucket, below: str, model: Path, facts: Mapping[str, Any]) -> int | None:
    """The last whole version, if this very model is in it: the task runs again, on a cached model or after a fault."""
    for version in sorted(_folders(bucket, below), reverse=True):
        manifest = bucket.blob(f"{below}{version}/{MANIFEST}")
        if manifest.exists():
            found = json.loads(manifest.download_as_bytes())
            return version if is_same(found, files_of(model), facts) else None
    return None


def _claimed(bucket: storage.Bucket, below: str, taken: type[Exception]) -> int:
    """The next version, as nobody else will get it. Claims lie beside the versions: a server takes any for a model."""
    while True:
        numbers = (*_folders(bucket, below), *_folders(bucket, f"{below}{_CLAIMS}/"))
        version = max(numbers, default=0) + 1
        try:
            bucket.blob(f"{below}{_CLAIMS}/{version}/claim").upload_from_string(b"", if_generation_match=0)
        except taken:
            continue
        return version


def _folders(bucket: storage.Bucket, below: str) -> list[int]:
    """The folders whose names are numbers."""
    pages = bucket.client.list_blobs(bucket, prefix=below, delimiter="/")
    list(pages)  # Folders are known when all pages were read.
    names = (prefix.rstrip("/").rpartition("/")[2] for prefix in pages.prefixes)
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def _last_what_is_watched(path: Path) -> tuple[bool, str]:
    """Model servers look for `saved_model.pb`."""
    return path.name == _SAVED_MODEL, str(path)


def _upload(bucket: storage.Bucket, name: str, path: Path) -> None:
    bucket.blob(name).upload_from_filename(str(path), checksum="crc32c")
