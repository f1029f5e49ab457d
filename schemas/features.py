"""Roles, types and kinds of a table's columns, read from a curated TFDV schema and the configuration.

A `FeatureSet` is the single description of a row that the transform graph, the network, the signatures and the
gates share. It knows no TensorFlow; it travels to workers as JSON.

Raw features are always treated as variable-length in the graph, whatever their presence in the schema, so that a
missing value is an ordinary value: it reaches the model as an imputed number plus an indicator, or as id 0.
"""

from __future__ import annotations

import difflib
import enum
import hashlib
import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

TRAINING = "TRAINING"
SERVING = "SERVING"

MISSING_INT = -(2**63)
"""What a client of the `serving_raw` signature sends for a missing integer. (float: NaN; string: "")."""

_NAME_IN_GRAPHS = re.compile("[A-Za-z][A-Za-z0-9_]*")

_UNIT = "unit:"

MISSING_ID = 0
"""The id of a missing value in every id column."""


class SchemaError(ValueError):
    """A schema, or an exception to it in the configuration, that cannot describe a row."""


class DType(enum.StrEnum):
    """The three value types of a tf.Example."""

    FLOAT = "float"
    INT = "int"
    BYTES = "bytes"


class Kind(enum.StrEnum):
    """How a raw feature becomes model columns."""

    NUMERIC = "numeric"
    BUCKETIZED = "bucketized"
    CATEGORICAL = "categorical"
    HASHED = "hashed"
    CYCLICAL = "cyclical"
    BOOLEAN = "boolean"
    TEXT = "text"
    ENCODED = "encoded"


ALLOWED_DTYPES: Mapping[Kind, frozenset[DType]] = {
    Kind.NUMERIC: frozenset({DType.FLOAT, DType.INT}),
    Kind.BUCKETIZED: frozenset({DType.FLOAT, DType.INT}),
    Kind.CATEGORICAL: frozenset({DType.INT, DType.BYTES}),
    Kind.HASHED: frozenset({DType.INT, DType.BYTES}),
    Kind.CYCLICAL: frozenset({DType.FLOAT, DType.INT}),
    Kind.BOOLEAN: frozenset({DType.INT}),
    Kind.TEXT: frozenset({DType.BYTES}),
    Kind.ENCODED: frozenset({DType.BYTES}),
}


