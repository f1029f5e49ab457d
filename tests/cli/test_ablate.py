"""What `headworks ablate` leaves out, and what it says of it; the trainings are tested in tests/models."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from cli.ablation import Plan
from cli.main import main
from gates.ablation import Ablation, Contribution
from pipeline import finished_run
from pipeline.runners import fork_server, node_process
from pipeline.runners.node_process import Answer
from pipeline.runners.records import RunRecord, RunState, save
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

RUN = "20260101T000000-ab12"
FEATURES = FeatureSet(
    tuple(Feature(name, DType.FLOAT, Kind.NUMERIC) for name in ("size", "age", "floor")),
    Label("sold", DType.INT, LabelKind.BINARY, ("0", "1")),
)


class Trained:
    """Stands for the child: keeps the plan, and finds that every group but the first adds nothing."""

    plans: list[Plan] = []  # noqa: RUF012

    def __init__(self, log_path: Path, name: str) -> None:
        self.log_path = log_path

    def run(self, function: str, root: str, run_id: str, plan, on_progress) -> Answer:
        self.plans.append(plan)
        contributions = tuple(
            Contribution(name, members, 0.6, 0.1 / place - 0.05, 0.04 / place - 0.03, 0.2, (0.01, 0.02))
            for place, (name, members) in enumerate(plan.groups.items(), start=1)
        )
        return Answer(
            Ablation("auc", True, "validation", 9, 0.95, (1, 2), 5, 0.7, (0.7, 0.7), 3, contributions), 0
        )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_process, "NodeProcess", Trained)
    monkeypatch.setattr(fork_server, "start", lambda: None)
    monkeypatch.setattr(finished_run, "find", lambda *_: SimpleNamespace(features=FEATURES))
    monkeypatch.setattr(Trained, "plans", [])
    save(RunRecord(RUN, "shop", "2026-01-01T00:00:00+00:00", RunState.SUCCEEDED), tmp_path / "runs" / RUN)
    return tmp_path


def ablate(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["ablate", "--root", str(root), *arguments])


def test_every_feature_is_left_out_alone_and_the_cost_is_told_first(root: Path) -> None:
    result = ablate(root)
    assert result.exit_code == 0, result.output
    [plan] = Trained.plans
    assert plan.groups == {"size": ("size",), "age": ("age",), "floor": ("floor",)}
    assert result.output.startswith("12 trainings: ")
    assert "the test split is not read" in result.output


def test_named_groups_and_features_are_all_that_is_left_out(root: Path) -> None:
    result = ablate(root, "--group", "body=size, age", "--features", "floor", "--seeds", "2", "--epochs", "4")
    assert result.exit_code == 0, result.output
    [plan] = Trained.plans
    assert plan.groups == {"floor": ("floor",), "body": ("size", "age")}
    assert (plan.seeds, plan.epochs, plan.trainings) == (2, 4, 6)
    lines = {line.split()[0]: line for line in result.output.splitlines() if line[:5] in ("floor", "body ")}
    assert lines["floor"].strip().endswith("helps")
    assert lines["body"].strip().endswith("no difference seen")
    assert "body (size, age)" in lines["body"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--features", "siz"), "siz: no such feature; there are size, age, floor"),
        (("--group", "body"), "want NAME=feature,feature"),
        (("--group", "size=age", "--features", "size"), "there is another size"),
        (("--group", "all=size,age,floor"), "leave one in"),
    ],
)
def test_what_cannot_be_left_out_is_said_before_anything_is_trained(
    root: Path, arguments: tuple[str, ...], told: str
) -> None:
    result = ablate(root, *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert Trained.plans == []
