from pathlib import Path

import pytest

from pipeline import history
from pipeline.runners import fork_server, local
from pipeline.runners.records import RunRecord
from pipeline.runners.root_folder import RootFolder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunRecord]]:
    """A pipeline root in which the diamond ran, and ran again from the cache."""
    fork_server.start()
    folder = tmp_path_factory.mktemp("history")
    (folder / "notes").mkdir()
    spec = local.RunSpec(
        root=folder / "root",
        name="diamond",
        factory="tests.pipeline.runners.tiny_pipelines:diamond",
        factory_kwargs={"notes": str(folder / "notes")},
    )
    return RootFolder(spec.root).metadata_path, [local.run(spec), local.run(spec)]


def test_a_run_lists_its_executions(runs: tuple[Path, list[RunRecord]]) -> None:
    path, (first, second) = runs
    store = history.open_store(path)
    assert {(e.node_id, e.state) for e in history.executions_of_run(store, first.run_id)} == {
        (node_id, "COMPLETE") for node_id in ("Source", "Left", "Right", "Judge")
    }
    assert {e.state for e in history.executions_of_run(store, second.run_id)} == {"CACHED"}
    assert history.executions_of_run(store, "never") == []


def test_artifacts_are_found_by_run_node_and_key(runs: tuple[Path, list[RunRecord]]) -> None:
    path, records = runs
    store = history.open_store(path)
    for record in records:
        [schema] = history.artifacts_of_run(store, record.run_id, "Source", "schema")
        assert (schema.type_name, schema.key) == ("Schema", "schema")
        assert (schema.uri,) == record.nodes["Source"].uris("schema")
        assert len(history.artifacts_of_run(store, record.run_id, "Source")) == 2
        assert len(history.artifacts_of_run(store, record.run_id)) == 5


def test_the_latest_blessed_and_pushed_models_name_their_makers(runs: tuple[Path, list[RunRecord]]) -> None:
    path, (first, _) = runs
    store = history.open_store(path)
    blessed, pushed = history.latest_blessed_model(store), history.latest_pushed_model(store)
    assert blessed is not None
    assert (blessed.node_id, (blessed.uri,)) == ("Left", first.nodes["Left"].uris("model"))
    assert pushed is not None
    assert (pushed.node_id, (pushed.uri,)) == ("Right", first.nodes["Right"].uris("pushed"))


def test_an_empty_store_has_no_models(tmp_path: Path) -> None:
    store = history.open_store(tmp_path / "metadata.sqlite")
    assert history.latest_blessed_model(store) is None
    assert history.latest_pushed_model(store) is None
