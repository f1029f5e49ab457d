import io
from dataclasses import fields

import numpy as np
import pytest

from tests.tflite.trainable_model import lateness, rows, trainable_model
from tflite.client import TrainableModel
from tflite.federated import (
    DeviceClient,
    FederatedSettings,
    FederationError,
    Rows,
    Update,
    Weights,
    averaged,
    dealt,
    federated_rounds,
)

WEIGHTS = {"kernel": np.zeros([2, 1], np.float32), "bias": np.zeros([1], np.float32)}


def update(value, count):
    return Update({name: np.full_like(zeros, value) for name, zeros in WEIGHTS.items()}, count)


class Answering:
    """A client that answers always the same, and notes what it was asked."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def update(self, message):
        self.asked.append(message)
        return self.answer


class Overheard:
    """A client whose answers are noted on their way."""

    def __init__(self, client):
        self.client = client
        self.sent = []

    def update(self, message):
        self.sent.append(self.client.update(message))
        return self.sent[-1]


# --- averaging ---


def test_the_mean_is_weighted_by_rows_and_added():
    begun = {name: zeros + 1 for name, zeros in WEIGHTS.items()}
    after = averaged(begun, [update(1.0, 30), update(-3.0, 10)])
    for name in WEIGHTS:
        np.testing.assert_array_equal(after[name], np.full_like(WEIGHTS[name], 1.0 + (30 - 30) / 40))
    after = averaged(begun, [update(1.0, 30), update(5.0, 10)])
    np.testing.assert_array_equal(after["bias"], np.array([3.0], np.float32), strict=True)


def drawn(seed):
    """Clients by round, with what each of them was asked."""
    clients = {f"client {number}": Answering(update(1.0, 5).to_bytes()) for number in range(8)}
    settings = FederatedSettings(rounds=4, clients_per_round=3, seed=seed)
    for average in federated_rounds(WEIGHTS, clients, settings):
        biases = [np.load(io.BytesIO(clients[name].asked[-1]))["bias"].item() for name in average.clients]
        yield average, biases


def test_each_round_sends_the_last_average_to_clients_drawn_by_the_seed():
    for average, biases in drawn(seed=1):
        assert len(set(average.clients)) == 3
        assert average.rows == 15
        assert biases == [average.number - 1] * 3
        assert average.weights["bias"].item() == average.number
    by_seed = [[average.clients for average, _ in drawn(seed)] for seed in (1, 1, 2)]
    assert by_seed[0] == by_seed[1] != by_seed[2]


def test_rows_are_dealt_by_their_owner_and_none_is_lost():
    table = Rows({"id": np.arange(6)[:, np.newaxis]}, np.array([[0], [1], [0], [1], [1], [0]], np.float32))
    shares = dealt(table, ["b", "a", "b", "", "a", "b"])
    assert {name: rows.columns["id"].ravel().tolist() for name, rows in shares.items()} == {
        "": [3],
        "a": [1, 4],
        "b": [0, 2, 5],
    }
    assert shares["a"].labels.ravel().tolist() == [1, 1]


# --- devices ---


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("federated") / "trainable.tflite"
    file.write_bytes(trainable_model()[0])
    return file


@pytest.fixture(scope="module")
def shares(path):
    """Rows of three clients who are unlike each other: each has flights of its own carriers only."""
    raw = rows(240)
    model = TrainableModel(path)
    table = Rows(model.prepare(raw), model.labels(lateness(raw)))
    return dealt(table, [{"DL": "first", "AA": "second"}.get(row["carrier"], "third") for row in raw])


def loss(path, weights, shares):
    """Over all clients' rows."""
    model = TrainableModel(path)
    losses = []
    for share in shares.values():
        model.set_weights(weights)
        for start in range(len(share)):
            one = share.take(np.array([start]))
            model.set_weights(weights)
            losses += model.learn(one.columns, one.labels)
    return float(np.mean(losses))


