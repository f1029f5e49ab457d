"""The commands for Vertex AI as a user calls them, against the service on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from click import Command
from click.testing import CliRunner, Result

from cli.schedule import schedule
from cli.status import status
from cli.submit import submit
from tests.cloud.compiled_job import CODE, ENVIRONMENT, bigquery_job, job, write_environment
from tests.cloud.pipeline_service import PipelineService, serving

_COMMANDS: dict[str, Command] = {"submit": submit, "schedule": schedule, "status": status}


@dataclass
class Desk:
    """A folder with a configuration, its environment and a compiled job, and the service that they go to."""

    folder: Path
    server: PipelineService
    config: Path
    spec: Path

    def call(self, name: str, *arguments: object) -> Result:
        """A command in the environment `prod`; one that takes a job is given the one in `spec`."""
        given = [self.config, "--env", "prod", "--endpoint", self.server.endpoint, *arguments]
        return CliRunner().invoke(_COMMANDS[name], [str(argument) for argument in given])

    def read_bigquery(self) -> None:
        """Puts a job into `spec` that reads tables as of a time."""
        self.spec.write_text(json.dumps(bigquery_job(self.server.push({"dev.headworks.code": CODE}))))

    def submit(self, *arguments: object) -> Result:
        return self.call("submit", "--spec", self.spec, "--skip-check", "code", *arguments)

    def schedule(self, *arguments: object) -> Result:
        return self.call("schedule", "--spec", self.spec, "--skip-check", "code", *arguments)

    @property
    def made(self) -> list[str]:
        """Methods and paths of what was asked of the service beside reading."""
        return [f"{call.method} {call.path}" for call in self.server.calls if call.method != "GET"]


@contextmanager
def desk(folder: Path, environment: str = ENVIRONMENT) -> Iterator[Desk]:
    with serving() as server:
        config = write_environment(folder, text=environment)
        spec = folder / "job.json"
        spec.write_text(json.dumps(job(server.push({"dev.headworks.code": CODE}))))
        yield Desk(folder, server, config, spec)
