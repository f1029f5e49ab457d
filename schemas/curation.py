"""Curating the schema: what would change if it followed the data, and a file in which exactly the chosen part has.

What the data ask for is TFDV's own proposal; this compares it with the curated schema, column by column, and takes
over what a person named. Knows no TensorFlow.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

FORMER = ".former"
"""Suffix of the copy of the file as it was before the last change."""
_MOST_VALUES = 8
_RANGES = ("int_domain", "float_domain", "bool_domain")
_DOMAIN = "domain_info"
_QUOTED = re.compile(r"""(["'])(\\.|(?!\1).)*\1""")


class CurationError(Exception):
    """Nothing was written; the message says why."""


class Kind(StrEnum):
    """What about a column would change."""

    NEW = "new"
    GONE = "gone"
    TYPE = "type"
    VALUES = "values"
    RANGE = "range"
    PRESENCE = "presence"
    COUNT = "count"
    OTHER = "other"


_FIELDS: Mapping[Kind, tuple[str, ...]] = {
    Kind.PRESENCE: ("presence", "group_presence"),
    Kind.COUNT: ("value_count", "value_counts", "shape"),
    Kind.OTHER: ("distribution_constraints", "unique_constraints"),
}


@dataclass(frozen=True)
class Change:
    """One thing about one column.

    Attributes:
      column: its name.
      kind: what would change.
      words: what the data say, what the schema says, and what accepting it means.
    """

    column: str
    kind: Kind
    words: str

    @property
    def name(self) -> str:
        """What `accept` takes: `COLUMN:KIND`."""
        return f"{self.column}:{self.kind.value}"


@dataclass(frozen=True)
class Proposal:
    """A schema that fits the data.

    Attributes:
      updated: TFDV's update of the curated schema.
      inferred: what TFDV infers from the data alone.
    """

    updated: schema_pb2.Schema
    inferred: schema_pb2.Schema


def changes(current: schema_pb2.Schema, proposal: Proposal) -> tuple[Change, ...]:
    """What differs between a curated schema and the proposal, in the order of the columns."""
    before, after = _columns(current), _columns(_target(current, proposal))
    found = [change for name in before for change in _changes_of(before[name], after[name])]
    new = (Change(name, Kind.NEW, _new_words(after[name])) for name in after if name not in before)
    return (*found, *new)


def chosen(there: Sequence[Change], names: Iterable[str]) -> tuple[Change, ...]:
    """The changes that were named: a column for all of its changes, or `COLUMN:KIND`.

    Raises:
      CurationError: if a name matches no change; it says which there are.
    """
    found: list[Change] = []
    for name in names:
        matching = [change for change in there if name in (change.column, change.name)]
        if not matching:
            known = [change.name for change in there]
            close = difflib.get_close_matches(name, [*known, *(change.column for change in there)], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise CurationError(f"{name}: no such change{hint}; there are: {', '.join(known) or 'none'}")
        found += matching
    return tuple(change for change in there if change in found)


def accepted(current: schema_pb2.Schema, proposal: Proposal, accept: Collection[Change]) -> schema_pb2.Schema:
    """The curated schema with these changes of the proposal, and no other."""
    result = schema_pb2.Schema()
    result.CopyFrom(current)
    target = _columns(_target(current, proposal))
    columns = {column.name: column for column in result.feature}
    for change in accept:
        if change.kind is Kind.NEW:
            result.feature.append(target[change.column])
        else:
            _take_over(result, columns[change.column], target[change.column], change.kind)
    return result


def text_of(schema: schema_pb2.Schema, former: str) -> str:
    """A schema as text, under the comments that the former text begins with."""
    return "".join(_head(former)) + text_format.MessageToString(schema)


def loses_comments(former: str) -> bool:
    """Whether a text has comments that `text_of` cannot keep: those further down."""
    below = former.splitlines(keepends=True)[len(_head(former)) :]
    return any("#" in _QUOTED.sub("", line) for line in below)


def replace_file(path: Path, text: str, former: str) -> Path:
    """Writes the schema in one step, and keeps a copy of the former file beside it.

    Args:
      path: the curated schema.
      text: its new content.
      former: the content that the changes were made to.

    Returns:
      The copy.

    Raises:
      CurationError: if somebody changed the file meanwhile, or it cannot be written.
    """
    copy, partial = path.with_name(path.name + FORMER), path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.read_text(encoding="utf-8") != former:
            raise CurationError(f"{path}: changed by somebody else meanwhile; look at the diff again")
        shutil.copyfile(path, copy)
        shutil.copymode(path, partial)
        partial.replace(path)
    except OSError as error:
        raise CurationError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return copy


def _head(text: str) -> list[str]:
    head = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            break
        head.append(line)
    return head


def _columns(schema: schema_pb2.Schema) -> dict[str, schema_pb2.Feature]:
    """The columns by name, each with its own list of values, also where columns share one."""
    shared = {domain.name: domain for domain in schema.string_domain}
    found = {}
    for column in schema.feature:
        alone = schema_pb2.Feature()
        alone.CopyFrom(column)
        if column.domain in shared:
            alone.string_domain.CopyFrom(shared[column.domain])
        found[column.name] = alone
    return found


def _target(current: schema_pb2.Schema, proposal: Proposal) -> schema_pb2.Schema:
    """TFDV's update, but for columns of another type: it calls them deprecated although the data have them."""
    target = schema_pb2.Schema()
    target.CopyFrom(proposal.updated)
    before, inferred = _columns(current), _columns(proposal.inferred)
    for column in target.feature:
        old, found = before.get(column.name), inferred.get(column.name)
        if old is None or found is None or column.lifecycle_stage == old.lifecycle_stage:
            continue
        if found.type not in (schema_pb2.TYPE_UNKNOWN, old.type):
            environments = (list(old.in_environment), list(old.not_in_environment))
            column.CopyFrom(found)
            column.in_environment[:], column.not_in_environment[:] = environments
    return target


def _changes_of(before: schema_pb2.Feature, after: schema_pb2.Feature) -> Iterator[Change]:
    name = before.name
    if after.lifecycle_stage != before.lifecycle_stage:
        yield Change(
            name,
            Kind.GONE,
            "the data no longer have this column. Accepted, the schema calls it deprecated and it is no input any "
            "more; otherwise every run is refused until it is back",
        )
        return
    if after.type != before.type:
        yield Change(
            name,
            Kind.TYPE,
            f"the data hold {_type(after)}, the schema says {_type(before)}. Accepted, the type and the values or "
            "range that go with it follow the data; a model that serves cannot read such rows",
        )
        return
    if _domain(before) != _domain(after):
        is_list = "string_domain" in (before.WhichOneof(_DOMAIN), after.WhichOneof(_DOMAIN))
        kind, words = (Kind.VALUES, _values_words) if is_list else (Kind.RANGE, _range_words)
        yield Change(name, kind, words(before, after))
    for kind, fields in _FIELDS.items():
        if changed := [field for field in fields if _field(before, field) != _field(after, field)]:
            yield Change(name, kind, _words(kind, before, after, changed))


def _words(kind: Kind, before: schema_pb2.Feature, after: schema_pb2.Feature, changed: Sequence[str]) -> str:
    match kind:
        case Kind.PRESENCE:
            return (
                f"{_present(after)} of the rows have a value, the schema wants {_present(before)}. Accepted, so "
                "many may be missing from now on"
            )
        case Kind.COUNT:
            return (
                f"rows have {_counts(after)} values, the schema wants {_counts(before)}. Accepted, the column "
                "becomes one of several values a row; check that a model can use it"
            )
        case _:
            return f"{', '.join(changed)}: the data break it. Accepted, it follows the data"


def _new_words(column: schema_pb2.Feature) -> str:
    present = f", in {_present(column)} of the rows" if column.presence.min_fraction else ""
    return (
        f"the schema does not list this column ({_type(column)}{present}). Accepted, it is an input of the model "
        "unless features.exclude names it, and clients send it"
    )


def _values_words(before: schema_pb2.Feature, after: schema_pb2.Feature) -> str:
    if after.WhichOneof(_DOMAIN) != "string_domain":
        return (
            "too many values that the schema does not list. Accepted, the schema lists none any more and any value "
            "passes"
        )
    known = set(before.string_domain.value)
    new = [value for value in after.string_domain.value if value not in known]
    more = f" and {len(new) - _MOST_VALUES} more" if len(new) > _MOST_VALUES else ""
    return (
        f"values that the schema does not list: {', '.join(map(repr, new[:_MOST_VALUES]))}{more}. Accepted, they "
        "pass; a model that was trained before takes them for unknown"
    )


def _range_words(before: schema_pb2.Feature, after: schema_pb2.Feature) -> str:
    return f"numbers {_range(after)}, the schema allows {_range(before)}. Accepted, the wider range passes"


def _range(column: schema_pb2.Feature) -> str:
    match column.WhichOneof(_DOMAIN):
        case "int_domain" | "float_domain" as kind:
            domain = getattr(column, kind)
            low = f"from {domain.min:g}" if domain.HasField("min") else "from any"
            return f"{low} to {domain.max:g}" if domain.HasField("max") else f"{low} on"
        case "bool_domain":
            return "from 0 to 1"
        case None:
            return "of any size"
        case other:
            return f"of {other}"


def _present(column: schema_pb2.Feature) -> str:
    share = column.presence.min_fraction
    return f"{100 * share:.4g} %" if share else "any share"


def _counts(column: schema_pb2.Feature) -> str:
    if column.WhichOneof("shape_type") != "value_count":
        return "any number of"
    low, high = column.value_count.min, column.value_count.max
    return f"{low}" if low == high else f"{low} to {high or 'any number of'}"


def _type(column: schema_pb2.Feature) -> str:
    return str(schema_pb2.FeatureType.Name(column.type))


def _domain(column: schema_pb2.Feature) -> object:
    kind = column.WhichOneof(_DOMAIN)
    if kind == "string_domain":
        return tuple(column.string_domain.value)
    return getattr(column, kind) if kind in _RANGES else kind


def _field(column: schema_pb2.Feature, field: str) -> object:
    return getattr(column, field) if column.HasField(field) else None


def _take_over(
    schema: schema_pb2.Schema, column: schema_pb2.Feature, target: schema_pb2.Feature, kind: Kind
) -> None:
    if kind is Kind.GONE:
        column.lifecycle_stage = target.lifecycle_stage
    elif kind is Kind.TYPE:
        column.type = target.type
        _take_domain(column, target)
    elif kind is Kind.VALUES and column.domain and target.WhichOneof(_DOMAIN) == "string_domain":
        [shared] = (domain for domain in schema.string_domain if domain.name == column.domain)
        shared.value[:] = target.string_domain.value
    elif kind in (Kind.VALUES, Kind.RANGE):
        _take_domain(column, target)
    else:
        for field in _FIELDS[kind]:
            column.ClearField(field)
            if target.HasField(field):
                getattr(column, field).CopyFrom(getattr(target, field))


def _take_domain(column: schema_pb2.Feature, target: schema_pb2.Feature) -> None:
    if former := column.WhichOneof(_DOMAIN):
        column.ClearField(former)
    if domain := target.WhichOneof(_DOMAIN):
        getattr(column, domain).CopyFrom(getattr(target, domain))
