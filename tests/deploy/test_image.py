"""The image's recipe and its entry point. No Docker runs where the tests do: the image is never built here."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.source_digest import code_digest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def instructions():
    """Pairs of instruction and argument, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def of(kind):
    return [argument for name, argument in instructions() if name == kind]


def copied():
    """Sources that are copied from the clone."""
    for argument in of("COPY"):
        if "--from=" not in argument:
            yield from [part for part in argument.split() if not part.startswith("--")][:-1]


def pins(path):
    return {
        match[1]: match[0]
        for match in re.finditer(r"(?m)^([\w.-]+)(?:\[[^]]*\])?==.*?(?=^\S|\Z)", path.read_text(), re.DOTALL)
    }


def test_what_is_copied_is_there_and_let_through():
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    assert set(copied()) <= let_through | {"requirements-tools.lock"}
    assert let_through == set(copied())
    for source in copied():
        assert (ROOT / source).exists(), source


def test_nothing_is_let_through_that_is_not_named():
    lines = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith(("#", "!"))
    ]
    assert lines[0] == "*"


def test_bases_are_arguments_that_a_digest_can_replace_and_none_floats():
    stages = {argument.split(" AS ")[1] for argument in of("FROM")}
    for argument in of("FROM"):
        base = argument.split(" AS ")[0]
        assert base in stages or re.fullmatch(r"\$\{\w+_IMAGE\}", base)
    assert not re.search(r":latest\b", DOCKERFILE)
    assert "ARG PYTHON_IMAGE=python:3.11-" in DOCKERFILE


def test_the_worker_start_up_program_is_of_the_locked_version_of_beam():
    (locked,) = re.findall(
        r"(?m)^apache-beam(?:\[[\w,]+\])?==(\S+)", (ROOT / "requirements.lock").read_text()
    )
    assert f"ARG BEAM_IMAGE=apache/beam_python3.11_sdk:{locked}\n" in DOCKERFILE
    assert f"beam_tag=apache/beam_python3.11_sdk:{locked}\n" in (ROOT / "deploy" / "release").read_text()


def test_packages_are_installed_with_their_hashes():
    installs = [argument for argument in of("RUN") if re.search(r"pip (install|sync)", argument)]
    for argument in installs:
        assert "--require-hashes" in argument or "--no-deps --no-build-isolation --editable ." in argument
    assert not re.search(r"https?://|--index-url|--trusted-host", DOCKERFILE)


@pytest.mark.parametrize("lock", ["deploy/requirements.lock", "deploy/function/requirements.txt"])
def test_what_is_deployed_is_what_was_tested(lock):
    tested, deployed = pins(ROOT / "requirements.lock"), pins(ROOT / lock)
    assert deployed
    assert {name for name, pin in deployed.items() if tested.get(name) != pin} == set()
    assert not {"pytest", "mypy", "ruff", "bqemulator"} & deployed.keys()


@pytest.mark.parametrize("example", ["flights", "taxi"])
def test_the_rows_of_an_example_are_in_the_image(example):
    config = yaml.safe_load((ROOT / "examples" / example / "pipeline.yaml").read_text())
    deployed = pins(ROOT / "deploy" / "requirements.lock")
    for location in config["data"]["source"]["tables"].values():
        assert location.removeprefix("package://").partition("/")[0] in deployed


def test_modules_are_compiled_when_the_image_is_built():
    before, _, after = DOCKERFILE.partition("AS base")
    assert "uv pip sync --no-cache --compile-bytecode" in before
    assert "-m compileall -q ." in before
    assert "PYTHONDONTWRITEBYTECODE" not in before
    assert after.index("compileall") < after.index("PYTHONDONTWRITEBYTECODE")


def test_the_image_is_of_no_root_but_for_dataflow():
    users = re.findall(r"FROM base AS (\w+)\s+USER (\S+)", DOCKERFILE)
    assert users == [("dataflow", "0:0"), ("pipeline", "10001:10001")]
    assert DOCKERFILE.rstrip().endswith("USER 10001:10001")


def test_nothing_secret_is_in_the_recipe():
    assert not re.search(r"(?i)(secret|password|token|api_?key|credential)", DOCKERFILE)


def test_what_is_copied_is_all_that_the_digest_of_the_code_is_made_of(tmp_path):
    apart = shutil.ignore_patterns("__pycache__", ".*", "output", "build", "docs")
    clone = shutil.copytree(ROOT, tmp_path / "clone", ignore=apart)
    for source in copied():
        if (clone / source).is_dir():
            shutil.copytree(clone / source, tmp_path / "image" / source)
    assert code_digest(tmp_path / "image") == code_digest(clone)


def test_the_digest_can_be_had_without_any_package():
    said = subprocess.run(
        ["python3", "-S", "-m", "pipeline.source_digest"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch("[0-9a-f]{16}\n", said.stdout)


@pytest.mark.parametrize(
    ("arguments", "variables", "ran"),
    [
        (["--id=1", "--provision_endpoint=localhost:1"], {}, "boot --id=1 --provision_endpoint=localhost:1"),
        (["--worker_pool"], {}, "boot --worker_pool"),
        ([], {"AIP_HTTP_PORT": "8080"}, "python -m cloud.prediction_server"),
        ([], {}, "headworks --help"),
        (["python", "-m", "pipeline.container", "--x"], {}, "python -m pipeline.container --x"),
    ],
)
def test_the_container_does_what_it_was_started_for(tmp_path, arguments, variables, ran):
    for name in ("boot", "python", "headworks"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    entry = tmp_path / "entrypoint"
    entry.write_text(
        (ROOT / "deploy" / "entrypoint").read_text().replace("/opt/apache/beam/boot", str(tmp_path / "boot"))
    )
    said = subprocess.run(
        ["sh", str(entry), *arguments],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == ran


def test_every_room_that_is_packaged_and_there_is_in_the_image():
    (rooms,) = re.findall(r"ROOMS = \((.*?)\)", (ROOT / "setup.py").read_text(), re.DOTALL)
    there = {room for room in re.findall(r'"(\w+)"', rooms) if (ROOT / room).is_dir()}
    assert there <= set(copied())
