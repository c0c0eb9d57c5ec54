"""Load a merged model and generate replies: `Engine.reply(turns, settings)` yields one turn as pieces of text.

The loop computes scores (decoding.py), samples a token (sampling.py) and decodes its text. It starts no thread and runs
only while the caller waits for a piece, so closing the iterator, or an exception during it (Cog's
CancelationException), ends the work.
"""

import codecs
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import ghost_json, settings
from .chat_format import CONTEXT_TURNS, Labels, Recipe, Turn, render_prompt
from .errors import PromptError
from .ghost_json import Ghost
from .settings import Settings
from .stopping import ReplyScanner
from .tokenization import Tokenizer, encode, encode_prompt, least_tokens, token_bytes

# torch is imported where a folder is loaded and run: ghost/serving/llama_cpp.py runs GGUF files without it.
if TYPE_CHECKING:
    from .decoding import StaticDecoder

log = logging.getLogger("ghost")


class Reply(Iterator[str]):
    """An iterator over the pieces of one reply. `close()` stops generation; "".join(reply) is the whole text.

    `output_tokens` counts the tokens sampled so far, including the end token and those of a stop sequence; `written` is
    their text before it is cut and unescaped. `finish_reason` is None until the reply has ended, `first_token_at`
    (time.monotonic()) until a token was sampled.
    """

    def __init__(
        self, engine: "Engine", prompt_ids: list[int], drawn: Generator[int, None, None], scanner: ReplyScanner
    ) -> None:
        self.prompt_tokens = len(prompt_ids)
        self.output_tokens = 0
        self.written = ""
        self.finish_reason: Literal["end_token", "stop_sequence", "length"] | None = None
        self.first_token_at: float | None = None
        self._pieces = self._read(engine, drawn, scanner)

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _read(
        self, engine: "Engine", drawn: Generator[int, None, None], scanner: ReplyScanner
    ) -> Generator[str, None, None]:
        # Holds back an incomplete character until its last byte arrives, and drops invalid bytes.
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        with closing(drawn):  # at once rather than at garbage collection: it may hold the static decoder's lock
            for token in drawn:
                self.output_tokens += 1
                self.first_token_at = self.first_token_at or time.monotonic()
                if token in engine.end_ids:
                    self.finish_reason = "end_token"
                    break
                text = utf8.decode(engine.token_bytes[token])
                self.written += text
                if piece := scanner.feed(text):
                    yield piece
                if scanner.stopped is not None:
                    self.finish_reason = "stop_sequence"
                    break
            else:
                self.finish_reason = "length"
        if piece := scanner.finish(cut=self.finish_reason == "length"):
            yield piece


