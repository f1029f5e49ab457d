"""Starts a run of the compiled job on Kubeflow Pipelines; the CronJob of run.yaml runs it.

Settings are environment variables, as run.yaml shows them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

JOB = "/job/job.yaml"


def submit(job: str, variables: Mapping[str, str]) -> str:
    """Asks for the run. Returns its id."""
    from kfp.client import Client, ServiceAccountTokenVolumeCredentials

    client = Client(
        host=variables["KFP_HOST"],
        namespace=variables["KFP_NAMESPACE"],
        credentials=ServiceAccountTokenVolumeCredentials(path=variables["KF_PIPELINES_SA_TOKEN_PATH"]),
    )
    run = client.create_run_from_pipeline_package(
        job,
        arguments=json.loads(variables.get("KFP_PARAMETERS", "{}")),
        experiment_name=variables["KFP_EXPERIMENT"],
        namespace=variables["KFP_NAMESPACE"],
        pipeline_root=variables["KFP_ROOT"],
        service_account=variables["KFP_ACCOUNT"],
    )
    return str(run.run_id)


if __name__ == "__main__":
    sys.stdout.write(f"run {submit(JOB, os.environ)}\n")
