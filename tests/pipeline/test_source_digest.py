import re

import pytest

from pipeline.source_digest import code_digest, source_digest


@pytest.fixture
def project(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").write_text("")
    (tmp_path / "room" / "entry.py").write_text("from room import ops\n\ndef run():\n    return ops.f(1)\n")
    (tmp_path / "room" / "ops.py").write_text('def f(x):\n    """Adds."""\n    return x + 1\n')
    (tmp_path / "room" / "unrelated.py").write_text("x = 1\n")
    return tmp_path


def test_comments_docstrings_and_unrelated_modules_do_not_count(project):
    before = source_digest("room.entry", root=project)
    (project / "room" / "ops.py").write_text('# why\ndef f(x):\n    """Adds one."""\n\n    return x + 1\n')
    (project / "room" / "unrelated.py").write_text("x = 2\n")
    assert source_digest("room.entry", root=project) == before


def test_a_change_in_an_imported_module_counts(project):
    before = source_digest("room.entry", root=project)
    (project / "room" / "ops.py").write_text("def f(x):\n    return x + 2\n")
    assert source_digest("room.entry", root=project) != before


def test_a_module_that_does_not_exist_is_refused(project):
    with pytest.raises(ModuleNotFoundError, match=r"room\.entri"):
        source_digest("room.entri", root=project)


def test_the_trainer_depends_on_the_network_but_not_on_the_command_line():
    from pipeline.source_digest import ROOT, _closure

    modules = _closure(("models.trainer",), ROOT)
    assert "models.network" in modules
    assert not any(name.startswith(("cli", "transforms")) for name in modules)


@pytest.fixture
def image(tmp_path):
    for room in ("schemas", "cloud", "cli"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "rows.py").write_text("x = 1\n")
    return tmp_path


def test_the_code_of_an_image_is_told_by_all_rooms_that_run_in_it(image):
    before = code_digest(image)
    assert re.fullmatch("[0-9a-f]{16}", before)
    (image / "cli" / "rows.py").write_text("x = 2\n")
    (image / "cloud" / "rows.py").write_text('"""Rows."""\n\nx = 1  # one\n')
    assert code_digest(image) == before, "the command line is not in a container, comments are not code"
    (image / "cloud" / "rows.py").write_text("x = 2\n")
    changed = code_digest(image)
    assert changed != before
    (image / "cloud" / "rows.py").rename(image / "cloud" / "lines.py")
    assert code_digest(image) not in {before, changed}
