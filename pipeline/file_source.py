"""Folders that TFX's stock ExampleGens read: which files, which glob a split, which span."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ingest.locations import available_spans, has_span, with_span
from ingest.splits import SPLITS
from pipeline.config import ConfigError, FilesSource, FolderSplit, Project

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "csv": (".csv",),
    "parquet": (".parquet",),
    "tfrecord": (".tfrecord", ".tfrecord.gz", ".gz"),
}
ALL = "all"


@dataclass(frozen=True)
class InputSplit:
    """The files of one input split.

    Attributes:
      name: `train`, `validation` or `test`; `all` where TFX makes the splits.
      pattern: glob below the base, with `{SPAN}` where the location has it.
      files: what it finds in the chosen span, sorted.
    """

    name: str
    pattern: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class FileInput:
    """What a stock ExampleGen reads.

    Attributes:
      base: folder that all patterns start from.
      splits: one, or three where sub-folders are the splits.
      span: number of the span that is read, or None where the location has none.
    """

    base: Path
    splits: tuple[InputSplit, ...]
    span: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, split by split."""
        return tuple(file for split in self.splits for file in split.files)


def file_input(project: Project) -> FileInput:
    """Finds the files of a `csv`, `tfrecord` or `parquet` source.

    Raises:
      ConfigError: if a folder, its span or its files are not there.
    """
    source = project.config.data.source
    assert isinstance(source, FilesSource), "only called for sources that are folders"
    location = PurePosixPath(str(project.file.parent), source.folder)
    depth = len(list(itertools.takewhile(lambda part: not has_span(part), location.parts)))
    base = PurePosixPath(*location.parts[:depth])
    below = PurePosixPath(*location.parts[depth:])
    span = _span(project, source, location)
    by_folder = isinstance(project.config.data.split, FolderSplit)
    places = [(name, below / name) for name in SPLITS] if by_folder else [(ALL, below)]
    splits = tuple(_split(project, source, name, Path(base), place, span) for name, place in places)
    return FileInput(Path(base), splits, span)


def _split(
    project: Project, source: FilesSource, name: str, base: Path, place: PurePosixPath, span: int | None
) -> InputSplit:
    folder = base / (with_span(str(place), span) if span is not None else place)
    where = f"data.source.folder: {folder}"
    if not folder.is_dir():
        raise ConfigError(f"{where}: no such folder ({project.place('data.source.folder')})")
    known = SUFFIXES[source.kind]
    # The longest suffix wins, so that .tfrecord.gz is not taken for .gz.
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        suffix = max((s for s in known if file.name.endswith(s)), key=len, default=None)
        if suffix and file.name.startswith("."):
            raise ConfigError(
                f"{where}: TFX would read {file.name} too; delete it ({project.place('data.source.folder')})"
            )
        if suffix:
            found.setdefault(suffix, []).append(file)
    if len(found) != 1:
        problem = f"mixes files ending in {' and '.join(sorted(found))}" if found else "holds no file to read"
        raise ConfigError(
            f"{where}: {problem}; data.source.kind: {source.kind} reads files that all end in "
            f"{' or all in '.join(known)} ({project.place('data.source.folder')})"
        )
    [(suffix, files)] = found.items()
    return InputSplit(name, str(place / f"*{suffix}"), tuple(files))


def _span(project: Project, source: FilesSource, location: PurePosixPath) -> int | None:
    config = project.config.data.span
    if not has_span(source.folder):
        if config is not None:
            raise ConfigError(
                f"data.span: the folder {source.folder} has no {{SPAN}} in it ({project.place('data.span')})"
            )
        return None
    if config is None:
        raise ConfigError(
            f"data.span: missing; {source.folder} has {{SPAN}}: say which span to read, such as "
            f"`span: {{last: latest, window: 1}}` ({project.place('data.source.folder')})"
        )
    spans = available_spans([str(location)], Path("/"))
    if not spans:
        raise ConfigError(
            f"data.source.folder: no folder matches {location} ({project.place('data.source.folder')})"
        )
    last = spans[-1] if config.last == "latest" else config.last
    if last not in spans:
        raise ConfigError(
            f"data.span.last: {last}: no such span; there are {', '.join(map(str, spans))} "
            f"({project.place('data.span.last')})"
        )
    return last
