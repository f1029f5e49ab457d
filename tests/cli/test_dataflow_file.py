"""The settings file of `--dataflow`."""

import pytest

from cli.dataflow_file import read
from cloud.dataflow import DataflowError
from tests.cli.dataflow_jobs import SETTINGS, settings_file
from tests.cloud.test_dataflow import IMAGE


def test_what_the_file_says_is_what_the_job_gets(tmp_path):
    settings = read(settings_file(tmp_path))
    assert (settings.project, settings.image, settings.labels) == ("my-project", IMAGE, {"team": "flights"})
    assert settings.max_workers == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SETTINGS + "machine: n2\n", r"dataflow\.yaml: machine: unknown key; did you mean machine_type\?"),
        (SETTINGS + "zzz: 1\n", "zzz: unknown key; there are project, region"),
        (SETTINGS.replace("region:", "# region:"), r"dataflow\.yaml: region: missing; this key is required"),
        (SETTINGS + "max_workers: many\n", "max_workers 'many': input should be a valid integer"),
        (SETTINGS.replace("team: flights", "team: 7"), r"labels\.team 7: input should be a valid string"),
        (SETTINGS.replace(IMAGE, "worker:latest"), r"dataflow\.yaml: image worker:latest: name it by digest"),
        ("project: [", r"dataflow\.yaml: no YAML file: while parsing"),
        ("", r"dataflow\.yaml: want keys and values"),
    ],
)
def test_a_fault_is_told_with_file_and_key(tmp_path, text, message):
    file = tmp_path / "dataflow.yaml"
    file.write_text(text)
    with pytest.raises(DataflowError, match=message) as raised:
        read(file)
    assert "\n" not in str(raised.value)
