"""What the containers of a compiled pipeline run: `python -m pipeline.container`, with the arguments that TFX compiles.

It is TFX's own entry point for Kubeflow Pipelines v2, with what our executors need around it: artifacts as folders of
this machine's file system (`pipeline.mounts`), outputs that are made on the machine's disk and copied when they are
whole, and inputs of which there are none left out.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.beam_options import brought_here
from pipeline.cluster_role import role
from pipeline.mounts import local_path, uri_of

COMMAND = ("python", "-m", "pipeline.container")
REHEARSAL = "HEADWORKS_REHEARSAL"
"""Environment variable: 1 where a compiled pipeline runs on this machine, and is to change nothing elsewhere."""
RUN_ID = "HEADWORKS_RUN_ID"
"""Environment variable: the name of the pipeline job."""
ABSENT = "absent"
"""Custom property of an artifact that stands for none: a task of a compiled pipeline puts out one of each."""

_REFUSED_FOLDER = "HEADWORKS_REFUSED_FOLDER"

_Json = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Runs one executor."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    given, beam = _parse(arguments)
    os.environ[RUN_ID] = given.run_id or ""
    call = json.loads(given.json_serialized_invocation_args)
    _leave_out_absent(call)
    if os.environ.get(REHEARSAL) == "1":
        beam = brought_here(beam)
    if _reads_buckets(given.executor_class_path) and not _of_scheme(call, ("minio://", "s3://")):
        _execute(given, call, beam)
    else:
        _execute_here(given, call, beam)


def _parse(arguments: Sequence[str]) -> tuple[Namespace, list[str]]:
    parser = ArgumentParser(prog="pipeline.container", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args")
    parser.add_argument("--run_id")
    return parser.parse_known_args(arguments)


def _reads_buckets(class_path: str) -> bool:
    """Whether an executor takes URIs of buckets: Beam's do, whose stages may run on other machines."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.utils import import_utils

    return issubclass(import_utils.import_class_by_path(class_path), BaseBeamExecutor)


def _execute(given: Namespace, call: _Json, beam: Sequence[str]) -> None:
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    # TFX's own parser of flags is absl's, which knows one program a process.
    kubeflow_v2_run_executor._run_executor(
        Namespace(**{**vars(given), "json_serialized_invocation_args": json.dumps(call)}), list(beam)
    )


def _execute_here(given: Namespace, call: _Json, beam: Sequence[str]) -> None:
    """With folders of this machine for all artifacts."""
    output_file = str(call["outputs"]["outputFile"])
    with tempfile.TemporaryDirectory(prefix="headworks-") as scratch, _refused(Path(scratch), output_file):
        # Machines that train together see each other's outputs, so those are made where they stay.
        is_alone = not role().is_clustered
        made = _localize(call, Path(scratch) if is_alone else None)
        call["outputs"]["outputFile"] = str(Path(scratch, "task", "executor_output.json"))
        _execute(given, call, beam)
        if not role().publishes:
            return
        for local, uri in made.items():
            _copy(Path(local), Path(local_path(uri)))
        output = json.loads(Path(call["outputs"]["outputFile"]).read_text(encoding="utf-8"))
        _each_artifact(output.get("artifacts", {}), lambda artifact: _as_given(artifact, made))
        _write(Path(local_path(output_file)), json.dumps(output))


def _as_given(artifact: _Json, made: Mapping[str, str]) -> None:
    uri = artifact.get("uri", "")
    artifact["uri"] = made.get(uri, uri_of(uri))


def _localize(call: _Json, scratch: Path | None) -> dict[str, str]:
    """Replaces URIs by paths, those of outputs by places below `scratch`; returns each such place with its URI."""
    made: dict[str, str] = {}

    def as_path(artifact: _Json) -> None:
        artifact["uri"] = local_path(artifact.get("uri", ""))

    def as_scratch(artifact: _Json) -> None:
        if scratch is None:
            as_path(artifact)
            return
        place = scratch / "outputs" / str(len(made)) / Path(artifact["uri"]).name
        made[str(place)] = artifact["uri"]
        artifact["uri"] = str(place)

    _each_artifact(call.get("inputs", {}).get("artifacts", {}), as_path)
    _each_artifact(call["outputs"].get("artifacts", {}), as_scratch)
    return made


def _leave_out_absent(call: _Json) -> None:
    for entry in call.get("inputs", {}).get("artifacts", {}).values():
        entry["artifacts"] = [
            artifact
            for artifact in entry.get("artifacts", ())
            if not artifact.get("metadata", {}).get(ABSENT)
        ]


def _of_scheme(call: _Json, schemes: tuple[str, ...]) -> bool:
    found: list[str] = []
    for part in ("inputs", "outputs"):
        _each_artifact(
            call.get(part, {}).get("artifacts", {}), lambda artifact: found.append(artifact["uri"])
        )
    return any(uri.startswith(schemes) for uri in found)


def _each_artifact(artifacts: Mapping[str, _Json], do: Callable[[_Json], None]) -> None:
    for entry in artifacts.values():
        for artifact in entry.get("artifacts", ()):
            do(artifact)


@contextmanager
def _refused(scratch: Path, output_file: str) -> Iterator[None]:
    """What a gate found that stops the run, beside where its outputs would have been."""
    found = scratch / "refused"
    os.environ[_REFUSED_FOLDER] = str(found)
    try:
        yield
    except Exception:
        if found.is_dir():
            kept = Path(local_path(output_file)).parent / "refused"
            _copy(found, kept)
            print(f"what was found: {uri_of(str(kept))}", file=sys.stderr)  # noqa: T201 (the log of the task)
        raise


def _copy(source: Path, target: Path) -> None:
    """Copies contents alone: a mounted bucket keeps no times and no permissions."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
