"""Packed files, unpacked whole: that verifies their checksum, and DuckDB reads plain text in parallel."""

from __future__ import annotations

import gzip
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ingest.errors import DataError

_CHUNK_BYTES = 1 << 20


def unpacked(paths: Sequence[Path], folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file to read, with the name to call it by; `.gz` and `.zip` are unpacked into `folder`.

    Raises:
      DataError: if a file is damaged, cut off, or not what its suffix says.
    """
    for number, path in enumerate(paths):
        suffix = path.suffix.lower()
        try:
            if suffix == ".zip":
                yield from _unzip(path, folder / str(number))
            elif suffix == ".gz":
                with gzip.open(path, "rb") as packed:
                    yield _copy(packed, folder / str(number) / path.stem), str(path)
            else:
                yield path, str(path)
        except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(f"{path}: damaged or cut off ({error}); copy the file again") from error
        except (NotImplementedError, RuntimeError) as error:  # zipfile: unknown method, needs a password.
            raise DataError(f"{path}: cannot be unpacked: {error}") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be unpacked: {error.strerror or error}") from error


def _unzip(path: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    with zipfile.ZipFile(path) as archive:
        members = sorted(
            member.filename
            for member in archive.infolist()
            if not member.is_dir()
            and member.filename.lower().endswith((".csv", ".tsv", ".parquet"))
            and not member.filename.startswith("__MACOSX")
        )
        if not members:
            raise DataError(f"{path}: holds no .csv, .tsv or .parquet file")
        for number, member in enumerate(members):
            name = str(path) if len(members) == 1 else f"{path}/{member}"
            with archive.open(member) as packed:
                # The member's own folders are dropped: a name with ".." must not lead out of `folder`.
                target = folder / str(number) / Path(member).name
                yield _copy(packed, target), name


def _copy(source: IO[bytes] | gzip.GzipFile, target: Path) -> Path:
    target.parent.mkdir(parents=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, _CHUNK_BYTES)
    return target
