"""Which version of a serving folder answers."""

import shutil

import pytest

from beam_jobs.live_model import LiveModel
from beam_jobs.rows import PredictionError

NEVER = 3600.0


def version(serving, number, content="good"):
    folder = serving / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(content)


def load(folder):
    with open(f"{folder}/manifest.json") as file:  # noqa: PTH123
        content = file.read()
    if content == "away":
        raise OSError(f"{folder}: the store does not answer")
    if content != "good":
        raise PredictionError(f"{folder}: {content}")
    return folder.rpartition("/")[2]


@pytest.fixture
def serving(tmp_path):
    version(tmp_path, 1)
    return tmp_path


def live(serving):
    return LiveModel(str(serving), load, NEVER)


def test_the_newest_version_takes_over(serving):
    model = live(serving)
    assert model.current() == "1"
    version(serving, 10)
    version(serving, 9)
    model.look()
    assert model.current() == "10"


def test_a_version_that_fails_its_load_check_is_refused_and_tried_again_only_when_it_changes(serving):
    loaded = []

    def noted(folder):
        loaded.append(folder)
        return load(folder)

    model = LiveModel(str(serving), noted, NEVER)
    version(serving, 2, "bad")
    model.look()
    model.look()
    assert (model.current(), model.refused) == ("1", (2,))
    assert len(loaded) == 2
    shutil.rmtree(serving / "2")
    model.look()
    version(serving, 2)
    model.look()
    assert (model.current(), model.refused) == ("2", ())


def test_a_version_that_is_still_copied_is_refused_and_taken_when_its_files_have_come(serving):
    def with_variables(folder):
        if folder.endswith("2") and not (serving / "2" / "variables" / "data").exists():
            raise PredictionError(f"{folder}: variables/data missing or not what was pushed")
        return load(folder)

    model = LiveModel(str(serving), with_variables, NEVER)
    version(serving, 2)
    model.look()
    assert (model.current(), model.refused) == ("1", (2,))
    (serving / "2" / "variables").mkdir()
    (serving / "2" / "variables" / "data").write_text("here")
    model.look()
    assert (model.current(), model.refused) == ("2", ())


@pytest.mark.parametrize("cause", [OSError("no answer"), None], ids=["told by the loader", "as it came"])
def test_a_version_that_cannot_be_loaded_just_now_is_tried_again_after_growing_pauses(serving, cause):
    now, tried = [0.0], []

    def fails_for_a_while(folder):
        if folder.endswith("2"):
            tried.append(now[0])
            if len(tried) < 5:
                raise PredictionError("cannot be read") from cause if cause else MemoryError("no memory left")
        return load(folder)

    model = LiveModel(str(serving), fails_for_a_while, 10.0, lambda: now[0])
    model.close()
    version(serving, 2)
    for second in range(0, 200, 10):
        now[0] = float(second)
        model.look()
        assert model.refused == ()
    assert tried == [0, 10, 30, 70, 150]
    assert model.current() == "2"


def test_where_the_newest_is_refused_at_the_start_the_one_before_answers(serving):
    version(serving, 2, "bad")
    assert live(serving).current() == "1"


def test_a_version_that_is_taken_away_gives_way_to_the_newest_that_is_left(serving):
    version(serving, 2)
    model = live(serving)
    shutil.rmtree(serving / "2")
    model.look()
    assert model.current() == "1"


def test_a_folder_that_vanishes_leaves_the_last_version_answering(serving):
    model = live(serving)
    shutil.rmtree(serving)
    model.look()
    assert model.current() == "1"


def test_no_version_that_can_be_used_is_an_error(tmp_path):
    version(tmp_path, 1, "bad")
    with pytest.raises(PredictionError, match="no version here can be used: version 1: "):
        live(tmp_path)
    with pytest.raises(PredictionError, match="there is no pushed version here; name"):
        live(tmp_path / "empty")
