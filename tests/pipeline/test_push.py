import errno
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from pipeline.push import PushError, damaged, push, versions

FACTS = {"pipeline": "tiny", "git_revision": "abc"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    return folder


@pytest.fixture
def serving(tmp_path: Path) -> Path:
    return tmp_path / "serving"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith(".")]


def test_a_push_is_the_next_version_with_every_file_and_the_facts(model, serving):
    push(model, serving, FACTS)
    pushed = push(model, serving, FACTS)
    assert (pushed.version, pushed.folder) == (2, serving / "2")
    assert visible(serving) == ["1", "2"]
    assert (pushed.folder / "variables" / "variables.index").read_bytes() == b"weights"
    manifest = json.loads((pushed.folder / "manifest.json").read_text())
    assert manifest["git_revision"] == "abc"
    assert manifest["files"]["saved_model.pb"]["size_bytes"] == 5
    assert damaged(pushed.folder) == []


def test_versions_are_ordered_as_numbers(model, serving):
    for name in ("9", "10", "notes", ".hidden"):
        (serving / name).mkdir(parents=True)
    assert versions(serving) == [9, 10]
    assert push(model, serving, FACTS).version == 11


def test_the_number_of_a_deleted_version_is_not_used_again(model, serving):
    shutil.rmtree(push(model, serving, FACTS).folder)
    assert push(model, serving, FACTS).version == 2


def test_a_version_that_an_emptied_folder_forgot_is_not_used_again(model, serving):
    assert push(model, serving, FACTS, after=4).version == 5
    assert push(model, serving, FACTS, after=4).version == 6


def test_pushers_at_once_get_a_version_each(model, serving):
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        pushed = [job.result() for job in [pool.submit(push, model, serving, FACTS) for _ in range(8)]]
    assert sorted(one.version for one in pushed) == list(range(1, 9))
    assert [damaged(one.folder) for one in pushed] == [[]] * 8


def test_changed_and_missing_files_are_named(model, serving):
    path = push(model, serving, FACTS).folder
    (path / "saved_model.pb").write_bytes(b"grapf")
    (path / "variables" / "variables.index").unlink()
    assert damaged(path) == ["saved_model.pb", "variables/variables.index"]
    for text in ("{", "[]", '{"files": 1}', '{"files": {"a": "b"}}'):
        (path / "manifest.json").write_text(text)
        assert damaged(path) == ["manifest.json"]


@pytest.mark.parametrize("step", ["copy2", "copytree"])
def test_a_full_disk_is_named_and_leaves_nothing(model, serving, monkeypatch, step):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "copy2":  # what copytree was given as a default, so that it gathers the errors of single files
        monkeypatch.setattr(shutil.copytree, "__defaults__", (False, None, full, False, False))
    else:
        monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(PushError, match=f"{serving}: .*the disk is full"):
        push(model, serving, FACTS)
    assert visible(serving) == []
    assert unfinished(serving) == []


def test_what_a_killed_push_left_is_removed_by_the_next(model, serving):
    left = serving / ".partial-1"
    left.mkdir(parents=True)
    (left / "half").touch()
    assert push(model, serving, FACTS).version == 1
    assert unfinished(serving) == []


def test_an_empty_model_is_refused(tmp_path, serving):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PushError, match="no model"):
        push(tmp_path / "empty", serving, FACTS)
    assert visible(serving) == []


def test_a_folder_that_cannot_be_made_is_named(model, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PushError, match="file/serving"):
        push(model, tmp_path / "file" / "serving", FACTS)
