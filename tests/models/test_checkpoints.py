"""What becomes of trainings that nobody goes on with."""

import os
import time
from pathlib import Path

from models.checkpoints import delete_abandoned

DAY = 86_400


def aged(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_what_was_not_written_to_for_two_weeks_goes_and_the_rest_stays(tmp_path: Path) -> None:
    for name, file_days in (("forgotten", 15), ("search-forgotten", 30), ("interrupted", 13)):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        file = tmp_path / name / "checkpoints" / "ckpt-1.index"
        file.touch()
        # A checkpoint that is written again changes neither of the folders above it.
        for path, days in ((file, file_days), (file.parent, 40), (tmp_path / name, 40)):
            aged(path, days)
    delete_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["interrupted"]
