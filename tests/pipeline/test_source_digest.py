import pytest

from pipeline.source_digest import source_digest


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
