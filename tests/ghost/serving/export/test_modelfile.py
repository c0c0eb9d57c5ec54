"""The Modelfile, read as Ollama reads it; its template, run by Jinja, gives the text of chat_format."""

import re
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment

from ghost.errors import ConversionError
from ghost.serving.export import modelfile
from replicate_deployment.chat_format import END_TOKEN, RECIPES, Labels, Recipe, Turn, render, render_line
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings

LABELS = [Labels(), Labels(me='Noa"\\}}:', other="é😂:")]
# Each construct of the Go template and what it is in Jinja; both trim the text beside a "-" in the same way.
JINJA = {
    '{{- $before := " " }}': '{%- set kept = namespace(before=" ") %}',
    "{{- range .Messages }}": "{%- for message in messages %}",
    '{{- if eq .Role "user" }}': '{%- if message.role == "user" %}',
    '{{- else if eq .Role "assistant" }}': '{%- elif message.role == "assistant" %}',
    '{{ if ne (printf "%.1s" .Content) " " }} {{ end }}': '{% if message.content[:1] != " " %} {% endif %}',
    "{{ .Content }}": "{{ message.content }}",
    "{{ $before }}": "{{ kept.before }}",
    '{{ $before = "\\n" }}': '{% set kept.before = "\\n" %}',
    "{{- end }}\n{{- end }}": "{%- endif %}\n{%- endfor %}",
}


def written(gguf: str, labels: Labels, recipe: Recipe, stops: list[str], sampling: Settings) -> str:
    text = {"labels": {"me": labels.me, "other": labels.other}, "recipe": recipe, "stop_sequences": stops}
    source: Any = SimpleNamespace(vocabulary=SimpleNamespace(begin=" "), tokenizer=SimpleNamespace(eos_token=END_TOKEN))
    return modelfile(gguf, Ghost(Path(), {"text": text, "sampling": asdict(sampling)}), source)


def commands(text: str) -> list[tuple[str, str]]:
    """(name, value): a value ends with its line, or where its three quotes do; there are no escapes."""
    found = re.findall(r'(FROM|TEMPLATE|PARAMETER \w+) (?:"""(.*?)"""|(.*?))\n', text, re.S)
    assert text == "".join(f'{name} """{quoted}"""\n' if quoted else f"{name} {bare}\n" for name, quoted, bare in found)
    return [(name.removeprefix("PARAMETER "), quoted or bare) for name, quoted, bare in found]


def rendered(template: str, turns: list[Turn], me: str) -> str:
    for go, jinja in JINJA.items():
        assert go in template
        template = template.replace(go, jinja)
    messages = [{"role": "assistant" if turn.label == me else "user", "content": turn.text} for turn in turns]
    system = [{"role": "system", "content": "left out"}]
    return Environment(keep_trailing_newline=True).from_string(template).render(messages=system + messages)


@pytest.mark.parametrize("labels", LABELS, ids=["default", "odd"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_template_gives_the_text_of_the_engine(labels: Labels, recipe: Recipe) -> None:
    read = dict(commands(written("ghost-f16.gguf", labels, recipe, labels.stop_sequences, Settings())))
    texts = ["hey", "yo\nça va ? 😂", "{{ .Role }}", "ok", "et toi"]
    turns = [Turn((labels.other, labels.me)[place % 2], text) for place, text in enumerate(texts)]
    for count in (1, 3, 5):
        history = turns[:count]
        ended = recipe == "conversations"
        text = render_line(history, labels, recipe=recipe) if ended else render(history, labels)
        assert rendered(read["TEMPLATE"], history, labels.me) == f" {text}\n{labels.me}"
    # A reply as Ollama gives it back, with the space after its tag.
    spaced = [turns[0], Turn(labels.me, " yo"), turns[2]]
    end = END_TOKEN if recipe == "conversations" else ""
    assert f"\n{labels.me} yo{end}\n" in rendered(read["TEMPLATE"], spaced, labels.me)


@pytest.mark.parametrize("labels", LABELS, ids=["default", "odd"])
def test_stops_and_sampling_are_those_of_ghost_json(labels: Labels) -> None:
    sampling = Settings(max_new_tokens=50, temperature=0.5, top_p=0.9, top_k=7, repetition_penalty=1.1)
    found = commands(written("ghost-q8_0.gguf", labels, "windows", [*labels.stop_sequences, "fin"], sampling))
    assert [value for name, value in found if name == "stop"] == [*labels.stop_sequences, "fin"]
    assert [(name, value) for name, value in found if name not in ("stop", "TEMPLATE")] == [
        ("FROM", "./ghost-q8_0.gguf"),
        ("temperature", "0.5"),
        ("top_p", "0.9"),
        ("top_k", "7"),
        ("repeat_penalty", "1.1"),
        ("num_predict", "50"),
    ]


@pytest.mark.parametrize("stop", ['"""', 'a"'])
def test_what_cannot_be_quoted_is_refused(stop: str) -> None:
    with pytest.raises(ConversionError, match="cannot escape quotes"):
        written("ghost-f16.gguf", Labels(), "windows", [stop], Settings())
