"""What is read from a transform graph is what the graph computes with."""

from dataclasses import replace

import numpy as np
import pytest

from schemas.features import FeatureSet
from tests.tflite.every_kind import FEATURES as EVERY_KIND
from tests.tflite.every_kind import ROWS, Server
from tflite.analysed import Analysed, DeviceError

READ = ("fare", "same", "miles", "ratio", "street")
FEATURES = FeatureSet(tuple(feature for feature in EVERY_KIND if feature.name in READ), EVERY_KIND.label)


@pytest.fixture(scope="module")
def graph(every_kind_graph):
    return every_kind_graph


@pytest.fixture(scope="module")
def analysed(graph):
    return Analysed.read(FEATURES, graph)


def test_moments_are_those_of_the_values_that_are_there(analysed):
    fares = [row["fare"] for row in ROWS if "fare" in row]
    assert analysed.moments["fare"].mean == pytest.approx(np.mean(fares))
    assert analysed.moments["fare"].variance == pytest.approx(np.var(fares))
    assert analysed.moments["same"].variance == 0.0


def test_moments_of_a_logarithm_are_those_behind_it(analysed):
    miles = np.array([row["miles"] for row in ROWS], np.float32).astype(np.float64)
    assert analysed.moments["miles"].mean == pytest.approx(np.mean(np.sign(miles) * np.log1p(np.abs(miles))))


def test_a_value_at_a_boundary_is_in_the_bucket_that_begins_there(graph, analysed):
    boundaries = analysed.boundaries["ratio"]
    buckets = Server(graph).columns([{"ratio": boundary} for boundary in boundaries])["ratio_bucket"].ravel()
    assert buckets.tolist() == [2 + place for place in range(len(boundaries))]


def test_vocabularies_are_in_the_order_of_their_ids(graph, analysed):
    tokens = analysed.vocabularies["street"]
    assert set(tokens) == {row["street"] for row in ROWS if "street" in row}
    ids = Server(graph).columns([{"street": token} for token in tokens])["street_id"].ravel()
    assert ids.tolist() == [1 + place for place in range(len(tokens))]


def test_a_feature_that_the_graph_never_saw_is_named(graph):
    other = replace(FEATURES.features[0], name="tolls")
    with pytest.raises(DeviceError, match=r"'tolls' \(numeric\): .*'tolls_z_score/sub'.*run Transform again"):
        Analysed.read(FeatureSet((other,), FEATURES.label), graph)
