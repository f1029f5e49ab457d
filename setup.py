"""Packages the rooms of the house for Dataflow workers, the image and `pip install .`.

The environment of a clone is made by scripts/set_up from requirements.lock; the ranges here come from the
same requirements.in, so the two cannot disagree.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
ROOMS = (
    "schemas",
    "transforms",
    "models",
    "ingest",
    "gates",
    "report",
    "pipeline",
    "beam_jobs",
    "tflite",
    "serving",
    "monitoring",
    "cloud",
    "cli",
)
DATA_FILES = ["py.typed", "**/*.j2", "**/*.html", "**/*.css", "**/*.js", "**/*.sql"]


def read_requirements(path: Path) -> list[str]:
    """Return the requirements in `path`, one a line, without comments and blank lines."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


setup(
    name="headworks",
    version="0.1.0",
    description="Gated, explained, reversible TFX pipelines, on a laptop and on Google Cloud",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.12",
    install_requires=read_requirements(ROOT / "requirements.in"),
    # A root named outright makes an editable install one path entry, so that a new room needs no new install.
    package_dir={"": "."},
    packages=find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")]),
    package_data=dict.fromkeys(ROOMS, DATA_FILES),
    entry_points={"console_scripts": ["headworks = cli.main:main"]},
)
