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


def test_what_an_execution_put_out_has_key_type_and_place_also_from_the_cache(
    runs: tuple[Path, list[RunRecord]],
) -> None:
    path, records = runs
    store = history.open_store(path)
    for record in records:
        [source] = [e for e in history.executions_of_run(store, record.run_id) if e.node_id == "Source"]
        found = {output.key: output for output in history.outputs_of_execution(store, source)}
        assert set(found) == {"examples", "schema"}
        assert found["schema"].type_name == "Schema"
        assert (found["schema"].uri,) == record.nodes["Source"].uris("schema")
