"""Scoring through a real HTTP service on the loopback, well-behaved and not."""

from __future__ import annotations

import gzip
import json
import pickle
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from beam_jobs.core import Direct, Scorer
from beam_jobs.endpoint import EndpointModel, EndpointSettings, tf_serving_url, vertex_url
from beam_jobs.pushed import PushedModel
from beam_jobs.rows import Batch, PredictionError
from tests.beam_jobs.prediction_service import Reply, saved_model, serving
from tests.beam_jobs.pushed_model import push

CLASSES = ("no", "yes")


def score(rows):
    """The chance that stands in the row; a row of any other text is refused."""
    chances = [float(row) for row in rows]
    return [{"scores": [1 - p, p], "classes": list(CLASSES), "probability": [p]} for p in chances]


@pytest.fixture
def service():
    with serving(score) as served:
        yield served


@pytest.fixture
def waits():
    return []


@pytest.fixture
def ask(service, waits):
    """Asks the service for rows; settings by name."""
    models = []

    def ask(rows, *, classes=CLASSES, model=None, **settings):
        if model is None:
            given = EndpointSettings(
                **{"url": tf_serving_url(service.base, "model"), "concurrency": 1, "attempts": 3, **settings}
            )
            model = EndpointModel(given, classes, sleep=waits.append)
            models.append(model)
        return model.answer(rows)

    yield ask
    for model in models:
        model.close()


def texts(count):
    return [f"{number / 1000:.3f}".encode() for number in range(count)]


def numbers(rows):
    return [[1 - float(row), float(row)] for row in rows]


def failing(times, reply):
    """Answers so many requests with a reply, and the others as usual."""
    left = [times]

    def meddle(request):
        left[0] -= 1
        return reply if left[0] >= 0 else None

    return meddle


def on_poison(reply):
    """Answers requests that hold a poison row with a reply."""
    return lambda request: reply if any(row.startswith(b"poison") for row in request.rows) else None


def test_many_requests_at_a_time_keep_the_order_of_the_rows(ask, service):
    rows = texts(1000)
    answer = ask(rows, max_rows=7, concurrency=8)
    np.testing.assert_allclose(answer.scores, numbers(rows))
    assert answer.failures == {}
    assert max(len(request.rows) for request in service.requests) == 7
    assert sum(len(request.rows) for request in service.requests) == 1000


def test_no_more_requests_are_under_way_than_allowed_whoever_asks(ask, service):
    under_way, most, lock = [0], [0], threading.Lock()
    together = threading.Barrier(3)

    def meddle(request):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait(10)
        service.stopped.wait(0.05)  # Long enough for one too many to come.
        with lock:
            under_way[0] -= 1

    service.meddle = meddle
    given = EndpointSettings(tf_serving_url(service.base, "model"), max_rows=1, concurrency=3)
    model = EndpointModel(given, CLASSES)
    askers = [threading.Thread(target=model.answer, args=(texts(6),)) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    model.close()
    assert (most[0], len(service.requests)) == (3, 12)


def test_a_request_is_what_tf_serving_takes(ask, service):
    ask([b"0.5"], url=tf_serving_url(service.base + "/", "model", version=12))
    (request,) = service.requests
    assert request.path == "/v1/models/model/versions/12:predict"
    assert request.body == {"signature_name": "serving_default", "instances": [{"b64": "MC41"}]}
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers


def test_a_vertex_endpoint_gets_a_token_each_time_and_no_signature(ask, service):
    tokens = iter(["secret", "secret"])
    url = vertex_url("my-project", "europe-west1", "42", base=service.base)
    answer = ask(texts(2), url=url, signature=None, token=lambda: next(tokens), max_rows=1, version="3")
    np.testing.assert_allclose(answer.scores, numbers(texts(2)))
    assert service.requests[0].path == "/v1/projects/my-project/locations/europe-west1/endpoints/42:predict"
    assert service.requests[0].body == {"instances": [{"b64": "MC4wMDA="}]}
    assert list(tokens) == []


def test_another_version_behind_a_vertex_endpoint_fails_the_job(ask, service):
    url = vertex_url("p", "l", "42", base=service.base)
    with pytest.raises(PredictionError, match=r"version 3 of the model answers \(deployed as 77\), not 4"):
        ask([b"0.5"], url=url, token=lambda: "secret", version="4")


def test_where_a_location_s_vertex_endpoints_are():
    assert vertex_url("p", "europe-west1", "42") == (
        "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1/endpoints/42:predict"
    )


def test_no_request_is_larger_than_allowed_and_a_row_that_cannot_fit_fails_alone(ask, service):
    rows = [b"0.5" + b" " * 200, b"0.25", b"0.125" + b" " * 5000, b"0.75"]
    answer = ask(rows, max_bytes=400)
    np.testing.assert_allclose(answer.scores[[0, 1, 3]], [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]])
    assert list(answer.failures) == [2]
    assert "in a request, which may have 400 in all" in answer.failures[2]
    assert max(request.size_bytes for request in service.requests) <= 400


