"""What tells a LiteRT file from others."""

from __future__ import annotations

from pathlib import Path

IDENTIFIER = b"TFL3"
"""What a LiteRT file has at bytes 4 to 8."""


class ModelFileError(ValueError):
    """A file, or bytes, that hold no LiteRT model, or not all of one."""


def read_file(path: Path) -> bytes:
    """The content of a LiteRT file.

    Raises:
      ModelFileError: there is no such file, or it is something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model: {error.strerror}") from error
    check_identifier(content, str(path))
    return content


def check_identifier(content: bytes, source: str) -> None:
    """Refuses what does not begin as a LiteRT file does.

    Args:
      content: of the file.
      source: what messages call it.

    Raises:
      ModelFileError: saying what is there instead.
    """
    if not content:
        raise ModelFileError(f"{source} is empty: it is no LiteRT model")
    if content[4:8] != IDENTIFIER:
        raise ModelFileError(
            f"{source} is no LiteRT model: its bytes 4 to 8 are {content[4:8]!r} and not {IDENTIFIER!r}"
        )
