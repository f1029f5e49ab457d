"""What a configuration says of a search, and what comes out of it."""

from typing import Any

import pytest

from models.search_space import plain_values, search_space
from models.settings import NetworkSettings, SearchRange, TrainSettings
from models.trainer import Settings


def drawn(wanted: dict[str, SearchRange], seeds: int = 40) -> list[dict[str, Any]]:
    """Values that a random search would try, as the settings get them."""
    space = search_space(wanted)
    return [
        plain_values({entry.name: entry.random_sample(seed) for entry in space.space})
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("model.hidden_units", SearchRange(values=([8], [8, 4], [])), [(8,), (8, 4), ()]),
        ("model.wide", SearchRange(values=(True, False)), [True, False]),
        ("train.schedule", SearchRange(values=("constant", "cosine")), ["constant", "cosine"]),
        ("model.dropout", SearchRange(values=(0, 0.1)), [0.0, 0.1]),
        ("train.epoch_rows", SearchRange(values=(None, 1000)), [None, 1000]),
        ("train.epoch_rows", SearchRange(min=10, max=12), [10, 11, 12]),
        ("model.cross_layers", SearchRange(min=0, max=2), [0, 1, 2]),
        ("train.batch_size", SearchRange(min=16, max=64, step=2, log=True), [16, 32, 64]),
        ("model.dropout", SearchRange(min=0.0, max=0.3, step=0.1), [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_every_kind_of_setting_takes_the_values_that_are_drawn_for_it(name, wanted, expected) -> None:
    part, _, key = name.partition(".")
    seen = []
    for values in drawn({name: wanted}):
        settings = Settings(NetworkSettings(), TrainSettings()).with_values(values)
        seen.append(getattr(settings.network if part == "model" else settings.train, key))
    assert {repr(value) for value in seen} == {repr(value) for value in expected}


def test_a_range_of_a_whole_number_is_drawn_in_whole_numbers_and_one_of_a_fraction_anywhere() -> None:
    rates = [
        values["train.learning_rate"]
        for values in drawn({"train.learning_rate": SearchRange(min=1e-4, max=1e-1, log=True)})
    ]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert sum(rate < 3e-3 for rate in rates) > len(rates) / 4


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("train.lerning_rate", SearchRange(values=(1.0,)), "did you mean train.learning_rate"),
        ("train.epochs", SearchRange(min=1, max=9), "tune.epochs says how long"),
        ("train.recency_half_life", SearchRange(values=(None, 7.0)), "weighted once"),
        ("train.memory_rows", SearchRange(min=0, max=9), "held once"),
        ("train.warm_start", SearchRange(values=(None,)), "trials begin cold"),
        ("train.checks", SearchRange(values=(True, False)), "the Trainer makes them"),
        ("train.auto_shard", SearchRange(values=("files", "rows")), "one process"),
        ("train.min_shard_bytes", SearchRange(min=1, max=9), "one process"),
        ("train.scale_learning_rate", SearchRange(values=("none", "sqrt")), "search train.learning_rate"),
        ("train.seed", SearchRange(min=1, max=9), "luck"),
        ("model.wide", SearchRange(min=0, max=1), "give values"),
        ("model.cross_layers", SearchRange(min=0.5, max=2), "0.5 is no whole number"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(name, wanted, message) -> None:
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        search_space({name: wanted})
    assert message in str(caught.value)


def test_a_penalty_is_not_chosen_by_the_loss_that_holds_it() -> None:
    wanted = {"model.l2": SearchRange(min=1e-6, max=1e-2, log=True)}
    with pytest.raises(ValueError, match="part of the loss"):
        search_space(wanted, "val_loss")
    search_space(wanted, "val_auc")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"values": (1, 2), "step": 1.0}, "step goes with min and max"),
        ({"min": 1.0, "max": 8.0, "step": 0.5, "log": True}, "must be above 1"),
        ({"min": 1.0, "max": 2.0, "step": 3.0}, "makes 1 values"),
        ({"values": ()}, "at least 1"),
    ],
)
def test_a_step_has_to_make_steps(wanted, message) -> None:
    with pytest.raises(ValueError, match=message):
        SearchRange(**wanted)
