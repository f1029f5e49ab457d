"""Specs of Flex Templates, made from commands, and their launch over the wire."""

import json
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from google.cloud import dataflow_v1beta3 as api

from cloud.dataflow import DataflowError
from cloud.flex_template import command_line, container_spec, launch, to_json
from tests.cloud.dataflow_service import serving
from tests.cloud.test_dataflow import IMAGE, SETTINGS

PLACE = "gs://my-bucket/templates/score.json"


@click.command("score")
@click.argument("serving")
@click.option("--input", "inputs", multiple=True, required=True, help="Files.")
@click.option("--to", "output_format", type=click.Choice(["csv", "parquet"]), default="parquet")
@click.option("--max-bad-fraction", type=click.FloatRange(0, 1), default=0.01, help="Share that may fail.")
@click.option("--batch-rows", type=click.IntRange(min=1), default=1024)
@click.option("--strict", is_flag=True)
def score(**given):
    """Score rows.

    Details that are too long for the console.
    """
    click.echo(json.dumps(given, default=list))


def test_a_spec_says_image_language_workers_and_every_parameter():
    spec = json.loads(to_json(container_spec(score, SETTINGS, kinds={"inputs": "GCS_READ_FILE"})))
    assert spec["image"] == IMAGE
    assert spec["sdkInfo"] == {"language": "PYTHON"}
    assert spec["metadata"]["description"] == "Score rows."
    environment = spec["defaultEnvironment"]
    assert environment["sdkContainerImage"] == IMAGE
    assert environment["serviceAccountEmail"] == SETTINGS.service_account
    assert environment["ipConfiguration"] == "WORKER_IP_PRIVATE"
    by_name = {one["name"]: one for one in spec["metadata"]["parameters"]}
    assert [*by_name] == ["serving", "inputs", "output_format", "max_bad_fraction", "batch_rows", "strict"]
    assert by_name["inputs"]["paramType"] == "GCS_READ_FILE"
    assert by_name["inputs"]["helpText"] == "Files. Several with commas between."
    assert "isOptional" not in by_name["serving"]
    assert by_name["output_format"]["regexes"] == ["^(csv|parquet)$"]
    assert [one["value"] for one in by_name["output_format"]["enumOptions"]] == ["csv", "parquet"]
    assert by_name["max_bad_fraction"]["defaultValue"] == "0.01"
    assert by_name["max_bad_fraction"]["isOptional"] is True
    assert by_name["strict"]["paramType"] == "BOOLEAN"


@pytest.mark.parametrize("name", ["predict", "stream"])
def test_the_specs_of_our_own_commands_are_what_the_api_takes(name):
    from importlib import import_module

    command = getattr(import_module(f"cli.{name}"), name)
    spec = container_spec(command, SETTINGS, streaming=name == "stream")
    assert api.ContainerSpec.from_json(to_json(spec)) == spec
    assert all(one.help_text and one.name.isidentifier() for one in spec.metadata.parameters)


def test_a_launch_names_spec_parameters_and_workers():
    with serving() as service:
        settings = replace(SETTINGS, endpoint=service.dataflow)
        spec = container_spec(score, settings)
        launched = launch(spec, PLACE, settings, "flights", {"serving": "gs://m", "inputs": "gs://a,gs://b"})
        ((name, body),) = service.launches
    assert launched.id == "job-flex"
    assert name == "projects/my-project/locations/europe-west1/flexTemplates:launch"
    sent = api.LaunchFlexTemplateParameter.from_json(json.dumps(body["launchParameter"]))
    assert sent.job_name == "flights"
    assert sent.container_spec_gcs_path == PLACE
    assert dict(sent.parameters) == {"serving": "gs://m", "inputs": "gs://a,gs://b"}
    assert sent.environment.machine_type == "n2-highmem-8"
    assert sent.environment.max_workers == 20
    assert dict(sent.environment.additional_user_labels) == {"team": "flights", "cost-centre": "7"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"serving": "m"}, r"inputs is missing: Files\."),
        ({"serving": "m", "inputs": "a", "speed": "9"}, "speed is no parameter of the template; it has serving"),
        ({"serving": "m", "inputs": "a", "output_format": "xml"}, r"output_format 'xml': want what matches \^\(csv"),
        ({"serving": "m", "inputs": "a", "batch_rows": "1.5"}, r"batch_rows '1\.5': want"),
        ({"serving": "m", "inputs": "a", "strict": "yes"}, "strict 'yes': want"),
    ],
)  # fmt: skip
def test_parameters_that_cannot_work_are_refused_before_anything_is_asked(given, message):
    with serving() as service:
        settings = replace(SETTINGS, endpoint=service.dataflow)
        with pytest.raises(DataflowError, match=message):
            launch(container_spec(score, settings), PLACE, settings, "flights", given)
        assert service.requests == []


def test_a_refused_launch_is_one_sentence():
    with serving() as service:
        service.refuse("flexTemplates", 409, "ALREADY_EXISTS", "flights exists")
        settings = replace(SETTINGS, endpoint=service.dataflow)
        with pytest.raises(
            DataflowError, match=r"job flights in .* was not started: a job of this name is running"
        ):
            launch(
                container_spec(score, settings), PLACE, settings, "flights", {"serving": "m", "inputs": "a"}
            )


def test_the_container_calls_the_command_with_what_was_given():
    arguments = command_line(
        score, {"serving": "gs://m", "inputs": "a,b", "max_bad_fraction": "0.5", "strict": "true"}
    )
    result = CliRunner().invoke(score, arguments, catch_exceptions=False)
    assert json.loads(result.output) == {
        "serving": "gs://m",
        "inputs": ["a", "b"],
        "output_format": "parquet",
        "max_bad_fraction": 0.5,
        "batch_rows": 1024,
        "strict": True,
    }
    with pytest.raises(DataflowError, match="speed is no parameter of score"):
        command_line(score, {"speed": "9"})


def test_a_kind_for_no_parameter_is_told():
    with pytest.raises(DataflowError, match="topic is no parameter of score"):
        container_spec(score, SETTINGS, kinds={"topic": "PUBSUB_TOPIC"})
