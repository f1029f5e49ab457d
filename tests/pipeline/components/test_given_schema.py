"""The curated schema of a compiled pipeline."""

from tfx.types import standard_artifacts

from pipeline.components.given_schema import Executor, GivenSchema
from schemas.features import load_schema

TEXT = 'feature {\n  name: "größe"  # in cm\n  type: FLOAT\n}\n'


def test_the_schema_that_stands_in_the_parameters_is_the_one_that_is_read(tmp_path):
    artifact = standard_artifacts.Schema()
    artifact.uri = str(tmp_path / "schema")
    Executor().Do({}, {"schema": [artifact]}, GivenSchema(TEXT).exec_properties)
    # SchemaGen's readers look for this name.
    assert (tmp_path / "schema" / "schema.pbtxt").read_text(encoding="utf-8") == TEXT
    assert load_schema(tmp_path / "schema" / "schema.pbtxt").feature[0].name == "größe"
