"""The client of Replicate against a server that answers as Replicate does, faults included."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import pytest

from ghost.errors import ServerError, UsageError
from ghost.serving.client import (
    Prediction,
    PredictionFailed,
    PredictionLost,
    Replicate,
    ServerBusy,
    ServerUnreachable,
    backend,
)
from ghost.serving.client import replicate as replicate_client
from tests.ghost.serving.fake_replicate import (
    LOST_AFTER,
    LOST_BEFORE,
    PIECES,
    TOKEN,
    VERSION,
    FakeReplicate,
    Fault,
    running,
)

MODEL = f"ana/ghost:{VERSION}"
REPLY = "".join(PIECES)
INPUTS = {"prompt": "une phrase que personne ne doit lire dans un journal", "temperature": 0.5}
CREATE = ("POST", "/v1/predictions")
Result = TypeVar("Result")


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_client, "PAUSES", [0.001] * 5)


@pytest.fixture
def fake() -> Iterator[FakeReplicate]:
    with running() as server:
        yield server


def ask(
    fake: FakeReplicate,
    call: Callable[[Replicate], Coroutine[Any, Any, Result]],
    model: str = MODEL,
    token: str = TOKEN,
) -> Result:
    async def go() -> Result:
        async with Replicate(model, token, fake.url) as replicate:
            return await call(replicate)

    return asyncio.run(go())


def answer(fake: FakeReplicate, model: str = MODEL, **options: Any) -> Prediction:
    return ask(fake, lambda replicate: replicate.answer(INPUTS, **options), model)


def stream(fake: FakeReplicate, model: str = MODEL) -> list[str]:
    async def pieces(replicate: Replicate) -> list[str]:
        return [piece async for piece in replicate.stream(INPUTS)]

    return ask(fake, pieces, model)


def test_a_prediction_is_created_once_and_followed_to_its_end(fake: FakeReplicate) -> None:
    prediction = answer(fake)
    assert (prediction.status, prediction.output) == ("succeeded", REPLY)
    assert prediction.metrics["predict_time"] == 0.25
    assert fake.asked(*CREATE) == 1
    assert fake.bodies[0]["version"] == VERSION
    assert INPUTS.items() <= fake.bodies[0]["input"].items()
    assert fake.headers[0]["Cancel-After"] == "300s"


@pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
@pytest.mark.parametrize("streams", [True, False])
def test_every_other_end_is_a_failure(fake: FakeReplicate, status: str, streams: bool) -> None:
    fake.states, fake.streams = ["starting", status], streams
    for call in (answer, stream):
        with pytest.raises(PredictionFailed, match="ran out of memory" if status == "failed" else status) as failure:
            call(fake)
        assert failure.value.prediction.status == status
    assert not any(path.endswith("/cancel") for _, path in fake.requests)


def test_a_stream_gives_each_piece_once(fake: FakeReplicate) -> None:
    assert stream(fake) == PIECES


def test_a_model_that_does_not_stream_is_polled(fake: FakeReplicate) -> None:
    fake.streams = False
    assert stream(fake) == [REPLY]


def test_a_stream_that_is_cut_is_finished_by_looking(fake: FakeReplicate) -> None:
    fake.cut_streams_after = [3]
    assert stream(fake) == [*PIECES[:3], "".join(PIECES[3:])]
    assert fake.asked(*CREATE) == 1


def test_a_stream_that_is_cut_before_its_first_word_is_opened_again(fake: FakeReplicate) -> None:
    """As when a model boots for longer than a connection may say nothing."""
    fake.states = ["starting"] * 9 + ["succeeded"]
    fake.cut_streams_after = [0, 0]
    assert stream(fake) == PIECES


def test_a_stream_that_told_another_text_is_no_success(fake: FakeReplicate, monkeypatch: pytest.MonkeyPatch) -> None:
    move = fake.move

    def moved(row: dict[str, Any], status: str) -> None:
        move(row, status)
        row["output"] = ["oui", " non"] if status == "succeeded" else None

    monkeypatch.setattr(fake, "move", moved)
    with pytest.raises(PredictionFailed, match=r"prediction fake0\w+: its output differs from what was streamed"):
        stream(fake)
    assert not any(path.endswith("/cancel") for _, path in fake.requests)


@pytest.mark.parametrize("change", [{"output": None, "data_removed": True}, {"output": ["".join(PIECES) + "\r\n"]}])
def test_a_reply_that_was_deleted_or_has_other_line_ends_is_one(
    fake: FakeReplicate, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    move = fake.move
    fake.pieces = [*PIECES, "\n"]
    monkeypatch.setattr(fake, "move", lambda row, status: (move(row, status), row.update(change)))
    assert stream(fake) == fake.pieces


def test_closing_a_stream_cancels_the_prediction(fake: FakeReplicate) -> None:
    fake.states = ["processing"]

    async def first(replicate: Replicate) -> str:
        async with aclosing(replicate.stream(INPUTS)) as pieces:
            async for piece in pieces:
                return piece
        raise AssertionError

    assert ask(fake, first) == PIECES[0]
    assert [row["status"] for row in fake.predictions.values()] == ["canceled"]


def test_a_task_that_is_cancelled_cancels_the_prediction(fake: FakeReplicate) -> None:
    fake.states = ["processing"]

    async def give_up(replicate: Replicate) -> None:
        task = asyncio.create_task(replicate.answer(INPUTS))
        while not fake.predictions:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # its answer has arrived: what is not known cannot be cancelled
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ask(fake, give_up)
    assert [row["status"] for row in fake.predictions.values()] == ["canceled"]


def test_an_answer_that_takes_too_long_is_canceled(fake: FakeReplicate) -> None:
    fake.states = ["processing"]
    with pytest.raises(PredictionFailed, match="no reply within"):
        answer(fake, seconds=0.3)
    assert [row["status"] for row in fake.predictions.values()] == ["canceled"]


@pytest.mark.parametrize("fault", [LOST_AFTER, *(Fault(status, carried_out=True) for status in (500, 502, 200))])
def test_a_create_whose_answer_is_lost_is_found_and_not_sent_again(fake: FakeReplicate, fault: Fault) -> None:
    fake.create({"input": INPUTS, "version": VERSION})  # somebody else's, alike but for the seed
    fake.fail(*CREATE, fault)
    prediction = answer(fake)
    assert prediction.output == REPLY
    assert prediction.id == list(fake.predictions)[1]
    assert (fake.asked(*CREATE), len(fake.predictions)) == (1, 2)


def test_a_create_in_a_state_that_is_new_to_us_is_found_too(fake: FakeReplicate) -> None:
    create_here = fake.create
    fake.create = lambda body: create_here(body) | {"status": "queued"}  # type: ignore[method-assign]
    assert answer(fake).output == REPLY
    assert fake.asked(*CREATE) == 1


@pytest.mark.parametrize("fault", [LOST_BEFORE, LOST_AFTER, Fault(500), Fault(502, carried_out=True)])
def test_a_create_that_is_lost_and_not_listed_says_where_to_look(fake: FakeReplicate, fault: Fault) -> None:
    fake.lists = False
    fake.fail(*CREATE, fault)
    with pytest.raises(PredictionLost, match=r"look at replicate\.com/predictions before you send it again") as lost:
        answer(fake)
    assert fake.asked(*CREATE) == 1
    assert "personne" not in str(lost.value)


def test_a_create_whose_answer_does_not_come_is_found(fake: FakeReplicate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghost.serving.client.prediction.READ_SECONDS", 0.2)
    fake.silent = 1
    assert answer(fake).output == REPLY
    assert fake.asked(*CREATE) == 1


def test_429_is_waited_for_as_it_asks(fake: FakeReplicate) -> None:
    fake.fail(*CREATE, Fault(429, headers={"Retry-After": "0"}), Fault(429, detail="It resets in ~0s."), Fault(429))
    assert answer(fake).output == REPLY
    assert (fake.asked(*CREATE), len(fake.predictions)) == (4, 1)


def test_429_for_too_long_is_busy(fake: FakeReplicate) -> None:
    fake.fail(*CREATE, Fault(429, headers={"Retry-After": "3600"}))
    with pytest.raises(ServerBusy) as busy:
        answer(fake)
    assert busy.value.retry_after == 3600
    assert not fake.predictions


def test_429_that_asks_for_no_wait_is_not_asked_again_without_end(
    fake: FakeReplicate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicate_client, "THROTTLED_SECONDS", 0.1)
    fake.fail(*CREATE, *[Fault(429, headers={"Retry-After": "0"})] * 1000)
    with pytest.raises(ServerBusy):
        answer(fake)
    assert not fake.predictions


@pytest.mark.parametrize("fault", [LOST_BEFORE, Fault(500), Fault(503), Fault(429)])
def test_polls_are_repeated(fake: FakeReplicate, fault: Fault) -> None:
    fake.fail("GET", "/v1/predictions/", fault, fault, fault)
    assert answer(fake).output == REPLY


def test_polls_that_keep_failing_name_the_prediction(fake: FakeReplicate) -> None:
    fake.fail("GET", "/v1/predictions/", *[Fault(500)] * replicate_client.ATTEMPTS)
    with pytest.raises(PredictionLost, match=r"replicate\.com/p/fake0") as lost:
        answer(fake)
    assert lost.value.id in fake.predictions


def test_nobody_there_has_been_sent_nothing(fake: FakeReplicate) -> None:
    async def go() -> Prediction:
        async with Replicate(MODEL, TOKEN, "http://127.0.0.1:9") as replicate:
            return await replicate.create(INPUTS, seconds=9)

    with pytest.raises(ServerUnreachable):
        asyncio.run(go())


def test_the_latest_version_of_a_model_is_used(fake: FakeReplicate) -> None:
    assert answer(fake, "ana/ghost").output == REPLY
    assert fake.bodies[1]["version"] == VERSION


@pytest.mark.parametrize("name", ["ana/live", "deployments/ana/live"])
def test_a_deployment_is_asked_at_its_own_address(fake: FakeReplicate, name: str) -> None:
    fake.deployments.add("ana/live")
    assert answer(fake, name).output == REPLY
    assert fake.asked("POST", "/v1/deployments/ana/live/predictions") == 1


def test_a_model_without_a_version_says_to_push_one(fake: FakeReplicate) -> None:
    fake.add_model("ana/new", version=None)
    with pytest.raises(ServerError, match="no version on Replicate yet; push one: ghost release ana/new"):
        answer(fake, "ana/new")


def test_no_such_model(fake: FakeReplicate) -> None:
    with pytest.raises(ServerError, match=r"ana/nothing: (this account sees )?no such model or deployment"):
        answer(fake, "ana/nothing")


def test_a_wrong_token_says_so_and_is_not_shown(fake: FakeReplicate) -> None:
    with pytest.raises(ServerError, match="REPLICATE_API_TOKEN") as refused:
        ask(fake, lambda replicate: replicate.get("x"), token="r8_secret")
    assert "r8_secret" not in str(refused.value)


def test_the_token_goes_to_no_other_host(fake: FakeReplicate) -> None:
    with running() as other:
        create_here = fake.create

        def elsewhere(body: dict[str, Any]) -> dict[str, Any]:
            row = create_here(body)
            row["urls"]["stream"] = other.url.replace("127.0.0.1", "localhost") + f"/streams/{row['id']}"
            return row

        fake.create = elsewhere  # type: ignore[method-assign]
        assert stream(fake) == [REPLY]  # the other host answers 401, so it is polled
        assert {headers.get("Authorization") for headers in other.headers} == {None}


@pytest.mark.parametrize("model", ["ghost", "ana/ghost:latest", "ana/ghost/x", f"deployments/ana/ghost:{VERSION}"])
def test_what_is_no_model_is_told_at_once(model: str) -> None:
    with pytest.raises(UsageError, match=r"is not (the name of )?a model on Replicate"):
        Replicate(model, TOKEN)


def test_a_backend_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    with pytest.raises(UsageError, match="REPLICATE_API_TOKEN is not set"):
        backend("replicate:ana/ghost")
    monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
    assert isinstance(backend("replicate:ana/ghost"), Replicate)
    with pytest.raises(UsageError, match="is not a server"):
        backend("ana/ghost")
