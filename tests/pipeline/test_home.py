"""The notes that runs of a compiled pipeline leave for later ones."""

import json
from pathlib import Path

from pipeline.home import AcceptedData, PushedVersion, accepted, label_of, note_accepted, pushed
from schemas.features import DType, Feature, FeatureSet, Kind, Label, LabelKind

FEATURES = FeatureSet(
    (Feature("size", DType.FLOAT, Kind.NUMERIC),), Label("sold", DType.INT, LabelKind.BINARY, ("0", "1"))
)


def noted(home: Path, name: str) -> AcceptedData:
    """Accepts data whose statistics are there."""
    folder = home / "statistics" / name
    folder.mkdir(parents=True)
    data = AcceptedData(str(folder), '["train"]', name)
    note_accepted(str(home), data)
    return data


def version(serving: Path, number: int) -> None:
    (serving / str(number)).mkdir(parents=True)
    (serving / str(number) / "manifest.json").write_text(
        json.dumps(
            {
                "model": f"gs://b/{number}",
                "data_fingerprint": "a",
                "rows": {"features": json.loads(FEATURES.to_json())},
            }
        )
    )


def test_what_was_accepted_is_told_the_last_first(tmp_path):
    assert list(accepted(str(tmp_path))) == []
    april, may = noted(tmp_path, "april"), noted(tmp_path, "may")
    note_accepted(str(tmp_path), april)
    assert list(accepted(str(tmp_path))) == [april, may, april]


def test_a_note_in_writing_or_of_lost_statistics_is_passed_over(tmp_path):
    april, may = noted(tmp_path, "april"), noted(tmp_path, "may")
    Path(may.statistics).rmdir()
    (tmp_path / "accepted" / "99991231T000000.000000Z.json.partial").write_text('{"statist')
    assert list(accepted(str(tmp_path))) == [april]


def test_versions_are_told_by_number_and_only_when_they_are_whole(tmp_path):
    serving = tmp_path / "serving"
    assert list(pushed(str(serving))) == []
    for number in (9, 10):
        version(serving, number)
    (serving / "11").mkdir()
    (serving / ".lock").write_text("11")
    assert list(pushed(str(serving))) == [
        PushedVersion(f"{serving}/{number}", number, f"gs://b/{number}", label_of(FEATURES), "a")
        for number in (10, 9)
    ]
