"""That weights really come from the saved model, by token where ids have changed, and that closed layers stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models import signatures
from models.ensemble import averaged
from models.network import Network, build_network, sized_columns
from models.settings import NetworkSettings, UnfreezeStep, WarmStartSettings
from models.warm_start import (
    Carried,
    Unfreezing,
    WarmStartError,
    begin_from,
    embedding_widths,
    note_columns,
)
from schemas.features import Form, LabelKind, ModelColumn
from tests.models.conftest import only

COLUMNS = (
    ModelColumn("fare_scaled", Form.DENSE),
    ModelColumn("hour_cycle", Form.DENSE, width=2),
    ModelColumn("paint_id", Form.ID, vocabulary="paint_vocabulary"),
    ModelColumn("route_hash", Form.ID, size=5),
)
OLD = (b"red", b"blue", b"grey")
NEW = (b"green", b"red", b"grey")
SETTINGS = NetworkSettings(hidden_units=(4,), embedding_size=2, cross_rank=3, dropout=0.0, input_dropout=0.0)


def built(
    vocabulary: Sequence[bytes], seed: int, columns: Sequence[ModelColumn] = COLUMNS, **changes: Any
) -> Network:
    """A network all of whose weights are drawn by the seed."""
    settings = NetworkSettings(**{**SETTINGS.__dict__, **changes})
    network = build_network(sized_columns(columns, {"paint_vocabulary": len(vocabulary)}), 1, settings)
    random = np.random.default_rng(seed)
    network.set_weights([random.normal(size=weight.shape) for weight in network.get_weights()])
    return network


def weights(network: Network) -> Mapping[str, np.ndarray]:
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in network.weights}


@pytest.fixture
def old() -> Network:
    return built(OLD, seed=1)


@pytest.fixture
def saved(old: Network, tmp_path: Path) -> str:
    """The old network as a SavedModel with its vocabulary."""
    file = tmp_path / "paint_vocabulary"
    file.write_bytes(b"".join(token + b"\n" for token in OLD))
    module = tf.Module()
    module.network = old
    module.vocabulary = tf.saved_model.Asset(str(file))
    folder = str(tmp_path / "saved")
    tf.saved_model.save(module, folder)
    note_columns(COLUMNS, folder)
    return folder


def begun(network: Network, saved: str, *layers: str, tokens: Sequence[bytes] = NEW) -> tuple[Carried, ...]:
    settings = WarmStartSettings(layers=layers or ("*",))
    return begin_from(network, saved, settings, COLUMNS, {"paint_vocabulary": tokens})


@pytest.mark.parametrize("part", ["wide", "deep"])
def test_rows_follow_their_tokens_and_unseen_tokens_begin_anew(old: Network, saved: str, part: str) -> None:
    network = built(NEW, seed=2)
    fresh = weights(network)[f"{part}_paint_id/embeddings"]
    begun(network, saved)
    before, after = (weights(one)[f"{part}_paint_id/embeddings"] for one in (old, network))
    missing, red, _, grey, unseen = before
    np.testing.assert_array_equal(after, [missing, fresh[1], red, grey, unseen])


def test_every_other_layer_begins_with_the_weights_of_the_saved_model(old: Network, saved: str) -> None:
    network = built(NEW, seed=2)
    carried = begun(network, saved)
    for name, value in weights(network).items():
        if "paint_id" not in name:
            np.testing.assert_array_equal(value, weights(old)[name], name)
    assert Carried("deep_paint_id", rows_carried=4, rows_new=1) in carried
    assert Carried("wide_route_hash", rows_carried=5, rows_new=0) in carried
    assert {one.layer for one in carried} == {name.partition("/")[0] for name in weights(network)}


def test_layers_that_were_not_chosen_begin_anew(old: Network, saved: str) -> None:
    network = built(NEW, seed=2)
    fresh = weights(network)
    begun(network, saved, "deep_route_hash", "hidden_*")
    for name, value in weights(network).items():
        is_chosen = name.startswith(("deep_route_hash/", "hidden_"))
        np.testing.assert_array_equal(value, (weights(old) if is_chosen else fresh)[name], name)


def test_a_changed_shape_is_an_error_and_nothing_is_carried(saved: str) -> None:
    network = built(NEW, seed=2, hidden_units=(6,))
    fresh = weights(network)
    with pytest.raises(
        WarmStartError, match=r"'hidden_1': .* is \[7, 4\] in the saved model and \[7, 6\] now"
    ):
        begun(network, saved)
    for name, value in weights(network).items():
        np.testing.assert_array_equal(value, fresh[name], name)


def test_a_layer_that_the_saved_model_lacks_is_an_error(saved: str) -> None:
    with pytest.raises(WarmStartError, match=r"layer 'hidden_2': .* has no 'hidden_2/kernel'"):
        begun(built(NEW, seed=2, hidden_units=(4, 4)), saved, "hidden_2")


def test_inputs_that_have_changed_places_are_refused_though_all_shapes_agree(saved: str) -> None:
    swapped = (COLUMNS[1], COLUMNS[0], *COLUMNS[2:])
    network = built(NEW, 2, swapped)
    with pytest.raises(WarmStartError, match="in another order"):
        begin_from(network, saved, WarmStartSettings(), swapped, {"paint_vocabulary": NEW})
    ids_alone = WarmStartSettings(layers=("deep_*_id", "deep_*_hash"))
    assert begin_from(network, saved, ids_alone, swapped, {"paint_vocabulary": NEW})


def test_a_column_that_is_new_begins_anew(saved: str) -> None:
    more = (*COLUMNS, ModelColumn("gate_hash", Form.ID, size=9))
    settings = WarmStartSettings(layers=("wide_*_id", "wide_*_hash"))
    carried = begin_from(built(NEW, 2, more), saved, settings, more, {"paint_vocabulary": NEW})
    assert Carried("wide_gate_hash", rows_carried=0, rows_new=9) in carried


def test_the_widths_of_embeddings_are_those_of_the_saved_model(saved: str) -> None:
    assert embedding_widths(saved, WarmStartSettings()) == {"paint_id": 2, "route_hash": 2}
    assert embedding_widths(saved, WarmStartSettings(layers=("wide_*", "deep_paint_id"))) == {"paint_id": 2}


def test_an_unknown_layer_is_an_error_that_lists_the_layers(saved: str) -> None:
    with pytest.raises(WarmStartError, match=r"layers: 'hiden_\*' names no layer .* hidden_1"):
        begun(built(NEW, seed=2), saved, "hiden_*")
    with pytest.raises(WarmStartError, match=r"unfreeze\[0\]\.layers: 'cros' names no layer .* cross_1"):
        Unfreezing(built(NEW, seed=2), [UnfreezeStep(2, ("cros",))])


def test_a_folder_without_a_saved_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WarmStartError, match="no SavedModel"):
        begun(built(NEW, seed=2), str(tmp_path))


@only(LabelKind.BINARY)
def test_a_model_of_several_networks_is_refused_with_what_to_do(
    table: SimpleNamespace, tmp_path: Path
) -> None:
    columns = table.features.columns()
    tokens = {c.vocabulary: table.graph.vocabulary_by_name(c.vocabulary) for c in columns if c.vocabulary}
    sizes = {name: len(entries) for name, entries in tokens.items()}
    members = [build_network(sized_columns(columns, sizes), 1, SETTINGS) for _ in range(2)]
    signatures.export(averaged(members, table.features.label), table.features, table.graph, str(tmp_path))
    settings = WarmStartSettings()
    for begin in (
        lambda: begin_from(members[0], str(tmp_path), settings, columns, tokens),
        lambda: embedding_widths(str(tmp_path), settings),
    ):
        with pytest.raises(WarmStartError, match=r"is an ensemble, .* train\.warm_start\.source"):
            begin()


def learned(network: Network, steps: Sequence[UnfreezeStep], epochs: range) -> list[Mapping[str, np.ndarray]]:
    """The weights before the first and after each of some epochs."""
    random = np.random.default_rng(0)
    inputs = {
        "fare_scaled": random.normal(size=(16, 1)).astype(np.float32),
        "hour_cycle": random.normal(size=(16, 2)).astype(np.float32),
        "paint_id": random.integers(0, 5, (16, 1)),
        "route_hash": random.integers(0, 5, (16, 1)),
    }
    labels = random.integers(0, 2, (16, 1)).astype(np.float32)
    optimizer = tf_keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    network.compile(optimizer, tf_keras.losses.BinaryCrossentropy(from_logits=True))
    seen = [weights(network)]
    note = tf_keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(weights(network)))
    network.fit(
        inputs,
        labels,
        batch_size=8,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        callbacks=[Unfreezing(network, steps), note],
        verbose=0,
    )
    return seen


def moved(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> set[str]:
    """Names of the layers of which any bit has changed."""
    return {name.partition("/")[0] for name in before if not np.array_equal(before[name], after[name])}


def test_a_closed_layer_does_not_move_by_a_bit_until_its_epoch() -> None:
    network = built(OLD, seed=1)
    everything = {name.partition("/")[0] for name in weights(network)}
    steps = [UnfreezeStep(2, ("hidden_*",)), UnfreezeStep(3, ("deep_*_id", "wide_*", "cross_*"))]
    at_3 = {"deep_paint_id", "cross_1", "cross_1_low", "wide_paint_id", "wide_route_hash", "wide_dense"}
    start, first, second, third = learned(network, steps, range(3))
    assert moved(start, first) == everything - at_3 - {"hidden_1"}
    assert moved(first, second) == everything - at_3
    assert moved(second, third) == everything


def test_training_that_goes_on_finds_the_layers_as_they_would_have_been() -> None:
    steps = [UnfreezeStep(2, ("wide_*",)), UnfreezeStep(4, ("hidden_1",))]
    start, third = learned(built(OLD, seed=1), steps, range(2, 3))
    assert "wide_dense" in moved(start, third)
    assert "hidden_1" not in moved(start, third)


@only(LabelKind.BINARY)
def test_an_exported_model_begins_again_where_it_ended(table: SimpleNamespace, tmp_path: Path) -> None:
    columns = table.features.columns()
    tokens = {c.vocabulary: table.graph.vocabulary_by_name(c.vocabulary) for c in columns if c.vocabulary}
    sizes = {name: len(entries) for name, entries in tokens.items()}
    first, second = (build_network(sized_columns(columns, sizes), 1, SETTINGS) for _ in range(2))
    first.set_weights([np.random.default_rng(3).normal(size=weight.shape) for weight in first.get_weights()])
    signatures.export(first, table.features, table.graph, str(tmp_path))
    carried = begin_from(second, str(tmp_path), WarmStartSettings(), columns, tokens)
    assert not any(one.rows_new for one in carried)
    assert moved(weights(first), weights(second)) == set()
