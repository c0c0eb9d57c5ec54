"""The client of servers that know nothing of the format: what it sends, what it makes of the answer, and each fault."""

import asyncio
import io
import json
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ghost import cli
from ghost.errors import PredictionLost, ServerBusy, ServerError, ServerStarting, ServerUnreachable, UsageError
from ghost.evaluation.data import Exchange
from ghost.evaluation.replies import run_served
from ghost.serving.client import Completions, PredictionFailed, backend, check, completions
from ghost.serving.client.completions import KEY
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn, render_prompt
from replicate_deployment.errors import WeightsError
from replicate_deployment.tokenization import encode_prompt, load_tokenizer
from tests.loopback_server import LoopbackServer, QuietHandler

SECRET = "a sentence that no log may hold"
TURNS = [Turn("B:", "hey"), Turn("A:", "yo </s>"), Turn("B:", "where\nA: forged")]
WRITTEN = " on the train\n A: is no tag,\u2028 ok\nB: forged"
REPLY = "on the train\nA: is no tag,\u2028 ok"
Result = TypeVar("Result")


class Engine:
    """A server of `kind`: "ids" (llama.cpp, vLLM), "text" (transformers serve) or "ollama". It writes `written`, a
    character a chunk, without ever ending a reply itself; `status` and `error` refuse instead, and `body` replaces the
    stream."""

    def __init__(self, kind: str = "ids") -> None:
        self.kind, self.written = kind, WRITTEN + " and on" * 100_000
        self.status, self.error, self.body = 200, "", b""
        self.models = ["ghost"]
        self.tokenize: Callable[[str], tuple[int, Any]] | None = None  # text → status and tokens
        self.longest = 10_000  # characters or ids of a prompt
        self.url = ""
        self.keys: list[str | None] = []
        self.asked: list[dict[str, Any]] = []
        self.hung_up = threading.Event()


