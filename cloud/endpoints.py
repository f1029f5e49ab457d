"""Endpoints of Vertex AI: which versions of a model answer there, and which share of the requests each of them gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloud.model_registry import Registered
from cloud.vertex_api import Api, NotThereError, RegistryError
from pipeline.environment import RegistrySettings

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

Split = dict[str, int]
"""Percents of the traffic, 100 in all, by the id of what is deployed; who gets none is left out."""

_NEW = "0"
"""The id, in a request, of what is being deployed."""


@dataclass(frozen=True)
class Deployed:
    """A version at an endpoint.

    Attributes:
      id: of the deployment.
      model_id: of its model.
      version: its number in the registry.
      percent: of the traffic.
      machines: how many of which kind.
    """

    id: str
    model_id: str
    version: str
    percent: int
    machines: str

    def __str__(self) -> str:
        return f"version {self.version} of {self.model_id}"


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as it is now.

    Attributes:
      name: resource name.
      deployed: what answers there, the oldest version first.
      etag: tells this state from later ones.
    """

    name: str
    deployed: tuple[Deployed, ...] = ()
    etag: str = ""

    @property
    def split(self) -> Split:
        """Who gets which share."""
        return {one.id: one.percent for one in self.deployed if one.percent}

    def of(self, version: str) -> Deployed:
        """What is deployed of a version.

        Raises:
          RegistryError: if nothing is; naming the versions that are there.
        """
        for one in self.deployed:
            if one.version == version:
                return one
        there = ", ".join(one.version for one in self.deployed) or "none"
        raise RegistryError(f"{self.name}: version {version} is not deployed here; deployed: {there}")


def find(api: Api, endpoint_id: str) -> Endpoint:
    """Reads an endpoint.

    Raises:
      NotThereError: if there is no such endpoint.
    """
    from google.cloud.aiplatform_v1 import GetEndpointRequest

    name = f"{api.parent}/endpoints/{endpoint_id}"
    found = api.call("get_endpoint", GetEndpointRequest(name=name), name)
    deployed = [_deployed(one, found.traffic_split) for one in found.deployed_models]
    return Endpoint(name, tuple(sorted(deployed, key=_age)), found.etag)


def find_or_create(
    api: Api,
    endpoint_id: str,
    labels: Mapping[str, str],
    kms_key: str | None,
    tell: Callable[[str], None] = lambda _: None,
) -> Endpoint:
    """Reads an endpoint; makes it if it is not there."""
    from google.cloud.aiplatform_v1 import CreateEndpointRequest

    try:
        return find(api, endpoint_id)
    except NotThereError:
        encryption = {"encryption_spec": {"kms_key_name": kms_key}} if kms_key else {}
        request = CreateEndpointRequest(
            parent=api.parent,
            endpoint_id=endpoint_id,
            endpoint={"display_name": endpoint_id, "labels": dict(labels), **encryption},
        )
        name = f"{api.parent}/endpoints/{endpoint_id}"
        api.call("create_endpoint", request, name)
        tell(f"endpoint: {name}: made")
        return Endpoint(name)


