"""What a model server answers that it should not: the bot goes on, and one reply stays a reply."""

import json

import httpx2
import pytest

from ghost.errors import ServerError
from ghost.serving.client.prediction import LONGEST_REPLY, PredictionFailed, bounded, json_object, parsed, read
from telegram_bot.gateway import as_messages, within


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (r'{"output": "a\ud800b"}', "a\ufffdb"),
        (r'{"output": "\ud83d\ude00"}', "😀"),
        (r'{"output": "\udc00\ud800"}', "\ufffd\ufffd"),
        (r'{"output": "\\ud800"}', r"\ud800"),
    ],
)
def test_a_text_of_a_server_can_be_stored(sent: str, found: str) -> None:
    assert json_object(sent)["output"] == found
    assert parsed(httpx2.Response(200, text=sent))["output"] == found
    found.encode()


@pytest.mark.parametrize("sent", ["[" * 100_000, "[1]", "7", "", "{", '{"a":' * 100_000])
def test_what_is_no_object_is_no_answer(sent: str) -> None:
    assert parsed(httpx2.Response(200, text=sent)) == {}
    with pytest.raises(ValueError):  # noqa: PT011  (each has its own words)
        json_object(sent)


@pytest.mark.parametrize(
    "more",
    [
        {"metrics": {"ended_by_itself": 10**30, "predict_time": 1.5}},
        {"metrics": [1]},
        {"urls": "x"},
        {"error": {"a": 1}},
        {"created_at": 7},
        {"output": {"a": 1}},
    ],
)
def test_a_prediction_of_other_types_is_read_or_refused(more: dict[str, object]) -> None:
    prediction = read({"id": "x", "status": "succeeded"} | more)
    assert all(abs(value) < 1e12 for value in prediction.metrics.values())
    assert isinstance(prediction.error, (str, type(None)))
    json.dumps([prediction.output, prediction.created_at, dict(prediction.urls)])


def test_a_status_that_is_a_list_is_no_prediction() -> None:
    with pytest.raises(ServerError, match="not a prediction"):
        read({"id": "x", "status": ["succeeded"]})


def test_a_reply_without_end_is_no_reply() -> None:
    whole = read({"id": "x", "status": "succeeded", "output": "a" * LONGEST_REPLY})
    assert bounded(whole) is whole
    with pytest.raises(PredictionFailed, match="100,000 characters"):
        bounded(read({"id": "x", "status": "succeeded", "output": "a" * (LONGEST_REPLY + 1)}))


@pytest.mark.parametrize("reply", ["x" * 300_000, "word " * 60_000, "line\n" * 60_000, "😀" * 100_000])
def test_a_reply_of_300_kb_becomes_six_messages(reply: str) -> None:
    pieces = as_messages(within(reply, 6), 6)
    assert 1 < len(pieces) <= 6
    assert pieces[-1].endswith("…")
    assert within("short\nreply", 6) == "short\nreply"
