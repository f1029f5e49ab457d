"""The real client library against endpoints on the loopback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.endpoints import (
    deploy,
    find,
    find_or_create,
    make_room,
    roll_back,
    scaled,
    set_traffic,
    undeploy,
)
from cloud.model_registry import Registered
from cloud.vertex_api import RegistryError, Vertex
from cloud.vertex_pipelines import Target
from pipeline.environment import RegistrySettings
from tests.cloud.model_service import serving

PLACE = "projects/my-project/locations/europe-west1"
NAME = f"{PLACE}/endpoints/rain"
ACCOUNT = "server@my-project.iam.gserviceaccount.com"
SETTINGS = RegistrySettings(
    "rain", service_account=ACCOUNT, machine_type="n2-standard-4", min_machines=2, max_machines=5
)


@pytest.fixture(scope="module")
def service():
    with serving() as served:
        yield served


@pytest.fixture
def server(service):
    service.clear()
    return service


@pytest.fixture
def api(server):
    target = Target("my-project", "europe-west1", server.endpoint)
    return Vertex(target, poll_seconds=0.01, sleep=lambda _: None)


def version(number):
    return Registered(f"{PLACE}/models/rain", str(number))


def deployed(api, *percents):
    """The endpoint after versions 1, 2, ... were deployed with these shares each."""
    for number, percent in enumerate(percents, 1):
        deploy(api, find_or_create(api, "rain", {}, None), version(number), SETTINGS, percent)
    return find(api, "rain")


def shares(endpoint):
    return {one.version: one.percent for one in endpoint.deployed}


def test_an_endpoint_is_made_once_and_a_version_deployed_as_the_settings_say(server, api):
    told: list[str] = []
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    endpoint = find_or_create(api, "rain", {"team": "weather"}, key, told.append)
    deploy(api, endpoint, version(1), SETTINGS, 5, told.append)
    assert server.changes == [
        (
            "endpoints",
            {
                "displayName": "rain",
                "labels": {"team": "weather"},
                "encryptionSpec": {"kmsKeyName": key},
            },
        ),
        (
            "rain:deployModel",
            {
                "deployedModel": {
                    "model": f"{PLACE}/models/rain@1",
                    "displayName": "rain-1",
                    "serviceAccount": ACCOUNT,
                    "dedicatedResources": {
                        "machineSpec": {"machineType": "n2-standard-4"},
                        "minReplicaCount": 2,
                        "maxReplicaCount": 5,
                    },
                },
                "trafficSplit": {"0": 100},
            },
        ),
    ]
    assert told == [
        f"endpoint: {NAME}: made",
        f"deployed: {PLACE}/models/rain@1 at {NAME}, 100% of the traffic",
    ]
    assert find_or_create(api, "rain", {}, None).deployed[0].machines == "2 to 5 n2-standard-4"


def test_a_new_version_takes_its_share_from_all_in_proportion(api):
    assert shares(deployed(api, 100, 30, 50)) == {"1": 35, "2": 15, "3": 50}


def test_a_version_without_traffic_changes_nobodys(server, api):
    assert shares(deployed(api, 100, 0)) == {"1": 100, "2": 0}
    assert "trafficSplit" not in server.changes[-1][1]


def test_it_is_said_which_versions_keep_machines_beside_a_new_one(api):
    deployed(api, 100, 0)
    told: list[str] = []
    deploy(api, find(api, "rain"), version(3), SETTINGS, 10, told.append)
    assert told[1:] == [
        f"warning: 3 versions keep machines at {NAME}, with traffic or not: also version 1 (90%), version 2 (0%); "
        "take one away with: headworks registry undeploy CONFIG VERSION --env ENV"
    ]


def test_a_version_that_is_deployed_is_not_deployed_again(server, api):
    deployed(api, 100, 20)
    sent = len(server.changes)
    told: list[str] = []
    deploy(api, find(api, "rain"), version(2), SETTINGS, 90, told.append)
    assert len(server.changes) == sent
    assert told == [f"deployed before: version 2 of rain at {NAME}, 20% of the traffic"]


def test_traffic_goes_back_to_the_version_before_in_one_update(server, api):
    endpoint = deployed(api, 100, 30, 50)
    before, now = roll_back(api, endpoint)
    assert (str(before), str(now)) == ("version 3 of rain", "version 2 of rain")
    assert server.changes[-1] == (
        "rain",
        {"etag": endpoint.etag, "trafficSplit": {now.id: 100}},
    )
    assert shares(find(api, "rain")) == {"1": 0, "2": 100, "3": 0}
    roll_back(api, find(api, "rain"))
    with pytest.raises(RegistryError, match="no version before version 1 of rain is deployed here; deploy"):
        roll_back(api, find(api, "rain"))


def test_traffic_is_set_by_version(api):
    set_traffic(api, deployed(api, 100, 0), {"1": 90, "2": 10})
    assert shares(find(api, "rain")) == {"1": 90, "2": 10}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"1": 90, "2": 20}, "traffic 1=90 2=20: is 110; want shares of 0 or more, 100 in all"),
        ({"1": 120, "2": -20}, "want shares of 0 or more"),
        ({"3": 100}, "version 3 is not deployed here; deployed: 1, 2"),
    ],
)
def test_shares_that_cannot_be_are_refused_before_they_are_sent(server, api, wanted, message):
    endpoint = deployed(api, 100, 0)
    sent = len(server.changes)
    with pytest.raises(RegistryError, match=message):
        set_traffic(api, endpoint, wanted)
    assert len(server.changes) == sent


def test_who_changes_what_another_changed_meanwhile_is_refused(api):
    endpoint = deployed(api, 100, 0)
    set_traffic(api, endpoint, {"2": 100})
    with pytest.raises(RegistryError, match=r"in conflict: etag mismatch; .*changed at the same time"):
        set_traffic(api, endpoint, {"1": 100})


def test_the_traffic_of_a_version_that_is_taken_away_goes_to_the_others(api):
    gone = undeploy(api, deployed(api, 100, 30, 50), "3", force=False)
    assert gone.version == "3"
    assert shares(find(api, "rain")) == {"1": 70, "2": 30}


def test_a_version_without_traffic_is_taken_away_as_it_is(server, api):
    undeploy(api, deployed(api, 100, 0), "2", force=False)
    assert server.changes[-1] == ("rain:undeployModel", {"deployedModelId": "1002"})


def test_the_last_one_that_answers_is_not_taken_away_by_accident(api):
    endpoint = deployed(api, 100, 0)
    with pytest.raises(RegistryError, match="version 1 of rain has all the traffic; give it to another"):
        undeploy(api, endpoint, "1", force=True)
    undeploy(api, endpoint, "2", force=False)
    with pytest.raises(RegistryError, match="is the last one that answers; --force leaves nobody"):
        undeploy(api, find(api, "rain"), "1", force=False)
    undeploy(api, find(api, "rain"), "1", force=True)
    assert shares(find(api, "rain")) == {}


def test_an_endpoint_that_is_not_there_is_named(api):
    with pytest.raises(RegistryError, match=rf"{NAME}: not found: .*look at project, region and name"):
        find(api, "rain")


@given(
    split=st.dictionaries(st.text("123456789", min_size=1), st.integers(1, 100), min_size=1, max_size=6),
    percent=st.integers(1, 100),
)
def test_shares_are_always_100_in_all(split, percent):
    whole = scaled(split, 100)
    assert sum(whole.values()) == 100
    found = make_room(whole, percent)
    assert sum(found.values()) == 100
    assert found["0"] == percent
    assert all(abs(found.get(id_, 0) - share * (100 - percent) / 100) < 1 for id_, share in whole.items())