def test_the_bound_on_bytes_is_that_of_the_whole_body(ask, service):
    ask([b"0.5"] * 100, max_bytes=500)
    sizes = [request.size_bytes for request in service.requests]
    assert max(sizes) <= 500
    assert min(sizes[:-1]) > 500 - 20


def test_a_number_is_read_with_and_without_the_output_s_name(ask, service):
    service.score = lambda rows: [{"prediction": [float(row)]} for row in rows]
    assert ask([b"3.5", b"4"], classes=()).scores.tolist() == [[3.5], [4.0]]
    service.score = lambda rows: [[float(row)] for row in rows]
    assert ask([b"3.5", b"4"], classes=()).scores.tolist() == [[3.5], [4.0]]
    service.score = lambda rows: [float(row) for row in rows]
    assert ask([b"3.5", b"4"], classes=()).scores.tolist() == [[3.5], [4.0]]


def test_a_packed_answer_is_unpacked(ask, service):
    packed = gzip.compress(json.dumps({"predictions": score(texts(500))}).encode())
    service.meddle = lambda _: Reply(200, packed, {"Content-Encoding": "gzip"})
    np.testing.assert_allclose(ask(texts(500), max_rows=500).scores, numbers(texts(500)))


def test_500s_are_waited_out_with_growing_random_pauses(ask, service, waits):
    service.meddle = failing(4, Reply(500, {"error": "out of memory"}))
    answer = ask(texts(3), attempts=5, first_pause_seconds=2.0)
    assert answer.failures == {}
    assert len(service.requests) == 5
    assert all(0 <= waited <= bound for waited, bound in zip(waits, [2, 4, 8, 16], strict=True))
    assert len(set(waits)) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_service_is_waited_for_as_it_asks_and_no_row_is_blamed(ask, service, waits, status):
    service.meddle = failing(7, Reply(status, {"error": "quota"}, {"Retry-After": "9"}))
    answer = ask(texts(3), first_pause_seconds=0.001)
    assert answer.failures == {}
    assert waits == [9.0] * 7
    assert {len(request.rows) for request in service.requests} == {3}


def test_retry_after_may_be_a_date_and_is_not_followed_for_hours(ask, service, waits):
    later = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    service.meddle = failing(1, Reply(503, b"", {"Retry-After": later}))
    ask(texts(1), longest_pause_seconds=30.0)
    assert waits == [30.0]


def test_a_service_that_always_fails_is_given_up_with_url_status_and_count(ask, service):
    service.meddle = lambda _: Reply(500, {"error": "out of memory"})
    with pytest.raises(PredictionError) as raised:
        ask(texts(64), max_consecutive_failures=20)
    said = str(raised.value)
    assert said.startswith("20 requests in a row failed")
    assert f"{service.base}/v1/models/model:predict: answers 500: out of memory" in said
    assert len(service.requests) == 20


def test_a_service_that_was_given_up_costs_one_request_until_it_answers_again(ask, service, waits):
    given = EndpointSettings(tf_serving_url(service.base, "model"), concurrency=1, max_consecutive_failures=5)
    model = EndpointModel(given, CLASSES, sleep=waits.append)
    service.meddle = lambda _: Reply(500)
    for expected in (5, 6, 7):
        with pytest.raises(PredictionError, match="5 requests in a row"):
            ask(texts(8), model=model)
        assert len(service.requests) == expected
    service.meddle = lambda _: None
    assert ask(texts(8), model=model).failures == {}
    model.close()


def test_a_service_that_is_not_there_fails_the_job_and_blames_no_row(ask, waits):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(PredictionError, match=rf"^6 requests .*:{port}/.*no connection: .*refused"):
        ask(texts(2), url=f"http://127.0.0.1:{port}/v1/models/m:predict", max_consecutive_failures=6)
    assert len(waits) == 5


