"""That treated networks have the zeros, values and answers they are said to have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from models import trainer
from models.ensemble import averaged
from models.inputs import load_split
from models.network import Network
from models.settings import NetworkSettings
from models.trainer import Data
from schemas.features import LabelKind
from tests.tflite.learned_table import SETTINGS, answers, made_data, saved
from tflite import compression
from tflite.learning import TreatmentError
from tflite.settings import ClusteringSettings, PruningSettings, QuantizationAwareSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return made_data(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def network(data: Data) -> Network:
    return trainer.fit(data, SETTINGS).network


def spread(data: Data, seed: int = 1) -> Network:
    """A network that answers every row differently, without training one."""
    network = trainer.untrained(data, SETTINGS)
    random = np.random.default_rng(seed)
    network.set_weights([w + random.normal(0, 0.2, w.shape) for w in network.get_weights()])
    return network


def auc(network: Network, data: Data) -> float:
    assert data.validation.labels is not None
    return float(roc_auc_score(data.validation.labels.numpy()[:, 0], answers(network, data.validation)[:, 0]))


def served(folder: str, data: Data) -> np.ndarray:
    return answers(tf.saved_model.load(folder).network, data.validation)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, str]:
    """A regression's data, and a SavedModel that learned from the rows of both splits: its unit is theirs."""
    folder = tmp_path_factory.mktemp("refitted")
    data = made_data(folder, LabelKind.REGRESSION)
    both = load_split("both", [*data.train.files, *data.validation.files], data.train.reader, 10_000)
    return data, saved(spread(replace(data, train=both)), data, folder)


REFITTED = replace(SETTINGS, train=replace(SETTINGS.train, refit=True))


def test_the_network_of_a_saved_model_answers_as_it_does(refitted: tuple[Data, str]) -> None:
    data, folder = refitted
    again = compression.trained_network(data, REFITTED, folder)
    served = answers(tf.saved_model.load(folder).network, data.validation)
    np.testing.assert_allclose(answers(again, data.validation), served, rtol=1e-5, atol=1e-2)


def test_a_network_that_would_answer_otherwise_is_refused(refitted: tuple[Data, str]) -> None:
    data, folder = refitted
    with pytest.raises(TreatmentError, match="answers otherwise"):
        compression.trained_network(replace(data, train=replace(data.train, label_std=3.0)), SETTINGS, folder)


def test_other_layers_and_folders_without_a_model_are_refused(
    refitted: tuple[Data, str], tmp_path: Path
) -> None:
    data, folder = refitted
    other = replace(REFITTED, network=replace(SETTINGS.network, hidden_units=(32, 16, 8)))
    with pytest.raises(TreatmentError, match="hidden_3"):
        compression.trained_network(data, other, folder)
    with pytest.raises(TreatmentError, match="no SavedModel"):
        compression.trained_network(data, REFITTED, str(tmp_path / "absent"))


def test_an_ensemble_is_refused_by_name(data: Data, tmp_path: Path) -> None:
    network = averaged([spread(data, 1), spread(data, 2)], data.features.label)
    tf.train.Checkpoint(network=network).write(str(tmp_path / "variables" / "variables"))
    with pytest.raises(TreatmentError, match="ensemble"):
        compression.trained_network(data, SETTINGS, str(tmp_path))


def test_pruned_weights_are_zero_as_asked_and_the_answers_stay(data: Data, network: Network) -> None:
    before = [weight.copy() for weight in network.get_weights()]
    treated = compression.pruned(data, SETTINGS, network, PruningSettings(sparsity=0.75, epochs=3))
    matrices = {matrix.layer: matrix for matrix in compression.matrices(treated.network)}
    assert set(matrices) == {"deep_word_id", "hidden_1", "hidden_2"}
    for matrix in matrices.values():
        assert matrix.zeros == pytest.approx(0.75, abs=1.0 / matrix.weights)
    # The stripped network is the one that was measured, in an epoch that had all zeros.
    assert treated.chosen >= 1
    assert auc(treated.network, data) == pytest.approx(treated.history[treated.chosen]["val_auc"], abs=0.005)
    assert auc(treated.network, data) > auc(network, data) - 0.05
    assert compression.packed_bytes(treated.network) < 0.7 * compression.packed_bytes(network)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_zeros_come_in_whole_blocks_where_a_kernel_divides_into_them(data: Data, network: Network) -> None:
    treated = compression.block_pruned(data, SETTINGS, network, PruningSettings(sparsity=0.5, epochs=2))
    kernels = {layer.name: layer.get_weights()[0] for layer in treated.network.layers if layer.weights}
    whole = kernels["hidden_2"]
    blocks = whole.reshape(len(whole) // 4, 4, -1) == 0.0
    np.testing.assert_array_equal(blocks.all(axis=1), blocks.any(axis=1))
    assert blocks.mean() == pytest.approx(0.5, abs=0.02)
    odd = kernels["hidden_1"]
    assert len(odd) % 4 > 0, "else this proves nothing"
    assert (odd == 0.0).mean() == pytest.approx(0.5, abs=0.02)
    assert (kernels["deep_word_id"] != 0.0).all(), "no sparse kernel reads embeddings"


def test_clustered_weights_have_as_many_values_as_asked(data: Data, network: Network) -> None:
    treated = compression.clustered(data, SETTINGS, network, ClusteringSettings(clusters=8, epochs=2))
    for matrix in compression.matrices(treated.network):
        assert 1 < matrix.values <= 8
    assert auc(treated.network, data) == pytest.approx(treated.history[treated.chosen]["val_auc"], abs=0.005)
    assert auc(treated.network, data) > auc(network, data) - 0.05
    assert compression.packed_bytes(treated.network) < 0.7 * compression.packed_bytes(network)


def test_quantization_aware_training_learns_and_gives_a_plain_network(data: Data, network: Network) -> None:
    treated = compression.quantization_aware(data, SETTINGS, network, QuantizationAwareSettings(epochs=1))
    assert [layer.name for layer in treated.network.layers] == [layer.name for layer in network.layers]
    assert auc(treated.network, data) > auc(network, data) - 0.02
    kernels = [one.get_layer("hidden_1").get_weights()[0] for one in (network, treated.network)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.0


def test_a_split_without_rows_is_refused(data: Data, network: Network) -> None:
    empty = replace(data, validation=replace(data.validation, rows=0))
    with pytest.raises(TreatmentError, match="'validation' has no rows"):
        compression.clustered(empty, SETTINGS, network, ClusteringSettings())
    with pytest.raises(TreatmentError, match="'validation' has no rows"):
        compression.trained_network(empty, SETTINGS, "unread")


def test_a_network_of_small_matrices_is_refused(data: Data) -> None:
    settings = replace(SETTINGS, network=NetworkSettings(hidden_units=(4,), embedding_size=1, cross_layers=0))
    with pytest.raises(TreatmentError, match="no layer has a matrix of 256"):
        compression.pruned(data, settings, trainer.untrained(data, settings), PruningSettings())
