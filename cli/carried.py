"""The option `--carry`: columns of the input that go to the output as they are."""

from __future__ import annotations

import click


def _names(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The columns, each once, in the order in which they were named."""
    names = (name.strip() for text in given for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


carry_option = click.option(
    "--carry",
    multiple=True,
    callback=_names,
    metavar="COLUMNS",
    help="Input columns to pass through, with commas between; may be repeated.",
)