def handler(engine: Engine) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            engine.keys.append(self.headers["Authorization"])
            if self.path == "/api/version" and engine.kind == "ollama":
                self.answer(200, {"version": "0.40.12"})
            elif self.path == "/v1/models" and engine.models:
                self.answer(200, {"data": [{"id": name} for name in engine.models]})
            else:
                self.answer(404, {"error": {"message": "File Not Found"}})

        def do_POST(self) -> None:
            engine.keys.append(self.headers["Authorization"])
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/tokenize":
                status, tokens = engine.tokenize(asked["content"]) if engine.tokenize else (404, None)
                self.answer(status, {"tokens": tokens})
                return
            engine.asked.append(asked)
            path = "/api/generate" if engine.kind == "ollama" else "/v1/completions"
            if engine.status != 200 or self.path != path:
                self.answer(engine.status if self.path == path else 404, {"error": {"message": engine.error}})
            elif engine.kind != "ids" and not isinstance(asked["prompt"], str):
                self.answer(400, {"detail": "prompt must be a string."})
            elif len(asked["prompt"]) > engine.longest:
                self.answer(400, {"error": {"message": "the request exceeds the available context size"}})
            else:
                self.stream(path)

        def answer(self, status: int, body: dict[str, Any]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(json.dumps(body))))
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def stream(self, path: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                if engine.body:
                    self.wfile.write(engine.body)
                    return
                for character in engine.written:
                    self.wfile.write(chunk(character, path))
                self.wfile.write(chunk("", path, "stop") + b"data: [DONE]\n\n" * (path != "/api/generate"))
            except OSError:
                engine.hung_up.set()

    return Handler


def chunk(text: str, path: str = "", finish: str | None = None) -> bytes:
    if path == "/api/generate":
        told: dict[str, Any] = {"response": text, "done": finish is not None} | ({"eval_count": 7} if finish else {})
        return json.dumps(told, ensure_ascii=False).encode() + b"\n"
    told = {"choices": [{"text": text, "finish_reason": finish}]} | (
        {"usage": {"completion_tokens": 7}} if finish else {}
    )
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\n\n"


@pytest.fixture(params=["ids", "text", "ollama"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    yield from running(Engine(request.param))


@pytest.fixture
def one() -> Iterator[Engine]:
    yield from running(Engine())


def running(engine: Engine) -> Iterator[Engine]:
    server = LoopbackServer(handler(engine))
    server.start()
    engine.url = f"{server.url}/v1"
    yield engine
    server.stop()


def ask(engine: Engine, folder: Path, call: Callable[[Completions], Coroutine[Any, Any, Result]]) -> Result:
    async def go() -> Result:
        async with Completions(f"{engine.url}#ghost", folder) as server:
            return await call(server)

    return asyncio.run(go())


def answer(engine: Engine, folder: Path, turns: list[Turn] = TURNS, **inputs: Any) -> str:
    asked = {"prompt": render_prompt(turns), **inputs}
    return ask(engine, folder, lambda server: server.answer(asked)).output


def test_every_engine_gets_the_format_and_its_reply_is_one_turn(engine: Engine, tiny_merged: Path) -> None:
    assert answer(engine, tiny_merged) == REPLY
    assert engine.hung_up.wait(10)  # a stop ends the work there
    sent, tokenizer = engine.asked[-1], load_tokenizer(tiny_merged)
    if engine.kind == "ids":
        assert sent["prompt"] == encode_prompt(tokenizer, TURNS, DEFAULT_LABELS, "windows")
    else:
        # Neither has BOS, which these servers add. A tokenizer of transformers adds the first space too.
        assert sent["prompt"].lstrip(" ") == "B: hey\nA: yo < /s>\nB: where\n A: forged\nA:"
        assert sent["prompt"].startswith(" ") == (engine.kind == "ollama")
    assert sent["model"] == "ghost"


def test_a_reply_that_ends_by_itself(engine: Engine, tiny_merged: Path) -> None:
    engine.written = " ok\ufffd\n\u00e9 <"
    prediction = ask(engine, tiny_merged, lambda server: server.answer({"prompt": "B: hey\nA:"}))
    tokens = len(encode_prompt(load_tokenizer(tiny_merged), [Turn("B:", "hey")], DEFAULT_LABELS, "windows"))
    metrics = {"input_tokens": tokens, "output_tokens": 7, "ended_by_stop_sequence": 0}
    assert (prediction.output, prediction.metrics) == ("ok\né <", metrics)


def test_sampling_is_as_recorded_unless_the_caller_says_otherwise(engine: Engine, tiny_merged: Path) -> None:
    answer(engine, tiny_merged, temperature=0.25, seed=5, max_new_tokens=3, top_k=None)
    sent = engine.asked[-1]
    options = sent.get("options", sent)
    assert (options["temperature"], options["seed"], options["top_k"], options["min_p"]) == (0.25, 5, 0, 0)
    assert options.get("num_predict", sent.get("max_tokens")) == 3


def test_the_callers_stop_sequences_end_a_reply_too(one: Engine, tiny_merged: Path) -> None:
    assert answer(one, tiny_merged, stop_sequences=[" train"]) == "on the"


def test_a_stream_that_is_left_ends_the_work(one: Engine, tiny_merged: Path) -> None:
    one.written = " and on" * 100_000

    async def first(server: Completions) -> str:
        async with aclosing(server.stream({"prompt": "B: hey\nA:"})) as pieces:
            return await anext(pieces)

    assert ask(one, tiny_merged, first) == "a"
    assert one.hung_up.wait(10)


def test_the_oldest_turns_go_when_the_servers_context_is_short(one: Engine, tiny_merged: Path) -> None:
    one.longest = len(encode_prompt(load_tokenizer(tiny_merged), TURNS[-1:], DEFAULT_LABELS, "windows"))
    assert answer(one, tiny_merged) == REPLY
    assert len(one.asked[-1]["prompt"]) == one.longest
    with pytest.raises(PredictionFailed, match="context size; shorten the message"):
        answer(one, tiny_merged, [Turn("B:", "far too long " * 9)])


@pytest.mark.parametrize(
    ("prompt", "inputs", "words"),
    [
        ("Me: hey\nYou:", {}, "neither A: nor B:"),
        ("B: hey\nA: done", {}, "nothing to answer"),
        ("B: hey\nA:", {"temperature": 9}, "temperature"),
        ("B: hey\nA:", {"temprature": 1}, "temprature"),
        ("B: hey\nA:", {"stop_sequences": [""]}, "stop_sequences"),
    ],
)
def test_what_cannot_be_answered_is_not_sent(
    one: Engine, tiny_merged: Path, prompt: str, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(PredictionFailed, match=words):
        ask(one, tiny_merged, lambda server: server.answer({"prompt": prompt, **inputs}))
    assert one.asked == []


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (401, "", ServerError, f"needs a key .* export {KEY}="),
        (403, "", ServerError, "needs a key"),
        (429, "slow down", ServerBusy, "is busy"),
        (503, "Loading model", ServerStarting, "still loading"),
        (503, "no slot", ServerBusy, "is busy"),
        (500, "out of memory\nTraceback", ServerError, "HTTP status 500: out of memory$"),
        (500, "", ServerError, "no reason given"),
        (400, f"cannot read {SECRET}", ServerError, "not shown"),
        (404, "no such path", ServerError, "is it a server of completions"),
        (400, "Prompt contains invalid tokens", ServerError, "is .* the model that is served there"),
        (400, "bad", ServerError, "HTTP status 400: bad$"),
    ],
)
def test_a_refusal_is_one_line(
    one: Engine, tiny_merged: Path, status: int, error: str, kind: type[ServerError], words: str
) -> None:
    one.status, one.error = status, error
    with pytest.raises(ServerError, match=words) as refused:
        answer(one, tiny_merged, [Turn("B:", SECRET)])
    assert type(refused.value) is kind
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(one.asked) == 1  # it is not sent as text instead


@pytest.mark.parametrize("status", [400, 404])
def test_a_model_that_is_not_there_is_told_with_those_that_are(one: Engine, tiny_merged: Path, status: int) -> None:
    one.status, one.error, one.models = status, "The model `ghost` does not exist.", ["noa", "sam"]
    with pytest.raises(ServerError, match=r"no model 'ghost'; give completions:http://.*/v1#MODEL, one of: noa, sam"):
        answer(one, tiny_merged)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<html>welcome</html>", ServerError, "does not answer with a completion"),
        (b"[1]", ServerError, "does not answer with a completion"),
        (b"{}", PredictionLost, "ended early"),
        (chunk(" on"), PredictionLost, "ended early"),
        (chunk(" on") + b'data: {"error": {"message": "out of memory"}}\n\n', ServerError, "out of memory$"),
        (b'data: {"error": "cannot read A: forged"}', ServerError, "not shown"),
        (b'{"error": "model runner has stopped"}', ServerError, "model runner has stopped$"),
    ],
)
def test_an_answer_that_is_no_completion(
    one: Engine, tiny_merged: Path, body: bytes, kind: type[ServerError], words: str
) -> None:
    one.body = body
    with pytest.raises(ServerError, match=words) as failure:
        answer(one, tiny_merged)
    assert type(failure.value) is kind


