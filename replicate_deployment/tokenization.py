"""Tokenise text in the same way for training, the golden prompt and serving.

Special tokens in the text are split, so a literal "</s>" in a message stays text. BOS and end tokens are added here, by
id, and nowhere else.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .chat_format import Labels, Recipe, Turn, render_prompt, spans
from .errors import WeightsError

Tokenizer = Any  # transformers' PreTrainedTokenizerFast; untyped upstream


class Encoding(NamedTuple):
    """`ids[i]` covers the characters `offsets[i][0]:offsets[i][1]` of the text; BOS and end tokens cover none."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def load_tokenizer(folder: str | Path, **hub: Any) -> Tokenizer:
    """Load and check the tokenizer of a model folder, or of a Hub repo with `hub` arguments such as `revision=`.

    Raises WeightsError when it is missing, has no fast version, or lacks a BOS or end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **hub)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}: no tokenizer could be loaded ({str(error).splitlines()[0]})") from error
    if not tokenizer.is_fast:
        raise WeightsError(
            f"{folder}: the tokenizer has no fast version, whose character offsets are needed for labels"
        )
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise WeightsError(f"{folder}: the tokenizer lacks a BOS or end token; a Mistral tokenizer has both")
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, *, end: bool = False, ends: Sequence[int] = ()) -> Encoding:
    """Encode BOS + text (+ end token) as ids with character offsets.

    `ends` are ascending character positions, each a newline after a turn; an end token is inserted before each. The
    text is tokenised as a whole, because a text tokenised on its own gains a space before its first word.
    """
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # no warning beyond the context length: callers check it
    )
    ids, offsets = list(encoded["input_ids"]), [tuple(span) for span in encoded["offset_mapping"]]
    for position in reversed([*ends, len(text)] if end else ends):
        place = bisect_left(offsets, position, key=lambda span: span[0])
        ids.insert(place, tokenizer.eos_token_id)
        offsets.insert(place, (position, position))
    ids.insert(0, tokenizer.bos_token_id)
    offsets.insert(0, (0, 0))
    return Encoding(ids, offsets)


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> list[int]:
    """Return the prompt ids after which the person's reply to the last turn begins."""
    ends = [span.end for span in spans(turns, labels, recipe=recipe)]
    return encode(tokenizer, render_prompt(turns, labels), ends=ends).ids


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the UTF-8 bytes of each id; empty for special tokens.

    `tokenizer.decode` does not work for streaming: it replaces a whole run of byte tokens when one of them is invalid,
    so after half an emoji the newline of "\\nB:", also a byte token, would be lost and the turn not stopped.

    Raises WeightsError for a tokenizer without byte fallback; Mistral's has it.
    """
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if "<0x0A>" not in pieces:
        raise WeightsError("the tokenizer has no byte tokens such as <0x0A>; use a base that has, like Mistral-7B-v0.3")
    special = {token_id for token_id, added in tokenizer.added_tokens_decoder.items() if added.special}
    return [b"" if token_id in special else _piece_bytes(piece) for token_id, piece in enumerate(pieces)]


def _piece_bytes(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()
