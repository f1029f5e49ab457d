"""Starts a run of the compiled job on Kubeflow Pipelines; the CronJob of run.yaml runs it.

Settings are environment variables, as run.yaml shows them. KFP_RUN is the name of the run: one of that name is the run
that is asked for, so that another try after a lost answer starts no second one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

JOB = "/job/job.yaml"


def submit(job: str, variables: Mapping[str, str]) -> str:
    """Asks for the run, unless it is there. Returns its id."""
    from kfp.client import Client, ServiceAccountTokenVolumeCredentials

    namespace = variables["KFP_NAMESPACE"]
    client = Client(
        host=variables["KFP_HOST"],
        namespace=namespace,
        credentials=ServiceAccountTokenVolumeCredentials(path=variables["KF_PIPELINES_SA_TOKEN_PATH"]),
    )
    experiment = client.create_experiment(variables["KFP_EXPERIMENT"], namespace=namespace).experiment_id
    known = _run_of(client, experiment, variables["KFP_RUN"])
    if known is not None:
        return known
    run = client.create_run_from_pipeline_package(
        job,
        arguments=json.loads(variables.get("KFP_PARAMETERS", "{}")),
        run_name=variables["KFP_RUN"],
        experiment_id=experiment,
        namespace=namespace,
        pipeline_root=variables["KFP_ROOT"],
        service_account=variables["KFP_ACCOUNT"],
    )
    return str(run.run_id)


def _run_of(client: Any, experiment: str, name: str) -> str | None:
    """The id of the run of a name, if there is one."""
    named = {"key": "display_name", "operation": "EQUALS", "stringValue": name}
    found = client.list_runs(experiment_id=experiment, filter=json.dumps({"predicates": [named]})).runs
    return str(found[0].run_id) if found else None


if __name__ == "__main__":
    sys.stdout.write(f"run {submit(JOB, os.environ)}\n")
