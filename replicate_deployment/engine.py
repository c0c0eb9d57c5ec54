"""The model behind one method: `reply(turns, settings)` gives one turn, in text pieces, and stops.

A small loop of ours: scores (decoding.py), a token (sampling.py), its text, again. There is no thread: the loop runs
only while a piece is being asked for, so closing the iterator, or an exception that arrives during it (Cog's
CancelationException), ends the work.
"""

import codecs
import logging
import time
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from . import ghost_json, golden, loading, settings
from .acceleration import static_decoder
from .chat_format import CONTEXT_TURNS, Labels, Recipe, Turn, render_prompt
from .decoding import Growing, Static
from .errors import PromptError
from .ghost_json import Ghost
from .sampling import Sampler
from .settings import Settings
from .stopping import ReplyScanner
from .tokenization import Tokenizer, encode, encode_prompt, token_bytes

log = logging.getLogger("ghost")


class Reply(Iterator[str]):
    """The pieces of one reply. `close()` stops the work; "".join(reply) is the whole.

    `output_tokens` counts what the model has drawn so far, the end token and a stop sequence included; `written` is
    its text, before the cut and the un-escaping.
    `finish_reason` is None until the reply has ended, `first_token_at` (time.monotonic()) until a token was drawn.
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
        # Holds back the bytes of a character until the last one is there; those of a broken one say nothing.
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        with closing(drawn):  # now, and not when it is collected: it may hold the static decoder's lock
            for token in drawn:
                self.output_tokens += 1
                self.first_token_at = self.first_token_at or time.monotonic()
                if token == engine.tokenizer.eos_token_id:
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
        if piece := scanner.finish():
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
    """The sampling defaults that ghost.json records."""
    token_bytes: list[bytes]
    unpunished: frozenset[int]
    """Ids that the repetition penalty spares."""
    static: Static | None = None
    """The fast way to decode, where there is one."""

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
        """Verify the folder, load it, and prove by the golden prompt that it computes what was merged.

        FP16 on an accelerator. On a CPU float32, at twice the memory: FP16 there decodes no faster and reads the prompt
        five to eight times slower (100 tokens, hidden 256 and 1024, AVX-512 without FP16 matrix units).
        `load_in_4bit` rounds the weights while loading: a third of the memory, another voice by a little.
        `accelerate` decodes over a static cache, compiled: on CUDA unless told otherwise; a CPU gains nothing by it.

        Raises WeightsError when the folder is not a whole, unchanged merged model, or its weights compute otherwise.
        """
        ghost = ghost_json.read(folder)
        recipe = ghost.recipe
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = loading.load(ghost, device, hashes=hashes, load_in_4bit=load_in_4bit)
        facts = ghost.block("golden")
        golden.verify(model, tokenizer, facts, rounded=load_in_4bit)
        if load_in_4bit:
            log.warning(
                "4 bits: the weights are rounded, so the golden prompt shows only that they are not broken (± %s nats "
                "in place of %s)",
                golden.ROUNDED_TOLERANCE,
                facts["tolerance"],
            )
        spelled = token_bytes(tokenizer)
        wanted = device.startswith("cuda") if accelerate is None else accelerate
        return cls(
            ghost=ghost,
            tokenizer=tokenizer,
            model=model,
            labels=ghost.labels,
            recipe=recipe,
            settings=settings.from_facts(ghost.block("sampling")),
            token_bytes=spelled + [b""] * (model.config.vocab_size - len(spelled)),  # some bases pad their vocabulary
            unpunished=_format_ids(tokenizer, ghost.labels),
            static=static_decoder(model, facts["ids"], folder) if wanted else None,
        )

    def reply(
        self,
        turns: Sequence[Turn],
        settings: Settings,
        *,
        stop_sequences: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The next turn of `labels.me`, as an iterator of text pieces; nothing runs before the first is asked for.

        `turns` end with one of the other side; the oldest are left out beyond CONTEXT_TURNS and beyond the context
        length minus `max_new_tokens`. `stop_sequences` come on top of those of ghost.json, so a reply is always one
        turn. The same `seed` gives the same reply. Raises PromptError when the last turn alone does not fit,
        SettingsError on an empty stop sequence.
        """
        if not turns or turns[-1].label != self.labels.other:
            raise PromptError(f"there is no turn of {self.labels.other} to answer at the end of the conversation")
        prompt_ids = self._context(turns, settings.max_new_tokens)
        scanner = ReplyScanner([*self.ghost.stop_sequences, *stop_sequences], self.labels)
        return Reply(self, prompt_ids, self._draw(prompt_ids, settings, seed), scanner)

    def _context(self, turns: Sequence[Turn], max_new_tokens: int) -> list[int]:
        """The ids of as many of the last turns as fit."""
        room: int = self.model.config.max_position_embeddings - max_new_tokens
        encoded: dict[int, list[int]] = {}

        def fits(start: int) -> bool:
            # A text that is too long is known by its size: tokenising a megabyte takes seconds, and no cancellation
            # reaches into them.
            if self._fewest_tokens(turns[start:]) > room:
                return False
            encoded[start] = encode_prompt(self.tokenizer, turns[start:], self.labels, self.recipe)
            return len(encoded[start]) <= room

        # Dropping turns only ever helps, so bisect: a history of 1 MB is encoded five times, not twenty.
        starts = range(max(0, len(turns) - CONTEXT_TURNS), len(turns))
        fitting = bisect_left(starts, True, key=fits)
        if fitting == len(starts):
            last = starts[-1]
            tokens = f"{len(encoded[last]):,}" if last in encoded else f"over {self._fewest_tokens(turns[last:]):,}"
            raise PromptError(
                f"the last message is {tokens} tokens with its tags, but {room:,} fit beside "
                f"max_new_tokens = {max_new_tokens}; shorten it"
            )
        return encoded[starts[fitting]]

    def _fewest_tokens(self, turns: Sequence[Turn]) -> int:
        try:
            return len(render_prompt(turns, self.labels).encode()) // self._longest_token
        except UnicodeEncodeError as error:
            half = f"U+{ord(error.object[error.start]):04X}"
            raise PromptError(f"the prompt holds {half}, half of a character, which no text has; remove it") from error

    @cached_property
    def _longest_token(self) -> int:
        """In bytes."""
        return max(map(len, self.token_bytes))

    def _draw(self, prompt_ids: list[int], settings: Settings, seed: int | None) -> Generator[int, None, None]:
        """Ids, one at a time, at most `max_new_tokens`; the caller decides where to stop."""
        with self._decoder(len(prompt_ids) + settings.max_new_tokens) as decoder:
            scores = decoder.start(prompt_ids)
            sample = Sampler(settings, prompt_ids, self.unpunished, seed, like=scores)
            for remaining in reversed(range(settings.max_new_tokens)):
                token = sample(scores)
                yield int(token)
                if remaining:
                    scores = decoder.next(token)

    @contextmanager
    def _decoder(self, tokens: int) -> Iterator[Growing | Static]:
        """The static one, if it is free (a reply that is still being read holds it) and long enough."""
        static = self.static
        if static is not None and tokens <= static.length and static.lock.acquire(blocking=False):
            try:
                yield static
            finally:
                static.lock.release()
        else:
            yield Growing(self.model)


def _format_ids(tokenizer: Tokenizer, labels: Labels) -> frozenset[int]:
    """The end token, the newline and the tags: the format itself, which every history is full of.

    The penalty counts the prompt, so with these in it a reply cannot end: on a toy model replies grew from 6.2 tokens
    without history to 9.3 with five pairs of turns; with these spared, 7.4 and 7.3.
    """
    text = render_prompt([Turn(labels.other, "x"), Turn(labels.me, "x"), Turn(labels.other, "x")], labels)
    ids, offsets = encode(tokenizer, text)
    first_newline = text.index("\n")  # before it the tag has the look of a text's first word
    spelled = ((token, text[start:end].strip(" ")) for token, (start, end) in zip(ids, offsets, strict=True))
    after = (start >= first_newline for start, _ in offsets)
    format_ids = {token for (token, text), late in zip(spelled, after, strict=True) if late and text not in ("", "x")}
    return frozenset(format_ids | {tokenizer.eos_token_id})
