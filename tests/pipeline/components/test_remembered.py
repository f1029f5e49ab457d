"""What a compiled pipeline finds of its earlier runs: the answers are those of the local resolvers."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from pipeline import home, mounts
from pipeline.components.remembered import ChampionExecutor, PreviousDataExecutor, WarmStartModelExecutor
from pipeline.container import ABSENT, REHEARSAL
from pipeline.home import label_of
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

ORIGIN = "origin.txt"
"""File of an artifact that says where it was made."""
LATE = Label("is_late", DType.INT, LabelKind.BINARY, ("0", "1"))


def features(label: Label = LATE) -> FeatureSet:
    return FeatureSet((Feature("size", DType.FLOAT, Kind.NUMERIC),), label)


class Past:
    """A home with notes of accepted data and pushed models."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.serving = self.home / "serving"

    def accepted(self, content: str, statistics: str = "") -> str:
        """Notes that rows were accepted; the URI of their statistics."""
        uri = self.home / "statistics" / (statistics or content)
        uri.mkdir(parents=True, exist_ok=True)
        (uri / ORIGIN).write_text(str(uri))
        home.note_accepted(str(self.home), home.AcceptedData(str(uri), '["train", "test"]', content))
        return str(uri)

    def pushed(self, content: str = "", label: Label = LATE, serving: Path | None = None) -> Path:
        """Pushes a model that learned from rows; the model's folder."""
        folder = serving or self.serving
        version = folder / str(len(list(folder.glob("*"))) + 1)
        version.mkdir(parents=True)
        model = self.home / "runs" / f"{folder.name}-{version.name}"
        model.mkdir(parents=True)
        (model / ORIGIN).write_text(str(model))
        facts = {"rows": {"features": json.loads(features(label).to_json())}}
        (version / "manifest.json").write_text(
            json.dumps({"model": mounts.uri_of(str(model)), "data_fingerprint": content, **facts})
        )
        return model

    def previous(self, content: str = "") -> Any:
        [found] = self._run(PreviousDataExecutor(), {"examples": rows(content)}, "statistics").values()
        return found

    def champion(self, candidate: str = "/new", **properties: str) -> tuple[Any, Any]:
        """The model, and its push."""
        model = standard_artifacts.Model()
        model.uri = candidate
        found = self._run(ChampionExecutor(), {"candidate": model}, "model", "pushed", **properties)
        return found["model"], found["pushed"]

    def base(self, content: str = "", **properties: str) -> Any:
        """What a warm start begins with."""
        [found] = self._run(
            WarmStartModelExecutor(), {"examples": rows(content)}, "model", **properties
        ).values()
        return found

    def _run(self, executor: Any, inputs: dict[str, Any], *outputs: str, **properties: str) -> dict[str, Any]:
        kinds = {
            "statistics": standard_artifacts.ExampleStatistics,
            "model": standard_artifacts.Model,
            "pushed": standard_artifacts.PushedModel,
        }
        made = {name: kinds[name]() for name in outputs}
        for name, artifact in made.items():
            artifact.uri = tempfile.mkdtemp(prefix=f"{name}-", dir=self.home.parent)
        given = {"home": str(self.home), "label": label_of(features()), **properties}
        executor.Do(
            {name: [artifact] for name, artifact in inputs.items()},
            {name: [artifact] for name, artifact in made.items()},
            given,
        )
        return made


def rows(content: str) -> standard_artifacts.Examples:
    """The present examples."""
    examples = standard_artifacts.Examples()
    if content:
        examples.set_string_custom_property("input_fingerprint", content)
    return examples


def origin(artifact: Any) -> str:
    """Of what the artifact is a copy."""
    return (Path(artifact.uri) / ORIGIN).read_text()


def place(push: Any) -> str:
    return str(push.get_string_custom_property("pushed_destination"))


def is_absent(artifact: Any) -> bool:
    return bool(artifact.get_int_custom_property(ABSENT))


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_the_first_run_finds_nothing(past):
    model, push = past.champion()
    assert [is_absent(found) for found in (past.previous(), model, push, past.base())] == [True] * 4


def test_data_is_compared_with_what_was_accepted_last(past):
    past.accepted("april")
    may = past.accepted("may")
    found = past.previous("june")
    assert (origin(found), found.split_names, is_absent(found)) == (may, '["train", "test"]', False)
    april = past.accepted("april")
    assert origin(past.previous("june")) == april, "taken back, and accepted again"


