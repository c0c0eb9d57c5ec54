"""From text to ids, the same way in training, in the merge's golden prompt and in serving.

What people type is tokenised with special tokens split, so a literal "</s>" in a message is six characters of text;
the real BOS and end tokens are only ever added here, by id.
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
    """`ids[i]` covers the characters `offsets[i][0]:offsets[i][1]` of the text; BOS and end token cover none."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def load_tokenizer(folder: str | Path, **hub: Any) -> Tokenizer:
    """The tokenizer of a model folder (or of a Hub repo, with `hub` such as `revision=`), checked for our use.

    Raises WeightsError when it is missing, slow, or lacks BOS or an end token of its own.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **hub)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder}: no tokenizer could be loaded ({str(error).splitlines()[0]})") from error
    if not tokenizer.is_fast:
        raise WeightsError(f"{folder}: the tokenizer has no fast version, and labels need its character offsets")
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise WeightsError(f"{folder}: the tokenizer has no BOS or no end token; a Mistral tokenizer has both")
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, *, end: bool = False, ends: Sequence[int] = ()) -> Encoding:
    """BOS + text (+ end token), as ids with character offsets.

    `ends` are characters, ascending, each the newline after a turn, before which an end token goes too. The text is
    tokenised whole all the same: apart, what follows an end token would gain the space of a text's first word.
    """
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # of a text beyond the context length: who asks counts
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
    """The ids after which the person's reply to the last turn begins."""
    ends = [span.end for span in spans(turns, labels, recipe=recipe)]
    return encode(tokenizer, render_prompt(turns, labels), ends=ends).ids


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """The UTF-8 bytes that each id stands for; none for special tokens.

    Decoding by `tokenizer.decode` would not do for a stream: it replaces a whole run of byte tokens when one of them is
    invalid, so after half an emoji the newline of "\\nB:", a byte token too, would be lost and the turn not stopped.

    Raises WeightsError for a tokenizer without byte fallback; Mistral's has it.
    """
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if "<0x0A>" not in pieces:
        raise WeightsError("the tokenizer has no byte tokens (<0x0A>), as Mistral-7B-v0.3's has; use such a base")
    special = {token_id for token_id, added in tokenizer.added_tokens_decoder.items() if added.special}
    return [b"" if token_id in special else _piece_bytes(piece) for token_id, piece in enumerate(pieces)]


def _piece_bytes(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()