def test_clients_who_never_meet_learn_together(path, shares):
    begun = TrainableModel(path).weights()
    settings = FederatedSettings(rounds=6, clients_per_round=3, epochs=2)
    devices = {name: DeviceClient(path, own, 2, [0, len(name)]) for name, own in shares.items()}
    *_, last = federated_rounds(begun, devices, settings)
    assert loss(path, last.weights, shares) < loss(path, begun, shares) / 2


def test_only_differences_of_weights_and_a_number_of_rows_leave_a_client(path, shares):
    begun = TrainableModel(path).weights()
    devices = {name: Overheard(DeviceClient(path, own, 1, [0])) for name, own in shares.items()}
    settings = FederatedSettings(rounds=2, clients_per_round=3)
    sent_before: Weights = begun
    for average in federated_rounds(begun, devices, settings):
        answers = {name: devices[name].sent[-1] for name in average.clients}
        for name, answer in answers.items():
            with np.load(io.BytesIO(answer), allow_pickle=False) as held:
                assert set(held) == {"rows", *(f"delta/{weight}" for weight in begun)}
                assert held["rows"] == len(shares[name])
                for weight, value in begun.items():
                    assert held[f"delta/{weight}"].shape == value.shape
        # They are differences: with the weights that were sent they make the average.
        read = [Update.from_bytes(answer, begun) for answer in answers.values()]
        for weight, value in averaged(sent_before, read).items():
            np.testing.assert_array_equal(value, average.weights[weight])
        sent_before = average.weights
    assert [field.name for field in fields(Update)] == ["deltas", "rows"]


def test_the_size_of_what_is_sent_says_nothing_of_the_number_of_rows(path, shares):
    message = io.BytesIO()
    np.savez(message, **TrainableModel(path).weights())  # type: ignore[arg-type]
    sizes = {
        len(DeviceClient(path, own.take(np.arange(count)), 1, [0]).update(message.getvalue()))
        for own, count in zip(shares.values(), (1, 20, 40), strict=True)
    }
    assert len(sizes) == 1


# --- bad input ---


def changed(answer, **arrays):
    with np.load(io.BytesIO(answer)) as held:
        content = {**held, **arrays}
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in content.items() if value is not None})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carriers": np.array(["DL"])}, "holds what it must not: 'carriers'"),
        ({"delta/bias": None}, "lacks: 'delta/bias'"),
        ({"delta/bias": np.zeros([2], np.float32)}, "'bias' is float32 [2], not float32 [1]"),
        ({"delta/bias": np.zeros([1])}, "'bias' is float64 [1], not float32 [1]"),
        ({"delta/bias": np.array([np.nan], np.float32)}, "'bias' is not finite"),
        ({"rows": 0}, "an update of 0 rows"),
        ({"rows": np.arange(3)}, "an update of [0 1 2] rows"),
    ],
)
def test_an_answer_that_is_no_update_stops_the_round_and_names_the_client(change, message):
    good = update(1.0, 5).to_bytes()
    clients = {"good": Answering(good), "odd": Answering(changed(good, **change))}
    with pytest.raises(FederationError) as caught:
        list(federated_rounds(WEIGHTS, clients, FederatedSettings(1, 2)))
    assert str(caught.value).startswith("client 'odd' sent")
    assert message in str(caught.value)


def test_bytes_that_are_no_arrays_are_refused():
    with pytest.raises(FederationError, match="client 'odd' sent bytes that are no arrays"):
        list(federated_rounds(WEIGHTS, {"odd": Answering(b"rows of mine")}, FederatedSettings(1, 1)))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(FederationError, match="rounds is 0"):
        FederatedSettings(rounds=0)
    with pytest.raises(FederationError, match="clients_per_round is 3, and there are 2 clients"):
        list(federated_rounds(WEIGHTS, {"a": Answering(b""), "b": Answering(b"")}, FederatedSettings(1, 3)))
