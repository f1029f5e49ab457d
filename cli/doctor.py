"""`headworks doctor`: what this machine has, what is missing, and what to do about it.

`diagnose` gathers findings and prints nothing; the command shows them. Imports are tried in another process:
a broken native library can end the process that loads it, and TensorFlow's chatter stays there.
"""

from __future__ import annotations

import ast
import enum
import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

CLONE = Path(__file__).resolve().parents[1]
SET_UP = "run `make set-up` in the clone, or reinstall the package"
REQUIRED_GLIBC = (2, 39)
REQUIRED_PYTHON = (3, 11)
ROOMY_MEMORY_BYTES = 8 * 1024**3
ROOMY_DISK_BYTES = 5 * 1024**3

# Distributions whose module is not their name with underscores.
MODULES = {
    "cel-python": "celpy",
    "google-cloud-aiplatform": "google.cloud.aiplatform",
    "google-cloud-bigquery": "google.cloud.bigquery",
    "google-cloud-bigquery-storage": "google.cloud.bigquery_storage",
    "google-cloud-pubsub": "google.cloud.pubsub",
    "google-cloud-storage": "google.cloud.storage",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "tensorflow-serving-api": "tensorflow_serving",
}


class Level(enum.Enum):
    """How much a finding matters: only MISSING keeps Headworks from running."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found and, unless all is well, what to do."""

    subject: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Tool:
    """A program that some feature needs and the core does not."""

    command: str
    purpose: str


TOOLS = (
    Tool("apt-get", "fetches the private C runtime on Debian 12"),
    Tool("gcloud", "Google Cloud and the Pub/Sub emulator"),
    Tool("java", "the Pub/Sub emulator"),
    Tool("docker", "InfraValidator and building the image"),
)


@dataclass(frozen=True)
class Imports:
    """What importing told: errors by module and by TFX component, the package behind tf.keras, GPUs seen."""

    errors: Mapping[str, str] = field(default_factory=dict)
    absent_components: Mapping[str, str] = field(default_factory=dict)
    keras: str | None = None
    gpus: int = 0


def diagnose() -> list[Finding]:
    """Return everything found on this machine, in the order to read it; takes as long as importing TFX."""
    imports = try_imports(required_modules())
    return [
        check_python(sys.version_info[:2]),
        check_c_runtime(),
        *check_size(),
        *check_packages(),
        *check_imports(imports),
        *check_tools(),
    ]


def check_python(version: tuple[int, int]) -> Finding:
    """Compare (major, minor) with the one version that TFX's Kubeflow extra and the lock are made for."""
    text = f"Python {platform.python_version()} at {sys.executable}"
    if version == REQUIRED_PYTHON:
        return Finding("Python", Level.OK, text)
    wanted = ".".join(map(str, REQUIRED_PYTHON))
    return Finding("Python", Level.MISSING, text, f"install Python {wanted} and run `make clean set-up`")


def check_c_runtime() -> Finding:
    """Compare the glibc this process runs on with what TFDV and ML Metadata were built against."""
    version = process_glibc()
    if version is None:
        return Finding(
            "C library", Level.MISSING, "not glibc", "use Debian 12 or later, or the image python:3.11-trixie"
        )
    text = f"glibc {'.'.join(map(str, version))}"
    library = loaded_c_library()
    if library is not None and library.is_relative_to(sys.prefix):
        text += f", private to this environment; the host has {host_glibc() or 'an unknown one'}"
    if version >= REQUIRED_GLIBC:
        return Finding("C library", Level.OK, text)
    needed = ".".join(map(str, REQUIRED_GLIBC))
    return Finding("C library", Level.MISSING, f"{text}; {needed} is needed", SET_UP)


def process_glibc() -> tuple[int, int] | None:
    """Return (major, minor) of the glibc this process is bound to; None on another C library."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:  # the name is unknown where the C library is another
        return None
    match = re.fullmatch(r"glibc (\d+)\.(\d+).*", text)
    return (int(match[1]), int(match[2])) if match else None


def loaded_c_library() -> Path | None:
    """Return the file of the C library mapped into this process, as Linux tells it."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    match = re.search(r"(/.*/libc\.so\.6|/.*/libc-[\d.]+\.so)$", maps.read_text(), re.MULTILINE)
    return Path(match[1]) if match else None


