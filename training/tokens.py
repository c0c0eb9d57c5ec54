"""Count the tokens of a text without transformers: with the base's tokenizer, or by an estimate.

Both implement the one call that `replicate_deployment.tokenization.encode` makes, so the training code itself can cut,
nest and shuffle windows with them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ghost.errors import ConfigError
from ghost.installed import install_command
from replicate_deployment.chat_format import Turn
from replicate_deployment.errors import WeightsError, first_line
from replicate_deployment.model_folder import check_tokenizer

BOS, END, NEWLINE, FIRST = 0, 1, 2, 3


class CountingTokenizer:
    """The base's tokenizer, read by the tokenizers library. Gives the same ids as in training."""

    eos_token_id = -2  # distinct from every id in any vocabulary

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = -1 if tokenizer.encode("").ids else None  # some tokenizers add no BOS

    def __call__(self, text: str, **options: bool) -> dict[str, Any]:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return {"input_ids": found.ids, "offset_mapping": found.offsets}


class EstimatingTokenizer:
    """The estimated number of tokens for each line, without a vocabulary.

    Each distinct line has its own id, repeated. Windows that begin with the same lines begin with the same ids, and
    windows end at line ends, so text that is nested gives ids that are nested.
    """

    bos_token_id, eos_token_id = BOS, END

    def __init__(self) -> None:
        self._lines: dict[str, tuple[int, int]] = {}  # line → (id, number of tokens)

    def __call__(self, text: str, **options: bool) -> dict[str, Any]:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for number, line in enumerate(text.split("\n")):
            if number:
                ids.append(NEWLINE)
                offsets.append((start - 1, start))
            token, count = self._lines.get(line) or self._measure(line)
            size = len(line)
            ids += [token] * count
            offsets += [(start + size * i // count, start + size * (i + 1) // count) for i in range(count)]
            start += size + 1
        return {"input_ids": ids, "offset_mapping": offsets}

    def _measure(self, line: str) -> tuple[int, int]:
        self._lines[line] = FIRST + len(self._lines), estimate(line)
        return self._lines[line]


def fit_window(turns: Sequence[Turn], count_tokens: Callable[[Sequence[Turn]], int], limit: int) -> Sequence[Turn]:
    """Drop whole turns from the front until at most `limit` tokens are left; always keep the last turn, whole.

    `count_tokens` counts the rendered turns with BOS and end token.
    """
    while len(turns) > 1 and count_tokens(turns) > limit:
        turns = turns[1:]
    return turns


def try_load_tokenizer(base: str, revision: str | None = None) -> Any | None:
    """Like `load_tokenizer`, but return None if the tokenizer is not on this disk."""
    try:
        return load_tokenizer(base, revision)
    except ConfigError:
        return None


def load_tokenizer(base: str, revision: str | None = None) -> Any:
    """Load the tokenizer of a base folder, or of a Hub repo that is in the cache. Downloads nothing.

    Uses the tokenizers library only: transformers reads the same file but takes seconds to import.
    Raises ConfigError if the tokenizer or, in the core install, the library is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(
            f"{base}: the library tokenizers, which reads the tokenizer, is not installed; type: "
            f"{install_command('train')}"
        ) from error
    folder = Path(base).expanduser()
    path = folder / "tokenizer.json" if folder.is_dir() else cached_file(base, "tokenizer.json", revision)
    if path is None:
        raise ConfigError(f"{base}: not a folder, and not a Hub repo whose tokenizer.json is on this disk")
    if not path.is_file():
        raise ConfigError(f"{base}: no tokenizer.json in this folder")
    try:
        check_tokenizer(path.parent)
        tokenizer = Tokenizer.from_file(str(path))
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # the library raises plain Exception
        raise ConfigError(f"{path}: cannot be read as a tokenizer ({first_line(error)})") from error
    tokenizer.no_padding()  # transformers leaves both out as well
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # as in tokenization.encode: a typed "</s>" is text
    return tokenizer


def cached_file(repo: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a Hub repo that is in the Hub's cache; None if it is not there, or in the core install."""
    try:
        from huggingface_hub import errors, try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(repo, name, revision=revision)
    except errors.HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def estimate(line: str) -> int:
    """Estimate how many tokens Mistral's tokenizer makes of a line."""
    return round(sum(map(_weights.__getitem__, line)))


class _Weights(dict[str, float]):
    """Tokens per character, cached."""

    def __missing__(self, character: str) -> float:
        self[character] = weight = _weight(character)
        return weight


_weights = _Weights()


def _weight(character: str) -> float:
    if character.isspace():
        return 0.0  # a space is part of the next word
    if character.isascii():
        return 0.34 if character.isalpha() else 1.4
    code = ord(character)
    if 0xC0 <= code < 0x250 or 0x1E00 <= code < 0x1F00:
        return 1.8  # a Latin letter with a diacritic: a token, and it splits the word
    if 0x400 <= code < 0x500:
        return 0.44  # Cyrillic
    if 0xAC00 <= code < 0xD7A4:
        return 1.6  # Hangul: common syllables are one token, others three
    return 2.6 if code > 0xFFFF else 1.2  # emoji: the 59 most common are one token, others four
