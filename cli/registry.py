"""`headworks registry`: pushed versions in the Model Registry of Vertex AI, and at an endpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.tables import display
from cli.vertex_options import environment_options, target_of

if TYPE_CHECKING:
    from cloud.endpoints import Endpoint
    from cloud.vertex_api import Vertex
    from pipeline.environment import Place, RegistrySettings

_SERVING = "serving"


class _Share(click.ParamType[tuple[str, int]]):
    """`VERSION=PERCENT`."""

    name = "VERSION=PERCENT"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        version, _, percent = value.partition("=")
        if not version or not percent.isdecimal():
            self.fail(f"{value!r}: write it as VERSION=PERCENT, such as 3=90", param, ctx)
        return version, int(percent)


@click.group("registry")
def registry() -> None:
    """Register pushed versions at Vertex AI, and deploy them at an endpoint.

    The group `registry` of the environment says the model's id, the endpoint and its machines. A VERSION is a number of
    the registry, or an alias, as `list` shows them.
    """


@registry.command("list")
@environment_options
def list_versions(config: Path, environment: str, endpoint: str | None) -> None:
    """List the versions of the model, and the share of the endpoint's traffic that each has."""
    from rich.table import Table

    from cloud.model_registry import versions

    work = _Work.of(config, environment, endpoint)
    known = versions(work.api, work.settings.model)
    if not known:
        click.echo(
            f"model {work.settings.model}: no version yet; register one with: headworks registry upload"
        )
        return
    deployed = work.shares()
    table = Table(box=None, pad_edge=False)
    for heading in ("version", "aliases", "serving/", "run", "traffic"):
        table.add_column(heading)
    for one in known:
        run = one.labels.get("headworks-run", "")
        share = f"{deployed[one.version]}%" if one.version in deployed else ""
        table.add_row(one.version, " ".join(one.aliases), one.serving_version, run, share)
    display(table)
    click.echo(
        f"to score files with one: headworks predict --via vertex-batch --vertex-model {known[-1].resource}"
    )


@registry.command("upload")
@environment_options
@click.option(
    "--version-folder",
    metavar="FOLDER",
    help="A pushed version, or a serving folder, whose newest is taken. Absent: that of CONFIG below the "
    "environment's root.",
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="The evidence.json of the run's ModelGate, or its folder: becomes the version's evaluation.",
)
@click.option("--dry-run", is_flag=True, help="Print the requests of a first upload, and send none.")
def upload(
    config: Path,
    environment: str,
    endpoint: str | None,
    version_folder: str | None,
    evidence: Path | None,
    dry_run: bool,
) -> None:
    """Register a pushed version: with its evaluation, if it is given, and the aliases of the environment.

    A version that is registered already is found, and only what it lacks is added.
    """
    from cloud import model_evaluation, model_registry
    from cloud.vertex_api import Rehearsal

    work = _Work.of(config, environment, endpoint)
    place = work.place
    image = work.settings.image or place.require("image")
    settings = model_registry.Upload(work.settings, image, place.settings.labels, place.settings.kms_key)
    evaluation = model_evaluation.read(evidence) if evidence else None
    candidate = model_registry.read(version_folder or _serving_folder(config, place))
    if not dry_run:
        model_registry.register(work.api, candidate, settings, evaluation, click.echo)
        return
    rehearsal = Rehearsal(target_of(place, endpoint))
    model_registry.register(rehearsal, candidate, settings, evaluation)
    click.echo(json.dumps([{call.method: call.request} for call in rehearsal.calls], indent=2))


@registry.command("deploy")
@environment_options
@click.option("--version", help="Absent: the newest.")
@click.option(
    "--traffic",
    type=click.IntRange(0, 100),
    metavar="PERCENT",
    help="Of the requests for this version; the others keep their proportions. Absent: as the environment says.",
)
def deploy(
    config: Path, environment: str, endpoint: str | None, version: str | None, traffic: int | None
) -> None:
    """Have a version answer at the endpoint, which is made if it is not there. Takes many minutes."""
    from cloud import endpoints
    from cloud.model_registry import choose, versions

    work = _Work.of(config, environment, endpoint)
    settings = work.place.settings
    chosen = choose(versions(work.api, work.settings.model), work.settings.model, version)
    there = endpoints.find_or_create(
        work.api, work.endpoint_id, settings.labels, settings.kms_key, click.echo
    )
    percent = work.settings.traffic_percent if traffic is None else traffic
    endpoints.deploy(work.api, there, chosen, work.settings, percent, click.echo)


