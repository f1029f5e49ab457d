"""YAML files read into frozen dataclasses and checked once: every error names file, line, key, value and remedy.

Files may lie in layers: a later one adds to the earlier ones and replaces what they say.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

_TAGS = ("kind", "by")
"""Keys that say which of several groups a group is."""

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message has one line per fault."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A YAML file, or the group of it under `group`; a file without that group adds nothing.

    Attributes:
      path: of the file.
      group: key of the first level; None: the whole file.
      may_be_empty: whether a file may hold nothing but comments.
    """

    path: Path
    group: str | None = None
    may_be_empty: bool = False


@dataclasses.dataclass(frozen=True)
class Read(Generic[T]):
    """Checked settings, and where each dotted key was set: `FILE:LINE`, or the override."""

    value: T
    lines: Mapping[str, str]


def read(kind: type[T], layers: Sequence[Layer], overrides: Sequence[str] = ()) -> Read[T]:
    """Reads and checks settings.

    Args:
      kind: the dataclass to make.
      layers: the files, the first one required to hold something.
      overrides: `dotted.key=value` assignments, values in YAML.

    Raises:
      ConfigError: naming file, line, key, value and remedy, one line per fault.
    """
    nodes: list[_Node] = []
    data: dict[str, Any] = {}
    for layer in layers:
        root = _compose(layer.path)
        if root is None:
            if layer.may_be_empty:
                continue
            raise ConfigError(f"{layer.path}: the file is empty")
        whole = _plain(root, layer.path, ())
        if not isinstance(whole, dict):
            raise ConfigError(f"{layer.path}: the file must hold keys and values, not {type(whole).__name__}")
        node, values = (root, whole) if layer.group is None else _group(root, whole, layer)
        if node is not None:
            decided: set[tuple[str, ...]] = set()
            data = _merged(data, values, decided)
            nodes.append(_Node(layer.path, node, frozenset(decided)))
    for override in overrides:
        _assign(data, override)
    places = _Places(nodes, overrides)
    try:
        value = TypeAdapter(kind).validate_json(json.dumps(data))  # strict, yet lists may be tuples
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(error, places, data, kind))) from None
    return Read(value, {".".join(loc): places.of(loc) for loc in _locations(data)})


@dataclasses.dataclass(frozen=True)
class _Node:
    """A file, and the places where it replaces all that earlier files say."""

    path: Path
    root: yaml.Node
    decided: frozenset[tuple[str, ...]]

    def decides(self, loc: Sequence[str | int]) -> bool:
        return any(tuple(map(str, loc[:depth])) in self.decided for depth in range(1, len(loc) + 1))


def _group(
    root: yaml.Node, whole: Mapping[str, Any], layer: Layer
) -> tuple[yaml.Node | None, dict[str, Any]]:
    assert isinstance(root, yaml.MappingNode), "its value is a dict"
    values = whole.get(str(layer.group))
    if values is None:
        return None, {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{layer.group}: {values!r} is a {type(values).__name__}; it must be a group of keys ({layer.path})"
        )
    return next(v for k, v in root.value if str(k.value) == layer.group), values


def _merged(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    decided: set[tuple[str, ...]],
    parents: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Groups are merged key by key; one that says to be of another kind, and everything else, is replaced.

    What was replaced is added to `decided`.
    """
    merged = dict(below)
    for key, value in above.items():
        there, loc = merged.get(key), (*parents, key)
        if isinstance(there, dict) and isinstance(value, dict) and not _is_other_kind(there, value):
            merged[key] = _merged(there, value, decided, loc)
        else:
            merged[key] = value
            decided.add(loc)
    return merged


def _is_other_kind(there: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return any(tag in value and value[tag] != there.get(tag) for tag in _TAGS)


def _locations(data: Mapping[str, Any], parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (*parents, key)
        if isinstance(value, dict):
            yield from _locations(value, (*parents, key))


def _compose(path: Path) -> yaml.Node | None:
    """The file as YAML; None if it holds nothing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; make one with: headworks init --data FILE --label COLUMN"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    return node


class _Loader(yaml.SafeLoader):
    """YAML in which dates stay text, so that they are checked like every other value."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _plain(node: yaml.Node, path: Path, loc: tuple[str, ...]) -> Any:
    """The node's value; refuses a key given twice, of which YAML would silently keep the last."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in seen:
                raise ConfigError(
                    f"{'.'.join((*loc, key))}: given twice ({path}:{key_node.start_mark.line + 1})"
                )
            seen[key] = _plain(value_node, path, (*loc, key))
        return seen
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, path, (*loc, str(index))) for index, child in enumerate(node.value)]
    loader = _Loader("")
    try:
        return loader.construct_object(node)
    finally:
        loader.dispose()


def _assign(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"--set {override}: write it as key.key=value")
    *parents, last = dotted.split(".")
    place: Any = data
    for key in parents:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a group of keys")
    try:
        place[last] = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error


