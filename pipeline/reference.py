"""Writes `docs/configuration.md` and `docs/environments.md` from the dataclasses: `python -m pipeline.reference`."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from pipeline.config import Config
from pipeline.environment import Environment
from pipeline.layers import member_types

_DOCS = Path(__file__).resolve().parent.parent / "docs"

_CONFIGURATION = """\
# Configuration

One YAML file describes a pipeline. Relative paths start at the folder of the file. Every key is checked before
anything runs: `headworks check FILE`. Any key can be set for one run: `headworks run FILE --set train.epochs=3`.

This page is generated from the dataclasses (`python -m pipeline.reference`); a test keeps it fresh.
"""


_ENVIRONMENTS = """\
# Environments

An environment says where a compiled pipeline runs: a YAML file in the folder `environments` beside the configuration.
`base.yaml`, if there is one, is read first; `NAME.yaml` adds to it and replaces what it says. Groups are merged key by
key, but one that says to be of another `kind` replaces the other whole. Under `config` stands what the environment
changes in the configuration. `headworks compile FILE --env NAME` reads them; [cloud](cloud.md) tells the way there.

This page is generated from the dataclasses (`python -m pipeline.reference`); a test keeps it fresh.
"""


@dataclasses.dataclass(frozen=True)
class Page:
    """A reference page: its file, what stands first, and the dataclass whose keys it lists."""

    file: Path
    head: str
    root: Any

    def text(self) -> str:
        """The page in Markdown."""
        return "\n".join((self.head, *(_section(owner) for owner in _owners(self.root))))


PAGES = (
    Page(_DOCS / "configuration.md", _CONFIGURATION, Config),
    Page(_DOCS / "environments.md", _ENVIRONMENTS, Environment),
)


def _owners(root: Any) -> list[Any]:
    """Every dataclass below a root, that one first, each once, in the order of its key."""
    owners: list[Any] = []

    def visit(owner: Any) -> None:
        if owner in owners:
            return
        owners.append(owner)
        for field in dataclasses.fields(owner):
            for member in member_types(owner, field.name):
                visit(member)

    visit(root)
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
    for page in PAGES:
        page.file.write_text(page.text(), encoding="utf-8")
