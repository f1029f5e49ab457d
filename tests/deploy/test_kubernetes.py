"""The manifests, put together by kustomize and held against the client library's own types; no cluster is asked."""

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask, jsonify, request
from kubernetes import client as kubernetes

from tests.cloud.loopback import serving

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "k8s"
TYPES = {
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "ResourceQuota"): "V1ResourceQuota",
    ("v1", "LimitRange"): "V1LimitRange",
    ("rbac.authorization.k8s.io/v1", "Role"): "V1Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "V1RoleBinding",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("batch/v1", "CronJob"): "V1CronJob",
}


@pytest.fixture(scope="module")
def manifests():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: deploy/k8s is UNCHECKED")
    made = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=120, check=True
    )
    return list(yaml.safe_load_all(made.stdout))


def unknown(value, kind, place):
    """Keys that a type does not have, and values of another kind."""
    if kind.startswith("list["):
        return [] if value is None else [one for item in value for one in unknown(item, kind[5:-1], place)]
    if kind.startswith("dict(") or not hasattr(kubernetes, kind):
        return []
    known = getattr(kubernetes, kind)
    types = {json_name: known.openapi_types[name] for name, json_name in known.attribute_map.items()}
    return [
        fault
        for key, item in value.items()
        for fault in (
            unknown(item, types[key], f"{place}.{key}") if key in types else [f"{place}.{key} is unknown"]
        )
    ]


def test_every_key_is_one_of_kubernetes(manifests):
    assert len(manifests) >= 10
    for manifest in manifests:
        kind = TYPES[manifest["apiVersion"], manifest["kind"]]
        assert unknown(manifest, kind, f"{manifest['kind']} {manifest['metadata']['name']}") == []


def test_a_key_that_is_none_is_noticed():
    assert unknown({"spec": {"hard": {}, "soft": {}}}, "V1ResourceQuota", "quota") == [
        "quota.spec.soft is unknown"
    ]


def one(manifests, kind, name):
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def test_everything_lies_in_the_namespace_and_every_account_exists(manifests):
    assert {m["metadata"].get("namespace", "headworks") for m in manifests} == {"headworks"}
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    bound = {s["name"] for m in manifests if m["kind"] == "RoleBinding" for s in m["subjects"]}
    assert bound == accounts
    for manifest in manifests:
        for rule in manifest.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def pod(manifests):
    return one(manifests, "CronJob", "submit")["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_the_job_runs_without_root_from_an_image_by_digest(manifests):
    spec = pod(manifests)
    (container,) = spec["containers"]
    assert "@sha256:" in container["image"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_limits_leave_room_for_what_the_flights_ask(manifests):
    base = yaml.safe_load(
        (FOLDER.parents[1] / "examples" / "flights" / "environments" / "base.yaml").read_text()
    )
    (limit,) = one(manifests, "LimitRange", "headworks")["spec"]["limits"]
    for node in base["nodes"].values():
        assert node.get("cpus", 0) <= int(limit["max"]["cpu"])
        assert node.get("memory_gb", 0) <= int(limit["max"]["memory"].removesuffix("Gi"))


def test_the_tries_of_one_job_have_one_name_of_a_run_and_other_jobs_another(manifests):
    given = {one["name"]: one for one in pod(manifests)["containers"][0]["env"]}
    assert given["KFP_RUN"]["value"] == "$(JOB)-$(JOB_UID)"
    for name, label in (("JOB", "job-name"), ("JOB_UID", "controller-uid")):
        path = given[name]["valueFrom"]["fieldRef"]["fieldPath"]
        assert path == f"metadata.labels['batch.kubernetes.io/{label}']"
        # A variable can be put into another only if it comes before it.
        assert list(given).index(name) < list(given).index("KFP_RUN")


def test_the_run_that_is_asked_for_holds_the_compiled_job_and_is_asked_for_once(manifests, tmp_path):
    asked: dict[str, Any] = {}
    runs: list[dict[str, str]] = []
    app = Flask("kubeflow")

    @app.post("/apis/v2beta1/runs")
    def create_run():
        asked.update(request.get_json(), authorization=request.headers.get("Authorization"))
        runs.append({"run_id": f"run-{len(runs) + 1}", "display_name": asked["display_name"]})
        return jsonify(runs[-1])

    @app.get("/apis/v2beta1/runs")
    def list_runs():
        (wanted,) = json.loads(request.args["filter"])["predicates"]
        assert (wanted["key"], wanted["operation"]) == ("display_name", "EQUALS")
        assert request.args["experiment_id"] == "e"
        return jsonify({"runs": [run for run in runs if run["display_name"] == wanted["stringValue"]]})

    app.add_url_rule("/apis/v2beta1/healthz", view_func=lambda: jsonify({"multi_user": False}))
    app.add_url_rule(
        "/apis/v2beta1/experiments", "list", lambda: jsonify({"experiments": []}), methods=["GET"]
    )
    app.add_url_rule(
        "/apis/v2beta1/experiments",
        "create",
        lambda: jsonify({"experiment_id": "e", "display_name": "headworks"}),
        methods=["POST"],
    )
    app.add_url_rule(
        "/apis/v2beta1/experiments/<one>",
        "get",
        lambda one: jsonify({"experiment_id": "e", "display_name": one}),
    )
    job = tmp_path / "job.yaml"
    job.write_text((Path(__file__).parent / "job.yaml").read_text())
    token = tmp_path / "token"
    token.write_text("of-the-account")
    variables = {v["name"]: v.get("value", "headworks") for v in pod(manifests)["containers"][0]["env"]}
    source = one(
        manifests,
        "ConfigMap",
        next(v["configMap"]["name"] for v in pod(manifests)["volumes"] if v["name"] == "submit"),
    )
    script = tmp_path / "submit.py"
    script.write_text(source["data"]["submit.py"])
    submit = runpy.run_path(str(script))["submit"]
    with serving(app) as address:
        changed = {
            "KFP_HOST": address,
            "KF_PIPELINES_SA_TOKEN_PATH": str(token),
            "KFP_PARAMETERS": '{"span": 7}',
            "KFP_RUN": "submit-1-a",
        }
        assert submit(str(job), variables | changed) == "run-1"
        assert submit(str(job), variables | changed) == "run-1"
        assert len(runs) == 1
        assert submit(str(job), variables | changed | {"KFP_RUN": "submit-2-b"}) == "run-2"
    assert asked["service_account"] == "runner"
    assert asked["runtime_config"]["parameters"] == {"span": 7}
    assert asked["runtime_config"]["pipeline_root"].startswith("gs://")
    assert asked["pipeline_spec"]["pipelineInfo"]["name"] == "one-step"
    assert asked["authorization"] == "Bearer of-the-account"
    assert json.loads(variables["KFP_PARAMETERS"]) == {}