def host_glibc() -> str | None:
    """Return the version of the machine's own glibc, as one of its own programs sees it."""
    if shutil.which("getconf") is None:
        return None
    answer = subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True, text=True, check=False)
    return answer.stdout.strip().removeprefix("glibc ") or None


def check_size() -> Iterator[Finding]:
    """Say how large the machine is; a small one is slow or runs out, which is worth knowing beforehand."""
    yield Finding("Cores", Level.OK, f"{len(os.sched_getaffinity(0))} usable by this process")
    memory = usable_memory_bytes()
    is_roomy = memory >= ROOMY_MEMORY_BYTES
    yield Finding(
        "Memory",
        Level.OK if is_roomy else Level.NOTE,
        f"{memory / 1024**3:.1f} GiB",
        ""
        if is_roomy
        else "each pipeline process may take up to 4 GiB: run fewer at once or take fewer rows",
    )
    free = shutil.disk_usage(Path.cwd()).free
    is_roomy = free >= ROOMY_DISK_BYTES
    yield Finding(
        "Disk",
        Level.OK if is_roomy else Level.NOTE,
        f"{free / 1024**3:.1f} GiB free in {Path.cwd()}",
        "" if is_roomy else "free some, or run where there is more",
    )


def usable_memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Return the machine's memory, or the container's limit (a cgroup v2 file) where that is smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(machine, int(text)) if text.isdigit() else machine


def check_packages(lock: Path = CLONE / "requirements.lock") -> list[Finding]:
    """Compare the installed versions with the lock in a clone, else with what the package asks for."""
    if lock.exists():
        wanted = {name: f"=={version}" for name, version in read_lock(lock).items()}
        source = lock.name
    else:
        wanted, source = declared_requirements(), "the package's requirements"
    wrong = list(differing_packages(wanted))
    return wrong or [Finding("Packages", Level.OK, f"all {len(wanted)} as in {source}")]


def differing_packages(wanted: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each distribution that is absent or outside its version specifier."""
    from packaging.specifiers import SpecifierSet

    for name, specifier in wanted.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, Level.MISSING, f"not installed; {name}{specifier} is wanted", SET_UP)
            continue
        if not SpecifierSet(specifier).contains(version, prereleases=True):
            yield Finding(name, Level.MISSING, f"{version} is installed; {specifier} is wanted", SET_UP)


def read_lock(lock: Path) -> dict[str, str]:
    """Return version by distribution name from a file of `name==version` lines with hashes."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE))


def declared_requirements() -> dict[str, str]:
    """Return version specifier by distribution name, as the installed package declares them."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = metadata.requires("headworks") or []
    except metadata.PackageNotFoundError:
        return {"headworks": ""}
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }


def required_modules() -> list[str]:
    """Return the module of every distribution that Headworks requires directly."""
    names = (name for name in declared_requirements() if name != "headworks")
    return [MODULES.get(name, name.replace("-", "_")) for name in names]


def try_imports(modules: Sequence[str]) -> Imports:
    """Import the modules in one fresh process, with its output dropped.

    If that process dies, each module is tried in a process of its own, so that the guilty one is named.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_drop_output) as executor:
        try:
            return executor.submit(import_all, list(modules)).result()
        except BrokenProcessPool:
            if len(modules) == 1:
                return Imports(errors={modules[0]: "importing it ended the process (a crash in native code)"})
    return merge_imports([try_imports([module]) for module in modules])


def merge_imports(parts: Sequence[Imports]) -> Imports:
    """Return one record that holds what any of `parts` tells."""
    return Imports(
        errors={module: error for part in parts for module, error in part.errors.items()},
        absent_components={name: error for part in parts for name, error in part.absent_components.items()},
        keras=next((part.keras for part in parts if part.keras), None),
        gpus=max((part.gpus for part in parts), default=0),
    )


def import_all(modules: Sequence[str]) -> Imports:
    """Import the modules in this process and look inside TFX and TensorFlow where they are among them."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    errors = {module: error for module in modules if (error := import_error(module))}
    usable = set(modules) - errors.keys()
    keras, gpus = inspect_tensorflow() if usable >= {"tensorflow", "tf_keras"} else (None, 0)
    absent = absent_components("tfx.components") if "tfx" in usable else {}
    return Imports(errors, absent, keras, gpus)


def import_error(module: str) -> str | None:
    """Return why `module` does not import, or None if it does."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  a broken package may raise anything, and telling what is the point
        return f"{type(error).__name__}: {error}"
    return None


