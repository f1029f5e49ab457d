"""Which settings of treatments are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from tflite.settings import (
    ClusteringSettings,
    PruningSettings,
    QuantizationAwareSettings,
    StudentSettings,
    TrainableSettings,
)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PruningSettings, {"sparsity": 0.0}),
        (PruningSettings, {"sparsity": 1.0}),
        (PruningSettings, {"epochs": 0}),
        (ClusteringSettings, {"clusters": 1}),
        (ClusteringSettings, {"epochs": 0}),
        (QuantizationAwareSettings, {"epochs": 0}),
        (TrainableSettings, {"learning_rate": 0.0}),
        (TrainableSettings, {"batch_rows": 0}),
        (StudentSettings, {"temperature": 0.0}),
        (StudentSettings, {"teacher_share": 0.0}),
        (StudentSettings, {"teacher_share": 1.1}),
        (StudentSettings, {"hidden_units": [0]}),
        (StudentSettings, {"max_bytes": 0}),
        (StudentSettings, {"epochs": 0}),
        (StudentSettings, {"hiden_units": [8]}),
    ],
    ids=str,
)
def test_a_setting_without_sense_is_refused_by_name(kind: type[Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        kind(**wrong)


def test_lists_of_a_yaml_file_are_taken() -> None:
    read: dict[str, Any] = {"hidden_units": [8, 4]}
    assert StudentSettings(**read).hidden_units == (8, 4)
