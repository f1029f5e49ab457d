"""What set-up promises: one runtime for every worker process, a lock that agrees, errors that help."""

import ast
import re
import shutil
import stat
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cli.doctor import REQUIRED_GLIBC, host_glibc, loaded_c_library, process_glibc, read_lock

ROOT = Path(__file__).parents[1]
NOT_ROOMS = {"tests", "benchmarks", "examples", "docs", "deploy", "scripts"}


def host_is_older() -> bool:
    version = host_glibc()
    return version is not None and tuple(map(int, version.split(".")[:2])) < REQUIRED_GLIBC


needs_private_runtime = pytest.mark.skipif(not host_is_older(), reason="this host's own glibc is new enough")


def install_program(folder: Path, name: str, script: str) -> None:
    """Write an executable shell script, a stand-in for a program of the host."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for PATH with a shell and text tools, but with no Python, compiler or package manager."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("awk", "bash", "cat", "dirname", "flock", "grep", "head", "printf", "pwd", "sed", "sh"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name in ("sha256sum", "sort", "touch", "uname"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def run_script(script: Path, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which("bash")), str(script), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- the runtime ---


def test_a_subprocess_of_this_interpreter_imports_the_packages_built_for_a_newer_glibc() -> None:
    program = "import ml_metadata.metadata_store, os; print(os.confstr('CS_GNU_LIBC_VERSION'))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    major, minor = re.findall(r"\d+", answer.stdout)[:2]
    assert (int(major), int(minor)) >= REQUIRED_GLIBC


@needs_private_runtime
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_worker_processes_load_the_private_c_library(method: str) -> None:
    with get_context(method).Pool(1) as pool:
        library = pool.apply(loaded_c_library)
    assert library is not None
    assert library.is_relative_to(sys.prefix)


@needs_private_runtime
def test_the_hosts_interpreter_is_left_as_it_was() -> None:
    interpreter = Path(sys.prefix, "bin", "python")
    assert not interpreter.is_symlink()
    base = str(sys._base_executable)  # type: ignore[attr-defined]
    program = "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"
    answer = subprocess.run([base, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"glibc {host_glibc()}"
    assert process_glibc() != tuple(map(int, str(host_glibc()).split(".")[:2]))


# --- requirements ---


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-tools.lock"])
def test_a_lock_holds_hashed_exact_versions_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.partition("make lock\n")[2].strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize(
    ("source", "lock"),
    [
        ("requirements.in", "requirements.lock"),
        ("requirements-dev.in", "requirements.lock"),
        ("requirements-tools.in", "requirements-tools.lock"),
    ],
)
def test_the_lock_fulfils_every_requirement(source: str, lock: str) -> None:
    locked = read_lock(ROOT / lock)
    lines = (line.partition("#")[0].strip() for line in (ROOT / source).read_text().splitlines())
    for requirement in (Requirement(line) for line in lines if line):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: run `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: {version} is locked"
        )


def test_every_room_is_packaged() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    rooms = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS"
    )
    on_disk = {path.parent.name for path in ROOT.glob("[!.]*/__init__.py")}
    assert on_disk - NOT_ROOMS <= set(rooms)


# --- errors of the scripts ---


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What scripts/set_up reads, in a folder of its own, so that no test touches this clone's environment."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for path in [*ROOT.glob("requirements*"), ROOT / "setup.py", *(ROOT / "scripts").iterdir()]:
        shutil.copy(path, folder / path.relative_to(ROOT))
    return folder


def test_set_up_names_the_python_it_found_and_the_one_it_wants(clone: Path, bare_path: Path) -> None:
    install_program(bare_path, "python3", "echo 3.9")
    answer = run_script(clone / "scripts/set_up", PATH=str(bare_path))
    assert answer.returncode != 0
    assert f"{bare_path}/python3 is 3.9" in answer.stderr
    assert "Python 3.11 is needed" in answer.stderr
    assert not (clone / ".venv").exists()


def test_set_up_says_so_when_there_is_no_python(clone: Path, bare_path: Path) -> None:
    answer = run_script(clone / "scripts/set_up", PATH=str(bare_path))
    assert answer.returncode != 0
    assert "No Python is on PATH" in answer.stderr


def test_set_up_says_so_when_the_named_python_does_not_run(clone: Path, bare_path: Path) -> None:
    answer = run_script(clone / "scripts/set_up", PATH=str(bare_path), PYTHON="/no/such/python")
    assert answer.returncode != 0
    assert "/no/such/python is not running" in answer.stderr


def test_set_up_names_a_missing_compiler(clone: Path, bare_path: Path) -> None:
    answer = run_script(clone / "scripts/set_up", PATH=str(bare_path), PYTHON=sys.executable)
    assert answer.returncode != 0
    assert "apt-get install g++" in answer.stderr


def test_a_new_enough_glibc_needs_no_private_runtime(tmp_path: Path, bare_path: Path) -> None:
    install_program(bare_path, "getconf", "echo glibc 2.39")
    answer = run_script(ROOT / "scripts/private_c_runtime", tmp_path, PATH=str(bare_path))
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("glibc", ["echo glibc 2.36", "exit 1"], ids=["older glibc without apt", "no glibc"])
def test_an_unsupported_system_is_told_what_is_supported(glibc: str, tmp_path: Path, bare_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    install_program(bare_path, "getconf", glibc)
    answer = run_script(ROOT / "scripts/private_c_runtime", venv, PATH=str(bare_path))
    assert answer.returncode != 0
    for supported in ("Debian 12", "Ubuntu 24.04", "image python:3.11"):
        assert supported in answer.stderr
    assert list(venv.iterdir()) == []