def deploy(
    api: Api,
    endpoint: Endpoint,
    version: Registered,
    settings: RegistrySettings,
    percent: int,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Has a version answer at an endpoint. One that does already is left as it is, with its traffic.

    Where nothing has any traffic the version gets all of it, whatever `percent` says: shares are 100 in all.

    Args:
      api: the service.
      endpoint: as it is.
      version: of the registry.
      settings: of the environment: its machines, and the account that its container acts as.
      percent: of the traffic for it; the others keep their proportions in the rest.
      tell: takes a line about what is done.
    """
    from google.cloud.aiplatform_v1 import DeployModelRequest

    model_id = version.model.rpartition("/")[2]
    for one in endpoint.deployed:
        if (one.model_id, one.version) == (model_id, version.version):
            tell(f"deployed before: {one} at {endpoint.name}, {one.percent}% of the traffic")
            return
    split = make_room(endpoint.split, percent)
    request = DeployModelRequest(
        endpoint=endpoint.name,
        deployed_model={
            "model": version.resource,
            "display_name": f"{model_id}-{version.version}",
            "service_account": settings.service_account,
            "dedicated_resources": {
                "machine_spec": {"machine_type": settings.machine_type},
                "min_replica_count": settings.min_machines,
                "max_replica_count": settings.max_machines,
            },
        },
        traffic_split=split,
    )
    api.call("deploy_model", request, f"{version.resource} at {endpoint.name}")
    tell(f"deployed: {version.resource} at {endpoint.name}, {split.get(_NEW, 0)}% of the traffic")
    if endpoint.deployed:
        left = split or endpoint.split
        others = ", ".join(f"version {one.version} ({left.get(one.id, 0)}%)" for one in endpoint.deployed)
        tell(
            f"warning: {len(endpoint.deployed) + 1} versions keep machines at {endpoint.name}, with traffic or not: "
            f"also {others}; take one away with: headworks registry undeploy CONFIG VERSION --env ENV"
        )


def undeploy(api: Api, endpoint: Endpoint, version: str, *, force: bool) -> Deployed:
    """Takes a version away; the others take over its traffic in proportion.

    Raises:
      RegistryError: if it has all the traffic, unless it is the only one there and `force` is given.
    """
    from google.cloud.aiplatform_v1 import UndeployModelRequest

    gone = endpoint.of(version)
    others = {id_: percent for id_, percent in endpoint.split.items() if id_ != gone.id}
    if gone.percent and not others:
        if len(endpoint.deployed) > 1:
            raise RegistryError(
                f"{endpoint.name}: {gone} has all the traffic; give it to another version first "
                "(headworks registry rollback, or traffic)"
            )
        if not force:
            raise RegistryError(
                f"{endpoint.name}: {gone} is the last one that answers; --force leaves nobody who does"
            )
    request = UndeployModelRequest(
        endpoint=endpoint.name,
        deployed_model_id=gone.id,
        traffic_split=scaled(others, 100) if gone.percent else {},
    )
    api.call("undeploy_model", request, f"{gone} at {endpoint.name}")
    return gone


def set_traffic(api: Api, endpoint: Endpoint, shares: Mapping[str, int]) -> None:
    """Gives versions their shares of the traffic, and all others none.

    Args:
      api: the service.
      endpoint: as it is; if it was changed since, the service refuses.
      shares: percent by version of the registry.

    Raises:
      RegistryError: if they are not 100 in all, or a version is not deployed.
    """
    from google.cloud.aiplatform_v1 import UpdateEndpointRequest

    if sum(shares.values()) != 100 or min(shares.values()) < 0:
        told = " ".join(f"{version}={percent}" for version, percent in shares.items())
        raise RegistryError(
            f"traffic {told}: is {sum(shares.values())}; want shares of 0 or more, 100 in all"
        )
    split = {endpoint.of(version).id: percent for version, percent in shares.items() if percent}
    request = UpdateEndpointRequest(
        endpoint={"name": endpoint.name, "etag": endpoint.etag, "traffic_split": split},
        update_mask={"paths": ["traffic_split"]},
    )
    api.call("update_endpoint", request, endpoint.name)


def roll_back(api: Api, endpoint: Endpoint) -> tuple[Deployed, Deployed]:
    """Gives all traffic to the version before the newest one that has any, in one update.

    Returns:
      The version that had traffic, and the one that has it now.

    Raises:
      RegistryError: if nothing has traffic, or no older version is deployed.
    """
    current = next((one for one in reversed(endpoint.deployed) if one.percent), None)
    if current is None:
        raise RegistryError(f"{endpoint.name}: no version has any traffic, so there is nothing to take back")
    older = [
        one for one in endpoint.deployed if one.model_id == current.model_id and _age(one) < _age(current)
    ]
    if not older:
        raise RegistryError(
            f"{endpoint.name}: no version before {current} is deployed here; deploy one: headworks registry deploy "
            "--version N --traffic 100"
        )
    set_traffic(api, endpoint, {older[-1].version: 100})
    return current, older[-1]


def make_room(split: Mapping[str, int], percent: int) -> Split:
    """The shares when something new gets so much: all, where nobody has any; no change, where it gets nothing."""
    if not split:
        return {_NEW: 100}
    if not percent:
        return {}
    return {**scaled(split, 100 - percent), _NEW: percent}


def scaled(split: Mapping[str, int], total: int) -> Split:
    """Shares in the same proportions with another sum; whole numbers, the largest remainders rounded up."""
    whole = sum(split.values())
    if not whole:
        return {}
    exact = {id_: percent * total / whole for id_, percent in split.items()}
    floors = {id_: int(share) for id_, share in exact.items()}
    by_remainder: Sequence[str] = sorted(exact, key=lambda id_: floors[id_] - exact[id_])
    for id_ in by_remainder[: total - sum(floors.values())]:
        floors[id_] += 1
    return {id_: share for id_, share in floors.items() if share}


def _deployed(one: aiplatform_v1.DeployedModel, split: Mapping[str, int]) -> Deployed:
    resources = one.dedicated_resources
    least, most = resources.min_replica_count, resources.max_replica_count
    number = str(least) if most in (0, least) else f"{least} to {most}"
    return Deployed(
        id=one.id,
        model_id=one.model.rpartition("/")[2].partition("@")[0],
        version=one.model_version_id or one.model.partition("@")[2],
        percent=split.get(one.id, 0),
        machines=f"{number} {resources.machine_spec.machine_type}" if least else "",
    )


def _age(one: Deployed) -> int:
    return int(one.version) if one.version.isdigit() else 0