def test_unchanged_rows_meet_what_they_met_the_first_time(past):
    assert is_absent(past.previous("april"))
    april = past.accepted("april")
    assert is_absent(past.previous("april"))
    met = origin(past.previous("may"))
    past.accepted("may")
    past.accepted("may", "may written again")
    assert origin(past.previous("may")) == met == april


def test_rows_of_which_nothing_is_known_are_other_rows(past):
    unknown = past.accepted("", "unknown")
    assert origin(past.previous("")) == origin(past.previous("may")) == unknown


def test_lost_statistics_are_passed_over(past):
    april, may = past.accepted("april"), past.accepted("may")
    shutil.rmtree(may)
    assert origin(past.previous("june")) == april


def test_the_champion_is_the_model_pushed_last(past):
    past.pushed()
    last = past.pushed()
    model, push = past.champion()
    assert origin(model) == str(last)
    assert place(push) == f"{past.serving}/2"
    assert not is_absent(model)
    assert not is_absent(push)


def test_a_candidate_is_never_its_own_champion(past, tmp_path, monkeypatch):
    # The candidate is a path of the container, the manifest has the URI.
    monkeypatch.setitem(mounts.MOUNTS, "gs://", f"{tmp_path}/")
    monkeypatch.setattr(home, "exists", lambda uri: Path(mounts.local_path(uri)).exists())
    monkeypatch.setattr(home, "copy", lambda uri, _: None)
    first, last = past.pushed(), past.pushed()
    manifest = json.loads((past.serving / "2" / "manifest.json").read_text())
    assert manifest["model"] == "gs://home/runs/serving-2"
    _, push = past.champion(str(last))
    assert place(push) == f"{past.serving}/1"
    first_push = past.champion(str(first))[1]
    assert place(first_push) == f"{past.serving}/2"


@pytest.mark.parametrize(
    "label",
    [
        Label("is_late", DType.INT, LabelKind.BINARY, ("1", "0")),
        Label("is_late", DType.FLOAT, LabelKind.REGRESSION),
        Label("is_lost", DType.INT, LabelKind.BINARY, ("0", "1")),
    ],
)
def test_a_model_of_another_label_is_no_champion_and_no_base(past, label):
    past.pushed("april", label)
    model, push = past.champion()
    assert is_absent(model)
    assert is_absent(push)
    assert is_absent(past.base("may"))
    mine = past.pushed("april")
    past.pushed("may", label)
    assert origin(past.champion()[0]) == origin(past.base("june")) == str(mine)


def test_a_lost_model_leaves_its_push(past):
    past.pushed()
    shutil.rmtree(past.pushed())
    model, push = past.champion()
    assert is_absent(model), "an older model must not stand in: a candidate would have it easier"
    assert not is_absent(push)
    assert place(push) == f"{past.serving}/2"


def test_a_version_without_a_manifest_is_not_there(past):
    whole = past.pushed()
    past.pushed()
    (past.serving / "2" / "manifest.json").unlink()
    assert origin(past.champion()[0]) == str(whole)
    assert origin(past.base("may")) == str(whole)


def test_versions_may_serve_elsewhere(past, tmp_path):
    elsewhere = tmp_path / "models"
    past.pushed()
    model = past.pushed(serving=elsewhere)
    assert origin(past.champion(serving=str(elsewhere))[0]) == str(model)
    assert origin(past.base("may", serving=str(elsewhere))) == str(model)


def test_training_on_new_rows_begins_with_the_model_pushed_last(past):
    past.pushed("april")
    may = past.pushed("may")
    assert origin(past.base("june")) == str(may)


def test_the_same_rows_begin_with_what_they_began_with_before_their_model_was_pushed(past):
    april = past.pushed("april")
    assert origin(past.base("may")) == str(april)
    past.pushed("may")
    past.pushed("may")
    assert origin(past.base("may")) == str(april)


def test_a_model_that_is_gone_is_no_base(past):
    april = past.pushed("april")
    shutil.rmtree(past.pushed("may"))
    assert origin(past.base("june")) == str(april)


def test_a_model_of_rows_of_which_nothing_is_known_is_a_base(past):
    unknown = past.pushed("")
    assert origin(past.base("")) == origin(past.base("may")) == str(unknown)


def test_a_rehearsal_looks_at_no_folder_but_its_own(past, tmp_path, monkeypatch):
    monkeypatch.setenv(REHEARSAL, "1")
    own = past.pushed()
    elsewhere = tmp_path / "models"
    past.pushed(serving=elsewhere)
    assert origin(past.champion(serving=str(elsewhere))[0]) == str(own)
