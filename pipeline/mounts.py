"""Buckets as folders: where the containers of a compiled pipeline find `gs://BUCKET/...` in their file system.

That is the convention of Kubeflow Pipelines' containers, which Vertex AI keeps: it mounts buckets there, and Kubeflow's
launcher copies artifacts there and back.
"""

from __future__ import annotations

from pathlib import Path

MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}


class MountError(Exception):
    """A bucket that this machine does not show as a folder."""


def is_remote(uri: str) -> bool:
    """Whether a URI names something in a bucket."""
    return uri.startswith(tuple(MOUNTS))


def local_path(uri: str) -> str:
    """The path of a URI in the file system of a container; a path stays as it is."""
    for scheme, mount in MOUNTS.items():
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri


def uri_of(path: str) -> str:
    """What `local_path` made a path of; a path outside of all mounts stays as it is."""
    for scheme, mount in MOUNTS.items():
        if path.startswith(mount):
            return scheme + path.removeprefix(mount)
    return path


def require_mounted(uri: str) -> str:
    """`local_path`, where the bucket is there.

    Raises:
      MountError: naming the bucket and where it was looked for.
    """
    path = local_path(uri)
    if path != uri and not Path(*Path(path).parts[:3]).is_dir():
        raise MountError(
            f"{uri}: the bucket is not mounted at {'/'.join(Path(path).parts[:3])[1:]}; on a machine that does not "
            "mount buckets, give a folder instead"
        )
    return path
