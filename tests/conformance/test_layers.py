"""The rooms of the house and who may import whom (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "schemas": set(),
    "transforms": {"schemas"},
    "models": {"schemas"},
    "ingest": {"schemas"},
    "gates": {"schemas"},
    "report": {"schemas", "gates"},
    "tflite": {"schemas", "transforms", "models"},
    "pipeline": {"schemas", "ingest", "gates", "report", "models", "tflite"},
    "beam_jobs": {"schemas", "ingest", "tflite"},
    "cloud": {"schemas", "ingest", "pipeline", "report", "beam_jobs"},
    "cli": {"schemas", "ingest", "gates", "report", "models", "pipeline", "beam_jobs", "cloud", "tflite"},
}
SETTINGS_ONLY = "models.settings"


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def imports_in_full(path: Path) -> set[str]:
    """With `from a import b` as `a.b`, where a room's module is imported from the room."""
    tree = ast.parse(path.read_text())
    return {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [
                f"{node.module}.{alias.name}" if node.module in ALLOWED else node.module
                for alias in node.names
            ]
            if isinstance(node, ast.ImportFrom) and node.module
            else []
        )
    }


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_the_rooms_below_it(room):
    assert modules(room), f"{room}/ holds no module"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name in imports(path)
        if (top := name.partition(".")[0]) in ALLOWED and top != room and top not in ALLOWED[room]
    ]
    assert wrong == []


def test_beam_jobs_see_no_more_of_device_models_than_the_client_that_ships_with_them():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("beam_jobs")
        for name in imports_in_full(path)
        if name.partition(".")[0] == "tflite" and name != "tflite.client"
    ]
    assert wrong == []


def test_the_pipeline_sees_no_more_of_the_models_than_their_settings():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("pipeline")
        for name in imports(path)
        if name.partition(".")[0] == "models" and name != SETTINGS_ONLY
    ]
    assert wrong == []


def test_google_cloud_is_imported_in_no_room_but_cloud():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for room in ALLOWED.keys() - {"cloud"}
        for path in modules(room)
        for name in imports(path)
        if name.startswith("google.cloud")
    ]
    assert wrong == []


@pytest.mark.parametrize("example", ["flights", "taxi"])
def test_no_room_knows_a_column_of_an_example(example):
    from schemas.features import load_schema

    schema = load_schema(str(ROOT / "examples" / example / "schema.pbtxt"))
    telling = {feature.name for feature in schema.feature if "_" in feature.name}
    assert telling
    found = [
        f"{path.relative_to(ROOT)} names {node.value}"
        for room in ALLOWED
        for path in modules(room)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in telling
    ]
    assert found == []
