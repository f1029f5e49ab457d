"""A small compiled job and its environment, as a test may change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]

ENVIRONMENT = """\
project: my-project
region: europe-west1
root: gs://my-bucket/headworks
service_account: runs@my-project.iam.gserviceaccount.com
network: projects/123/global/networks/inside
kms_key: projects/my-project/locations/europe-west1/keyRings/ring/cryptoKeys/key
labels: {team: data}
"""
CODE = "0123456789abcdef"


def job(image: str, code: str = CODE, environment: str = "prod") -> Json:
    """Three components in a row, and an importer that needs no machine."""
    return {
        "displayName": "shop",
        "labels": {
            "headworks-code": code,
            "headworks-pipeline": "shop",
            "headworks-environment": environment,
        },
        "pipelineSpec": {
            "schemaVersion": "2.1.0",
            "pipelineInfo": {"name": "shop"},
            "root": {
                "inputDefinitions": {
                    "parameters": {
                        "span": {"parameterType": "NUMBER_INTEGER"},
                        "epochs": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5},
                        "strategy": {"parameterType": "STRING", "defaultValue": "one_machine"},
                        "is_new": {"parameterType": "BOOLEAN", "isOptional": True},
                    }
                },
                "dag": {
                    "tasks": {
                        name: {
                            "componentRef": {"name": name},
                            "taskInfo": {"name": name},
                            "retryPolicy": {"maxRetryCount": 2},
                            "dependentTasks": waits_for,
                        }
                        for name, waits_for in (
                            ("Trainer", ["StatisticsGen"]),
                            ("StatisticsGen", []),
                            ("Importer", ["Trainer"]),
                        )
                    }
                },
            },
            "components": {
                name: {"executorLabel": f"{name}_executor"}
                for name in ("StatisticsGen", "Trainer", "Importer")
            },
            "deploymentSpec": {
                "executors": {
                    "StatisticsGen_executor": {
                        "container": {"image": image, "resources": {"cpuLimit": 4.0, "memoryLimit": 16.0}}
                    },
                    "Trainer_executor": {
                        "container": {
                            "image": image,
                            "resources": {"accelerator": {"type": "NVIDIA_L4", "count": "2"}},
                        }
                    },
                    "Importer_executor": {"importer": {"artifactUri": {"constant": "gs://my-bucket/schema"}}},
                }
            },
        },
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://my-bucket/headworks/shop/runs",
            "parameterValues": {},
        },
    }


def bigquery_job(image: str) -> Json:
    """The same, but the first component reads tables as of a time, which a run has to say; later ones may be cached."""
    made = job(image)
    root = made["pipelineSpec"]["root"]
    root["inputDefinitions"]["parameters"]["snapshot_time"] = {"parameterType": "STRING"}
    for task in root["dag"]["tasks"].values():
        task["cachingOptions"] = {"enableCache": True}
    root["dag"]["tasks"]["StatisticsGen"]["inputs"] = {
        "parameters": {
            "window": {"runtimeValue": {"constant": 4}},
            "snapshot_time": {"componentInputParameter": "snapshot_time"},
        }
    }
    return made


def write_environment(folder: Path, name: str = "prod", text: str = ENVIRONMENT) -> Path:
    """Writes `environments/` and returns the configuration beside it, which says little more than a name."""
    there = folder / "environments"
    there.mkdir(exist_ok=True)
    (there / "base.yaml").write_text("retries: 2\n")
    (there / f"{name}.yaml").write_text(text)
    config = folder / "pipeline.yaml"
    config.write_text(
        "name: shop\ndata: {source: {kind: csv, folder: data}, split: {by: folder}}\nlabel: {column: y}\n"
    )
    return config
