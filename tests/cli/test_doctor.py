import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli import doctor as module
from cli.doctor import (
    Finding,
    Imports,
    Level,
    Tool,
    absent_components,
    check_c_runtime,
    check_gpus,
    check_imports,
    check_keras,
    check_packages,
    check_python,
    check_tools,
    import_error,
    required_modules,
    try_imports,
    usable_memory_bytes,
)


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.subject: finding.level for finding in findings}


def test_another_python_is_missing_something() -> None:
    finding = check_python((3, 13))
    assert finding.level is Level.MISSING
    assert "3.11" in finding.remedy


def test_this_environment_has_the_c_runtime_it_needs() -> None:
    assert check_c_runtime().level is Level.OK


def test_an_older_c_runtime_is_missing_and_set_up_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_glibc", lambda: (2, 36))
    finding = check_c_runtime()
    assert finding.level is Level.MISSING
    assert "2.39 is needed" in finding.found
    assert "make set-up" in finding.remedy


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("click==0.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\n    --hash=sha256:00\n")
    findings = check_packages(lock)
    assert levels(findings) == {"click": Level.MISSING, "no-such-package": Level.MISSING}
    assert "==0.1 is wanted" in findings[0].found


def test_without_a_lock_the_packages_own_requirements_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "declared_requirements", lambda: {"click": ">=1000", "rich": ">=1"})
    assert levels(check_packages(tmp_path / "absent.lock")) == {"click": Level.MISSING}


def test_required_modules_are_import_names(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {"tf-keras": "", "pyyaml": ">=6", "google-cloud-aiplatform": ""}
    monkeypatch.setattr(module, "declared_requirements", lambda: declared)
    assert required_modules() == ["tf_keras", "yaml", "google.cloud.aiplatform"]


def test_an_import_that_raises_anything_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("raise OSError('GLIBC_2.38 not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_error("broken_module") == "OSError: GLIBC_2.38 not found"


def test_a_component_that_the_package_left_none_is_told_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "swallowing_package"
    package.mkdir()
    (package / "works.py").write_text("class Works: pass")
    (package / "fails.py").write_text("import no_such_dependency\nclass Fails: pass")
    (package / "__init__.py").write_text(
        "from swallowing_package.works import Works\n"
        "try:\n"
        "    from swallowing_package.fails import Fails\n"
        "except ImportError:\n"
        "    Fails = None\n"
        "__all__ = ['Works', 'Fails']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    absent = absent_components("swallowing_package")
    assert absent == {"Fails": "ModuleNotFoundError: No module named 'no_such_dependency'"}


def test_a_module_that_kills_its_process_is_named_and_the_others_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crashing_module.py").write_text("import os\nos._exit(139)")
    (tmp_path / "raising_module.py").write_text("raise RuntimeError('odd')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    errors = try_imports(["json", "crashing_module", "raising_module"]).errors
    assert errors.keys() == {"crashing_module", "raising_module"}
    assert "ended the process" in errors["crashing_module"]
    assert errors["raising_module"] == "RuntimeError: odd"


def test_failed_imports_and_absent_components_are_missing() -> None:
    imports = Imports(errors={"kfp": "ImportError: x"}, absent_components={"Evaluator": "ImportError: y"})
    findings = list(check_imports(imports))
    assert levels(findings) == {"import kfp": Level.MISSING, "TFX Evaluator": Level.MISSING}
    assert "ImportError: y" in findings[1].found


def test_keras_3_behind_tensorflow_is_missing_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "0")
    finding = check_keras("keras")
    assert finding.level is Level.MISSING
    assert "TF_USE_LEGACY_KERAS is set to 0" in finding.found
    assert check_keras("tf_keras").level is Level.OK


def test_a_gpu_that_tensorflow_does_not_see_is_worth_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.doctor.shutil.which", lambda command: f"/usr/bin/{command}")
    assert check_gpus(0).level is Level.NOTE
    assert check_gpus(2).level is Level.OK


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1048576\n")
    assert usable_memory_bytes(limit) == 1048576
    limit.write_text("max\n")
    assert usable_memory_bytes(limit) == usable_memory_bytes(tmp_path / "absent")


def test_an_absent_tool_is_a_note_with_what_it_is_for() -> None:
    findings = list(check_tools([Tool("no-such-program", "nothing much")]))
    assert levels(findings) == {"no-such-program": Level.NOTE}
    assert "nothing much" in findings[0].remedy


@pytest.mark.parametrize(("level", "status"), [(Level.OK, 0), (Level.NOTE, 0), (Level.MISSING, 1)])
def test_the_command_fails_only_if_something_required_is_missing(
    level: Level, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "diagnose", lambda: [Finding("Thing", level, "seen", "do this")])
    result = CliRunner().invoke(module.doctor)
    assert result.exit_code == status
    assert result.output == f"{level.value:<8}Thing: seen -> do this\n"


def test_every_required_package_is_looked_for_under_the_name_that_is_imported():
    from importlib.util import find_spec

    from cli.doctor import required_modules

    assert [name for name in required_modules() if find_spec(name) is None] == []
