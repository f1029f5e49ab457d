"""What a registry says of an image: its labels, read by digest over the HTTP API of OCI registries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud.api_errors import LOGIN, CloudError, explained

if TYPE_CHECKING:
    import requests

_IMAGE = re.compile(
    r"(?P<host>[a-z0-9][\w.-]*(?::\d+)?)/(?P<path>[a-z0-9][\w./-]*)@(?P<digest>sha256:[0-9a-f]{64})"
)
_GOOGLE = re.compile(r"([\w-]+\.)*(pkg\.dev|gcr\.io)")
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")
_INDEX = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_PLATFORM = {"os": "linux", "architecture": "amd64"}
"""What the machines of Vertex AI run."""
_TIMEOUT_SECONDS = 30
_USER = "oauth2accesstoken"
"""What Artifact Registry takes an access token as the password of."""


class ImageError(CloudError):
    """The image is not there, not to be read, or not what its digest says."""


@dataclass(frozen=True)
class Image:
    """An image by its digest."""

    host: str
    path: str
    digest: str

    def __str__(self) -> str:
        return f"{self.host}/{self.path}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Image:
        """Reads `HOST/PATH@sha256:DIGEST`.

        Raises:
          ImageError: if it is not of that form, by tag for example.
        """
        found = _IMAGE.fullmatch(text)
        if found is None:
            raise ImageError(
                f"image {text}: name it by digest (HOST/PATH@sha256:…); a tag can be moved between two tasks of a run"
            )
        return cls(found["host"], found["path"], found["digest"])


def labels(image: Image) -> Mapping[str, str]:
    """The labels of an image for linux/amd64.

    An access token of the machine's own credentials goes to Google's registries and to no other.

    Raises:
      ImageError: if the image cannot be read, or there is none for that platform.
    """
    import requests

    with requests.Session() as session, explained(f"image {image}", ImageError):
        session.auth = _auth(image)
        manifest = _json(session, image, f"manifests/{image.digest}", image.digest)
        if "manifests" in manifest:
            digest = _for_platform(manifest, image)
            manifest = _json(session, image, f"manifests/{digest}", digest)
        digest = manifest.get("config", {}).get("digest")
        if digest is None:
            raise ImageError(f"image {image}: its manifest names no configuration; is it an image?")
        config = _json(session, image, f"blobs/{digest}", digest)
    return config.get("config", {}).get("Labels") or {}


def _for_platform(index: Mapping[str, Any], image: Image) -> str:
    platforms = {str(entry["digest"]): entry.get("platform", {}) for entry in index["manifests"]}
    for digest, platform in platforms.items():
        if all(platform.get(key) == value for key, value in _PLATFORM.items()):
            return digest
    there = ", ".join(f"{one.get('os')}/{one.get('architecture')}" for one in platforms.values()) or "none"
    raise ImageError(f"image {image}: there is none for linux/amd64, only for {there}; build it for that")


def _json(session: requests.Session, image: Image, path: str, digest: str) -> dict[str, Any]:
    """Reads a manifest or a blob, and makes sure that it is what its digest says."""
    scheme = "http" if _LOOPBACK.fullmatch(image.host) else "https"
    answer = session.get(
        f"{scheme}://{image.host}/v2/{image.path}/{path}",
        headers={"Accept": ", ".join((*_INDEX, *_MANIFEST))},
        timeout=_TIMEOUT_SECONDS,
    )
    if not answer.ok:
        raise ImageError(f"image {image}: {_refusal(answer.status_code, image)}")
    if f"sha256:{hashlib.sha256(answer.content).hexdigest()}" != digest:
        raise ImageError(
            f"image {image}: what the registry sent for {digest} has another digest; push it again"
        )
    found: dict[str, Any] = answer.json()
    return found


def _refusal(status: int, image: Image) -> str:
    if status == 401:
        return f"no credentials; {LOGIN}" if _GOOGLE.fullmatch(image.host) else "its registry wants a login"
    if status == 403:
        return (
            "not allowed; whoever submits, and the service account, need roles/artifactregistry.reader on it"
        )
    if status == 404:
        return "not found; it was never pushed there or has been deleted: push it, and put its digest into `image`"
    return f"its registry answered {status}; run the same again later"


def _auth(image: Image) -> tuple[str, str] | None:
    if not _GOOGLE.fullmatch(image.host):
        return None
    import google.auth
    from google.auth.transport.requests import Request

    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    if not credentials.valid:
        credentials.refresh(Request())
    return (_USER, str(credentials.token))
