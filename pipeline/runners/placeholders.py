"""Placeholders in the commands and texts of a specification: `{{$.inputs.parameters['span']}}` and others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OF_THE_JOB = (
    "pipeline_job_name",
    "pipeline_job_resource_name",
    "pipeline_job_uuid",
    "pipeline_job_create_time_utc",
    "pipeline_job_schedule_time_utc",
    "pipeline_task_name",
    "pipeline_task_uuid",
    "pipeline_root",
)
_ANY = re.compile(r"\{\{\$(.*?)\}\}")
_KEY = r"\[(?:'([^']+)'|\"([^\"]+)\")\]"
_INPUT_PARAMETER = re.compile(rf"\.inputs\.parameters{_KEY}")
_OUTPUT_PARAMETER = re.compile(rf"\.outputs\.parameters{_KEY}\.output_file")
_ARTIFACT = re.compile(rf"\.(inputs|outputs)\.artifacts{_KEY}\.(uri|path|name|value|metadata)(?:{_KEY})?")
_OUTPUT_FILE = (".outputs.output_file", ".outputMetadataUri")


class PlaceholderError(Exception):
    """A placeholder that stands for nothing."""


@dataclass(frozen=True)
class Scope:
    """What placeholders stand for: the task's ExecutorInput as JSON, and facts of job and task by name."""

    executor_input: Mapping[str, Any]
    facts: Mapping[str, str]

    def resolve(self, text: str) -> str:
        """The text with every placeholder replaced, once: what a value brings in is left alone.

        Raises:
          PlaceholderError: naming a placeholder that stands for nothing.
        """
        return _ANY.sub(lambda found: _as_text(self._value(found[1])), text)

    def _value(self, expression: str) -> Any:
        message = self.executor_input
        if expression == "":
            return message
        if expression in _OUTPUT_FILE:
            return message["outputs"]["outputFile"]
        if expression.removeprefix(".") in self.facts:
            return self.facts[expression.removeprefix(".")]
        if found := _INPUT_PARAMETER.fullmatch(expression):
            return self._of(message["inputs"].get("parameterValues", {}), found[1] or found[2], expression)
        if found := _OUTPUT_PARAMETER.fullmatch(expression):
            files = message["outputs"].get("parameters", {})
            return self._of(files, found[1] or found[2], expression)["outputFile"]
        if found := _ARTIFACT.fullmatch(expression):
            return self._of_artifact(found, expression)
        raise PlaceholderError(f"{{{{${expression}}}}}: not a placeholder that is known here")

    def _of_artifact(self, found: re.Match[str], expression: str) -> Any:
        side, key, field = found[1], found[2] or found[3], found[4]
        entry = self._of(self.executor_input[side].get("artifacts", {}), key, expression)
        if not entry["artifacts"]:
            raise PlaceholderError(f"{{{{${expression}}}}}: there is no artifact {key}")
        artifact = entry["artifacts"][0]
        match field:
            case "uri" | "path":
                return artifact["uri"]
            case "name":
                return artifact["name"]
            case "value":
                return _content(Path(artifact["uri"]), expression)
        metadata = artifact.get("metadata", {})
        inner = found[5] or found[6]
        return self._of(metadata, inner, expression) if inner else metadata

    def _of(self, values: Mapping[str, Any], key: str, expression: str) -> Any:
        if key not in values:
            raise PlaceholderError(f"{{{{${expression}}}}}: there is no {key}")
        return values[key]


def unknown(text: str) -> Iterator[str]:
    """Yields the placeholders of a text that are none."""
    for found in _ANY.finditer(text):
        expression = found[1]
        is_known = (
            expression in ("", *_OUTPUT_FILE)
            or expression.removeprefix(".") in OF_THE_JOB
            or any(kind.fullmatch(expression) for kind in (_INPUT_PARAMETER, _OUTPUT_PARAMETER, _ARTIFACT))
        )
        if not is_known:
            yield found[0]


def _content(path: Path, expression: str) -> str:
    """What an artifact that is a value holds; TFX writes it into a file of the artifact's folder."""
    file = path / "value" if path.is_dir() else path
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlaceholderError(f"{{{{${expression}}}}}: {file} cannot be read as text") from error


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