def inspect_tensorflow() -> tuple[str, int]:
    """Return the package behind `tf.keras` ("tf_keras" or "keras") and the number of GPUs TensorFlow sees."""
    import tensorflow as tf

    package, _, _ = tf.keras.layers.Layer.__module__.partition(".")
    return package, len(tf.config.list_physical_devices("GPU"))


def absent_components(package: str) -> dict[str, str]:
    """Return the import error behind each public name that `package` left None.

    TFX wraps `from module import Name` in try/except ImportError and goes on with None. The statements are
    read from the package's source; the module behind a missing name is imported again to hear why it failed.
    """
    if error := import_error(package):
        return {package: error}
    loaded = importlib.import_module(package)
    source = ast.parse(Path(str(loaded.__file__)).read_text())
    origin = {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return {
        name: import_error(origin.get(name, package)) or "TFX could not import it"
        for name in getattr(loaded, "__all__", ())
        if getattr(loaded, name, None) is None
    }


def check_imports(imports: Imports) -> Iterator[Finding]:
    """Turn what importing told into findings."""
    for module, error in imports.errors.items():
        yield Finding(f"import {module}", Level.MISSING, error, SET_UP)
    for name, error in imports.absent_components.items():
        yield Finding(f"TFX {name}", Level.MISSING, f"TFX left it None: {error}", SET_UP)
    if not imports.errors and not imports.absent_components:
        yield Finding("Imports", Level.OK, "every required package and every TFX component")
    if imports.keras is not None:
        yield check_keras(imports.keras)
        yield check_gpus(imports.gpus)


def check_keras(package: str) -> Finding:
    """Say which package is behind `tf.keras`; Headworks needs Keras 2, which is `tf_keras`."""
    setting = os.environ.get("TF_USE_LEGACY_KERAS")
    told = "not set; headworks sets it to 1" if setting is None else f"set to {setting}"
    text = f"tf.keras is {package} {metadata.version(package)} (TF_USE_LEGACY_KERAS is {told})"
    if package == "tf_keras":
        return Finding("Keras", Level.OK, text)
    return Finding("Keras", Level.MISSING, text, "unset TF_USE_LEGACY_KERAS or set it to 1")


def check_gpus(seen: int) -> Finding:
    """Say how many GPUs TensorFlow sees, and whether there are some that it does not."""
    if seen:
        return Finding("GPU", Level.OK, f"{seen} usable by TensorFlow")
    if shutil.which("nvidia-smi"):
        remedy = "pip install tensorflow[and-cuda] at the same version, if training shall use it"
        return Finding("GPU", Level.NOTE, "there is a driver, but TensorFlow sees no GPU", remedy)
    return Finding("GPU", Level.OK, "none: TensorFlow computes on the CPU")


def check_tools(tools: Sequence[Tool] = TOOLS) -> Iterator[Finding]:
    """Say which optional programs are on PATH."""
    for tool in tools:
        path = shutil.which(tool.command)
        if path:
            yield Finding(tool.command, Level.OK, path)
        else:
            yield Finding(tool.command, Level.NOTE, "not on PATH", f"only needed for: {tool.purpose}")


def _drop_output() -> None:
    """Send this process's output, native libraries' included, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@click.command("doctor")
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what this machine has, what is missing and what to do.

    Takes half a minute, as it imports everything. Exits 1 if something required is missing.
    """
    from rich.console import Console

    console = Console()
    with console.status("Importing TensorFlow, TFX and Beam to see that they work"):
        findings = diagnose()
    if console.is_terminal:
        _show_table(console, findings)
    else:
        _show_lines(findings)
    if any(finding.level is Level.MISSING for finding in findings):
        context.exit(1)


def _show_table(console: Console, findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    colours = {Level.OK: "green", Level.NOTE: "yellow", Level.MISSING: "bold red"}
    table = Table("", "What", "Found", "What to do", box=None, pad_edge=False)
    for finding in findings:
        level = Text(finding.level.value, colours[finding.level])
        table.add_row(level, Text(finding.subject), Text(finding.found), Text(finding.remedy))
    console.print(table)


def _show_lines(findings: Sequence[Finding]) -> None:
    for finding in findings:
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        click.echo(f"{finding.level.value:<8}{finding.subject}: {finding.found}{remedy}")