@dataclass(frozen=True)
class Engine:
    """A loaded model folder. Not safe to share between threads."""

    ghost: Ghost
    tokenizer: Tokenizer
    model: Any
    labels: Labels
    recipe: Recipe
    settings: Settings
    """The sampling defaults recorded in ghost.json."""
    token_bytes: list[bytes]
    end_ids: frozenset[int]
    """Ids that end a reply: the tokenizer's end token, and those that the base's generation config names beside it."""
    penalty_exempt: frozenset[int]
    """Ids that the repetition penalty does not apply to."""
    static: "StaticDecoder | None" = None
    """The accelerated decoder, or None."""

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str | None = None,
        *,
        hashes: bool = True,
        load_in_4bit: bool = False,
        accelerate: bool | None = None,
    ) -> "Engine":
        """Verify the folder, load it, and check by the golden prompt that it computes what was merged.

        Uses FP16 on an accelerator and float32 on a CPU, at twice the memory: there FP16 decodes no faster and reads
        the prompt five to eight times slower (100 tokens, hidden 256 and 1024, AVX-512 without FP16 matrix units).
        `load_in_4bit` quantises the weights while loading: a third of the memory, and replies change slightly.
        `accelerate` decodes over a compiled static KV cache; default: on CUDA only, since a CPU gains nothing.

        Raises WeightsError when the folder is incomplete or altered, or fails the golden prompt.
        """
        import torch

        from . import golden, loading
        from .acceleration import keep_compiled_code, static_decoder

        ghost = ghost_json.read_merged(folder)
        recipe = ghost.recipe
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        wanted = device.startswith("cuda") if accelerate is None else accelerate
        if wanted:
            keep_compiled_code(folder)
        model, tokenizer = loading.load(ghost, device, hashes=hashes, load_in_4bit=load_in_4bit)
        facts = ghost.block("golden")
        golden.verify(model, tokenizer, facts, rounded=load_in_4bit)
        if load_in_4bit:
            log.warning(
                "4 bits: the weights are quantised, so the golden prompt detects only gross errors (± %s nats instead "
                "of %s)",
                golden.ROUNDED_TOLERANCE,
                facts["tolerance"],
            )
        text_bytes = token_bytes(tokenizer)
        padding = [b""] * (model.config.vocab_size - len(text_bytes))  # of the vocabulary, which some bases have
        ends = model.generation_config.eos_token_id or []
        end_ids = frozenset([tokenizer.eos_token_id, *([ends] if isinstance(ends, int) else ends)])
        return cls(
            ghost=ghost,
            tokenizer=tokenizer,
            model=model,
            labels=ghost.labels,
            recipe=recipe,
            settings=settings.from_facts(ghost.block("sampling")),
            token_bytes=[*text_bytes, *padding],
            end_ids=end_ids,
            penalty_exempt=end_ids | format_ids(tokenizer, ghost.labels, text_bytes),
            static=static_decoder(model, facts["ids"]) if wanted else None,
        )

    @property
    def positions(self) -> int:
        """The model's context length in tokens."""
        return int(self.model.config.max_position_embeddings)

    def reply(
        self,
        turns: Sequence[Turn],
        settings: Settings,
        *,
        stop_sequences: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """Return the next turn of `labels.me` as an iterator of text pieces. Generation starts with the first `next`.

        `turns` must end with a turn of the other side. The oldest are dropped beyond CONTEXT_TURNS, and to fit the
        context length minus `max_new_tokens`. `stop_sequences` are added to those of ghost.json, so a reply is always
        one turn. The same `seed` gives the same reply. Raises PromptError when the last turn alone does not fit,
        SettingsError on an empty stop sequence.
        """
        prompt_ids = self.prompt_ids(turns, settings.max_new_tokens)
        scanner = ReplyScanner([*self.ghost.stop_sequences, *stop_sequences], self.labels)
        return Reply(self, prompt_ids, self._draw(prompt_ids, settings, seed), scanner)

    def prompt_ids(self, turns: Sequence[Turn], max_new_tokens: int) -> list[int]:
        """Return the prompt of as many of the last turns as fit. Raises PromptError as `reply` does."""
        if not turns or turns[-1].label != self.labels.other:
            raise PromptError(f"the conversation ends with no turn of {self.labels.other} to answer")
        room = self.positions - max_new_tokens
        encoded: dict[int, list[int]] = {}

        def fits(start: int) -> bool:
            # Refuse by size first: tokenising a megabyte takes seconds, during which no cancellation takes effect.
            if self._min_tokens(turns[start:]) > room:
                return False
            encoded[start] = encode_prompt(self.tokenizer, turns[start:], self.labels, self.recipe)
            return len(encoded[start]) <= room

        # Fewer turns always mean fewer tokens, so bisect: a history of 1 MB is encoded five times, not twenty.
        starts = range(self._oldest(len(turns)), len(turns))
        fitting = bisect_left(starts, True, key=fits)
        if fitting == len(starts):
            last = starts[-1]
            tokens = f"{len(encoded[last]):,}" if last in encoded else f"over {self._min_tokens(turns[last:]):,}"
            raise PromptError(
                f"the last message is {tokens} tokens with its tags, but {room:,} fit beside "
                f"max_new_tokens = {max_new_tokens}; shorten it"
            )
        return encoded[starts[fitting]]

    def _oldest(self, count: int) -> int:
        """The first of `count` turns that is not left out as too old."""
        return max(0, count - CONTEXT_TURNS)

    def _min_tokens(self, turns: Sequence[Turn]) -> int:
        try:
            return least_tokens(render_prompt(turns, self.labels), self._max_token_bytes)
        except UnicodeEncodeError as error:
            half = f"U+{ord(error.object[error.start]):04X}"
            raise PromptError(f"the prompt holds {half}, half of a character (a lone surrogate); remove it") from error

    @cached_property
    def _max_token_bytes(self) -> int:
        return max(map(len, self.token_bytes))

    def _draw(self, prompt_ids: list[int], settings: Settings, seed: int | None) -> Generator[int, None, None]:
        """Yield up to `max_new_tokens` ids; the caller decides where to stop."""
        with self._decoder(len(prompt_ids) + settings.max_new_tokens) as decoder:
            scores = decoder.start(prompt_ids)
            sample = self._sampler(settings, prompt_ids, seed, scores)
            for remaining in reversed(range(settings.max_new_tokens)):
                token = sample(scores)
                yield int(token)
                if remaining:
                    scores = decoder.next(token)

    def _sampler(
        self, settings: Settings, prompt_ids: list[int], seed: int | None, scores: Any
    ) -> Callable[[Any], Any]:
        from .sampling import Sampler

        return Sampler(settings, prompt_ids, self.penalty_exempt, seed, like=scores)

    @contextmanager
    def _decoder(self, tokens: int) -> Iterator[Any]:
        """Yield the static decoder if it is long enough and no unfinished reply holds it, else a dynamic one."""
        from .decoding import DynamicDecoder

        static = self.static
        if static is not None and tokens <= static.length and static.lock.acquire(blocking=False):
            try:
                yield static
            finally:
                static.lock.release()
        else:
            yield DynamicDecoder(self.model)


def format_ids(tokenizer: Tokenizer, labels: Labels, text_bytes: Sequence[bytes]) -> frozenset[int]:
    """Return the ids of the tags and of every token that ends a line, such as ".\\n": every history repeats them.

    The penalty counts the prompt, so penalising these keeps a reply from ending: on a toy model replies grew from 6.2
    tokens without history to 9.3 with five pairs of turns; with these and the end token exempt, 7.4 and 7.3.
    """
    text = render_prompt([Turn(labels.other, "x"), Turn(labels.me, "x"), Turn(labels.other, "x")], labels)
    ids, offsets = encode(tokenizer, text)
    first_newline = text.index("\n")  # before it the tag is tokenised as the text's first word
    spelled = ((token, text[start:end].strip(" ")) for token, (start, end) in zip(ids, offsets, strict=True))
    after = (start >= first_newline for start, _ in offsets)
    tags = {token for (token, text), late in zip(spelled, after, strict=True) if late and text not in ("", "x")}
    return frozenset(tags | {token for token, spelling in enumerate(text_bytes) if spelling.endswith(b"\n")})
