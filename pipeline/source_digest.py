"""A digest of the code a component runs, for its cache key.

TFX does not look behind a dotted path, so a changed `preprocessing_fn` or `run_fn` would go unnoticed. The digest
covers a module and every module of this project that it imports, as syntax trees without docstrings: comments,
layout and unrelated modules do not count.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTAINER_ROOMS = (
    "schemas",
    "ingest",
    "transforms",
    "models",
    "gates",
    "tflite",
    "beam_jobs",
    "pipeline",
    "cloud",
)
"""The rooms whose code runs in the containers of a compiled pipeline."""


def source_digest(*modules: str, root: Path = ROOT) -> str:
    """SHA-256 in hexadecimal over the modules and all they import from the project.

    Raises:
      ModuleNotFoundError: if one of `modules` is not a module of the project.
    """
    digest = hashlib.sha256()
    found = _closure(modules, root)
    for name in sorted(found):
        digest.update(_content(name, found[name]))
    return digest.hexdigest()


def code_digest(root: Path = ROOT) -> str:
    """16 hexadecimal digits that tell the code of one image from that of another."""
    digest = hashlib.sha256()
    for path in (path for room in CONTAINER_ROOMS for path in sorted((root / room).rglob("*.py"))):
        digest.update(_content(str(path.relative_to(root)), _code(path.read_text(encoding="utf-8"))))
    return digest.hexdigest()[:16]


def imported_modules(module: str, root: Path = ROOT) -> frozenset[str]:
    """The project's modules that a module imports, at any depth of its own code, itself left out."""
    path = _file_of(module, root)
    if path is None:
        raise ModuleNotFoundError(f"{module} is not a module of this project")
    code = _code(path.read_text(encoding="utf-8"))
    return frozenset(name for name in code.imports if _file_of(name, root) and name != module)


@dataclass(frozen=True)
class _Code:
    """What counts of a module: its syntax tree without docstrings, as text, and the names it imports."""

    tree: str
    imports: tuple[str, ...]


@cache
def _code(text: str) -> _Code:
    """Of equal text once: the components of one pipeline share most of their modules."""
    tree = ast.parse(text)
    return _Code(ast.dump(_without_docstrings(tree)), tuple(_imports(tree)))


def _closure(modules: tuple[str, ...], root: Path) -> dict[str, _Code]:
    found: dict[str, _Code] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        waiting.extend(imported_modules(module, root))
        path = _file_of(module, root)
        assert path is not None  # imported_modules has checked it
        found[module] = _code(path.read_text(encoding="utf-8"))
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file_of(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _content(name: str, code: _Code) -> bytes:
    return f"{name}\n{code.tree}\n".encode()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return tree


if __name__ == "__main__":
    # For the label of an image: python -m pipeline.source_digest, with any Python and nothing installed.
    sys.stdout.write(f"{code_digest()}\n")
