"""Any server with text completions: llama-server, vLLM and others by `/v1/completions`, Ollama by its raw mode.

The server knows nothing of the format, so everything that the engine does around the model is done here, by the same
code: the prompt's token ids, the stop sequences, removing escapes, cutting after one turn. That needs the model's
ghost.json and tokenizer, from the merged or the adapter folder.

Ids are sent where the server takes them. Ollama and `transformers serve` take text only and read special tokens in it:
they get what the model's chat template writes, which puts a space into a typed `</s>`.
"""

import importlib.util
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ghost.errors import PredictionLost, ServerBusy, ServerError, ServerStarting, UsageError
from ghost.serving.client.cog_server import SILENT_SECONDS
from ghost.serving.client.prediction import (
    Backend,
    Prediction,
    connection_errors,
    is_measure,
    json_object,
    open_client,
    parsed,
    reason,
)
from ghost.serving.client.replicate import retry_after
from replicate_deployment import ghost_json, golden
from replicate_deployment.chat_format import Turn, first_turn, read_prompt
from replicate_deployment.errors import PromptError, SettingsError, WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.stopping import ReplyScanner
from replicate_deployment.tokenization import Tokenizer, encode, encode_prompt, load_tokenizer, template_for

if TYPE_CHECKING:
    import httpx2

KEY = "COMPLETIONS_API_KEY"
IN_DOUBT = "the reply is incomplete; ask again"
# Theirs counts the format's tokens and the end token, which the engine exempts. Of 30 greedy replies of SmolLM2,
# llama.cpp cut 23 at 20 tokens with 1.2 and 7 with 1; the engine 3 with 1.2.
NO_PENALTY = 1.0


@dataclass(frozen=True)
class Format:
    """What a prompt is made with, and how a reply is sampled unless the caller says otherwise."""

    ghost: Ghost
    settings: Settings
    tokenizer: Tokenizer
    template: str

    def ids(self, turns: Sequence[Turn]) -> list[int]:
        return encode_prompt(self.tokenizer, turns, self.ghost.labels, self.ghost.recipe)

    def text(self, turns: Sequence[Turn]) -> str:
        """Return the text for a server that adds BOS itself and reads special tokens in a text."""
        roles = {self.ghost.labels.me: "assistant", self.ghost.labels.other: "user"}
        messages = [{"role": roles[turn.label], "content": turn.text} for turn in turns]
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=True
        )
        return text.removeprefix(self.tokenizer.bos_token or "")


@cache
def read_format(folder: Path) -> Format:
    """Read a merged or an adapter folder; weights need not be there. Raises WeightsError without ghost.json or
    tokenizer, UsageError without the packages that read it."""
    for package in ("transformers", "jinja2"):  # the bot's extra has neither: most bots ask another kind of server
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"completions: needs {package}, which is not installed; type: pip install transformers jinja2"
            )
    ghost = ghost_json.read(folder)
    if not (folder / "tokenizer.json").is_file():
        raise WeightsError(f"{folder}: no tokenizer.json here; name the merged or the adapter folder")
    tokenizer = load_tokenizer(folder)
    sampling = ghost.settings.replace(repetition_penalty=NO_PENALTY)
    return Format(ghost, sampling, tokenizer, template_for(tokenizer, ghost.labels, ghost.recipe))


class ContextExceeded(Exception):
    """The prompt and the reply do not fit the server's context."""


