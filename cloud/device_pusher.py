"""DeviceModels of a compiled pipeline, whose folder may lie in a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud.bucket_pusher import pushed_to
from pipeline import home
from pipeline.components import device_models
from pipeline.mounts import is_remote
from pipeline.push import same_version


class Executor(device_models.Executor):
    """Makes device models, and pushes them to a bucket, or to a folder as DeviceModels does."""

    def push(
        self, staged: Path, exec_properties: Mapping[str, Any], facts: Mapping[str, Any], artifact: Path
    ) -> tuple[int, str]:
        """Pushes below the pipeline's home, unless there is a folder for it; returns version and place.

        Raises:
          PushError: if it could not be copied.
        """
        folder = home.folder(exec_properties["home"], home.DEVICE, exec_properties["folder"])
        if is_remote(folder):
            return pushed_to(folder, staged, facts, artifact)
        if (there := same_version(Path(folder), staged, facts)) is not None:
            return there.version, str(there.folder)
        return super().push(staged, {**exec_properties, "folder": folder}, facts, artifact)
