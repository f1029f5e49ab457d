"""Writes `docs/configuration.md` from the configuration's dataclasses: `python -m pipeline.reference`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from pipeline.config import Config
from pipeline.layers import member_types

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

_HEAD = """\
# Configuration

One YAML file describes a pipeline. Relative paths start at the folder of the file. Every key is checked before
anything runs: `headworks check FILE`. Any key can be set for one run: `headworks run FILE --set train.epochs=3`.

This page is generated from the dataclasses (`python -m pipeline.reference`); a test keeps it fresh.
"""


def page() -> str:
    """The reference page in Markdown."""
    return "\n".join((_HEAD, *(_section(owner) for owner in _owners())))


def _owners() -> list[Any]:
    """Every dataclass of the configuration, the root first, each once, in the order of its key."""
    owners: list[Any] = []

    def visit(owner: Any) -> None:
        if owner in owners:
            return
        owners.append(owner)
        for field in dataclasses.fields(owner):
            for member in member_types(owner, field.name):
                visit(member)

    visit(Config)
    return owners


def _section(owner: Any) -> str:
    lines = [
        f"## {_title(owner)}",
        "",
        _text(owner),
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += list(_rows(owner))
    return "\n".join((*lines, ""))


def _title(owner: Any) -> str:
    first = (owner.__doc__ or "").splitlines()[0]
    return f"{first.partition('`: ')[0]}`" if first.startswith("`") else "The file"


def _text(owner: Any) -> str:
    first = (owner.__doc__ or "").splitlines()[0]
    text = first.partition("`: ")[2] if first.startswith("`") else first
    return text[:1].upper() + text[1:]


def _rows(owner: Any) -> Iterator[str]:
    hints = typing.get_type_hints(owner)
    for name, info in owner.__pydantic_fields__.items():
        default = "required" if info.is_required() else _default(info)
        meaning = (info.description or "Names this form.").replace("|", "\\|")
        yield f"| `{name}` | {_kind(hints[name])} | {default} | {meaning} |"


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ""
    if value in ({}, ()):
        return "empty"
    if dataclasses.is_dataclass(value):
        return "see below"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(item) if item != "" else '""' for item in value) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "group"
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return " or ".join(f"`{argument}`" for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(argument) for argument in arguments))
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"names to {_kind(arguments[1])}"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(hint, "any")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