class LabelKind(enum.StrEnum):
    """What is predicted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Form(enum.StrEnum):
    """What a model column holds: a float per row, an id, a padded list of ids, or the raw text or image."""

    DENSE = "dense"
    ID = "id"
    BAG = "bag"
    RAW = "raw"


@dataclass(frozen=True)
class ModelColumn:
    """One column that the transform graph produces and the network consumes.

    Attributes:
      name: the transformed feature's name.
      form: DENSE is float32 `[batch, width]`, ID int64 `[batch, 1]`, BAG int64 `[batch, width]` padded with 0,
        RAW string `[batch, 1]`, "" where missing.
      width: number of values per row.
      size: number of different ids, or None where the vocabulary decides it (see `vocabulary`).
      vocabulary: name of the tf.Transform vocabulary whose V entries give the ids 1..V (0 missing, V+1 unseen).
      encoder: RAW: path of the model that turns a value into numbers.
      is_fine_tuned: RAW: whether the encoder learns too.
    """

    name: str
    form: Form
    width: int = 1
    size: int | None = None
    vocabulary: str | None = None
    encoder: str | None = None
    is_fine_tuned: bool = False


@dataclass(frozen=True)
class Feature:
    """One raw input column and how it is prepared.

    Attributes:
      name: column name in the data, the schema and the signatures.
      dtype: value type in tf.Example.
      kind: the preparation.
      is_required: whether the schema demands the value in every row.
      log: NUMERIC: take sign(x)·log(1+|x|) before the z-score.
      buckets: BUCKETIZED: number of quantile buckets.
      vocabulary_size: CATEGORICAL, TEXT: keep the most frequent values only.
      min_count: CATEGORICAL, TEXT: a value seen less often counts as unseen.
      hash_buckets: HASHED: number of hash buckets.
      period: CYCLICAL: the value at which the cycle starts again (24 for an hour of the day).
      max_tokens: TEXT: longer texts are cut.
      encoder: ENCODED: path of a SavedModel or tf_keras model (`models/encoders.py` says what it must take and give).
      encoder_digest: ENCODED: what tells its weights from others, for caches.
      trainable: ENCODED: whether the encoder is fine-tuned.
    """

    name: str
    dtype: DType
    kind: Kind
    is_required: bool = False
    log: bool = False
    buckets: int = 10
    vocabulary_size: int = 10_000
    min_count: int = 1
    hash_buckets: int = 1_000
    period: float = 1.0
    max_tokens: int = 32
    encoder: str | None = None
    encoder_digest: str = ""
    trainable: bool = False

    @property
    def graph_name(self) -> str:
        """What the column is called in graphs, their files and the inputs of `serving_raw`."""
        return _graph_name(self.name)

    @property
    def vocabulary(self) -> str:
        """Name of the vocabulary that tf.Transform stores for this feature."""
        return f"{self.graph_name}_vocabulary"

    def columns(self) -> tuple[ModelColumn, ...]:
        """The model columns this feature becomes, in a fixed order."""
        name = self.graph_name
        match self.kind:
            case Kind.NUMERIC:
                values: tuple[ModelColumn, ...] = (ModelColumn(f"{name}_scaled", Form.DENSE),)
            case Kind.CYCLICAL:
                values = (ModelColumn(f"{name}_cycle", Form.DENSE, width=2),)
            case Kind.BOOLEAN:
                values = (ModelColumn(f"{name}_flag", Form.DENSE),)
            case Kind.BUCKETIZED:
                return (ModelColumn(f"{name}_bucket", Form.ID, size=self.buckets + 1),)
            case Kind.HASHED:
                return (ModelColumn(f"{name}_hash", Form.ID, size=self.hash_buckets + 1),)
            case Kind.ENCODED:
                raw = ModelColumn(f"{name}_raw", Form.RAW, encoder=self.encoder, is_fine_tuned=self.trainable)
                return (raw,)
            case Kind.CATEGORICAL:
                return (ModelColumn(f"{name}_id", Form.ID, vocabulary=self.vocabulary),)
            case Kind.TEXT:
                return (
                    ModelColumn(
                        f"{name}_tokens", Form.BAG, width=self.max_tokens, vocabulary=self.vocabulary
                    ),
                )
        return values if self.is_required else (*values, ModelColumn(f"{name}_missing", Form.DENSE))


@dataclass(frozen=True)
class Label:
    """The column to predict.

    Attributes:
      name: column name in the data.
      dtype: value type in tf.Example.
      kind: binary, multi-class or regression.
      classes: the label's values as text, in the order of the scores; empty for regression. A binary label's
        second class is the positive one.
    """

    name: str
    dtype: DType
    kind: LabelKind
    classes: tuple[str, ...] = ()

    @property
    def transformed_name(self) -> str:
        """Name of the label in the transformed features: int64 class index, or float32 for regression."""
        return f"{_graph_name(self.name)}_label"


@dataclass(frozen=True)
class FeatureSet:
    """Every column of a table that the pipeline uses, with its role."""

    features: tuple[Feature, ...]
    label: Label

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.features)

    def columns(self) -> tuple[ModelColumn, ...]:
        """The network's input columns, in a fixed order."""
        return tuple(column for feature in self.features for column in feature.columns())

    def to_json(self) -> str:
        """A stable text form, for component parameters."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSet:
        """Reads what `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FeatureSet:
        """Reads what `to_json` wrote, parsed."""
        label = fields["label"]
        return cls(
            features=tuple(
                Feature(**{**feature, "dtype": DType(feature["dtype"]), "kind": Kind(feature["kind"])})
                for feature in fields["features"]
            ),
            label=Label(
                label["name"], DType(label["dtype"]), LabelKind(label["kind"]), tuple(label["classes"])
            ),
        )


def load_schema(path: str) -> schema_pb2.Schema:
    """Reads a schema in protobuf text format.

    Raises:
      SchemaError: if the file is missing or is not a schema; the message names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SchemaError(f"{path}: cannot read the schema: {error.strerror}") from error
    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise SchemaError(f"{path}:{error}: this is not a schema in protobuf text format") from error
    if not schema.feature:
        raise SchemaError(f"{path}: the schema lists no feature")
    return schema


def feature_set(
    schema: schema_pb2.Schema,
    label: str,
    *,
    exclude: Sequence[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    label_kind: LabelKind | None = None,
    classes: Sequence[str] = (),
) -> FeatureSet:
    """Derives the roles and kinds of all columns from the schema.

    Args:
      schema: the curated schema.
      label: name of the column to predict.
      exclude: columns that are in the data but are not inputs of the model (keys, time).
      overrides: per feature, fields of `Feature` that differ from what the schema implies.
      label_kind: overrides what the label's type and domain imply.
      classes: overrides the label's classes and their order.

    Raises:
      SchemaError: naming the column that the schema lacks or cannot describe.
    """
    overrides = overrides or {}
    by_name = {column.name: column for column in schema.feature}
    for role, names in (("label", [label]), ("exclude", exclude), ("overrides", overrides)):
        for name in names:
            if name not in by_name:
                raise SchemaError(f"{role}: the schema has no column {name!r}{_nearest(name, by_name)}")
    for name in overrides:
        if name == label or name in exclude:
            raise SchemaError(f"overrides: {name!r} is not a feature: it is the label or excluded")
    features = tuple(
        _override(_feature(column), overrides.get(column.name, {}))
        for column in schema.feature
        if column.name != label
        and column.name not in exclude
        and column.lifecycle_stage != schema_pb2.DEPRECATED
    )
    if not features:
        raise SchemaError("the schema leaves no feature: every column is the label or excluded")
    in_graphs: dict[str, str] = {}
    for feature in features:
        other = in_graphs.setdefault(feature.graph_name, feature.name)
        if other != feature.name:
            raise SchemaError(
                f"features {other!r} and {feature.name!r} are the same to TensorFlow, {feature.graph_name!r}: "
                "rename one in the query and the schema"
            )
    serving_label = [f for f in features if SERVING in by_name[f.name].not_in_environment]
    if serving_label:
        raise SchemaError(
            f"feature {serving_label[0].name!r} is absent in the {SERVING} environment, so a served row can never "
            "carry it: add it to features.exclude"
        )
    return FeatureSet(features, _label(by_name[label], schema, label_kind, tuple(classes)))


_DTYPES = {schema_pb2.FLOAT: DType.FLOAT, schema_pb2.INT: DType.INT, schema_pb2.BYTES: DType.BYTES}


def dtype_of(column: schema_pb2.Feature) -> DType:
    """The tf.Example type of a schema's column.

    Raises:
      SchemaError: for a structured column.
    """
    try:
        return _DTYPES[column.type]
    except KeyError as error:
        raise SchemaError(
            f"column {column.name!r} has type {schema_pb2.FeatureType.Name(column.type)}; only BYTES, INT and FLOAT "
            "columns can be read"
        ) from error


def column_types(schema: schema_pb2.Schema) -> dict[str, str]:
    """The tf.Example type by name of every plain column of the schema, also of those that are no features."""
    return {column.name: _DTYPES[column.type].value for column in schema.feature if column.type in _DTYPES}


def units(schema: schema_pb2.Schema) -> dict[str, str]:
    """Units by name of the columns that have one: what follows `unit:` in a tag of the column's annotation."""
    return {
        column.name: tag.removeprefix(_UNIT).strip()
        for column in schema.feature
        for tag in column.annotation.tag
        if tag.startswith(_UNIT)
    }


def is_required(column: schema_pb2.Feature) -> bool:
    """Whether the schema demands a value in every row."""
    return column.presence.min_fraction >= 1.0


def _feature(column: schema_pb2.Feature) -> Feature:
    dtype = dtype_of(column)
    feature = Feature(column.name, dtype, Kind.NUMERIC, is_required(column))
    domain = column.WhichOneof("domain_info")
    if domain == "bool_domain":
        if dtype is not DType.INT:
            raise SchemaError(
                f"column {column.name!r} has a bool_domain but is {dtype}: use INT with values 0 and 1"
            )
        return replace(feature, kind=Kind.BOOLEAN)
    if domain == "natural_language_domain":
        return replace(feature, kind=Kind.TEXT)
    if dtype is DType.BYTES or (domain == "int_domain" and column.int_domain.is_categorical):
        return replace(feature, kind=Kind.CATEGORICAL)
    return feature


def _override(feature: Feature, fields: Mapping[str, Any]) -> Feature:
    if not fields:
        return feature
    changed = replace(feature, **{**fields, "kind": Kind(fields.get("kind", feature.kind))})
    if changed.dtype not in ALLOWED_DTYPES[changed.kind]:
        accepted = " or ".join(sorted(ALLOWED_DTYPES[changed.kind]))
        raise SchemaError(
            f"feature {feature.name!r} is {feature.dtype} in the schema; kind {changed.kind} needs {accepted}"
        )
    if (changed.kind is Kind.ENCODED) != (changed.encoder is not None):
        raise SchemaError(
            f"feature {feature.name!r}: kind encoded and an encoder go together: give both or none"
        )
    return changed


def _label(
    column: schema_pb2.Feature,
    schema: schema_pb2.Schema,
    kind: LabelKind | None,
    classes: tuple[str, ...],
) -> Label:
    dtype = dtype_of(column)
    classes = classes or _domain_values(column, schema)
    if kind is None:
        if classes:
            kind = LabelKind.BINARY if len(classes) == 2 else LabelKind.MULTICLASS
        elif dtype is DType.FLOAT:
            kind = LabelKind.REGRESSION
        else:
            raise SchemaError(
                f"label {column.name!r}: the schema lists no classes; give it a string_domain, a bool_domain or an "
                "int_domain with min and max, or set label.classes or label.kind: regression"
            )
    if kind is LabelKind.REGRESSION:
        if dtype is DType.BYTES:
            raise SchemaError(
                f"label {column.name!r} is text in the schema and cannot be a regression target"
            )
        return Label(column.name, dtype, kind)
    if dtype is DType.FLOAT:
        raise SchemaError(
            f"label {column.name!r} is FLOAT in the schema; classes need INT or BYTES, or use label.kind: regression"
        )
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise SchemaError(f"label {column.name!r} needs at least two different classes, not {list(classes)}")
    if kind is LabelKind.BINARY and len(classes) != 2:
        raise SchemaError(f"label {column.name!r} is binary but has {len(classes)} classes: {list(classes)}")
    if dtype is DType.INT and not all(_is_int(value) for value in classes):
        raise SchemaError(f"label {column.name!r} is INT in the schema but has the classes {list(classes)}")
    return Label(column.name, dtype, kind, classes)


def _domain_values(column: schema_pb2.Feature, schema: schema_pb2.Schema) -> tuple[str, ...]:
    """The values that the schema allows, as text, or nothing where it does not list them."""
    domain = column.WhichOneof("domain_info")
    if domain == "bool_domain":
        return ("0", "1")
    if domain == "int_domain" and column.int_domain.max - column.int_domain.min in range(1, 1000):
        return tuple(str(value) for value in range(column.int_domain.min, column.int_domain.max + 1))
    if domain == "string_domain":
        return tuple(column.string_domain.value)
    if domain == "domain":
        for shared in schema.string_domain:
            if shared.name == column.domain:
                return tuple(shared.value)
    return ()


def _graph_name(name: str) -> str:
    """The name itself, or with underscores for what TensorFlow would not have."""
    if keyword.iskeyword(name):  # inputs of a signature are parameters of a Python function
        return f"{name}_"
    if _NAME_IN_GRAPHS.fullmatch(name):
        return name
    plain = re.sub("[^A-Za-z0-9_]+", "_", name)
    # Names in another script would all be the same underscores.
    digest = "" if name.isascii() else f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{'' if plain[:1].isalpha() else 'c'}{plain}{digest}"


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def _nearest(name: str, names: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
