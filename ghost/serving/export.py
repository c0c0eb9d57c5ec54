"""`ghost export`: write a merged model as one GGUF file for llama.cpp, and a Modelfile for Ollama."""

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
from ghost.serving.gguf_file import ByteLevelVocabulary, Type, Vocabulary, read_decoder, read_vocabulary
from replicate_deployment import ghost_json, settings
from replicate_deployment.chat_format import END_TOKEN, Labels, Recipe
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.merging.weights import Weights

# Ollama's Modelfile: the A:/B: text as a Go template, the stop sequences and the sampling defaults.
#
# A Go template cannot search a text, so unlike `chat_format` this one does not escape the lines of a message: a line
# that starts with a tag reads as a turn, and a typed `</s>` ends one.
#
# A space before the first turn is the one that some tokenizers put before a text; the GGUF file disables it.
# A reply already starts with the space after its tag, which is not written twice.
TEMPLATE = """\
{{- $before := @BEGIN@ }}
{{- range .Messages }}
{{- if eq .Role "user" }}{{ $before }}{{ @OTHER@ }} {{ .Content }}{{ $before = "\\n" }}
{{- else if eq .Role "assistant" }}{{ $before }}{{ @ME@ }}{{ if ne (printf "%.1s" .Content) " " }} {{ end }}\
{{ .Content }}@END@{{ $before = "\\n" }}
{{- end }}
{{- end }}{{ "\\n" }}{{ @ME@ }}"""


def modelfile(
    gguf: str,
    labels: Labels,
    recipe: Recipe,
    stops: Sequence[str],
    settings: Settings,
    *,
    begin: str = " ",
    end: str = END_TOKEN,
) -> str:
    """The Modelfile for the file `gguf` in the same folder. `begin` goes before a text, `end` is the end token."""
    facts = {"@ME@": go_text(labels.me), "@OTHER@": go_text(labels.other)}
    facts |= {"@BEGIN@": go_text(begin), "@END@": end if recipe == "conversations" else ""}
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
    """A Go string literal: JSON's escapes, but surrogates are written as characters."""
    return json.dumps(text, ensure_ascii=False)


def quoted(text: str) -> str:
    """Quote a text with newlines or spaces for a Modelfile, which has no escapes."""
    if '"""' in text or text.endswith('"'):
        raise ConversionError(f"{text!r} cannot be written in a Modelfile, which cannot escape quotes")
    return f'"""{text}"""'


NAME = "ghost"
CONTEXT = 2048  # tokens: twice the training window
# From the model's page on the Hub, 2026-11-22; ghost.json does not record it.
LICENCES = {"mistralai/Mistral-7B-v0.3": "apache-2.0"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "f16 keeps the weights unchanged, q8_0 halves the file. For 4 bits use llama.cpp: "
        "llama-quantize ghost-f16.gguf ghost-q4.gguf Q4_K_M"
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=Path("models/merged"), help="a merged model (default: %(default)s)"
    )
    parser.add_argument("--gguf", choices=get_args(Type), required=True, help="data type of the matrices")
    parser.add_argument("--out", type=Path, default=Path("models/gguf"), help="output folder (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    facts = export(args.model, args.out, args.gguf)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    file = facts["file"]
    for what in facts["other_ids"]:
        console.print(f"note     llama.cpp reads {what} as other tokens than in training", soft_wrap=True)
    console.print(
        f"written  {file}: {facts['bytes'] / 1e9:.2f} GB, {facts['tensors']} tensors, {args.gguf}\n"
        f"beside   Modelfile, for Ollama\n"
        f"next     {facts['llama_server']}\n"
        f"or       ollama create {NAME} -f {shlex.quote(str(args.out / 'Modelfile'))}",
        soft_wrap=True,
    )
    return 0


def export(model: Path, out: Path, kind: Type) -> dict[str, Any]:
    """Write the folder `out`: the GGUF file, Modelfile, ghost.json. Return facts for the user.

    Raises WeightsError when the model is incomplete or altered, ConversionError when llama.cpp would compute something
    else, UsageError when `out` holds foreign files. `out` is then unchanged.
    """
    refuse_foreign_files(out, artifact.own_files(out, "export"))
    if out.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"--out {out} is inside {model}, which may hold no other weights; name a folder outside")
    ghost = ghost_json.read(model)
    recipe, sampling = ghost.recipe, settings.from_facts(ghost.block("sampling"))
    with progress("hashing"):
        ghost_json.verify(ghost)
    decoder = read_decoder(model)
    tokenizer = load_tokenizer(model)
    vocabulary = read_vocabulary(tokenizer, decoder.shapes.vocabulary)
    begin = " " if isinstance(vocabulary, Vocabulary) else ""
    check_golden_ids(ghost, tokenizer, vocabulary, begin)
    name = f"{NAME}-{kind}.gguf"
    ends = {"begin": begin, "end": tokenizer.eos_token}
    ollama = modelfile(name, ghost.labels, recipe, ghost.stop_sequences, sampling, **ends)

    def add_metadata(writer: Any) -> None:
        general_facts(writer, ghost)
        gguf_file.model_facts(writer, decoder, kind)
        gguf_file.sampling_facts(writer, sampling)
        gguf_file.tokenizer_facts(writer, tokenizer, vocabulary)

    with Weights.of_model(model) as weights, replace_folder(out) as folder:
        tensors = gguf_file.plan(decoder, weights, kind)
        with progress(f"writing {name}", total=len(tensors)) as bar:
            sha256 = gguf_file.write(folder / name, decoder, tensors, weights, add_metadata, bar.advance)
        (folder / "Modelfile").write_text(ollama, encoding="utf-8")
        block = {"format": "gguf", "type": kind, "versions": {"gguf": version("gguf")}}
        artifact.write(folder, ghost.facts, {name: sha256}, export=block)
    file = out / name
    size = file.stat().st_size
    command = llama_server(file, ghost.stop_sequences, sampling.max_new_tokens)
    return {
        "file": str(file),
        "type": kind,
        "tensors": len(tensors),
        "bytes": size,
        "sha256": sha256,
        "other_ids": list(vocabulary.differs),
        "llama_server": command,
    }


def llama_server(file: Path, stops: Sequence[str], tokens: int) -> str:
    """The llama-server command that serves `file` with its own chat template.

    It ignores the template without --jinja, and a GGUF file cannot hold the stops; a request that names stops replaces
    these. Without -c it would allocate the base's 32,768 tokens: 4 GB for a 7B.
    """
    words = ["llama-server", "-m", str(file), "--jinja", "-c", str(CONTEXT), "-n", str(tokens)]
    for stop in stops:
        words += ["-r", stop.replace("\\", "\\\\").replace("\n", "\\n")]
    return shlex.join(words)


def check_golden_ids(
    ghost: Ghost, tokenizer: Tokenizer, vocabulary: Vocabulary | ByteLevelVocabulary, begin: str
) -> None:
    """Raises ConversionError when the vocabulary encodes the golden prompt to other ids than ghost.json records."""
    golden, bos = ghost.block("golden"), [tokenizer.bos_token_id] * (tokenizer.bos_token_id is not None)
    if [*bos, *vocabulary.encode(begin + golden["prompt"])] != golden["ids"]:
        raise ConversionError(
            f"{ghost.folder}: the golden prompt gives other ids than ghost.json records; type: ghost check"
        )


def general_facts(writer: Any, ghost: Ghost) -> None:
    """Name and base model. A local base is not named, since its path may identify somebody."""
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
