"""`headworks registry` as a person uses it, against a service on the loopback."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from cli.main import main
from tests.cloud.model_service import serving
from tests.cloud.test_model_registry import EVIDENCE, IMAGE, pushed

ACCOUNT = "server@my-project.iam.gserviceaccount.com"
ENVIRONMENT = {
    "project": "my-project",
    "region": "europe-west1",
    "root": "gs://my-bucket/pipelines",
    "image": IMAGE,
    "service_account": "runner@my-project.iam.gserviceaccount.com",
    "labels": {"team": "weather"},
    "registry": {
        "model": "rain",
        "endpoint": "rain",
        "aliases": ["champion"],
        "traffic_percent": 10,
        "service_account": ACCOUNT,
    },
}


@pytest.fixture
def service():
    with serving() as served:
        yield served


@pytest.fixture
def config(tmp_path):
    environments = tmp_path / "environments"
    environments.mkdir()
    (environments / "base.yaml").write_text("{}")
    (environments / "prod.yaml").write_text(yaml.safe_dump(ENVIRONMENT))
    file = tmp_path / "pipeline.yaml"
    file.write_text("name: rain\n")
    return file


@pytest.fixture
def headworks(service, config):
    def call(command, *arguments, exit_code=0):
        options = ("--env", "prod", "--endpoint", service.endpoint)
        result = CliRunner().invoke(main, ["registry", command, str(config), *options, *map(str, arguments)])
        assert result.exit_code == exit_code, result.output
        return result.output

    return call


def version(tmp_path, number):
    pushed(tmp_path, number, f"content {number}")
    return tmp_path / "serving" / str(number)


def upload(headworks, monkeypatch, folder):
    """An upload of a local folder as if it were in the bucket."""
    monkeypatch.setattr("cloud.model_registry.uri_of", lambda path: f"gs://my-bucket/{path.strip('/')}")
    return headworks("upload", "--version-folder", folder)


def test_versions_are_registered_deployed_shifted_and_rolled_back(headworks, service, monkeypatch, tmp_path):
    assert "no version yet; register one with: headworks registry upload" in headworks("list")
    output = upload(headworks, monkeypatch, version(tmp_path, 1))
    assert "models/rain@1: version 1 of Rain of Summer" in output
    assert "100% of the traffic" in headworks("deploy")
    upload(headworks, monkeypatch, version(tmp_path, 2))
    second = headworks("deploy", "--version", "champion")
    assert "10% of the traffic" in second
    assert "warning: 2 versions keep machines" in second
    assert {model["serviceAccount"] for model in service.deployed.values()} == {ACCOUNT}
    listed = headworks("list")
    assert [line.split() for line in listed.splitlines()[1:3]] == [
        ["1", "default", "1", "20260101t000000-ab12", "90%"],
        ["2", "champion", "2", "20260101t000000-ab12", "10%"],
    ]
    assert (
        "--via vertex-batch --vertex-model projects/my-project/locations/europe-west1/models/rain@2" in listed
    )
    assert headworks("traffic", "1=0", "champion=100") == "traffic: version 1 0%, version 2 100%\n"
    assert headworks("rollback") == ("rolled back: all traffic from version 2 of rain to version 1 of rain\n")
    assert headworks("undeploy", "2") == "undeployed: version 2 of rain, which had 0% of the traffic\n"
    assert "--force leaves nobody who does" in headworks("undeploy", "1", exit_code=1)
    headworks("undeploy", "1", "--force")


def test_a_dry_run_prints_the_requests_and_sends_none(headworks, service, tmp_path):
    (tmp_path / "evidence.json").write_text(json.dumps(EVIDENCE))
    folder = version(tmp_path, 1)
    output = headworks(
        "upload", "--version-folder", folder, "--evidence", tmp_path / "evidence.json", "--dry-run"
    )
    assert [name for call in json.loads(output) for name in call] == [
        "upload_model",
        "import_model_evaluation",
        "batch_import_model_evaluation_slices",
        "merge_version_aliases",
    ]
    assert service.calls == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (("traffic", "3"), 2, "'3': write it as VERSION=PERCENT, such as 3=90"),
        (("traffic", "3=60", "3=40"), 2, "SHARES name a version twice"),
        (
            ("traffic", "3=60"),
            1,
            "error: projects/my-project/locations/europe-west1/endpoints/rain: not found",
        ),
        (
            ("deploy", "--version", "best"),
            1,
            "error: model rain: not in the registry; upload a version first",
        ),
        (("deploy", "--traffic", "101"), 2, "101 is not in the range"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(headworks, arguments, exit_code, message):
    assert message in headworks(*arguments, exit_code=exit_code)


@pytest.mark.parametrize(
    ("lacking", "command", "message"),
    [
        ("registry", "list", "registry: missing; set it in"),
        ("image", "upload", "image: missing; set it in"),
    ],
)
def test_a_setting_that_is_not_there_is_named(headworks, config, lacking, command, message):
    file = config.parent / "environments" / "prod.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in ENVIRONMENT.items() if k != lacking}))
    assert message in headworks(command, exit_code=1)


def test_an_endpoint_without_an_account_of_its_own_is_refused(headworks, config):
    file = config.parent / "environments" / "prod.yaml"
    file.write_text(yaml.safe_dump({**ENVIRONMENT, "registry": {"model": "rain", "endpoint": "rain"}}))
    said = headworks("deploy", exit_code=1)
    assert "service_account: missing; endpoint rain needs the account" in said
    assert str(file) in said


def test_without_an_endpoint_in_the_environment_nothing_is_deployed(headworks, config):
    file = config.parent / "environments" / "prod.yaml"
    file.write_text(yaml.safe_dump({**ENVIRONMENT, "registry": {"model": "rain"}}))
    assert "registry.endpoint: missing; set it in" in headworks("rollback", exit_code=1)