@registry.command("undeploy")
@environment_options
@click.argument("version")
@click.option("--force", is_flag=True, help="Also the last one that answers.")
def undeploy(config: Path, environment: str, endpoint: str | None, version: str, force: bool) -> None:
    """Take VERSION away from the endpoint; the others take over its traffic in proportion."""
    from cloud import endpoints

    work = _Work.of(config, environment, endpoint)
    gone = endpoints.undeploy(work.api, work.endpoint(), work.number_of(version), force=force)
    click.echo(f"undeployed: {gone}, which had {gone.percent}% of the traffic")


@registry.command("traffic")
@environment_options
@click.argument("shares", nargs=-1, required=True, type=_Share())
def traffic(
    config: Path, environment: str, endpoint: str | None, shares: tuple[tuple[str, int], ...]
) -> None:
    """Set the traffic to SHARES, such as 3=90 4=10; versions that are not named get none."""
    from cloud import endpoints

    work = _Work.of(config, environment, endpoint)
    by_number = {work.number_of(version): percent for version, percent in shares}
    if len(by_number) < len(shares):
        raise click.UsageError("SHARES name a version twice")
    endpoints.set_traffic(work.api, work.endpoint(), by_number)
    click.echo("traffic: " + ", ".join(f"version {v} {percent}%" for v, percent in by_number.items()))


@registry.command("rollback")
@environment_options
def rollback(config: Path, environment: str, endpoint: str | None) -> None:
    """Give all traffic to the version before the newest one that has any. Aliases stay where they are."""
    from cloud import endpoints

    work = _Work.of(config, environment, endpoint)
    before, now = endpoints.roll_back(work.api, work.endpoint())
    click.echo(f"rolled back: all traffic from {before} to {now}")


@dataclass(frozen=True)
class _Work:
    """What all sub-commands begin with."""

    place: Place
    settings: RegistrySettings
    api: Vertex

    @classmethod
    def of(cls, config: Path, environment: str, address: str | None) -> _Work:
        from cloud.vertex_api import Vertex
        from pipeline import environment as environments

        place = environments.load(config, environment)
        place.require("registry")
        assert place.settings.registry is not None
        return cls(place, place.settings.registry, Vertex(target_of(place, address)))

    @property
    def endpoint_id(self) -> str:
        from pipeline.layers import ConfigError

        if self.settings.endpoint is None:
            raise ConfigError(f"registry.endpoint: missing; set it in {self.place.layers[-1].path}")
        return self.settings.endpoint

    def endpoint(self) -> Endpoint:
        from cloud import endpoints

        return endpoints.find(self.api, self.endpoint_id)

    def number_of(self, version: str) -> str:
        """The number of a version that is named by it, or by an alias."""
        from cloud.model_registry import choose, versions

        if version.isdecimal():
            return version
        return choose(versions(self.api, self.settings.model), self.settings.model, version).version

    def shares(self) -> dict[str, int]:
        """Percent by version; empty without an endpoint."""
        from cloud.vertex_api import NotThereError

        try:
            found = self.endpoint() if self.settings.endpoint else None
        except NotThereError:
            found = None
        return {one.version: one.percent for one in found.deployed} if found else {}


def _serving_folder(config: Path, place: Place) -> str:
    """Where the compiled pipeline of an environment pushes to."""
    from pipeline.config import load
    from pipeline.mounts import is_remote

    settings = load(config, (), place.layers).config
    if settings.push.folder and is_remote(settings.push.folder):
        return settings.push.folder
    return f"{place.require('root').rstrip('/')}/{settings.name}/{_SERVING}"
