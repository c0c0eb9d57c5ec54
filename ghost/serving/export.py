"""`ghost export`: a merged model as one GGUF file for llama.cpp, and a Modelfile with which Ollama runs it."""

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console, progress
from ghost.errors import ConversionError, UsageError
from ghost.serving import gguf_file
from ghost.serving.gguf_file import Type, Vocabulary, read_decoder, read_vocabulary
from replicate_deployment import ghost_json, settings
from replicate_deployment.chat_format import END_TOKEN, Labels, Recipe
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.merging.weights import Weights

# Ollama's Modelfile: the A:/B: text as a Go template, the stop sequences and the sampling defaults.
#
# A Go template has no function that looks into a text. So unlike `chat_format` this one leaves the lines of a message
# as they are: one that starts with a tag reads as a turn, and a typed `</s>` ends one.

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


NAME = "ghost"
CONTEXT = 2048  # tokens: twice what training sees at once
# Noted 2026-11-22 from the model's page on the Hub; ghost.json does not record it.
LICENCES = {"mistralai/Mistral-7B-v0.3": "apache-2.0"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "f16 holds the model as it is, q8_0 about half as many bytes. 4 bits are llama.cpp's own work: "
        "llama-quantize ghost-f16.gguf ghost-q4.gguf Q4_K_M"
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=Path("models/merged"), help="a merged model (default: %(default)s)"
    )
    parser.add_argument("--gguf", choices=get_args(Type), required=True, help="how the matrices are stored")
    parser.add_argument("--out", type=Path, default=Path("models/gguf"), help="its folder (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    facts = export(args.model, args.out, args.gguf)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    file = facts["file"]
    console.print(
        f"written  {file}: {facts['bytes'] / 1e9:.2f} GB, {facts['tensors']} tensors, {args.gguf}\n"
        f"beside   Modelfile, for Ollama\n"
        f"next     {facts['llama_server']}\n"
        f"or       ollama create {NAME} -f {shlex.quote(str(args.out / 'Modelfile'))}",
        soft_wrap=True,
    )
    return 0


def export(model: Path, out: Path, kind: Type) -> dict[str, Any]:
    """Write the folder `out`: the GGUF file, Modelfile, ghost.json; return what a person may want to know of it.

    Raises WeightsError when the model is not whole and unchanged, ConversionError when llama.cpp would make another
    model of it, UsageError when `out` holds something else. `out` is then as it was.
    """
    refuse_foreign_files(out, artifact.own_files(out, "export"))
    if out.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"--out {out} lies in {model}, which takes no weights but its own; name a folder beside it")
    ghost = ghost_json.read(model)
    recipe, sampling = ghost.recipe, settings.from_facts(ghost.block("sampling"))
    with progress("hashing"):
        ghost_json.verify(ghost)
    decoder = read_decoder(model)
    tokenizer = load_tokenizer(model)
    vocabulary = read_vocabulary(tokenizer, decoder.shapes.vocabulary)
    check_golden_ids(ghost, tokenizer, vocabulary)
    name = f"{NAME}-{kind}.gguf"
    ollama = modelfile(name, ghost.labels, recipe, ghost.stop_sequences, sampling)

    def add_metadata(writer: Any) -> None:
        general_facts(writer, ghost)
        gguf_file.model_facts(writer, decoder, kind)
        gguf_file.sampling_facts(writer, sampling)
        gguf_file.tokenizer_facts(writer, tokenizer, vocabulary)

    with Weights.of_model(model) as weights, replace_folder(out) as aside:
        tensors = gguf_file.plan(decoder, weights, kind)
        with progress(f"writing {name}", total=len(tensors)) as bar:
            sha256 = gguf_file.write(aside / name, tensors, weights, add_metadata, bar.advance)
        (aside / "Modelfile").write_text(ollama, encoding="utf-8")
        block = {"format": "gguf", "type": kind, "versions": {"gguf": version("gguf")}}
        artifact.write(aside, ghost.facts, {name: sha256}, export=block)
    file = out / name
    size = file.stat().st_size
    command = llama_server(file, ghost.stop_sequences, sampling.max_new_tokens)
    return {
        "file": str(file),
        "type": kind,
        "tensors": len(tensors),
        "bytes": size,
        "sha256": sha256,
        "llama_server": command,
    }


def llama_server(file: Path, stops: Sequence[str], tokens: int) -> str:
    """The command line that serves `file` in its own text format, by llama.cpp's server.

    It knows neither the template without --jinja nor the stops, which a GGUF file cannot hold; a request that names its
    own replaces them. Without -c it would keep room for the 32,768 tokens that the base knows: 4 GB for a 7B.
    """
    words = ["llama-server", "-m", str(file), "--jinja", "-c", str(CONTEXT), "-n", str(tokens)]
    for stop in stops:
        words += ["-r", stop.replace("\\", "\\\\").replace("\n", "\\n")]
    return shlex.join(words)


def check_golden_ids(ghost: Ghost, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Raises ConversionError when the vocabulary gives other ids to the golden prompt than ghost.json records."""
    golden = ghost.block("golden")
    if [tokenizer.bos_token_id, *vocabulary.encode(" " + golden["prompt"])] != golden["ids"]:
        raise ConversionError(
            f"{ghost.folder}: the golden prompt would become other ids than ghost.json records; see ghost check"
        )


def general_facts(writer: Any, ghost: Ghost) -> None:
    """What it is and what it derives from: a base of the Hub by its name, a local one not at all, since its name is
    somebody's path."""
    writer.add_name(NAME)
    base = ghost.block("base")
    repo, revision = str(base.get("repo")), base.get("revision")
    if revision in (None, "local") or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        return
    if repo in LICENCES:
        writer.add_license(LICENCES[repo])
    owner, name = repo.split("/")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, name)
    writer.add_base_model_organization(0, owner)
    writer.add_base_model_repo_url(0, f"https://huggingface.co/{repo}")
