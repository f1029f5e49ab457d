"""`headworks tflite`: looks into LiteRT files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.tables import display

if TYPE_CHECKING:
    from rich.table import Table

    from tflite.inspection import Inspection, Weight
    from tflite.metadata import Metadata


@click.group("tflite")
def tflite() -> None:
    """Look into the files that devices run."""


@tflite.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, as JSON.")
@click.option("--all", "show_all", is_flag=True, help="Every weight by itself, not summed up by kind.")
def inspect(file: Path, as_json: bool, show_all: bool) -> None:
    """Tell what the LiteRT model FILE takes and gives, what it computes, and what its bytes are spent on."""
    from tflite.inspection import inspect as look_into

    found = look_into(file)
    if as_json:
        click.echo(_json(found))
        return
    for part in _parts(found, show_all):
        display(part)


def _json(found: Inspection) -> str:
    import json
    from dataclasses import asdict

    return json.dumps({**asdict(found), "parameters": found.parameters}, indent=1)


def _parts(found: Inspection, show_all: bool) -> Iterator[str | Table]:
    yield f"{found.path}: {found.bytes:,} bytes, {found.parameters:,} parameters"
    if found.metadata is None:
        yield f"  {found.without_metadata.removeprefix(f'{found.path} ')}"
    else:
        yield from _told(found.metadata)
    for signature in found.signatures:
        yield from ("", f"signature {signature.name}")
        ports = [(port, "in") for port in signature.inputs] + [(port, "out") for port in signature.outputs]
        yield _table(
            ("", "name", "type", "shape", "meaning"),
            ((way, port.name, port.dtype, _shape(port.shape), port.meaning) for port, way in ports),
        )
    yield from ("", "bytes")
    yield _table(
        ("what", "bytes", "share"),
        ((part.name, f"{part.bytes:,}", f"{part.bytes / found.bytes:.0%}") for part in found.parts),
        right=("bytes", "share"),
    )
    yield from ("", "weights of the network")
    yield _every_weight(found.weights) if show_all else _kinds_of_weights(found.weights)
    total = sum(count.preprocessing + count.network for count in found.operators)
    yield from ("", f"{total:,} operators")
    yield _table(
        ("operator", "preprocessing", "network"),
        ((count.name, str(count.preprocessing or ""), str(count.network or "")) for count in found.operators),
        right=("preprocessing", "network"),
    )


def _told(metadata: Metadata) -> Iterator[str]:
    made_by = f", made by {metadata.created_by}" if metadata.created_by else ""
    yield f"  {metadata.name} version {metadata.version}, variant {metadata.variant}{made_by}"
    yield f"  run {metadata.run_id}, model with SHA-256 {metadata.source_sha256}"
    label = metadata.label
    classes = f": {', '.join(label.classes)}" if label.classes else ""
    threshold = "" if metadata.threshold is None else f", threshold {metadata.threshold:g}"
    yield f"  label {label.name}, {label.kind}{classes}{threshold}"


def _kinds_of_weights(weights: Sequence[Weight]) -> Table:
    kinds: dict[tuple[str, str, str], list[Weight]] = {}
    for weight in weights:
        scales = "per channel" if weight.scales > 1 else weight.quantization
        kinds.setdefault((weight.role, weight.dtype, scales), []).append(weight)
    return _table(
        ("kind", "type", "quantisation", "tensors", "parameters", "bytes"),
        (
            (
                *kind,
                str(len(those)),
                f"{sum(one.parameters for one in those):,}",
                f"{sum(one.bytes for one in those):,}",
            )
            for kind, those in kinds.items()
        ),
        right=("tensors", "parameters", "bytes"),
    )


def _every_weight(weights: Iterable[Weight]) -> Table:
    return _table(
        ("tensor", "kind", "type", "shape", "quantisation", "bytes"),
        (
            (one.name, one.role, one.dtype, _shape(one.shape), one.quantization, f"{one.bytes:,}")
            for one in weights
        ),
        right=("bytes",),
    )


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) if shape else "scalar"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold", justify="right" if head in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
