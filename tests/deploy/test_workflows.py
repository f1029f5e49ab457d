"""Cloud Build's and GitHub's workflows: whole, pinned, without keys, and naming only what exists."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cli.compile import compile as compile_command

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BUILD = yaml.safe_load((ROOT / "deploy" / "cloudbuild.yaml").read_text())
COMMANDS = ("build", "rehearse", "publish")
SCRIPT = (ROOT / "deploy" / "release").read_text()
IMAGE = "host/images/headworks@sha256:3"
BEAM_IMAGE = "host/images/headworks-beam@sha256:4"


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
        env={"PATH": "/usr/bin:/bin", "IMAGES": "x", "REVISION": "y", "ENVIRONMENT": "z"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2
    for command in COMMANDS:
        assert f"release {command}" in said.stderr
        assert f"\n{command}() {{" in script.read_text()


def test_an_environment_to_publish_for_has_to_be_named(tmp_path):
    assert BUILD["substitutions"]["_ENVIRONMENT"] == ""
    said = subprocess.run(
        ["bash", str(ROOT / "deploy" / "release"), "build"],
        env={"PATH": "/usr/bin:/bin", "IMAGES": "x", "REVISION": "y", "ENVIRONMENT": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode != 0
    assert "ENVIRONMENT: name of the environment to publish for" in said.stderr


def release_with_docker(tmp_path, command, **variables):
    """Runs a step against a Docker that only says what it was asked."""
    root = tmp_path / "clone"
    (root / "deploy").mkdir(parents=True, exist_ok=True)
    (root / "deploy" / "release").write_text((ROOT / "deploy" / "release").read_text())
    docker = tmp_path / "docker"
    docker.write_text(
        '#!/bin/sh\necho "$@" >>"$LOG"\ncase "$*" in\n'
        '  "image inspect --format {{index"*) echo "base@sha256:1" ;;\n'
        '  "image inspect"*headworks-beam:*) echo "host/images/headworks-beam@sha256:4" ;;\n'
        '  "image inspect"*) echo "other/headworks@sha256:2"; echo "host/images/headworks@sha256:3" ;;\n'
        f'  "run "*/candidate/*) echo "{{}}" >{root}/build/candidate/flights.json ;;\n'
        "  *source_digest*) echo 0123456789abcdef ;;\nesac\n"
    )
    docker.chmod(0o755)
    log = tmp_path / "log"
    subprocess.run(
        ["bash", str(root / "deploy" / "release"), command],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "LOG": str(log),
            "IMAGES": "host/images",
            "REVISION": "abc",
            "ENVIRONMENT": "prod",
        }
        | variables,
        check=True,
    )
    return root, log.read_text()


def test_both_images_are_built_from_digests_and_labelled_with_their_code(tmp_path):
    root, log = release_with_docker(tmp_path, "build")
    built = [line for line in log.splitlines() if line.startswith("build ")]
    assert re.findall(r"--target (\w+)", "\n".join(built)) == ["pipeline", "dataflow"]
    for line in built:
        assert "--build-arg PYTHON_IMAGE=base@sha256:1" in line
        assert "--build-arg BEAM_IMAGE=base@sha256:1" in line
        assert "--build-arg CODE_DIGEST=0123456789abcdef" in line
    assert (root / "build" / "image.pipeline").read_text().strip() == IMAGE
    assert (root / "build" / "image.dataflow").read_text().strip() == BEAM_IMAGE


def test_the_pipeline_is_rehearsed_on_the_data_of_the_image_and_published_for_its_environment(tmp_path):
    release_with_docker(tmp_path, "build")
    _, log = release_with_docker(tmp_path, "rehearse")
    published, base, rehearsed = [line.partition(IMAGE)[2] for line in log.splitlines() if "run " in line][
        -3:
    ]
    compile_ = " headworks compile examples/flights/pipeline.yaml"
    assert published == (
        f"{compile_} --env prod --image {IMAGE} --beam-image {BEAM_IMAGE} --started-by trigger"
        " --output /exchange/candidate/flights.json"
    )
    assert base == f"{compile_} --env base --image {IMAGE} --output /exchange/rehearsed.json"
    assert rehearsed == " headworks rehearse /exchange/rehearsed.json --root /exchange/root"
    root, log = release_with_docker(tmp_path, "publish")
    assert f"tag {IMAGE} host/images/headworks:release-abc" in log
    assert f"tag {BEAM_IMAGE} host/images/headworks-beam:release-abc" in log
    assert (root / "build" / "flights.json").exists()


def test_nothing_is_mounted_into_the_image_but_the_folder_for_results(tmp_path):
    release_with_docker(tmp_path, "build")
    root, log = release_with_docker(tmp_path, "rehearse")
    mounted = {
        place for line in log.splitlines() if IMAGE in line for place in re.findall("--volume (\\S+)", line)
    }
    assert mounted == {f"{root}/build:/exchange"}


def test_the_script_gives_options_that_compile_has():
    given = set(re.findall(r" (--(?:env|image|beam-image|started-by|output)) ", SCRIPT))
    assert given == {"--env", "--image", "--beam-image", "--started-by", "--output"}
    assert given <= {option for one in compile_command.params for option in one.opts}
