"""The model behind one method: `reply(turns, settings)` gives one turn, in text pieces, and stops.

A small decode loop of ours over the model's key-value cache, with transformers' own score processors. There is no
thread: the loop runs only while a piece is being asked for, so closing the iterator, or an exception that arrives
during it (Cog's CancelationException), ends the work.
"""

import codecs
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from . import ghost_json, golden, settings
from .chat_format import Labels, Recipe, Turn, render_prompt
from .errors import PromptError, WeightsError
from .ghost_json import Ghost
from .settings import Settings
from .stopping import ReplyScanner
from .tokenization import Tokenizer, encode, encode_prompt, load_tokenizer, token_bytes

# Training windows hold 13 turns at most; a longer history is further and further from anything the model has seen.
CONTEXT_TURNS = 20


class Reply(Iterator[str]):
    """The pieces of one reply. `close()` stops the work; "".join(reply) is the whole.

    `output_tokens` counts what the model has drawn so far, the end token and a stop sequence included; `written` is
    its text, before the cut and the un-escaping.
    `finish_reason` is None until the reply has ended.
    """

    def __init__(self, engine: "Engine", prompt_ids: list[int], drawn: Iterator[int], scanner: ReplyScanner) -> None:
        self.prompt_tokens = len(prompt_ids)
        self.output_tokens = 0
        self.written = ""
        self.finish_reason: Literal["end_token", "stop_sequence", "length"] | None = None
        self._pieces = self._read(engine, drawn, scanner)

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    def _read(self, engine: "Engine", drawn: Iterator[int], scanner: ReplyScanner) -> Generator[str, None, None]:
        # Holds back the bytes of a character until the last one is there; those of a broken one say nothing.
        utf8 = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        for token in drawn:
            self.output_tokens += 1
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

    @classmethod
    def load(cls, folder: Path, device: str | None = None, *, hashes: bool = True) -> "Engine":
        """Verify the folder, load it, and prove by the golden prompt that it computes what was merged.

        FP16 on an accelerator. On a CPU float32, at twice the memory: FP16 there decodes no faster and reads the prompt
        five to eight times slower (100 tokens, hidden 256 and 1024, AVX-512 without FP16 matrix units).

        Raises WeightsError when the folder is not a whole, unchanged merged model, or its weights compute otherwise.
        """
        ghost = ghost_json.read(folder)
        recipe = ghost.recipe
        ghost_json.verify(ghost, hashes=hashes)
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM  # after the checks: importing it takes longer than they do
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # it would fill the container's log; callers have their own
        tokenizer = load_tokenizer(folder)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32 if device == "cpu" else torch.float16,
                device_map={"": device},  # straight to the device, never whole in the CPU's memory
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{folder}: the model could not be loaded onto {device} ({reason})") from error
        golden.verify(model.eval(), tokenizer, ghost.block("golden"))
        return cls(
            ghost=ghost,
            tokenizer=tokenizer,
            model=model,
            labels=ghost.labels,
            recipe=recipe,
            settings=settings.from_facts(ghost.block("sampling")),
            token_bytes=token_bytes(tokenizer),
            unpunished=_format_ids(tokenizer, ghost.labels),
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

        def ids_from(start: int) -> list[int]:
            return encode_prompt(self.tokenizer, turns[start:], self.labels, self.recipe)

        # Dropping turns only ever helps, so bisect: a history of 1 MB is encoded five times, not twenty.
        starts = range(max(0, len(turns) - CONTEXT_TURNS), len(turns))
        fitting = bisect_left(starts, True, key=lambda start: len(ids_from(start)) <= room)
        if fitting == len(starts):
            raise PromptError(
                f"the last message is {len(ids_from(len(turns) - 1)):,} tokens with its tags, but {room:,} fit beside "
                f"max_new_tokens = {max_new_tokens}; shorten it"
            )
        return ids_from(starts[fitting])

    def _draw(self, prompt_ids: list[int], settings: Settings, seed: int | None) -> Iterator[int]:
        """Ids, one at a time, at most `max_new_tokens`; the caller decides where to stop."""
        from transformers import DynamicCache

        process = _processors(settings)
        # On the CPU, so that a seed means the same on every device. (Rounding may still tip a choice.)
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        cache = DynamicCache(config=self.model.config)
        seen = [token for token in prompt_ids if token not in self.unpunished]
        step = prompt_ids
        for _ in range(settings.max_new_tokens):
            with torch.inference_mode():
                ids = torch.tensor([step], device=self.model.device)
                output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                # The processors look at the ids for one purpose, the penalty: they are shown those it may punish.
                punished = torch.tensor([seen], dtype=torch.long, device=self.model.device)
                scores = process(punished, output.logits[:, -1].float())[0].cpu()
                if settings.temperature == 0:
                    token = int(scores.argmax())
                else:
                    token = int(torch.multinomial(scores.softmax(-1), 1, generator=generator))
            yield token
            step = [token]
            if token not in self.unpunished:
                seen.append(token)


def _processors(settings: Settings) -> Any:
    """transformers' score processors, in the order in which its own `generate` applies them."""
    from transformers.generation import logits_process

    processors = logits_process.LogitsProcessorList()
    if settings.repetition_penalty != 1:
        processors.append(logits_process.RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty)))
    if settings.temperature != 0:
        processors.append(logits_process.TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k > 0:
            processors.append(logits_process.TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            processors.append(logits_process.TopPLogitsWarper(settings.top_p))
    return processors


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
