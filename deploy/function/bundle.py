"""Packs the function's source: `python deploy/function/bundle.py function.zip`.

The same code gives the same bytes, so that the archive's digest says whether there is anything to deploy.
"""

from __future__ import annotations

import ast
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ENTRIES = ("cloud.triggers", "cloud.vertex_pipelines", "cloud.submission_checks", "pipeline.environment")
"""What main.py imports, and what that imports when it submits a run."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def sources() -> Iterator[tuple[str, Path]]:
    """Names in the archive and files of it."""
    yield "main.py", HERE / "main.py"
    yield "requirements.txt", HERE / "requirements.txt"
    for file in sorted(_modules()):
        yield str(file.relative_to(ROOT)), file


def bundle(archive: Path) -> None:
    """Writes the archive."""
    with zipfile.ZipFile(archive, "w") as packed:
        for name, file in sources():
            packed.writestr(zipfile.ZipInfo(name, _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)


def _modules() -> set[Path]:
    """Files of the entries and of what is imported when they are, at any depth; imports in functions do not count."""
    found: set[Path] = set()
    waiting = list(ENTRIES)
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is not None and file not in found:
            found.add(file)
            waiting += [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
            waiting += _imported(ast.parse(file.read_text(encoding="utf-8")).body)
    return found


def _file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


def _imported(statements: list[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)


if __name__ == "__main__":
    bundle(Path(sys.argv[1]))
