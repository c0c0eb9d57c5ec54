"""Tokenizers that only count: a plan is made of ids, and a laptop that estimates one may have no transformers.

Both answer the one call that `replicate_deployment.tokenization.encode` makes, so windows are cut, nested and shuffled
into steps by the code that trains them.
"""

from typing import Any

from training.preparation.fit import estimate

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