class Completions(Backend):
    """The server at `where`: http://HOST:PORT/v1#MODEL, or without #MODEL where the server has only one.

    `folder`: see `read_format`. The key is read from COMPLETIONS_API_KEY, where there is one.
    """

    def __init__(self, where: str, folder: Path) -> None:
        url, _, self.model = where.partition("#")
        self.origin = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.url = f"{self.origin}/v1"
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UsageError(f"{KEY} holds characters that no key has; export it again")
        if "@" in urlsplit(url).netloc:
            raise UsageError(f"give the address without a name and password; a key goes into {KEY}")

        def authorize(request: "httpx2.Request") -> "httpx2.Request":
            if key:
                request.headers["Authorization"] = f"Bearer {key}"
            return request

        # llama.cpp closes a kept connection after 5 s without warning, which would lose the next request.
        self.http = open_client(self.url, authorize, keep=False)
        self.format = read_format(folder)
        self._key_is_set = bool(key)
        self._ollama: bool | None = None  # not asked yet
        self._takes_ids = True
        self._ids_compared = False

    async def cancel(self, id: str) -> None:
        """Do nothing: only the connection that made it can end it, by closing."""

    async def ready(self) -> None:
        """Find out which kind of server this is. Raises ServerError when its model has another vocabulary."""
        if self._ollama is None:
            url = f"{self.origin}/api/version"
            with connection_errors(self.url):
                response = await self.http.get(url)
            self._ollama = response.status_code == 200 and "version" in parsed(response)
            self._takes_ids = not self._ollama
        if self._takes_ids and not self._ids_compared:
            await self._compare_ids()

    async def _compare_ids(self) -> None:
        """Compare the ids of a text where the server has /tokenize, as llama.cpp and vLLM have: a model with another
        vocabulary reads our ids as other words."""
        text = "\n".join(turn.text for turn in golden.turns(self.format.ghost.labels)[::2])
        ours = encode(self.format.tokenizer, text).ids
        body = {"content": text, "prompt": text} | ({"model": self.model} if self.model else {})  # llama.cpp, vLLM
        with connection_errors(self.url):
            response = await self.http.post(f"{self.origin}/tokenize", json=body)
        self._ids_compared = response.status_code != 503  # still loading
        found, half = parsed(response).get("tokens"), len(ours) // 2  # they differ in what they put before a text
        if response.status_code == 200 and isinstance(found, list) and found[-half:] != ours[-half:]:
            raise ServerError(
                f"{self.url} serves a model with another vocabulary than {self.format.ghost.folder}; name the folder "
                "of the model that is served there"
            )

    async def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """The inputs are those of predict.py. Leaving closes the connection, upon which these servers stop."""
        id = f"ghost-{secrets.token_hex(12)}"
        yield Prediction(id, "starting")
        given = {name: value for name, value in inputs.items() if value is not None}
        try:
            turns = self._turns(given.pop("prompt"))
            stops = [*self.format.ghost.stop_sequences, *given.pop("stop_sequences", [])]
            seed = given.pop("seed", secrets.randbits(31))
            sampling = self.format.settings.replace(**given)
            scanner = ReplyScanner(stops, self.format.ghost.labels)
        except (PromptError, SettingsError) as error:
            yield Prediction(id, "failed", error=str(error))
            return
        await self.ready()
        output, metrics = "", dict[str, float]()
        while True:
            try:
                async with aclosing(self._written(turns, sampling, seed, metrics)) as pieces:
                    async for text in pieces:
                        if piece := scanner.feed(text):
                            output += piece
                            yield Prediction(id, "processing", output)
                        if scanner.stopped is not None:
                            break
                break
            except ContextExceeded as error:
                if len(turns) == 1:
                    yield Prediction(
                        id, "failed", error=f"{error}; shorten the message, or give the server a longer context"
                    )
                    return
                turns = turns[(len(turns) + 1) // 2 :]
        metrics["ended_by_stop_sequence"] = int(scanner.stopped is not None)
        yield Prediction(id, "succeeded", output + scanner.finish(), metrics=metrics)

    def _turns(self, prompt: str) -> list[Turn]:
        """Raises PromptError when the prompt is no history, as one rendered with the labels of another model."""
        labels = self.format.ghost.labels
        if labels.split_tag(prompt.split("\n", 1)[0]) is None:
            where = self.format.ghost.folder / ghost_json.NAME
            raise PromptError(f"the prompt starts with neither {labels.me} nor {labels.other}, the labels of {where}")
        turns = read_prompt(prompt, labels)
        return turns[first_turn(len(turns)) :]

    async def _written(
        self, turns: Sequence[Turn], sampling: Settings, seed: int, metrics: dict[str, float]
    ) -> AsyncGenerator[str, None]:
        """Yield the pieces that the model writes. Set `input_tokens`, and `output_tokens` if the server tells it.

        Raises ContextExceeded, before the first piece, if the server says so.
        """
        import httpx2

        url, body = self._request(turns, sampling, seed)
        metrics["input_tokens"], ended = len(self.format.ids(turns)), False
        with connection_errors(self.url, sent=IN_DOUBT):
            async with self.http.stream(
                "POST", url, json=body, timeout=httpx2.Timeout(SILENT_SECONDS, connect=self.http.timeout.connect)
            ) as response:
                if response.status_code != 200:
                    await response.aread()
                    # "prompt must be a string", "Input should be a valid string". Any other refusal of ids, such as
                    # one that is not in the vocabulary, must not become a prompt that the server accepts.
                    if not (self._takes_ids and "string" in _message(parsed(response)).lower()):
                        raise await self._refusal(response, turns)
                    self._takes_ids = False
                else:
                    async for chunk in self._chunks(response, turns):
                        text, done, tokens = _read(chunk)
                        ended |= done
                        if tokens is not None:
                            metrics["output_tokens"] = tokens
                        # For bytes that are no character servers write U+FFFD, and the engine nothing.
                        if text := text.replace("\ufffd", ""):
                            yield text
                    if not ended:
                        raise PredictionLost(f"{self.url}: the stream ended early; {IN_DOUBT}")
                    return
        async with aclosing(self._written(turns, sampling, seed, metrics)) as pieces:
            async for text in pieces:
                yield text

    def _request(self, turns: Sequence[Turn], sampling: Settings, seed: int) -> tuple[str, dict[str, Any]]:
        """Return address and body. Fields that a server does not know are ignored there."""
        model = {"model": self.model} if self.model else {}
        sampled: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0,
            "repeat_penalty": sampling.repetition_penalty,
            "repeat_last_n": 4096,  # more than 20 turns; -1 for all is refused by newer llama.cpp
            "seed": seed,
        }
        if self._ollama:
            options = sampled | {"num_predict": sampling.max_new_tokens}
            # Without `truncate` a prompt that is too long would lose its beginning in silence.
            body = {"prompt": self.format.text(turns), "raw": True, "truncate": False, "options": options}
            return f"{self.origin}/api/generate", model | body
        # A tokenizer of transformers puts a space before the text itself, where the model learnt one.
        prompt = self.format.ids(turns) if self._takes_ids else self.format.text(turns).lstrip(" ")
        return f"{self.url}/completions", {
            "prompt": prompt,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_new_tokens,
            "repetition_penalty": sampling.repetition_penalty,  # vLLM's name for it
            "samplers": ["penalties", "temperature", "top_k", "top_p"],  # llama.cpp: in the engine's order
            **sampled,
            **model,
        }

    async def _chunks(self, response: "httpx2.Response", turns: Sequence[Turn]) -> AsyncIterator[dict[str, Any]]:
        """Yield the JSON objects of a stream, one a line, in server-sent events or not."""
        async for line in _lines(response):
            data = line.removeprefix(b"data:").strip()
            if not data or data == b"[DONE]" or line.startswith((b":", b"event:")):
                continue
            try:
                chunk = json_object(data)
            except (ValueError, TypeError) as error:
                raise ServerError(f"{response.url} does not answer with a completion; {EXAMPLE}") from error
            if chunk.get("error"):
                raise ServerError(f"{self.url}: {_reason(chunk, turns)}")
            yield chunk

    async def _refusal(self, response: "httpx2.Response", turns: Sequence[Turn]) -> Exception:
        """Return the error for a response that is not a success."""
        status, message = response.status_code, _reason(parsed(response), turns)
        if status in (401, 403):
            if self._key_is_set:
                return ServerError(f"{self.url} does not accept the key in {KEY} (HTTP status {status})")
            return ServerError(f"{self.url} needs a key (HTTP status {status}); type: export {KEY}=…")
        if status in (400, 413, 422) and "context" in message.lower():
            return ContextExceeded(message)
        if status in (400, 404, 422) and "model" in message.lower() and (names := await self._models()):
            named = f"no model {self.model!r}" if self.model else "the address names no model"
            return ServerError(f"{self.url}: {named}; give completions:{self.url}#MODEL, one of: {', '.join(names)}")
        if status == 404:
            return ServerError(f"{response.url}: HTTP status 404; is it a server of completions? {EXAMPLE}")
        if status == 400 and "token" in message.lower():
            return ServerError(f"{self.url}: {message}; is {self.format.ghost.folder} the model that is served there?")
        if status == 503 and "load" in message.lower():
            return ServerStarting(f"{self.url} is still loading its model; try again in a minute")
        if status in (429, 503):
            return ServerBusy(f"{self.url} is busy (HTTP status {status}); try again later", retry_after(response))
        return ServerError(f"{self.url}: HTTP status {status}: {message}")

    async def _models(self) -> list[str]:
        """Return the names of the models that the server lists, or none."""
        with connection_errors(self.url):
            listed = parsed(await self.http.get(f"{self.url}/models")).get("data")
        return [str(one["id"]) for one in listed or [] if isinstance(one, dict) and "id" in one]


