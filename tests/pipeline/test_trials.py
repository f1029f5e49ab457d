import json

from pipeline import trials
from report.tuning import Trial

TRIAL = {
    "name": "0",
    "state": "completed",
    "values": {"a": [1], "b": True, "c": None, "d": 0.5, "e": "cosine"},
}


def test_trials_are_read_back_as_the_report_shows_them(tmp_path):
    told = [
        {**TRIAL, "score": 0.7, "epochs": 3, "seconds": 1.5, "cause": None},
        {
            **TRIAL,
            "name": "1",
            "state": "failed",
            "score": None,
            "epochs": None,
            "seconds": None,
            "cause": "nan",
        },
    ]
    found = {"objective": "val_auc", "is_larger_better": True, "method": "random", "trials": told}
    (tmp_path / trials.FILE).write_text(json.dumps(found))
    search = trials.read(tmp_path)
    assert search is not None
    values: dict[str, str | float] = {"a": "[1]", "b": "true", "c": "null", "d": 0.5, "e": "cosine"}
    assert search.trials == (
        Trial("0", values, 0.7, 3, 1.5),
        Trial("1", values, None, cause="nan"),
    )


def test_results_of_an_older_version_are_no_search(tmp_path):
    (tmp_path / "tuner_results.json").write_text("[]")
    assert trials.read(tmp_path) is None
