"""The archive of the function, unpacked and run apart from this project."""

import json
import re
import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import duckdb
import pytest

from tests.cloud.loopback import serving
from tests.cloud.trigger_services import COMPILED, ENVIRONMENT, Pipelines, guard_writes

FUNCTION = Path(__file__).resolve().parents[2] / "deploy" / "function"
SITE = Path(duckdb.__file__).parents[1]
RUN = """
import sys
sys.path[0:0] = [sys.argv[1], sys.argv[2]]
sys.modules.update(dict.fromkeys(sys.argv[3].split()))  # whoever imports one is told that there is none
import main
print("imported", *sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))
answer = main._triggers().start(7, "test")
print("run", answer.claim.state, answer.claim.run)
"""


def not_required():
    """Modules of installed packages that the function's requirements do not name."""
    pinned = re.findall(r"(?m)^([\w.-]+)==", (FUNCTION / "requirements.txt").read_text())
    required = {canonical(name) for name in pinned}
    for module, owners in packages_distributions().items():
        if (
            module != "google"
            and owners != ["headworks"]
            and not required & {canonical(name) for name in owners}
        ):
            yield module


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def bundle():
    return runpy.run_path(str(FUNCTION / "bundle.py"))["bundle"]


@pytest.fixture
def unpacked(bundle, tmp_path):
    bundle(tmp_path / "function.zip")
    with zipfile.ZipFile(tmp_path / "function.zip") as packed:
        packed.extractall(tmp_path / "function")
    return tmp_path / "function"


@pytest.fixture
def said(unpacked, storage, monkeypatch):
    """What a process said that sees the archive and the installed packages, but not this clone."""
    guard_writes(monkeypatch)
    storage.bucket("my-bucket").blob("specs/flights.json").upload_from_string(json.dumps(COMPILED))
    pipelines = Pipelines()
    with serving(pipelines.app()) as address:
        variables = {
            "HEADWORKS_NAME": "flights",
            "HEADWORKS_SPEC": "gs://my-bucket/specs/flights.json",
            "HEADWORKS_STATE": "gs://my-bucket/triggers/flights",
            "HEADWORKS_ENVIRONMENT": json.dumps(ENVIRONMENT),
            "HEADWORKS_ENDPOINT": address,
            "STORAGE_EMULATOR_HOST": storage._connection.API_BASE_URL,
        }
        ran = subprocess.run(
            [sys.executable, "-I", "-S", "-c", RUN, str(unpacked), str(SITE), " ".join(not_required())],
            cwd=unpacked,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert list(pipelines.made) == ["flights-span-7-1"]
    return dict(line.split(" ", 1) for line in ran.stdout.splitlines())


def test_the_function_starts_a_run_with_what_is_in_the_archive_and_its_requirements_alone(said):
    assert said["run"].startswith("submitted projects/my-project/")
    imported = set(said["imported"].split())
    assert not imported & {"pydantic", "numpy"}, "a cold start pays for it"


def test_the_same_code_gives_the_same_archive(bundle, tmp_path):
    for name in ("first", "second"):
        bundle(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
