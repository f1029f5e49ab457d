"""Tables and lines as the commands print them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 1000


def display(part: str | Table) -> None:
    """Print a line or a table."""
    if isinstance(part, str):
        click.echo(part)
        return
    from rich.console import Console

    # A pipe has no width: values are whole there, for whoever reads on.
    Console(width=None if sys.stdout.isatty() else _WIDE).print(part, markup=False)
