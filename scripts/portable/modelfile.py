"""Ollama's Modelfile: the A:/B: text as a Go template, the stop sequences and the sampling defaults.

A Go template has no function that looks into a text. So unlike `chat_format` this one leaves the lines of a message as
they are: one that starts with a tag reads as a turn, and a typed `</s>` ends one.
"""

import json
from collections.abc import Sequence

from replicate_deployment.chat_format import END_TOKEN, Labels, Recipe
from replicate_deployment.settings import Settings
from training.errors import ConversionError

# The space before the first turn is the one that a tokenizer puts before a text; the GGUF file says that none is added.
# A reply comes back with the space after its tag: it is not written twice.
TEMPLATE = """\
{{- $before := " " }}
{{- range .Messages }}
{{- if eq .Role "user" }}{{ $before }}{{ @OTHER@ }} {{ .Content }}{{ $before = "\\n" }}
{{- else if eq .Role "assistant" }}{{ $before }}{{ @ME@ }}{{ if ne (printf "%.1s" .Content) " " }} {{ end }}\
{{ .Content }}@END@{{ $before = "\\n" }}
{{- end }}
{{- end }}{{ "\\n" }}{{ @ME@ }}"""


def modelfile(gguf: str, labels: Labels, recipe: Recipe, stops: Sequence[str], settings: Settings) -> str:
    """The Modelfile beside the file `gguf`."""
    facts = {"@ME@": go_text(labels.me), "@OTHER@": go_text(labels.other)}
    facts["@END@"] = END_TOKEN if recipe == "conversations" else ""
    template = TEMPLATE
    for name, value in facts.items():
        template = template.replace(name, value)
    parameters: list[tuple[str, object]] = [("stop", quoted(stop)) for stop in stops]
    parameters += [
        ("temperature", settings.temperature),
        ("top_p", settings.top_p),
        ("top_k", settings.top_k),
        ("repeat_penalty", settings.repetition_penalty),
        ("num_predict", settings.max_new_tokens),
    ]
    lines = [
        f"FROM ./{gguf}",
        f"TEMPLATE {quoted(template)}",
        *(f"PARAMETER {key} {value}" for key, value in parameters),
    ]
    return "\n".join(lines) + "\n"


def go_text(text: str) -> str:
    """A Go string. JSON's escapes are Go's too, but for surrogates, which stand for themselves here."""
    return json.dumps(text, ensure_ascii=False)


def quoted(text: str) -> str:
    """As a Modelfile quotes what holds newlines or spaces. It has no escapes."""
    if '"""' in text or text.endswith('"'):
        raise ConversionError(f"{text!r} cannot be written in a Modelfile, which has no escapes for quotes")
    return f'"""{text}"""'
