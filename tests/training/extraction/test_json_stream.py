import io
import json
from typing import Any

import pytest

from training.extraction import json_stream
from training.extraction.json_stream import Broken, Cursor, CutOff

ROWS = [
    {"text": 'a "b" \\ }, {\n[', "parts": [{"x": 1}, {"x": [{}, []]}]},
    {"text": "é👩🏽\u200d🚒"},
    {"text": 1.5},
    {},
] * 5
LAYOUTS = {
    "indented": json.dumps(ROWS, indent=1, ensure_ascii=False),
    "deeper": json.dumps([[ROWS]], indent=4)[len("[\n    [\n        ") : -len("\n    ]\n]")],
    "crlf": json.dumps(ROWS, indent="\t").replace("\n", "\r\n"),
    "one line": json.dumps(ROWS),
    "minified": json.dumps(ROWS, separators=(",", ":"), ensure_ascii=False),
    "mixed": json.dumps(ROWS, indent=1)[:-2] + "," + json.dumps(ROWS)[1:],
    "outdented": "[\n"
    + ",\n".join('{"parts": [\n{"text": 1\n},\n{"text": 2\n}], "text": 3\n}' for _ in range(9))
    + "\n]",
}


def cursor(content: str | bytes, **options: Any) -> Cursor:
    return Cursor(io.BytesIO(content.encode() if isinstance(content, str) else content), **options)


def texts(at: Cursor) -> list[Any]:
    return [row.get("text") if isinstance(row, dict) else None for row in at.values()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 18])
def test_the_layout_and_the_size_of_a_chunk_make_no_difference(
    layout: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    content = LAYOUTS[layout]
    at = cursor(f"{content} 5")
    assert texts(at) == [row.get("text") for row in json.loads(content)]
    assert at.value() == 5
    at = cursor(f"{content}5")
    at.skip()
    assert at.value() == 5


def test_no_more_is_read_than_asked_for() -> None:
    content = io.BytesIO(json.dumps([{"text": "x" * 1000}] * 2000, indent=1).encode())
    next(Cursor(content).values())
    assert content.tell() <= json_stream.CHUNK


def test_values_of_any_shape_follow_each_other() -> None:
    rows = [{"text": 1}, 5, "x", None, [], [{"text": 2}], {"text": 3}, {"text": 4}]
    for indent in (None, 1):
        assert list(cursor(json.dumps(rows, indent=indent)).values()) == rows


def test_one_broken_element_costs_no_other() -> None:
    content = json.dumps([{"text": str(n)} for n in range(200)], indent=1)
    for broken in ('"10" or 11"', '"10', "10 11", "", '"\\q"', "NaN", "9" * 5000, "[" * 9 + "{}" + "]" * 9 + "1"):
        read = texts(cursor(content.replace('"100"', broken)))
        assert read == [None if n == 100 else str(n) for n in range(200)], broken


def test_repair_is_for_what_does_not_decode() -> None:
    seen = []

    def repair(content: str) -> str:
        seen.append(content)
        return content.replace("\\x41", "A")

    assert texts(cursor(json.dumps([{"text": "x"}] * 9, indent=1), repair=repair)) == ["x"] * 9
    assert seen == []
    content = json.dumps([{"text": "x"}] * 9, indent=1).replace('"x"', '"\\x41"', 3)
    assert texts(cursor(content, repair=repair)) == ["A"] * 3 + ["x"] * 6
    assert len(seen) == 3


def test_half_a_surrogate_pair_is_marked() -> None:
    read = texts(cursor(rb'[{"text": "a\ud83d"}, {"text": "\ud83d\ude00"}]'))
    assert [len(text.encode().decode()) for text in read] == [2, 1]
    assert read[1] == "😀"


@pytest.mark.parametrize("chunk", [1, 7, json_stream.CHUNK])
def test_bytes_that_are_no_utf_8_end_the_file_where_they_are(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    rows = cursor('[{"text": "é"}, {"text": "'.encode() + b'\xe9"}, {"text": "x"}]').values()
    assert next(rows) == {"text": "é"}
    with pytest.raises(Broken, match="character 26: not UTF-8"):
        next(rows)


def test_nesting_has_no_limit_in_what_is_skipped_and_is_unreadable_in_what_is_read() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    assert texts(cursor(f'[{{"other": {deep}}}, {{"text": 1}}]')) == [None, 1]
    at = cursor(f'{{"other": {deep}, "text": 1}}')
    assert [at.value() for name in at.names() if name == "text"] == [1]


def test_names_and_elements_skip_what_is_left() -> None:
    at = cursor(b'\xef\xbb\xbf{"a": {"b": ["}"]}, "list": [1, [2], {"c": 3}], "d": "e"} ')
    seen = []
    for name in at.names():
        seen.append(name)
        if name == "list":
            seen += [at.value() for _ in at.elements()]
    assert seen == ["a", "list", 1, [2], {"c": 3}, "d"]
    assert at.peek() == ""


def test_of_another_value_there_are_no_names_and_no_elements() -> None:
    assert list(cursor("[1]").names()) == list(cursor("{}").elements()) == list(cursor("5").values()) == []


@pytest.mark.parametrize("length", range(1, 40))
def test_a_file_that_breaks_off_gives_what_is_whole(length: int) -> None:
    content = '[{"text": 1}, {"text": "x"}, {"text": 12}]'[:length]
    read: list[Any] = []
    with pytest.raises(CutOff):
        read.extend(row["text"] for row in cursor(content).values())
    assert read == [1, "x", 12][: content.count("}")]


@pytest.mark.parametrize("content", ["{5: 6}", '{"a" 5}', '{"a": }', '{"a": :}', "{]", '{"a\nb": 5}'])
def test_what_is_no_json_is_said_without_its_content(content: str) -> None:
    with pytest.raises(Broken, match=r"^character \d+: no (name|value)$"):
        for _ in (at := cursor(content)).names():
            at.value()


def test_a_value_larger_than_any_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "LONGEST", 1 << 20)
    with pytest.raises(Broken, match="a value of more than 1 MiB"):
        cursor('["' + "x" * (1 << 22) + '"]').value()
