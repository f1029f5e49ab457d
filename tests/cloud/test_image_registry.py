"""An image's labels from a registry on the loopback: found by digest, for the right platform, unchanged."""

from __future__ import annotations

import json

import pytest

from cloud import image_registry
from cloud.image_registry import Image, ImageError, labels
from tests.cloud.pipeline_service import serving


@pytest.fixture
def server():
    with serving() as server:
        yield server


def test_labels_are_read_by_digest_without_credentials_on_the_loopback(server):
    image = server.push({"a": "b"})
    assert labels(Image.parse(image)) == {"a": "b"}
    manifest, blob = server.calls
    assert manifest.path == f"/v2/my-project/images/headworks/manifests/{image.partition('@')[2]}"
    assert "application/vnd.oci.image.index.v1+json" in manifest.headers["Accept"]
    assert "/blobs/sha256:" in blob.path
    assert not any("Authorization" in call.headers for call in server.calls)


def test_of_an_image_for_several_platforms_the_one_that_vertex_ai_runs_counts(server):
    assert labels(Image.parse(server.push({"a": "b"}, ("arm64", "amd64")))) == {"a": "b"}
    with pytest.raises(ImageError, match="none for linux/amd64, only for linux/arm64"):
        labels(Image.parse(server.push({"a": "b"}, ("arm64",))))


def test_an_image_without_labels_has_none(server):
    assert labels(Image.parse(server.push(None))) == {}


@pytest.mark.parametrize(
    "text", ["host/path:latest", "host/path", "path@sha256:" + "0" * 64, "host/path@sha256:12"]
)
def test_an_image_that_is_not_named_by_digest_is_refused(text):
    with pytest.raises(ImageError, match="name it by digest"):
        Image.parse(text)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, "wants a login"),
        (403, "roles/artifactregistry.reader"),
        (404, "never pushed there or has been deleted"),
        (500, "answered 500"),
    ],
)
def test_a_refusal_says_what_to_do(server, code, told):
    image = server.push({})
    server.refuse("/v2/", code, "", "")
    with pytest.raises(ImageError, match=told) as raised:
        labels(Image.parse(image))
    assert str(raised.value).startswith(f"image {image}: ")


def test_what_is_not_as_its_digest_says_is_not_believed(server):
    image = server.push({"dev.headworks.code": "1"})
    config = json.loads(server.blobs[image.partition("@")[2]])["config"]["digest"]
    server.blobs[config] = server.blobs[config].replace(b'"1"', b'"2"')
    with pytest.raises(ImageError, match="another digest"):
        labels(Image.parse(image))


def test_nobody_there_is_no_connection():
    with pytest.raises(ImageError, match="no connection"):
        labels(Image.parse("127.0.0.1:9/p/i@sha256:" + "0" * 64))


@pytest.mark.parametrize(
    ("host", "is_google"),
    [
        ("europe-west1-docker.pkg.dev", True),
        ("eu.gcr.io", True),
        ("gcr.io", True),
        ("ghcr.io", False),
        ("pkg.dev.example.org", False),
        ("notpkg.dev", False),
    ],
)
def test_googles_token_goes_to_googles_registries_only(host, is_google, monkeypatch):
    class Credentials:
        valid, token = True, "tok"

    monkeypatch.setattr("google.auth.default", lambda **_: (Credentials(), None))
    auth = image_registry._auth(Image(host, "p", "d"))
    assert auth == (("oauth2accesstoken", "tok") if is_google else None)
