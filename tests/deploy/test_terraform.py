"""The Terraform files, as far as they can be checked without Google's provider: it is not to be had offline."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.environment import Environment, load

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "terraform"
FILES = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.tf"))}
ALL = "\n".join(FILES.values())
CODE = re.sub(r"(?m)^\s*#.*$", "", ALL)
GIVEN = {"project": "my-project", "region": "europe-west1", "environment": "prod"}
BROAD = {"roles/owner", "roles/editor", "roles/viewer", "roles/storage.admin", "roles/aiplatform.admin"}


def terraform(*arguments, folder):
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed: deploy/terraform is UNCHECKED")
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def declared(kind):
    return {".".join(names) for names in re.findall(rf'(?m)^{kind} "(\w+)" "(\w+)"', CODE)}


def test_the_files_are_formatted():
    result = terraform("fmt", "-check", "-diff", folder=FOLDER)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """The variables alone, which need no provider; their checks run when something is planned."""
    folder = tmp_path_factory.mktemp("variables")
    shutil.copy(FOLDER / "variables.tf", folder)
    (folder / "out.tf").write_text('output "pipelines" {\n  value = var.pipelines\n}\n')
    assert terraform("init", "-input=false", folder=folder).returncode == 0

    def plan(**given):
        (folder / "given.auto.tfvars.json").write_text(json.dumps(GIVEN | given))
        result = terraform("plan", "-input=false", "-no-color", folder=folder)
        return result.returncode, re.sub(r"\s*\n[│╷╵\s]*", " ", result.stdout + result.stderr)

    return plan


def test_sound_variables_are_taken(variables):
    objects = ["gs://my-project-headworks-prod/landing/{SPAN:3}/*.parquet"]
    status, said = variables(
        pipelines={"flights": {"prefix": "landing/", "objects": objects}},
        github_repository="owner/name",
        billing_account="012345-6789AB-CDEF01",
        callers=["other@my-project.iam.gserviceaccount.com"],
        network="projects/123/global/networks/default",
    )
    assert status == 0, said


def test_each_unsound_variable_is_refused_with_what_it_should_be(variables):
    status, said = variables(
        project="My Project",
        region="EU",
        environment="Production",
        labels={"Team": "A B"},
        kms_key="my-key",
        network="default",
        pipelines={"flights": {"prefix": "landing/", "objects": ["gs://b/*.csv"], "settle_seconds": -1}},
        callers=["someone@example.com"],
        github_repository="name",
        billing_account="1",
        monthly_budget=0.5,
    )
    assert status != 0
    for name in (
        *("project", "region", "environment", "labels", "kms_key", "network", "callers", "github_repository"),
        *("billing_account", "monthly_budget", "pipelines: objects", "pipelines: settle_seconds"),
    ):
        assert f"{name}: want" in said, name


def test_every_reference_leads_to_something_and_everything_is_used():
    resources, data = declared("resource"), declared("data")
    variables = set(re.findall(r'(?m)^variable "(\w+)"', CODE))
    named = {
        ".".join(one)
        for one in re.findall(r"(?<![\w.:])(google_\w+)\.(\w+)", re.sub(r"data\.google", "data:google", CODE))
    }
    from_data = {".".join(one) for one in re.findall(r"data\.(google_\w+)\.(\w+)", CODE)}
    local_names = {
        name
        for body in re.findall(r"(?ms)^locals \{\n(.*?)^\}", CODE)
        for name in re.findall(r"(?m)^  (\w+)\s*=", body)
    }
    assert named <= resources
    assert from_data == data
    assert set(re.findall(r"\bvar\.(\w+)", CODE)) == variables
    assert set(re.findall(r"\blocal\.(\w+)", CODE)) == local_names


def test_no_role_is_broad():
    roles = set(re.findall(r'"(roles/[\w.]+)"', CODE))
    assert roles
    assert not roles & BROAD
    assert not {role for role in roles if re.search(r"admin$", role, re.IGNORECASE)}
    assert "allUsers" not in CODE
    assert "allAuthenticatedUsers" not in CODE
    assert '"*"' not in CODE


def test_every_account_is_given_something_and_used():
    for account in (name for name in declared("resource") if name.startswith("google_service_account.")):
        assert f"{account}.member" in CODE, f"{account} may do nothing"
        assert re.search(rf"{re.escape(account)}\.(email|id|name)\b", CODE), f"nothing acts as {account}"


def test_there_are_no_keys():
    assert "google_service_account_key" not in CODE
    assert not re.search(r"(?i)(private_key|password|secret)\s*=", CODE)


def test_buckets_are_closed_and_keep_what_was_overwritten():
    buckets = re.findall(r'(?ms)^resource "google_storage_bucket" "\w+" \{\n(.*?)^\}', CODE)
    assert len(buckets) == 2
    for bucket in buckets:
        assert re.search(r"uniform_bucket_level_access\s+= true", bucket)
        assert re.search(r'public_access_prevention\s+= "enforced"', bucket)
        assert re.search(r"versioning \{\n\s+enabled = true", bucket)


def test_the_output_is_an_environment_of_the_pipelines():
    (body,) = re.findall(
        r"environment = \{\n\s+for key, value in \{\n(.*?)\n\s+\} :", FILES["outputs.tf"], re.DOTALL
    )
    keys = set(re.findall(r"(?m)^\s+(\w+)\s+=", body))
    assert keys == {"project", "region", "root", "service_account", "network", "kms_key", "labels"}
    assert keys <= set(Environment.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({}, {"project", "region", "root", "service_account", "labels"}),
        (
            {
                "network": "projects/123/global/networks/default",
                "kms_key": "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k",
                "labels": {"team": "data"},
            },
            {"project", "region", "root", "service_account", "labels", "network", "kms_key"},
        ),
    ],
)
def test_what_terraform_puts_out_is_read_as_an_environment(tmp_path, given, keys):
    """The output as Terraform writes it, with words in the place of what only Google's provider knows."""
    folder = tmp_path / "terraform"
    folder.mkdir()
    shutil.copy(FOLDER / "variables.tf", folder)
    local_names, output = (
        re.findall(rf"(?ms)^{begin}.*?^\}}", FILES[file])[0]
        for file, begin in (("outputs.tf", "locals"), ("outputs.tf", 'output "environment"'))
    )
    (common,) = re.findall(r"(?ms)^locals \{\n.*?^\}", FILES["versions.tf"])
    text = "\n".join((common, local_names, output))
    text = re.sub(r"google_service_account\.(\w+)\.email", r'"\1@my-project.iam.gserviceaccount.com"', text)
    text = text.replace("google_storage_bucket.data.name", '"my-bucket"')
    text = text.replace("data.google_project.this.number", '"123"')
    (folder / "out.tf").write_text(text)
    (folder / "given.auto.tfvars.json").write_text(json.dumps(GIVEN | given))
    for command in (["init"], ["apply", "-auto-approve"]):
        done = terraform(*command, "-input=false", "-no-color", folder=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    written = terraform("output", "-raw", "environment", folder=folder).stdout
    environments = tmp_path / "environments"
    environments.mkdir()
    (environments / "base.yaml").write_text("{}\n")
    (environments / "prod.yaml").write_text(written)
    (tmp_path / "pipeline.yaml").write_text("name: any\n")
    place = load(tmp_path / "pipeline.yaml", "prod")
    assert {key.partition(".")[0] for key in place.lines} >= keys
    assert place.settings.root == "gs://my-bucket/runs"
    assert place.settings.service_account == "runner@my-project.iam.gserviceaccount.com"
    assert place.settings.labels == {"system": "headworks", "environment": "prod", **given.get("labels", {})}
    # What it says of the endpoint's account can be taken as it stands.
    (environments / "prod.yaml").write_text(
        written.replace("# registry:", "registry:").replace("NAME", "rain")
    )
    registry = load(tmp_path / "pipeline.yaml", "prod").settings.registry
    assert registry
    assert registry.service_account == "prediction@my-project.iam.gserviceaccount.com"


def test_the_function_gets_the_variables_that_it_reads():
    given = set(re.findall(r"(?m)^\s+(HEADWORKS_\w+)\s+=", FILES["triggers.tf"]))
    source = (FOLDER.parents[1] / "cloud" / "triggers.py").read_text()
    read = set(re.findall(r'"(HEADWORKS_\w+)"', source))
    assert read - given == {"HEADWORKS_CERTIFICATES", "HEADWORKS_ENDPOINT"}
    assert given <= read
