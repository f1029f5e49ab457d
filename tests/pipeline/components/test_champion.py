"""Which model a candidate is compared with, and which push the cache may answer with."""

from pathlib import Path
from typing import Any

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from pipeline import history
from pipeline.components.champion import ChampionStrategy
from pipeline.push import push
from pipeline.runners.metadata_upkeep import retire_lost_pushes

LATE = '["is_late", "binary", ["0", "1"]]'


class Serving:
    """A metadata store, and a serving folder into which models are pushed."""

    def __init__(self, folder: Path) -> None:
        self.store: MetadataStore = history.open_store(folder / "metadata.sqlite")
        self.folder = folder / "serving"
        self._model = folder / "model"
        self._model.mkdir()
        (self._model / "saved_model.pb").write_text("a model")
        self._type = self.store.put_artifact_type(
            metadata_store_pb2.ArtifactType(name="PushedModel"), can_add_fields=True
        )

    def push(self, model_id: int, label: str = LATE) -> int:
        """Pushes a model as ModelPusher does; the artifact's id."""
        pushed = push(self._model, self.folder, {"model": str(model_id)})
        artifact = metadata_store_pb2.Artifact(
            type_id=self._type, uri=f"pushed/{pushed.version}", state=metadata_store_pb2.Artifact.LIVE
        )
        artifact.custom_properties["model_id"].int_value = model_id
        artifact.custom_properties["label"].string_value = label
        artifact.custom_properties["pushed_destination"].string_value = str(pushed.folder)
        [number] = self.store.put_artifacts([artifact])
        return int(number)

    def champion(self, candidate: int, models: tuple[int, ...] = (1, 2, 3)) -> int | None:
        """The id of the champion that a candidate meets."""
        artifacts = {number: _model(number) for number in models}
        given: dict[str, list[Any]] = {
            "model": list(artifacts.values()),
            "candidate": [artifacts[candidate]],
            "pushed": [],
        }
        found = ChampionStrategy(LATE).resolve_artifacts(self.store, given)["model"]
        return found[0].id if found else None


def _model(number: int) -> standard_artifacts.Model:
    model = standard_artifacts.Model()
    model.id = number
    return model


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    return Serving(tmp_path)


def test_the_first_model_has_no_champion(serving: Serving) -> None:
    assert serving.champion(1) is None


def test_a_model_that_was_never_pushed_is_no_champion(serving: Serving) -> None:
    serving.push(1)
    assert serving.champion(3) == 1


def test_the_champion_is_the_model_pushed_last_not_the_one_trained_last(serving: Serving) -> None:
    for model in (1, 2, 1):
        serving.push(model)
    assert serving.champion(3) == 1


def test_a_candidate_that_serves_meets_the_one_before_it(serving: Serving) -> None:
    serving.push(1)
    serving.push(2)
    assert serving.champion(2) == 1


def test_a_model_of_another_label_or_of_other_classes_is_no_champion(serving: Serving) -> None:
    serving.push(1, label='["is_late", "binary", ["1", "0"]]')
    serving.push(2, label='["delay", "regression", []]')
    assert serving.champion(3) is None


def test_only_the_push_that_serves_may_be_taken_from_the_cache(serving: Serving) -> None:
    first, second = serving.push(1), serving.push(2)
    assert retire_lost_pushes(serving.store) == [first]
    third = serving.push(1)  # the configuration was taken back
    assert retire_lost_pushes(serving.store) == [second]
    assert retire_lost_pushes(serving.store) == []
    assert serving.champion(2) == 1, "a retired push still says what was pushed"
    (serving.folder / "3" / "saved_model.pb").write_text("spoilt")
    assert retire_lost_pushes(serving.store) == [third]


def test_the_push_that_serves_stands_in_for_a_champion_whose_artifact_is_lost(serving: Serving) -> None:
    def pushed(model_id: int, number: int) -> standard_artifacts.PushedModel:
        push = standard_artifacts.PushedModel()
        push.id = number
        push.set_int_custom_property("model_id", model_id)
        push.set_string_custom_property("label", LATE)
        return push

    serving.push(1)
    serving.push(2)
    found = ChampionStrategy(LATE).resolve_artifacts(
        serving.store,
        {
            "model": [_model(1)],
            "candidate": [_model(3)],
            "pushed": [pushed(1, 7), pushed(2, 8), pushed(3, 9)],
        },
    )
    assert found["model"] == []
    assert [push.id for push in found["pushed"]] == [8]
