import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.config import ConfigError, load
from pipeline.first_schema import curated
from schemas.features import LabelKind, feature_set

INFERRED = """
feature { name: "size" type: FLOAT }
feature { name: "grade" type: INT }
feature { name: "sold" type: INT bool_domain {} }
"""
STATISTICS = """
features { path { step: "grade" } num_stats { min: -1 max: 1 } }
features { path { step: "sold" } num_stats { min: 0 max: 1 } }
"""


def made(tmp_path, label: str) -> schema_pb2.Schema:
    (tmp_path / "pipeline.yaml").write_text(
        f"name: shop\ndata: {{source: {{kind: csv, folder: rows}}, split: {{by: folder}}}}\nlabel: {label}\n"
    )
    return curated(
        text_format.Parse(INFERRED, schema_pb2.Schema()),
        text_format.Parse(STATISTICS, statistics_pb2.DatasetFeatureStatistics()),
        load(tmp_path / "pipeline.yaml"),
    )


def test_the_label_is_absent_when_serving_and_its_two_values_are_its_classes(tmp_path):
    schema = made(tmp_path, "{column: sold}")
    assert list(schema.default_environment) == ["TRAINING", "SERVING"]
    assert feature_set(schema, "sold").label.classes == ("0", "1")


def test_whole_numbers_that_may_or_may_not_be_classes_are_asked_about_with_file_and_line(tmp_path):
    with pytest.raises(ConfigError, match=r"'grade' holds whole numbers from -1 to 1: .*pipeline.yaml:3"):
        made(tmp_path, "{column: grade}")


def test_classes_that_the_configuration_names_and_a_regression_need_no_question(tmp_path):
    made(tmp_path, '{column: grade, classes: ["-1", "1"]}')
    schema = made(tmp_path, "{column: grade, kind: regression}")
    assert feature_set(schema, "grade", label_kind=LabelKind.REGRESSION).label.classes == ()


def test_a_label_that_the_data_lacks_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no column 'sole'; it has size, grade, sold"):
        made(tmp_path, "{column: sole}")
