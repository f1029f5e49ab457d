"""`headworks compile` as a person and a release use it; tests/cloud/test_compiled_pipeline.py looks into the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from cloud.submission_checks import parameter_values

FLIGHTS = Path(__file__).resolve().parents[2] / "examples" / "flights"
IMAGE = "eu.gcr.io/my-project/headworks@sha256:" + "0" * 64
BEAM_IMAGE = "eu.gcr.io/my-project/headworks-beam@sha256:" + "1" * 64
PLACE = """\
project: my-project
region: europe-west1
root: gs://my-bucket/runs
service_account: runner@my-project.iam.gserviceaccount.com
"""
SPANS = """\
config:
  data:
    source:
      tables: {flights: "gs://my-bucket/landing/flights/{SPAN:3}/*.parquet"}
    span: {last: latest, window: 12}
"""
DATAFLOW = """\
beam: {runner: dataflow, nodes: [Transform]}
"""


@pytest.fixture
def compiled(tmp_path):
    """Compiles the flights for an environment; gives what was said and the job, None if it was refused."""
    folder = tmp_path / "flights"
    shutil.copytree(FLIGHTS, folder)

    def compile_for(environment, *options):
        (folder / "environments" / "prod.yaml").write_text(environment)
        file = tmp_path / "job.json"
        arguments = ["compile", str(folder / "pipeline.yaml"), "--env", "prod", "--image", IMAGE]
        done = CliRunner().invoke(main, [*arguments, *options, "--output", str(file)])
        assert done.exit_code == (0 if file.exists() else 1), done.output
        return done.output, json.loads(file.read_text()) if file.exists() else None

    return compile_for


def test_what_a_trigger_can_start_is_compiled(compiled):
    said, job = compiled(PLACE + SPANS, "--started-by", "trigger")
    assert job is not None, said
    assert "parameter span: -1" in said
    assert parameter_values(job, ["span=7"])["span"] == 7


@pytest.mark.parametrize(
    ("environment", "started_by", "fault"),
    [
        (
            PLACE,
            "trigger",
            "error: parameter span: a trigger gives it, and this job does not take it: set data.span",
        ),
        (SPANS, "trigger", "error: root: missing; set it in"),
        (SPANS, "schedule", "error: root: missing; set it in"),
    ],
)
def test_what_could_not_be_started_is_refused(compiled, environment, started_by, fault):
    said, job = compiled(environment, "--started-by", started_by)
    assert job is None
    assert said.startswith(fault)
    assert "prod.yaml" in said


def test_workers_of_beam_get_their_own_image_where_the_environment_has_them(compiled):
    _, job = compiled(PLACE + DATAFLOW, "--beam-image", BEAM_IMAGE)
    executors = job["pipelineSpec"]["deploymentSpec"]["executors"]
    assert BEAM_IMAGE in json.dumps(executors["Transform_executor"])
    assert {one["container"]["image"] for one in executors.values() if "container" in one} == {IMAGE}
    said, job = compiled(PLACE, "--beam-image", BEAM_IMAGE)
    assert BEAM_IMAGE not in json.dumps(job), said
