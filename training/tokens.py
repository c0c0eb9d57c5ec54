"""How many tokens a text has, without transformers: tokenizers that only count, and an estimate.

Both answer the one call that `replicate_deployment.tokenization.encode` makes, so windows are cut, nested and shuffled
into steps by the code that trains them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ghost.errors import ConfigError
from ghost.installed import install_command
from replicate_deployment.chat_format import Turn

CountTokens = Callable[[str], int]

BOS, END, NEWLINE, FIRST = 0, 1, 2, 3


class Counted:
    """The base's own tokenizer, as the tokenizers library alone reads it: the ids that training sees."""

    bos_token_id, eos_token_id = -1, -2  # told apart from every id of the vocabulary, whatever they are in it

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str, **options: bool) -> dict[str, Any]:
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return {"input_ids": found.ids, "offset_mapping": found.offsets}


class Estimated:
    """As many tokens a line as preparation estimates, without a vocabulary.

    Ids tell lines apart and nothing else: windows that begin with the same lines begin with the same ids, and a
    window's end is the end of a line, so what is nested in text is nested here.
    """

    bos_token_id, eos_token_id = BOS, END

    def __init__(self) -> None:
        self._lines: dict[str, tuple[int, int]] = {}  # id of its tokens, how many of them

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
    """The longest end of a window that has at most `limit` tokens: whole turns go from the front, the target stays.

    `count_tokens` counts the text of these turns with BOS and end token. A target that is longer than `limit` by
    itself is returned whole.
    """
    while len(turns) > 1 and count_tokens(turns) > limit:
        turns = turns[1:]
    return turns


def tokenizer_at_hand(base: str, revision: str | None = None) -> Any | None:
    """`tokenizer_of` the base, or None where it is not at hand."""
    try:
        return tokenizer_of(base, revision)
    except ConfigError:
        return None


def tokenizer_of(base: str, revision: str | None = None) -> Any:
    """The tokenizer of a base folder, or of a Hub repo that is in the cache.

    Read by the tokenizers library alone: transformers, which training loads the same file with, takes seconds to
    import. It counts the same ids. Nothing is downloaded. Raises ConfigError, which says what is missing; of the core
    install that is the library itself.
    """
    try:
        from huggingface_hub import errors, try_to_load_from_cache
        from tokenizers import Tokenizer
    except ImportError as error:
        library = (error.name or "tokenizers").split(".")[0]
        raise ConfigError(
            f"{base}: the library {library}, which reads its tokenizer, is not installed; type: "
            f"{install_command('train')}"
        ) from error
    folder = Path(base).expanduser()
    path: Any = folder / "tokenizer.json"
    if folder.is_dir():
        if not path.is_file():
            raise ConfigError(f"{base}: no tokenizer.json in this folder")
    else:
        try:
            path = try_to_load_from_cache(base, "tokenizer.json", revision=revision)
        except errors.HFValidationError:
            path = None
        if not isinstance(path, str):
            raise ConfigError(f"{base}: no folder, and no Hub repo whose tokenizer.json is on this disk")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{path}: cannot be read as a tokenizer ({str(error).splitlines()[0]})") from error
    tokenizer.encode_special_tokens = True  # as in tokenization.encode: a typed "</s>" is text
    return tokenizer


def estimate(text: str) -> int:
    """Tokens that Mistral's tokenizer makes of a text, about."""
    return round(sum(map(_weights.__getitem__, text)))


class _Weights(dict[str, float]):
    """Tokens per character, looked up once for each character there is."""

    def __missing__(self, character: str) -> float:
        self[character] = weight = _weight(character)
        return weight


_weights = _Weights()


def _weight(character: str) -> float:
    if character == "\n":
        return 1.0
    if character.isspace():
        return 0.0  # a blank is part of the word after it
    if character.isascii():
        return 0.34 if character.isalpha() else 1.4
    code = ord(character)
    if 0xC0 <= code < 0x250 or 0x1E00 <= code < 0x1F00:
        return 1.8  # a Latin letter with a mark: itself, and it splits the word
    if 0x400 <= code < 0x500:
        return 0.44  # Cyrillic
    if 0xAC00 <= code < 0xD7A4:
        return 1.6  # Hangul: common syllables are one token, the others three
    return 2.6 if code > 0xFFFF else 1.2  # emoji, of which the 59 commonest are one token and others four; the rest