class _Places:
    """Finds the line on which a key stands: in the last file that has it."""

    def __init__(self, nodes: Sequence[_Node], overrides: Sequence[str]):
        self._nodes = nodes
        self._overrides = {override.partition("=")[0]: override for override in overrides}

    def of(self, loc: Sequence[str | int]) -> str:
        dotted = ".".join(str(key) for key in loc)
        for name, override in self._overrides.items():
            if dotted == name or dotted.startswith(f"{name}."):
                return f"--set {override}"
        found = []
        for node in reversed(self._nodes):
            found.append((node.path, *_deepest(node.root, loc)))
            if node.decides(loc):
                break
        # Of files that go equally deep, the last one decides.
        path, line, _ = max(found, key=lambda place: place[2])
        return f"{path}:{line}"


def _deepest(node: yaml.Node, loc: Sequence[str | int]) -> tuple[int, int]:
    """The line of a key, or of the nearest group around it, and how many of the keys were found."""
    line = 1
    for depth, key in enumerate(loc):
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if str(k.value) == str(key)]
            if not found:
                return line, depth
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line, len(loc)


def _faults(error: ValidationError, places: _Places, data: Mapping[str, Any], owner: Any) -> Iterator[str]:
    """One line per fault, in the words of this project."""
    for fault in error.errors(include_url=False):
        loc = _keys(fault["loc"], data)
        place = places.of(loc)
        name = ".".join(str(key) for key in loc)
        value = fault["input"]
        match fault["type"]:
            case "unexpected_keyword_argument":
                yield f"{name}: unknown key{_did_you_mean(loc, data, owner)} ({place})"
            case "missing" | "missing_argument":
                yield f"{name}: missing; this key is required ({place})"
            case "union_tag_not_found":
                key = str(fault["ctx"]["discriminator"]).strip("'")
                yield f"{name}.{key}: missing; this key is required ({place})"
            case "union_tag_invalid":
                key = str(fault["ctx"]["discriminator"]).strip("'")
                given = value.get(key) if isinstance(value, dict) else value
                tags = fault["ctx"]["expected_tags"]
                yield f"{name}.{key}: {given!r} is not one of {tags} ({places.of((*loc, key))})"
            case "value_error":
                yield f"{name or 'file'}: {fault['ctx']['error']} ({place})"
            case "dataclass_type":
                yield f"{name}: {value!r} is a {type(value).__name__}; it must be a group of keys ({place})"
            case "string_pattern_mismatch" if wanted := _meaning(loc, data, owner):
                yield f"{name}: {value!r} is not of the form that is wanted: {wanted} ({place})"
            case _:
                yield f"{name}: {value!r}: {fault['msg'][0].lower()}{fault['msg'][1:]} ({place})"


def _keys(loc: Sequence[str | int], data: Any) -> tuple[str | int, ...]:
    """The part of a pydantic location that a user wrote: union tags and type names are dropped."""
    keys: list[str | int] = []
    place = data
    for index, key in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(place, dict) and (
            key in place or (is_last and isinstance(key, str) and key.isidentifier())
        ):
            keys.append(key)
            place = place.get(key)
        elif isinstance(place, list | tuple) and isinstance(key, int):
            keys.append(key)
            place = place[key] if key < len(place) else None
    return tuple(keys)


def _did_you_mean(loc: Sequence[str | int], data: Mapping[str, Any], owner: Any) -> str:
    *parents, key = loc
    holder = _owner_at(parents, data, owner)
    known = [field.name for field in dataclasses.fields(holder)] if holder else []
    close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _meaning(loc: Sequence[str | int], data: Mapping[str, Any], owner: Any) -> str | None:
    """What the reference says of a key."""
    *parents, key = loc
    holder = _owner_at(parents, data, owner)
    field = getattr(holder, "__pydantic_fields__", {}).get(str(key))
    return field.description if field is not None else None


def _owner_at(parents: Sequence[str | int], data: Any, owner: Any) -> Any:
    """The dataclass that stands at a place; None where there is none."""
    candidates: list[Any] = [owner]
    for key in parents:
        data = data[key]
        types = [t for c in candidates for t in member_types(c, key)]
        tagged = [t for t in types if not isinstance(data, dict) or _fits_tag(t, data)]
        candidates = tagged or types
    return candidates[0] if candidates and dataclasses.is_dataclass(candidates[0]) else None


def member_types(owner: Any, key: str | int) -> list[Any]:
    """The dataclasses that may stand under a key of a dataclass (several for a tagged union)."""
    hints = typing.get_type_hints(owner)
    if key not in hints:  # the key of a mapping or the index of a list whose members are `owner`
        return [owner]
    return list(_dataclasses_in(hints[str(key)]))


def _dataclasses_in(hint: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from _dataclasses_in(argument)


def _fits_tag(owner: Any, data: Mapping[str, Any]) -> bool:
    hints = typing.get_type_hints(owner)
    return all(
        data[key] in typing.get_args(hints[key])
        for key in _TAGS
        if key in hints and key in data and typing.get_origin(hints[key]) is Literal
    )
