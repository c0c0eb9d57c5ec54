"""Tokenise text in the same way for training, the golden prompt and serving.

Special tokens in the text are split, so a literal "</s>" in a message stays text. BOS and end tokens are added here, by
id, and nowhere else.

Two kinds of tokenizer are supported: pieces of text with a token for each byte to fall back on (Mistral 7B, Llama 2),
and byte-level BPE (Llama 3, Qwen, Mistral Nemo, SmolLM).
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from . import model_folder
from .chat_format import Labels, Recipe, Turn, chat_template, render_prompt, spans
from .errors import WeightsError

Tokenizer = Any  # transformers' PreTrainedTokenizerFast; untyped upstream


# Both cases, accents, emoji joined, runs of spaces, line ends and other white space: what some tokenizers change.
PROBE = "B: l'Été 12345\n\nA: <x> 👩\u200d🍳\t…ß №\r\n漢字   ok.\n"


class Encoding(NamedTuple):
    """`ids[i]` covers the characters `offsets[i][0]:offsets[i][1]` of the text; BOS and end tokens cover none."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load and check the tokenizer of a model folder.

    Its `bos_token` is the token that it puts before every text, or None: some name one that they never use (SmolLM2).

    Raises WeightsError when it is missing, has no fast version or no end token, or does not keep a text as it is.
    """
    tokenizer = model_folder.load_tokenizer(Path(folder))
    if not tokenizer.is_fast:
        raise WeightsError(
            f"{folder}: the tokenizer has no fast version, whose character offsets are needed for labels"
        )
    if tokenizer.eos_token_id is None:
        raise WeightsError(f"{folder}: the tokenizer has no end token, so replies could not end; choose another base")
    with model_folder.one_line(f"{folder}: the tokenizer cannot be used"):
        if tokenizer.bos_token_id not in tokenizer("")["input_ids"]:
            tokenizer.bos_token = None
        spelled, (ids, offsets) = token_bytes(tokenizer), encode(tokenizer, PROBE, ends=[len(PROBE) - 1])
        text = b"".join(spelled[token] for token in ids).removeprefix(b" ").decode(errors="replace")
    if text != PROBE or {at for span in offsets for at in range(*span)} != {*range(len(PROBE))}:
        raise WeightsError(
            f"{folder}: the tokenizer does not keep texts as they are; choose a base like Mistral or Llama"
        )
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, *, end: bool = False, ends: Sequence[int] = ()) -> Encoding:
    """Encode BOS + text (+ end token) as ids with character offsets.

    `ends` are ascending character positions, each a newline after a turn; an end token is inserted before each. The
    text is tokenised as a whole, because some tokenizers put a space before a text. Others have tokens such as ".\\n",
    which an end token splits: then each part between two end tokens is tokenised on its own.
    """
    positions = [*ends, len(text)] if end else ends
    ids, offsets = _tokens(tokenizer, text)
    places = _places(offsets, positions)
    if any(place and offsets[place - 1][1] > position for place, position in zip(places, positions, strict=True)):
        ids, offsets = [], []
        for start, stop in pairwise([0, *ends, len(text)]):
            part = _tokens(tokenizer, text[start:stop])
            ids += part.ids
            offsets += [(start + first, start + last) for first, last in part.offsets]
        places = _places(offsets, positions)
    for place, position in reversed([*zip(places, positions, strict=True)]):
        ids.insert(place, tokenizer.eos_token_id)
        offsets.insert(place, (position, position))
    if tokenizer.bos_token_id is not None:
        ids.insert(0, tokenizer.bos_token_id)
        offsets.insert(0, (0, 0))
    return Encoding(ids, offsets)


def _places(offsets: Sequence[tuple[int, int]], positions: Sequence[int]) -> list[int]:
    """Return for each position the index of the first token that starts there or after it."""
    return [bisect_left(offsets, position, key=lambda span: span[0]) for position in positions]


def _tokens(tokenizer: Tokenizer, text: str) -> Encoding:
    """Return the text's tokens, without special ones."""
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,  # no warning beyond the context length: callers check it
    )
    return Encoding(list(encoded["input_ids"]), [tuple(span) for span in encoded["offset_mapping"]])


def encode_prompt(tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> list[int]:
    """Return the prompt ids after which the person's reply to the last turn begins."""
    ends = [span.end for span in spans(turns, labels, recipe=recipe)]
    return encode(tokenizer, render_prompt(turns, labels), ends=ends).ids


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the UTF-8 bytes of each id; empty for special tokens.

    `tokenizer.decode` does not work for streaming: it replaces a whole run of byte tokens when one of them is invalid,
    so after half an emoji the newline of "\\nB:", also a byte token, would be lost and the turn not stopped.

    Raises WeightsError for a tokenizer that has no token for each byte.
    """
    vocabulary, added = tokenizer.get_vocab(), tokenizer.added_tokens_decoder
    spell: Callable[[str], bytes]
    if "ByteLevel" in str(tokenizer.backend_tokenizer.decoder):
        spell = _byte_level
    elif "<0x0A>" in vocabulary:
        spell = _byte_fallback
    else:
        raise WeightsError("the tokenizer cannot spell every text in bytes; choose a base like Mistral or Llama")
    spelled = [b""] * (max(vocabulary.values()) + 1)
    for piece, token_id in vocabulary.items():
        if token_id not in added:
            spelled[token_id] = spell(piece)
        elif not added[token_id].special:
            spelled[token_id] = piece.encode()
    return spelled


def _byte_fallback(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


# Byte-level BPE writes each byte as one visible character (bytes_to_unicode in
# https://github.com/openai/gpt-2/blob/master/src/encoder.py): as itself in Latin-1 where that is visible, else as one
# from U+0100 on.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
_BYTES = {chr(byte): byte for byte in _VISIBLE} | {chr(0x100 + place): byte for place, byte in enumerate(_HIDDEN)}


def _byte_level(piece: str) -> bytes:
    return bytes(map(_BYTES.__getitem__, piece)) if _BYTES.keys() >= {*piece} else piece.encode()


def template_for(tokenizer: Tokenizer, labels: Labels, recipe: Recipe) -> str:
    """Return the chat template with which other servers get the ids of `encode_prompt` from this tokenizer."""
    begin = tokenizer.bos_token or ""
    if begin and token_bytes(tokenizer)[_tokens(tokenizer, "x").ids[0]][:1] == b" ":
        begin += " "  # put before a text, but not after a special token
    special = [token.content for _, token in sorted(tokenizer.added_tokens_decoder.items()) if token.special]
    # Hundreds differ in a number only: [control_8], <|reserved_special_token_8|>. Their common beginning is enough.
    beginnings = dict.fromkeys(re.sub(r"(?<=...)\d.*", "", token) for token in special)
    return chat_template(labels, recipe=recipe, begin=begin, special_strings=[*beginnings])


def least_tokens(text: str, longest: int) -> int:
    """Return a number of tokens that the text needs at least, if no token has more than `longest` bytes.

    Some tokenizers compose characters first (NFC), which shortens some texts and lengthens others.

    Raises UnicodeEncodeError on a lone surrogate.
    """
    return min(len(form.encode()) for form in (text, unicodedata.normalize("NFC", text))) // longest
