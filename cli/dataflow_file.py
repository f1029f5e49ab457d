"""The file of `--dataflow`: where a job runs and on what; and that nothing of it is on this machine only."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import ValidationError

    from cloud.dataflow import DataflowSettings

_STORE = "gs://"

dataflow_option = click.option(
    "--dataflow",
    "dataflow_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run on Dataflow, as this YAML file says (docs/dataflow.md).",
)


def read(path: Path) -> DataflowSettings:
    """The settings in a YAML file.

    Raises:
      DataflowError: naming file, key and what is wanted, one line a fault.
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from cloud.dataflow import DataflowError, DataflowSettings

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataflowError(f"{path}: no YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise DataflowError(f"{path}: want keys and values, such as `region: europe-west1`")
    try:
        # JSON has no dates: what YAML takes for one stays the text that a label is.
        return TypeAdapter(DataflowSettings).validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise DataflowError("\n".join(f"{path}: {fault}" for fault in _faults(error))) from None
    except DataflowError as error:
        raise DataflowError(f"{path}: {error}") from error


def require_in_store(option: str, place: str) -> None:
    """Refuses a place that only this machine has.

    Raises:
      click.UsageError: naming option and place.
    """
    if not place.startswith(_STORE):
        raise click.UsageError(
            f"{option} {place}: with --dataflow it has to be where the workers can reach it: gs://BUCKET/..."
        )


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        match fault["type"]:
            case "unexpected_keyword_argument":
                yield f"{key}: unknown key; {_known(key)}"
            case "missing":
                yield f"{key}: missing; this key is required"
            case _:
                yield f"{key} {_shown(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _known(key: str) -> str:
    from cloud.dataflow import DataflowSettings

    names = [field.name for field in dataclasses.fields(DataflowSettings)]
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None) else f"({type(value).__name__})"