@pytest.mark.parametrize(
    "reply", [Reply(400, {"error": "Could not parse example input"}), Reply(500, {"error": "crashed"})]
)
def test_poison_rows_stand_alone_in_the_end(ask, service, reply):
    service.meddle = on_poison(reply)
    rows = texts(100)
    rows[17] = rows[18] = rows[99] = b"poison"
    answer = ask(rows, concurrency=2)
    assert sorted(answer.failures) == [17, 18, 99]
    assert reply.content["error"] in answer.failures[17]
    good = [row for row in range(100) if row not in answer.failures]
    np.testing.assert_allclose(answer.scores[good], numbers(rows[row] for row in good))
    assert np.isnan(answer.scores[[17, 18, 99]]).all()


def test_only_what_may_be_at_fault_alone_is_asked_for_often(ask, service):
    service.meddle = on_poison(Reply(500))
    ask([b"poison", *texts(63)], attempts=5)
    failing = [len(request.rows) for request in service.requests if b"poison" in request.rows]
    assert failing == [64] * 5 + [32, 16, 8, 4, 2] + [1] * 5
    assert len(service.requests) == len(failing) + 6


def test_failures_with_answers_in_between_do_not_add_up(ask, service):
    rows = texts(64)
    rows[::8] = [b"poison"] * 8
    assert len(ask(rows, max_consecutive_failures=8).failures) == 8


def test_what_a_service_refuses_is_not_asked_again(ask, service, waits):
    assert list(ask([b"poison"]).failures) == [0]
    assert (len(service.requests), waits) == (1, [])


def test_rows_that_are_all_refused_fail_the_job(ask):
    with pytest.raises(
        PredictionError, match=r"^12 requests in a row failed.* answers 400: could not convert"
    ):
        ask([b"poison"] * 100, max_consecutive_failures=12)


def test_a_row_that_makes_the_service_hang_fails_and_the_others_do_not(ask, service):
    def meddle(request):
        if b"poison" in request.rows:
            service.stopped.wait(20)

    service.meddle = meddle
    answer = ask([*texts(3), b"poison"], read_timeout_seconds=0.2, attempts=2)
    assert list(answer.failures) == [3]
    assert "no full answer within 0.2 s" in answer.failures[3]


def test_an_answer_that_drips_without_end_is_too_late(ask, service):
    def drops():
        while not service.stopped.wait(0.05):
            yield b" "

    service.meddle = lambda _: Reply(200, b"{", {"Content-Length": "100000"}, drops())
    with pytest.raises(PredictionError, match=r"no full answer within 0\.3 s"):
        ask(texts(1), read_timeout_seconds=0.3, max_consecutive_failures=2)


def test_a_connection_that_breaks_is_tried_again(ask, service):
    def hang_up(request):
        if len(service.requests) == 1:
            raise ConnectionAbortedError  # Ends the thread of the connection, and with it the connection.

    service.handle_error = lambda *_: None
    service.meddle = hang_up
    assert ask(texts(2)).failures == {}
    assert len(service.requests) == 2


def test_an_answer_cut_short_is_tried_again(ask, service):
    cut = Reply(200, b'{"predictions": [', {"Content-Length": "5000", "Connection": "close"})
    service.meddle = failing(1, cut)
    assert ask(texts(2), read_timeout_seconds=0.5).failures == {}


def test_json_that_cannot_be_read_is_asked_for_again(ask, service):
    service.meddle = failing(2, Reply(200, b'{"predictions": [{"scores": [0.1'))
    assert ask(texts(2)).failures == {}
    assert len(service.requests) == 3


