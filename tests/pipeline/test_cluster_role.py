"""Who leaves what a cluster made, by what TF_CONFIG says."""

import json

import pytest

from pipeline.cluster_role import Role, role

POOLS = {"chief": ["job-workerpool0-0:2222"], "worker": ["job-workerpool1-0:2222", "job-workerpool1-1:2222"]}


@pytest.fixture
def told(monkeypatch):
    def tell(cluster: dict[str, list[str]], kind: str, index: int) -> Role:
        task = {"type": kind, "index": index, "trial": ""}
        config = {"cluster": cluster, "task": task, "environment": "cloud"}
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        return role()

    return tell


def test_who_is_alone_publishes(told, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert role() == Role("chief", 0, is_clustered=False, publishes=True)
    assert told({"chief": POOLS["chief"]}, "chief", 0) == Role("chief", 0, is_clustered=False, publishes=True)


@pytest.mark.parametrize(
    ("kind", "index", "publishes"),
    [
        ("chief", 0, True),
        ("worker", 0, False),
        ("worker", 1, False),
        ("ps", 0, False),
        ("evaluator", 0, False),
    ],
)
def test_of_several_the_chief_alone_publishes(told, kind, index, publishes):
    # Vertex AI never lists evaluators among the cluster.
    found = told({**POOLS, "ps": ["job-workerpool2-0:2222"]}, kind, index)
    assert found == Role(kind, index, is_clustered=True, publishes=publishes)


def test_without_a_chief_the_first_worker_publishes(told):
    workers = {"worker": POOLS["worker"]}
    assert told(workers, "worker", 0).publishes
    assert not told(workers, "worker", 1).publishes