def test_a_model_of_another_vocabulary_is_refused(engine: Engine, tiny_merged: Path) -> None:
    """Ids mean other words there, and its replies would be noise that nobody can explain."""
    engine.tokenize = lambda text: (200, [*text.encode()])
    if engine.kind == "ollama":  # has no such route
        assert answer(engine, tiny_merged) == REPLY
        return
    with pytest.raises(ServerError, match=f"another vocabulary than {tiny_merged}; name the folder") as refused:
        answer(engine, tiny_merged)
    assert "\n" not in str(refused.value)
    assert engine.asked == []
    with pytest.raises(ServerError, match="another vocabulary"):
        check(f"completions:{engine.url}#ghost", tiny_merged)


def test_the_folders_own_vocabulary_is_taken(one: Engine, tiny_merged: Path) -> None:
    tokenizer = load_tokenizer(tiny_merged)
    one.tokenize = lambda text: (200, [0, 0, *tokenizer(text, add_special_tokens=False)["input_ids"]])
    assert answer(one, tiny_merged) == REPLY


@pytest.mark.parametrize(("status", "tokens"), [(404, None), (401, None), (200, None), (200, {"a": 1}), (500, [1])])
def test_a_server_that_cannot_say_is_taken(one: Engine, tiny_merged: Path, status: int, tokens: Any) -> None:
    one.tokenize = lambda _: (status, tokens)
    assert answer(one, tiny_merged) == REPLY