def test_a_lost_prediction_costs_its_row_only(ask, service):
    service.score = lambda rows: score([row for row in rows if row != b"0.003"])
    answer = ask(texts(8))
    assert list(answer.failures) == [3]
    assert "0 predictions for 1 rows" in answer.failures[3]


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"NaN"', "null"])
def test_a_score_that_is_no_number_costs_its_row_only(ask, service, value):
    text = f'{{"predictions": [{{"scores": [0.5, {value}]}}, {{"scores": [0.25, 0.75]}}]}}'
    service.meddle = lambda _: Reply(200, text.encode())
    answer = ask(texts(2))
    assert list(answer.failures) == [0]
    assert answer.scores[1].tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(302, b"", {"Location": "https://login.example/"}), "a redirect to https://login.example/"),
        (Reply(200, b"\n<!doctype html><title>Sign in</title>"), "a page of HTML.*Sign in"),
        (Reply(401, {"error": {"message": "no credentials"}}), "401: no credentials; give it a token"),
        (Reply(403, {"error": {"message": "denied"}}), "403: denied; give the account"),
        (Reply(404, {"error": "Servable not found"}), "404: Servable not found; look at the names"),
        (Reply(200, {"error": "odd"}), "no list `predictions`: odd"),
        (Reply(200, {"predictions": [{"outputs": [1, 0]}]}), "answers outputs, no scores"),
        (Reply(200, {"predictions": [{"scores": [0.2, 0.3, 0.5]}]}), r"shape \[1, 3\], not \[1, 2\]"),
        (Reply(200, {"predictions": [{"scores": ["high", "low"]}]}), "no numbers"),
        (
            Reply(200, {"predictions": [{"scores": [0.2, 0.8], "classes": ["yes", "no"]}]}),
            r"for the classes \['yes', 'no'\], not \['no', 'yes'\]",
        ),
    ],
)
def test_a_service_that_cannot_be_the_right_one_fails_the_job_at_once(ask, service, reply, said):
    service.meddle = lambda _: reply
    with pytest.raises(PredictionError, match=said) as raised:
        ask([b"0.5"])
    assert str(raised.value).startswith(service.base)
    assert len(service.requests) == 1


def test_no_rows_need_no_request(ask, service):
    assert ask([]).scores.shape == (0, 2)
    assert service.requests == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "models/m:predict"}, "want a URL"),
        ({"url": "http://serving.example/v1/models/m:predict", "token": str}, "must not travel unencrypted"),
        ({"max_rows": 0}, r"max_rows is 0; want at least 1"),
        ({"read_timeout_seconds": 0.0}, r"read_timeout_seconds is 0\.0; want more than 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings, said):
    with pytest.raises(PredictionError, match=said):
        replace(EndpointSettings("https://serving.example/v1/models/m:predict"), **settings)


def test_settings_travel_to_workers():
    settings = EndpointSettings(tf_serving_url("http://127.0.0.1:1", "m"), token=str)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_real_model_behind_the_service_answers_as_it_does_in_this_process(pushed):
    rows = {
        "day": [str(number) for number in range(40)],
        "humidity": [*range(39), None],
        "gusts": [number % 7 or None for number in range(40)],
    }
    batch = Batch("rows.jsonl", range(1, 41), rows)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    with serving(saved_model(pushed.folder), "rain") as service:
        settings = EndpointSettings(tf_serving_url(service.base, "rain", pushed.version), max_rows=7)
        asked = Scorer(pushed, settings.connect(pushed)).score(batch, at)
        assert len(service.requests) == 1 + 6  # The first are the warm-up requests.
    direct = Scorer(pushed, Direct(pushed.load())).score(batch, at)
    assert asked.predictions is not None
    assert direct.predictions is not None
    assert asked.predictions.schema == direct.predictions.schema
    for name in asked.predictions.schema.names:
        found, expected = asked.predictions[name], direct.predictions[name]
        if name.startswith("probability"):  # In rows of another number, the last bit is rounded otherwise.
            np.testing.assert_allclose(found, expected, atol=1e-6)
        else:
            assert found.equals(expected)
    assert [letter.position for letter in asked.dead_letters] == ["40"]


def test_a_service_with_another_version_behind_it_is_refused_before_it_scores_a_row(pushed, tmp_path):
    other = push(tmp_path, 2, weight=2.0)
    with serving(saved_model(str(other))) as service:
        url = tf_serving_url(service.base, "model")
        with pytest.raises(
            PredictionError,
            match=rf"{url}: answers the warm-up requests of version 1 .*by up to 0\.1\d*; at most 0\.0001",
        ):
            EndpointSettings(url).connect(pushed)


def test_a_service_that_fails_on_the_warm_up_requests_is_refused(pushed, service):
    url = tf_serving_url(service.base, "model")  # Of texts such as "0.5", and of no examples.
    with pytest.raises(PredictionError, match=rf"3 requests in a row failed, the last: {url}: answers 400"):
        EndpointSettings(url).connect(pushed)


def test_a_service_that_is_not_there_is_found_out_on_connecting(pushed, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1/models/m:predict"
    push(tmp_path, with_warm_up=False)
    for model in (pushed, PushedModel.read(str(tmp_path))):
        with pytest.raises(PredictionError, match=rf"^3 requests .*{url}: no connection: .*refused"):
            EndpointSettings(url, first_pause_seconds=0.01).connect(model)