EXAMPLE = "give its address as in completions:http://127.0.0.1:8080/v1#MODEL"


def _read(chunk: Mapping[str, Any]) -> tuple[str, bool, float | None]:
    """Return (text, whether it is the last with text, tokens so far if told) of a chunk of Ollama or of the others."""
    if "response" in chunk:
        text, done, tokens = chunk["response"], chunk.get("done"), chunk.get("eval_count")
    else:
        choices, usage = chunk.get("choices"), chunk.get("usage")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        text, done = choice.get("text"), choice.get("finish_reason")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return str(text or ""), bool(done), tokens if is_measure(tokens) else None


def _message(answer: Mapping[str, Any]) -> str:
    """Return what an error says: {"error": {"message": …}}, {"error": …} or {"detail": …}."""
    error = answer.get("error") or answer.get("detail") or ""
    return str(error.get("message", "")) if isinstance(error, dict) else str(error)


def _reason(answer: Mapping[str, Any], turns: Sequence[Turn]) -> str:
    prompt = "\n".join(turn.text for turn in turns)
    return reason(_message(answer), {"prompt": prompt}) or "no reason given"


async def _lines(response: "httpx2.Response") -> AsyncIterator[bytes]:
    """Split at newlines only; httpx's own splits at U+2028 too, which JSON may hold."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
    yield rest