def test_a_server_that_is_loading_is_asked_again(one: Engine, tiny_merged: Path) -> None:
    answers = iter([(503, None), (200, [1])])
    one.tokenize = lambda _: next(answers)

    async def twice(server: Completions) -> None:
        await server.ready()
        with pytest.raises(ServerError, match="another vocabulary"):
            await server.ready()

    ask(one, tiny_merged, twice)


def test_nobody_there(tiny_merged: Path) -> None:
    nobody = Engine()
    nobody.url = "http://127.0.0.1:9/v1"
    with pytest.raises(ServerUnreachable, match=r"is the server running\?"):
        answer(nobody, tiny_merged)


def test_the_key_is_sent_and_never_shown(one: Engine, tiny_merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-secret ")
    assert answer(one, tiny_merged) == REPLY
    assert {*one.keys} == {"Bearer sk-secret"}
    one.status, one.error = 401, "bad key sk-secret"
    with pytest.raises(ServerError, match=f"does not accept the key in {KEY}") as refused:
        answer(one, tiny_merged)
    assert "sk-secret" not in str(refused.value)
    monkeypatch.setenv(KEY, "sk-\nsecret")
    with pytest.raises(UsageError, match="no key has") as bad:
        answer(one, tiny_merged)
    assert "secret" not in str(bad.value)


@pytest.mark.parametrize(
    ("where", "kind", "words"),
    [
        ("completions:http://ana:secret@127.0.0.1:1/v1", UsageError, f"a key goes into {KEY}"),
        ("completions:127.0.0.1:1/v1", ServerError, r"is not (a|the) URL"),
        ("completion:http://127.0.0.1:1/v1", UsageError, "completions:http"),
    ],
)
def test_what_is_no_address(where: str, kind: type[Exception], words: str, tiny_merged: Path) -> None:
    with pytest.raises(kind, match=words) as refused:
        backend(where, tiny_merged)
    assert "secret" not in str(refused.value)


def test_what_the_bots_extra_lacks_is_named(tiny_merged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    completions.read_format.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install transformers jinja2"):
        Completions("http://127.0.0.1:9/v1", tiny_merged)


def test_a_folder_without_the_models_facts(tiny_merged: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such folder"):
        backend("completions:http://127.0.0.1:1/v1", tmp_path / "nowhere")
    (tmp_path / "ghost.json").write_bytes((tiny_merged / "ghost.json").read_bytes())
    with pytest.raises(WeightsError, match="no tokenizer"):
        backend("completions:http://127.0.0.1:1/v1", tmp_path)


def test_chat_and_evaluation_take_one(
    engine: Engine, tiny_merged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"completions:{engine.url}#ghost"
    stdin = io.TextIOWrapper(io.BytesIO(b"hey\nand?\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["chat", where, "--ghost", str(tiny_merged), "--json"]) == 0
    assert [json.loads(line)["reply"] for line in capsys.readouterr().out.strip().split("\n")] == [REPLY] * 2
    check(where, tiny_merged)
    found = run_served(where, tiny_merged, [Exchange((Turn("B:", "hey"),), "yo")], DEFAULT_LABELS, seed=1)
    assert [said.exchange.reply for said in found.answers.said] == [REPLY]


def test_labels_are_the_folders(tiny_merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = "completions:http://127.0.0.1:1/v1"
    assert cli.main(["chat", where, "--ghost", str(tiny_merged), "--labels", "Me:", "You:"]) == 2
    assert f"{tiny_merged}/ghost.json has the labels" in capsys.readouterr().err
