"""Which model a warm start begins with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts
from tfx.types.channel_utils import as_channel

from pipeline import history, stages
from pipeline.components.base_model import BaseModelStrategy
from pipeline.config import ConfigError, load
from tests.taxi import EXAMPLE

LATE = '["is_late", "binary", ["0", "1"]]'
Event = metadata_store_pb2.Event


class Past:
    """A store with models, what they learned from and which of them were pushed."""

    def __init__(self, folder: Path) -> None:
        self.store: MetadataStore = history.open_store(folder / "metadata.sqlite")
        self._folder = folder
        self._trainer = self.store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
        self._types = {
            name: self.store.put_artifact_type(
                metadata_store_pb2.ArtifactType(name=name), can_add_fields=True
            )
            for name in ("Examples", "Model", "PushedModel")
        }
        self._models: list[Any] = []

    def rows(self, content: str = "") -> Any:
        examples = self._stored(standard_artifacts.Examples())
        if content:
            examples.set_string_custom_property("input_fingerprint", content)
            self.store.put_artifacts([examples.mlmd_artifact])
        return examples

    def model(self, rows: Any) -> Any:
        """A model that learned from the rows and was pushed."""
        model = self._stored(standard_artifacts.Model())
        [number] = self.store.put_executions([metadata_store_pb2.Execution(type_id=self._trainer)])
        for key, artifact, kind in (("examples", rows, Event.INPUT), ("model", model, Event.OUTPUT)):
            event = Event(execution_id=number, artifact_id=artifact.id, type=kind)
            event.path.steps.add(key=key)
            event.path.steps.add(index=0)
            self.store.put_events([event])
        self._models.append(model)
        push = metadata_store_pb2.Artifact(type_id=self._types["PushedModel"], uri="pushed")
        push.custom_properties["model_id"].int_value = model.id
        push.custom_properties["label"].string_value = LATE
        self.store.put_artifacts([push])
        return model

    def base(self, rows: Any, label: str = LATE) -> int | None:
        """The id of the model that training on the rows begins with."""
        given: dict[str, list[Any]] = {"model": self._models, "examples": [rows]}
        found = BaseModelStrategy(label).resolve_artifacts(self.store, given)["model"]
        return int(found[0].id) if found else None

    def _stored(self, artifact: Any) -> Any:
        folder = self._folder / f"{artifact.type_name}-{len(self.store.get_artifacts())}"
        folder.mkdir()
        artifact.uri = str(folder)
        artifact.mlmd_artifact.type_id = self._types[artifact.type_name]
        [artifact.id] = self.store.put_artifacts([artifact.mlmd_artifact])
        return artifact


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


def test_the_first_model_begins_cold(past: Past) -> None:
    assert past.base(past.rows()) is None


def test_training_on_new_rows_begins_with_the_model_pushed_last(past: Past) -> None:
    past.model(past.rows())
    last = past.model(past.rows())
    assert past.base(past.rows()) == last.id


@pytest.mark.parametrize("content", ["", "rows of May"])
def test_the_same_rows_begin_with_what_they_began_with_before_their_model_was_pushed(
    past: Past, content: str
) -> None:
    before = past.model(past.rows("rows of April"))
    rows = past.rows(content)
    assert past.base(rows) == before.id
    past.model(rows)
    assert past.base(rows) == before.id
    if content:
        assert past.base(past.rows(content)) == before.id, "equal rows, written again"


def test_a_model_that_is_gone_or_predicts_something_else_is_no_base(past: Past) -> None:
    first, last = past.model(past.rows()), past.model(past.rows())
    Path(last.uri).rmdir()
    assert past.base(past.rows()) == first.id
    assert past.base(past.rows(), label='["delay", "regression", []]') is None


def trainer(*overrides: str) -> Any:
    """The Trainer of the taxi example, with the base model that its configuration asks for."""
    project = load(EXAMPLE, overrides)
    features = project.feature_set()
    examples: Any = SimpleNamespace(outputs={"examples": as_channel([standard_artifacts.Examples()])})
    graph: Any = SimpleNamespace(
        outputs={"transform_graph": as_channel([standard_artifacts.TransformGraph()])}
    )
    base = stages.warm_start_model(project, features, examples, graph)
    return stages.trainer(project, features, examples, graph, None, base)


def test_the_trainer_is_given_the_champion_only_where_the_configuration_asks_for_it() -> None:
    assert "base_model" not in trainer().inputs
    assert "base_model" in trainer("train.warm_start={}").inputs


def test_the_trainer_runs_again_when_the_model_in_a_named_folder_has_other_weights(tmp_path: Path) -> None:
    named = f"train.warm_start.source={tmp_path}"
    (tmp_path / "saved_model.pb").write_text("a graph")
    with pytest.raises(ConfigError, match=r"train\.warm_start\.source: .*variables.index: no such file"):
        trainer(named)
    (tmp_path / "variables").mkdir()
    seen = set()
    for weights in ("some weights", "other weights"):
        (tmp_path / "variables" / "variables.index").write_text(weights)
        node = trainer(named)
        assert "base_model" not in node.inputs
        assert str(tmp_path) in node.exec_properties["custom_config"]
        seen.add(node.exec_properties["custom_config"])
    assert len(seen) == 2
