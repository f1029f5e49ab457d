"""The notebook of docs/ against a real run: what it promises to load, it loads."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "artifacts.ipynb"


@pytest.fixture(scope="module")
def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def code(cells) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_it_is_stored_without_what_a_run_printed(cells):
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell
    )


def test_the_top_says_where_everything_is(cells):
    first, *others = code(cells)
    assert [line.partition(" = ")[0] for line in first.splitlines()] == ["OUTPUT", "RUN"]
    assert not any("output/" in source for source in others)


@pytest.mark.timeout(600)
def test_it_loads_the_artifacts_of_a_real_run(cells, first_run, monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the notebook adds to it
    found: dict[str, Any] = {"OUTPUT": str(first_run.taxi.root), "RUN": first_run.record.run_id}
    _, *others = code(cells)
    for source in others:
        exec(compile(source, str(NOTEBOOK), "exec"), found)
    assert found["statistics"]["train"].datasets[0].num_examples > 1000
    assert len(found["schema"].feature) > 5
    assert "all rows" in found["metrics"]
    assert len(found["history"]) == 6
