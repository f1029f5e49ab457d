from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, EXPECTED_ERRORS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(("module", "name"), EXPECTED_ERRORS)
def test_every_expected_error_exists(module: str, name: str) -> None:
    assert issubclass(getattr(pytest.importorskip(module), name), Exception)


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_unknown_key_is_named_with_file_and_line(tmp_path: Path, command: str) -> None:
    config = tmp_path / "pipeline.yaml"
    config.write_text("name: shop\nlabbel: {column: y}\n")
    result = CliRunner().invoke(main, [command, str(config)])
    assert result.exit_code == 1
    assert f"labbel: unknown key; did you mean label? ({config}:2)" in result.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    assert CliRunner().invoke(main, ["rnu"]).exit_code == 2


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["runs", "--root", str(tmp_path)])
    assert result.exit_code == 0
    assert "headworks run" in result.output


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["show", "2031", "--root", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path) in result.stderr
