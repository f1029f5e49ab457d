"""The network by itself: what must hold for any table."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from models.network import Column, build_network, sized_columns
from models.settings import NetworkSettings
from schemas.features import Form, ModelColumn

COLUMNS = (
    Column("fare_scaled", Form.DENSE, 1, 0),
    Column("company_id", Form.ID, 1, 5),
    Column("remark_tokens", Form.BAG, 3, 7),
)


def inputs(fare: float = 0.5, company: int = 1, tokens: tuple[int, ...] = (1, 2, 0)) -> dict[str, tf.Tensor]:
    return {
        "fare_scaled": tf.constant([[fare]]),
        "company_id": tf.constant([[company]], tf.int64),
        "remark_tokens": tf.constant([tokens], tf.int64),
    }


def scrambled(settings: NetworkSettings, outputs: int = 1) -> Any:
    network = build_network(COLUMNS, outputs, settings)
    random = np.random.default_rng(0)
    network.set_weights([random.normal(size=w.shape).astype(w.dtype) for w in network.get_weights()])
    return network


@pytest.mark.parametrize(
    "settings",
    [
        NetworkSettings(),
        NetworkSettings(wide=False),
        NetworkSettings(hidden_units=()),
        NetworkSettings(cross_layers=0),
    ],
)
def test_every_column_moves_the_score(settings: NetworkSettings) -> None:
    network = scrambled(settings)
    base = network(inputs()).numpy()
    for changed in (inputs(fare=1.0), inputs(company=4), inputs(tokens=(3, 0, 0))):
        assert not np.allclose(network(changed).numpy(), base)


def test_padding_and_the_order_of_words_do_not_count() -> None:
    network = scrambled(NetworkSettings())
    np.testing.assert_allclose(
        network(inputs(tokens=(1, 2, 0))), network(inputs(tokens=(0, 2, 1))), rtol=1e-5
    )


def test_a_faulty_reading_and_an_empty_text_stay_finite() -> None:
    network = scrambled(NetworkSettings())
    assert np.isfinite(network(inputs(fare=1e30, tokens=(0, 0, 0)))).all()
    np.testing.assert_array_equal(network(inputs(fare=1e30)), network(inputs(fare=5.0)))


def test_an_untrained_linear_network_scores_its_initial_bias() -> None:
    network = build_network(COLUMNS, 2, NetworkSettings(hidden_units=()), [0.25, -1.5])
    np.testing.assert_array_equal(network(inputs()), [[0.25, -1.5]])


def test_a_vocabulary_leaves_room_for_missing_and_unseen() -> None:
    columns = sized_columns(
        [
            ModelColumn("company_id", Form.ID, vocabulary="company_vocabulary"),
            ModelColumn("a", Form.ID, size=4),
        ],
        {"company_vocabulary": 3},
    )
    assert [column.size for column in columns] == [5, 4]


def test_a_network_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="no part"):
        build_network(COLUMNS, 1, NetworkSettings(wide=False, hidden_units=()))
