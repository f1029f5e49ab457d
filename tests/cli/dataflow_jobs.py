"""A Dataflow on the loopback for the commands: its settings file, and workers that run what was staged."""

from __future__ import annotations

from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from tests.cloud.test_dataflow import IMAGE

SETTINGS = f"""\
project: my-project
region: europe-west1
staging: gs://my-bucket/staging
temp: gs://my-bucket/temp
image: {IMAGE}
service_account: worker@my-project.iam.gserviceaccount.com
labels: {{team: flights}}
"""


def settings_file(folder: Path, endpoint: str = "") -> Path:
    path = folder / "dataflow.yaml"
    path.write_text(SETTINGS + (f"endpoint: {endpoint}\n" if endpoint else ""))
    return path


def staged_pipeline(storage):
    """The pipeline that a submission staged: `storage` is a client of the bucket."""
    (blob,) = (one for one in storage.list_blobs("my-bucket") if one.name.endswith("/pipeline.pb"))
    return beam_runner_api_pb2.Pipeline.FromString(blob.download_as_bytes())


def work(pipeline):
    """Does what the workers would, in this process: the image of each step is this interpreter."""
    here = EmbeddedPythonEnvironment.default().to_runner_api(None)
    for environment in pipeline.components.environments.values():
        environment.urn, environment.payload = here.urn, here.payload
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions()).wait_until_finish()
