"""The tokenizer as llama.cpp's `llama` vocabulary: pieces with scores, for a BPE over "▁" words with byte fallback.

llama.cpp joins neighbours whenever their text is a piece, the piece with the highest score first
(`llm_tokenizer_spm` in its src/llama-vocab.cpp). A tokenizer.json lists which pairs may join, and in which order.
Scores made of that order give the ids that training used. Those of a tokenizer.model do not always: Mistral's joins
runs of spaces last, its tokenizer.json first.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from replicate_deployment.tokenization import Tokenizer
from training.errors import ConversionError

Pair = tuple[str, str]
SPACE = "▁"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first"}
LINES = {"type": "Split", "pattern": {"Regex": "\n"}, "behavior": "Isolated", "invert": False}
MODEL = {"type": "BPE", "byte_fallback": True, "ignore_merges": False, "dropout": None}
MODEL |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}


@dataclass(frozen=True)
class Vocabulary:
    """`pieces`, `scores` and `kinds` (values of gguf.TokenType) are by id."""

    pieces: list[str]
    scores: list[float]
    kinds: list[int]

    def encode(self, text: str) -> list[int]:
        """As llama.cpp does: without BOS, special tokens as text, and no space but those of the text."""
        ids = {piece: place for place, piece in enumerate(self.pieces)}
        symbols, _ = join(text.replace(" ", SPACE), dict(zip(self.pieces, self.scores, strict=True)))
        whole = (
            [ids[symbol]] if symbol in ids else [ids[BYTES[byte]] for byte in symbol.encode()] for symbol in symbols
        )
        return [place for places in whole for place in places]


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """`size` pieces: the tokenizer's, and unused ones where the model has more ids.

    Raises ConversionError when llama.cpp would give other ids for some text.
    """
    from gguf import TokenType

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    name, ids = tokenizer.name_or_path, tokenizer.get_vocab()
    if max(ids.values()) >= size:
        raise ConversionError(f"{name}: ids up to {max(ids.values()):,}, and the model has {size:,}; merge again")
    # What llama.cpp's own converter writes for ids that only fill the embeddings up.
    pieces, kinds = [f"[PAD{place}]" for place in range(size)], [TokenType.UNUSED] * size
    special = {token["id"]: token["special"] for token in document["added_tokens"]}
    for piece, place in ids.items():
        kind = TokenType.BYTE if piece in BYTES else TokenType.NORMAL
        if place in special:
            kind = TokenType.CONTROL if special[place] else TokenType.USER_DEFINED
        pieces[place], kinds[place] = piece, TokenType.UNKNOWN if piece == "<unk>" else kind
    merges = {(left, right): rank for rank, (left, right) in enumerate(document["model"].get("merges", []))}
    try:
        _check_kind(document, ids)
        scores = scores_of(merges, pieces)
    except ValueError as reason:
        raise ConversionError(
            f"{name}: llama.cpp would tokenise otherwise ({reason}); Mistral's tokenizers can be exported"
        ) from reason
    return Vocabulary(pieces, [scores[piece] for piece in pieces], [int(kind) for kind in kinds])


def scores_of(merges: Mapping[Pair, int], pieces: Iterable[str]) -> dict[str, float]:
    """Scores by which joining pieces gives, for every text, what joining the pairs of `merges` by rank gives.

    Proven by looking at each piece alone: if every piece that a merge makes comes out whole, by merges only, then at
    any time only pairs of `merges` can join in any text. For when two neighbours X and Y make a piece, nothing has
    joined across its ends so far; so what happened between them is what happens when the piece stands alone, and
    (X, Y) is the last pair that joins there. What remains is that scores and ranks of these last pairs agree in order.

    Raises ValueError, saying what is otherwise.
    """
    ranks: dict[str, int] = {}
    for (left, right), rank in merges.items():
        ranks.setdefault(left + right, rank)
    scores = {piece: -float(ranks.get(piece, len(merges))) for piece in pieces}
    newest = -1
    for piece in ranks:  # in order of rank
        whole, joined = join(piece, scores)
        if whole != [piece] or not joined or any(pair not in merges for pair in joined):
            raise ValueError(f"by its merges {piece!r} is {' + '.join(whole)!r}")
        if merges[joined[-1]] < newest:
            raise ValueError(f"{piece!r} is made earlier than a piece with a higher score")
        newest = merges[joined[-1]]
    for piece in scores.keys() - ranks.keys():
        if len(piece) > 1 and join(piece, scores)[0] == [piece]:
            raise ValueError(f"{piece!r} would be made of text")
    return scores


def join(text: str, scores: Mapping[str, float]) -> tuple[list[str], list[Pair]]:
    """What is left when neighbours are joined, the highest score first, of equals the leftmost; and which joined."""
    symbols = [*text]
    joined: list[Pair] = []
    while True:
        pairs = enumerate(pairwise(symbols))
        fit = [(scores[left + right], -place) for place, (left, right) in pairs if left + right in scores]
        if not fit:
            return symbols, joined
        place = -max(fit)[1]
        joined.append((symbols[place], symbols[place + 1]))
        symbols[place : place + 2] = ["".join(joined[-1])]


def _check_kind(document: Mapping[str, Any], pieces: Iterable[str]) -> None:
    """Raises ValueError on a tokenizer.json that does more to a text than to join pieces."""
    model = document["model"]
    for key, value in MODEL.items():
        if model.get(key) != value:
            raise ValueError(f"model.{key} is {model.get(key)!r}, not {value!r}")
    if document["normalizer"] is not None:
        raise ValueError(f"its normalizer is {document['normalizer']['type']}")
    if lacking := len({*BYTES} - {*pieces}):
        raise ValueError(f"{lacking} of the 256 bytes are no pieces")
    for token in document["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(f"its token {token['content']!r} takes spaces around it")
    before = document["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    made = {"".join(pair) for pair in model["merges"]}
    if LINES in steps[:1]:
        steps = steps[1:]
        if any("\n" in piece for piece in made):
            raise ValueError("its pieces go beyond the lines that it splits")
    if steps == [METASPACE | {"split": True}]:
        if any(SPACE in piece[1:] for piece in made):
            raise ValueError("its pieces go beyond the words that it splits")
    elif steps != [METASPACE | {"split": False}]:
        raise ValueError(f"its pre_tokenizer is {re.sub(chr(10), ' ', json.dumps(before))[:80]}")
