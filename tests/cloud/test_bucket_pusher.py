"""Pushes to a bucket: whole versions, one number each."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.cloud.storage import Blob
from tfx.types import standard_artifacts

from cloud import device_pusher
from cloud.bucket_pusher import Executor, push
from pipeline import mounts
from pipeline.push import PushError
from tests.cloud.trigger_services import guard_writes

SERVING = "gs://my-bucket/shop/serving"
BELOW = "shop/serving"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "zebra.txt"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def storage(guarded: None, storage: Any) -> Any:
    """Cloud Storage that lets one of two writers win."""
    return storage


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    guard_writes(monkeypatch)


def names(storage: Any, prefix: str = "") -> list[str]:
    return sorted(blob.name for blob in storage.list_blobs("my-bucket", prefix=prefix))


def manifest(storage: Any, version: int) -> dict[str, Any]:
    text = storage.bucket("my-bucket").blob(f"{BELOW}/{version}/manifest.json").download_as_text()
    return dict(json.loads(text))


@pytest.fixture
def uploads(monkeypatch):
    """The names of objects in the order in which they are written."""
    seen: list[str] = []
    original = Blob.upload_from_filename

    def upload(blob: Blob, *given: Any, **more: Any) -> None:
        original(blob, *given, **more)
        seen.append(blob.name)

    monkeypatch.setattr(Blob, "upload_from_filename", upload)
    return seen


def test_versions_are_numbered_and_say_what_is_in_them(storage, model):
    assert [push(model, SERVING, {"pipeline": "shop", "model": m}, storage) for m in ("a", "b")] == [1, 2]
    assert push(model, SERVING, {"pipeline": "shop", "model": "b"}, storage) == 2, (
        "a task that is tried again"
    )
    found = manifest(storage, 2)
    assert (found["version"], found["pipeline"]) == (2, "shop")
    assert set(found["files"]) == {"saved_model.pb", "variables/variables.index", "zebra.txt"}
    assert set(names(storage, f"{BELOW}/2/")) >= {f"{BELOW}/2/{name}" for name in found["files"]}


def test_a_number_is_never_given_twice_though_ten_comes_after_nine(storage, model):
    bucket = storage.bucket("my-bucket")
    for version in (9, 10):
        bucket.blob(f"{BELOW}/{version}/manifest.json").upload_from_string("{}")
    bucket.blob(f"{BELOW}/notes/x").upload_from_string("no version")
    bucket.blob("shop/serving-old/77/manifest.json").upload_from_string("another folder")
    assert push(model, SERVING, {}, storage) == 11


def test_a_bucket_may_be_the_serving_folder(storage, model):
    assert push(model, "gs://my-bucket", {"model": "a"}, storage) == 1
    assert push(model, "gs://my-bucket/", {"model": "b"}, storage) == 2
    assert "2/manifest.json" in names(storage)


def test_what_servers_watch_is_written_late_and_the_manifest_last(storage, model, uploads):
    push(model, SERVING, {}, storage)
    assert [name.removeprefix(f"{BELOW}/1/") for name in uploads] == [
        "variables/variables.index",
        "zebra.txt",
        "saved_model.pb",
        "manifest.json",
    ]


def test_two_pushers_at_once_get_two_versions(storage, model, monkeypatch):
    both_have_looked = threading.Barrier(2)
    original = Blob.upload_from_string
    first_try = threading.local()

    def claim(blob: Blob, *given: Any, **more: Any) -> None:
        if not getattr(first_try, "done", False):
            first_try.done = True
            both_have_looked.wait(timeout=60)
        original(blob, *given, **more)

    monkeypatch.setattr(Blob, "upload_from_string", claim)
    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(lambda word: push(model, SERVING, {"model": word}, storage), ("a", "b")))
    assert sorted(versions) == [1, 2]
    assert [manifest(storage, version)["model"] for version in versions] == ["a", "b"]


def test_a_push_that_dies_leaves_no_manifest_and_its_number_is_gone(storage, model, monkeypatch):
    original = Blob.upload_from_filename

    def die(blob: Blob, *given: Any, **more: Any) -> None:
        if blob.name.endswith("saved_model.pb"):
            raise KeyboardInterrupt
        original(blob, *given, **more)

    with monkeypatch.context() as dying:
        dying.setattr(Blob, "upload_from_filename", die)
        with pytest.raises(KeyboardInterrupt):
            push(model, SERVING, {}, storage)
    assert f"{BELOW}/1/zebra.txt" in names(storage)
    assert f"{BELOW}/1/manifest.json" not in names(storage)
    assert push(model, SERVING, {}, storage) == 2


def test_a_refused_upload_is_a_failed_push(storage, model):
    with pytest.raises(PushError, match=r"^gs://no-such-bucket/serving: nothing was pushed: .*run again$"):
        push(model, "gs://no-such-bucket/serving", {}, storage)


def test_a_push_without_credentials_says_so(model, tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(PushError, match=r"nothing was pushed: .*none\.json was not found"):
        push(model, SERVING, {})


def test_buckets_of_others_and_nothing_at_all_are_refused(storage, model, tmp_path):
    with pytest.raises(PushError, match="only gs:// is known"):
        push(model, "s3://bucket/serving", {}, storage)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PushError, match="there is no model to push"):
        push(tmp_path / "empty", SERVING, {}, storage)


def pushed(tmp_path: Path, home: str, folder: str = "") -> standard_artifacts.PushedModel:
    """What the component puts out for a blessed model."""
    model, blessing, artifact = (
        kind()
        for kind in (
            standard_artifacts.Model,
            standard_artifacts.ModelBlessing,
            standard_artifacts.PushedModel,
        )
    )
    model.uri, artifact.uri = str(tmp_path / "trained"), str(tmp_path / "artifact")
    served = Path(model.uri, "Format-Serving")
    served.mkdir(parents=True, exist_ok=True)
    (served / "saved_model.pb").write_text("a model")
    blessing.set_int_custom_property("blessed", 1)
    examples = standard_artifacts.Examples()
    examples.set_string_custom_property("input_fingerprint", "rows of May")
    Executor().Do(
        {"model": [model], "model_blessing": [blessing], "examples": [examples]},
        {"pushed_model": [artifact]},
        {"facts": '{"pipeline": "shop"}', "label": "[]", "home": home, "folder": folder, "source_digest": ""},
    )
    return artifact


def test_a_blessed_model_goes_below_the_home_of_the_pipeline(storage, tmp_path, monkeypatch):
    monkeypatch.setitem(mounts.MOUNTS, "gs://", f"{tmp_path}/")
    monkeypatch.setenv("HEADWORKS_RUN_ID", "shop-1")
    artifact = pushed(tmp_path, "gs://my-bucket/shop")
    assert artifact.get_string_custom_property("pushed_destination") == f"{SERVING}/1"
    assert artifact.get_string_custom_property("pushed_version") == "1"
    found = manifest(storage, 1)
    assert (found["pipeline"], found["data_fingerprint"], found["run_id"]) == (
        "shop",
        "rows of May",
        "shop-1",
    )
    assert found["model"] == "gs://trained", "as later runs compare it"


def test_or_to_a_folder_of_its_own_or_of_this_machine(storage, tmp_path):
    artifact = pushed(tmp_path, str(tmp_path), "gs://my-bucket/models")
    assert artifact.get_string_custom_property("pushed_destination") == "gs://my-bucket/models/1"
    artifact = pushed(tmp_path, str(tmp_path / "home"))
    assert artifact.get_string_custom_property("pushed_destination") == str(
        tmp_path / "home" / "serving" / "1"
    )
    assert (tmp_path / "home" / "serving" / "1" / "manifest.json").is_file()


def test_device_models_go_to_a_bucket_too(storage, model, tmp_path):
    given = {"home": "gs://my-bucket/shop", "folder": ""}
    version, place = device_pusher.Executor().push(model, given, {"pipeline": "shop"}, tmp_path / "artifact")
    assert (version, place) == (1, "gs://my-bucket/shop/device/1")
    assert "shop/device/1/manifest.json" in names(storage)
    given = {"home": str(tmp_path / "home"), "folder": ""}
    version, place = device_pusher.Executor().push(model, given, {"pipeline": "shop"}, tmp_path / "artifact")
    assert (version, place) == (1, str(tmp_path / "home" / "device" / "1"))
