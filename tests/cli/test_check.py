import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = tmp_path / "data.csv"
    data.write_text("a,b,y\n" + "".join(f"{i},{i * 7 % 13}.5,{i % 2}\n" for i in range(200)))
    result = CliRunner().invoke(
        main, ["init", "--data", str(data), "--label", "y", "--folder", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    return tmp_path / "pipeline.yaml"


def test_check_needs_no_tensorflow(config: Path) -> None:
    code = (
        "import sys\nfrom cli.main import main\n"
        f"main(['check', {str(config)!r}], standalone_mode=False)\n"
        "print([name for name in ('tensorflow', 'tfx', 'apache_beam') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_an_override_takes_part(config: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(config), "--set", "label.column=z"])
    assert result.exit_code == 1
    assert "'z'" in result.stderr


def test_bad_data_is_one_line_without_a_traceback(config: Path) -> None:
    (config.parent / "data.csv").write_text("a,b\n1,2\n")
    result = CliRunner().invoke(main, ["check", str(config)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert "'y'" in result.stderr
