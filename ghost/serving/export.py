"""`ghost export`: write a merged model, its base, or its adapter as one GGUF file for llama.cpp, and a Modelfile for
Ollama.
"""

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console, progress
from ghost.errors import ConversionError, UsageError
from ghost.serving import gguf_file
from ghost.serving.gguf_file import (
    ByteLevelVocabulary,
    Decoder,
    Stored,
    Type,
    Vocabulary,
    read_decoder,
    read_vocabulary,
)
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.tokenization import Tokenizer, load_tokenizer, template_for
from training.config import BASE_HELP, base_named
from training.finetuning.base import resolve_base
from training.merging import adapter as adapters
from training.merging import provenance
from training.merging.adapter import Adapter
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


def modelfile(gguf: str, ghost: Ghost, source: "Source", adapter: str | None = None) -> str:
    """The Modelfile for the file `gguf`, relative to its folder, and the LoRA file `adapter` over it."""
    facts = {"@ME@": go_text(ghost.labels.me), "@OTHER@": go_text(ghost.labels.other)}
    facts["@BEGIN@"] = go_text(source.vocabulary.begin)
    facts["@END@"] = source.tokenizer.eos_token if ghost.recipe == "conversations" else ""
    template = TEMPLATE
    for name, value in facts.items():
        template = template.replace(name, value)
    sampling = ghost.settings
    parameters: list[tuple[str, object]] = [("stop", quoted(stop)) for stop in ghost.stop_sequences]
    parameters += [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("repeat_penalty", sampling.repetition_penalty),
        ("num_predict", sampling.max_new_tokens),
    ]
    lines = [
        f"FROM ./{gguf}",
        *([f"ADAPTER ./{adapter}"] if adapter else []),
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
BASE = "base"
CONTEXT = 2048  # tokens: twice the training window
# From the model's page on the Hub, 2026-11-22; ghost.json does not record it.
LICENCES = {"mistralai/Mistral-7B-v0.3": "apache-2.0"}
# k-quants, which the gguf package can read but not write: llama.cpp's own quantizer does.
QUANTIZER = "llama-quantize"
KQuant = Literal["q6_k", "q5_k_m", "q4_k_m"]
TYPES: tuple[Type | KQuant, ...] = (*get_args(Type), *get_args(KQuant))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "f16 keeps the weights unchanged, q8_0 halves the file, q4_0 takes some 30% of it. "
        f"{', '.join(get_args(KQuant))} need llama.cpp's {QUANTIZER} on PATH. Memory: about 0.5 GB for every size of "
        "model. An interrupted export leaves the files before it unchanged; run it again."
    )
    parser.add_argument(
        "model", type=Path, nargs="?", help="a merged model, or an adapter (default: models/merged or models/adapter)"
    )
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--gguf", choices=TYPES, help="write the whole model, its matrices in this data type")
    kind.add_argument(
        "--gguf-adapter",
        action="store_true",
        help="write only the LoRA adapter, to run over a base exported with --base",
    )
    parser.add_argument(
        "--base",
        metavar="BASE",
        help=f"{BASE_HELP}: with --gguf, export this base in place of a merged model; with --gguf-adapter, the "
        "adapter's base (default: the one it was trained on)",
    )
    parser.add_argument(
        "--out", type=Path, help="output folder (default: models/gguf, models/gguf-base or models/gguf-adapter)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    if args.gguf_adapter:
        facts = export_adapter(args.model or Path("models/adapter"), args.base, args.out or Path("models/gguf-adapter"))
    elif args.base is not None:
        if args.model is not None:
            raise UsageError(f"--gguf exports one model: leave out {args.model}, or --base {args.base}")
        facts = export_base(args.base, args.out or Path("models/gguf-base"), args.gguf)
    else:
        facts = export(args.model or Path("models/merged"), args.out or Path("models/gguf"), args.gguf)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for what in facts["other_ids"]:
        console.print(f"note     llama.cpp reads {what} as other tokens than in training")
    by = f", by {facts['quantizer']}" if facts["quantizer"] else ""
    lines = [
        f"written  {facts['file']}: {facts['bytes'] / 1e9:.2f} GB, {facts['tensors']} tensors, {facts['type']}{by}"
    ]
    if facts["modelfile"]:
        lines += [
            f"beside   Modelfile, for Ollama{'; FROM names the base file' if args.gguf_adapter else ''}",
            *([] if args.gguf_adapter else [f"next     ghost serve {shlex.quote(facts['file'])}"]),
            f"{'next' if args.gguf_adapter else 'or  '}     {facts['llama_server']}",
            f"or       ollama create {NAME} -f {shlex.quote(facts['modelfile'])}",
        ]
    if args.gguf_adapter:
        lines.append(f"base     if there is none yet: ghost export --base {shlex.quote(facts['base'])} --gguf q4_0")
    console.print("\n".join(lines))
    return 0


def export(model: Path, out: Path, kind: Type | KQuant) -> dict[str, Any]:
    """Write the folder `out`: the GGUF file, Modelfile, ghost.json. Return facts for the user.

    Raises WeightsError when the model is incomplete or altered, ConversionError when llama.cpp would compute something
    else, UsageError when `out` holds foreign files. `out` is then unchanged.
    """
    refuse_foreign_files(out, artifact.own_files(out, "export"))
    if out.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"--out {out} is inside {model}, which may hold no other weights; name a folder outside")
    if (model / adapters.CONFIG).is_file():
        typed = shlex.quote(str(model))
        raise UsageError(
            f"{model} is an adapter: export it with --gguf-adapter, or merge it first: ghost merge {typed}"
        )
    ghost = ghost_json.read_merged(model)
    ghost.block("sampling")  # refuse a model without one before the work
    with progress("hashing"):
        ghost_json.verify(ghost)
    source = _read(model, lambda: load_tokenizer(model))
    # A template is a program that other servers run: the file gets ours, whatever the folder holds.
    source.tokenizer.chat_template = template_for(source.tokenizer, ghost.labels, ghost.recipe)
    check_golden_ids(ghost, source)
    name = f"{NAME}-{kind}.gguf"
    ollama = modelfile(name, ghost, source)

    def add_metadata(writer: Any) -> None:
        general_facts(writer, ghost.block("base"), NAME)
        gguf_file.sampling_facts(writer, ghost.settings)
        gguf_file.own_facts(writer, own_facts(ghost) | {"kind": "merged"})

    with replace_folder(out) as folder:
        written = _write_model(folder / name, source, kind, add_metadata)
        (folder / "Modelfile").write_text(ollama, encoding="utf-8")
        block = {"format": "gguf", "type": kind, "versions": {"gguf": version("gguf")}}
        artifact.write(folder, ghost.facts, {name: written["sha256"]}, export=block)
    command = llama_server(["-m", str(out / name)], ghost)
    return _summary(out / name, written, source) | {"modelfile": str(out / "Modelfile"), "llama_server": command}


def export_base(base: str, out: Path, kind: Type | KQuant) -> dict[str, Any]:
    """Write the untrained base as one GGUF file, over which adapters run. Return facts for the user.

    Raises BaseModelError when the base is not found or incomplete, ConversionError when llama.cpp would compute
    something else, UsageError when `out` holds foreign files. `out` is then unchanged.
    """
    refuse_foreign_files(out, {f"{BASE}-{kind}.gguf" for kind in TYPES})
    with progress("hashing the base"):
        found = resolve_base(*base_named(base))
    source = _read(found.folder, lambda: load_tokenizer(found.folder))
    source.tokenizer.chat_template = None  # adapters bring the one that they are used with
    name = f"{BASE}-{kind}.gguf"

    def add_metadata(writer: Any) -> None:
        general_facts(writer, {"repo": found.repo, "revision": found.revision}, BASE)
        facts = {"format": ghost_json.FORMAT, "kind": "base", "base_sha256": found.weights_sha256}
        gguf_file.own_facts(writer, facts)

    with replace_folder(out) as folder:
        written = _write_model(folder / name, source, kind, add_metadata)
    return _summary(out / name, written, source) | {"modelfile": None, "llama_server": None}


def export_adapter(folder: Path, base: str | None, out: Path) -> dict[str, Any]:
    """Write the LoRA matrices as a GGUF file in float16, for llama.cpp's --lora, with the chat template that llama.cpp
    would otherwise take from the base, and a Modelfile. Return facts for the user.

    Raises MergeError on an adapter that cannot be read or is of another base, ConversionError on one that llama.cpp
    cannot run, UsageError when `out` holds foreign files. `out` is then unchanged.
    """
    import gguf

    refuse_foreign_files(out, artifact.own_files(out, "export"))
    with provenance.adapter_folder(folder) as named:
        ghost = provenance.read_facts(named)
        found = provenance.find_base(ghost, base)
        adapter = adapters.read_adapter(named, found.folder)
        source = _read(found.folder, lambda: provenance.adapter_tokenizer(ghost, found))
        name, template = f"{NAME}-lora.gguf", "chat_template.jinja"
        tensors = plan_lora(adapter, source.decoder)
        over = Path("..", "gguf-base", f"{BASE}-q4_0.gguf").as_posix()
        ollama = modelfile(over, ghost, source, adapter=name)
        sha256 = provenance.weights_sha256(ghost, adapters.WEIGHTS)
        facts = own_facts(ghost) | {"kind": "adapter", "base_sha256": found.weights_sha256, "adapter_sha256": sha256}

        def add_metadata(writer: Any) -> None:
            writer.add_type(gguf.GGUFType.ADAPTER)
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.config["lora_alpha"]))
            gguf_file.own_facts(writer, facts)

        with adapter.open() as weights, replace_folder(out) as written:

            def blocks(tensor: Stored) -> Iterator[Any]:
                rows = weights.tensor(tensor.source).float() * tensor.factor
                yield gguf_file.interleaved(rows.numpy(), tensor.head)

            with progress(f"writing {name}", total=len(tensors)) as bar:
                architecture = source.decoder.architecture
                digest = gguf_file.write(written / name, architecture, tensors, blocks, add_metadata, bar.advance)
            text = template_for(source.tokenizer, ghost.labels, ghost.recipe)
            (written / template).write_text(text, encoding="utf-8")
            (written / "Modelfile").write_text(ollama, encoding="utf-8")
            block = {"format": "gguf", "type": "lora", "versions": {"gguf": version("gguf")}}
            artifact.write(written, ghost.facts, {name: digest}, export=block)
    files = ["-m", str(out / over), "--lora", str(out / name), "--chat-template-file", str(out / template)]
    command = llama_server(files, ghost)
    result = {"tensors": len(tensors), "sha256": digest, "type": "f16", "quantizer": None}
    place = str(found.folder) if found.revision == "local" else found.repo
    return _summary(out / name, result, source) | {
        "modelfile": str(out / "Modelfile"),
        "llama_server": command,
        "base": place,
    }


def plan_lora(adapter: Adapter, decoder: Decoder) -> list[Stored]:
    """The matrices A (rank, inputs) and B (outputs, rank) of each target, in float16.

    llama.cpp adds alpha / rank · B·A, with one alpha for the whole file and the rank of each A: a tensor of another
    scale (rsLoRA, alpha_pattern) has the rest as a factor of its B.

    Raises ConversionError on an adapter that changes more than matrices of linear layers by LoRA.
    """
    import gguf

    alpha, tensors = float(adapter.config["lora_alpha"]), []
    for name, output in adapter.outputs.items():
        update = output.update
        changed = output.from_adapter or output.shift is not None or adapter.vocab_size is not None or adapter.unties
        if changed or (update is not None and (update.magnitude is not None or update.transposed)):
            raise ConversionError(
                f"{adapter.folder}: {name}: llama.cpp runs plain LoRA on linear layers only; merge the adapter (ghost "
                "merge) and export the merged model"
            )
        if update is None:
            continue
        outputs, inputs = output.shape
        target = gguf_file.gguf_name(decoder, name)
        heads = gguf_file.heads_of(decoder, name)
        factor = update.scale * update.rank / alpha
        for end, part, shape in (("a", update.a, (update.rank, inputs)), ("b", update.b, (outputs, update.rank))):
            is_b = end == "b"
            size = 2 * shape[0] * shape[1]
            kind = gguf.GGMLQuantizationType.F16
            rows, times = (heads, factor) if is_b else (0, 1.0)
            tensors.append(Stored(f"{target}.lora_{end}", part, shape, rows, kind, size, times))
    return tensors


@dataclass(frozen=True)
class Source:
    folder: Path
    decoder: Decoder
    tokenizer: Tokenizer
    vocabulary: Vocabulary | ByteLevelVocabulary


def _read(folder: Path, load: Callable[[], Tokenizer]) -> Source:
    decoder, tokenizer = read_decoder(folder), load()
    return Source(folder, decoder, tokenizer, read_vocabulary(tokenizer, decoder.shapes.vocabulary))


def _write_model(path: Path, source: Source, kind: Type | KQuant, add_more: Callable[[Any], None]) -> dict[str, Any]:
    """Write the model of `source.folder` as the file `path`, and return its type, tensors and SHA-256."""
    quantizer = find_quantizer(kind) if kind in get_args(KQuant) else None
    written: Type = "f16" if quantizer else cast(Type, kind)
    place = path.with_name(f"{path.stem}-f16.gguf") if quantizer else path

    def add_metadata(writer: Any) -> None:
        gguf_file.model_facts(writer, source.decoder, written)
        gguf_file.tokenizer_facts(writer, source.tokenizer, source.vocabulary)
        add_more(writer)

    with Weights.of_model(source.folder) as weights:
        tensors = gguf_file.plan(source.decoder, weights, written)

        def blocks(tensor: Stored) -> Iterator[Any]:
            return gguf_file.model_blocks(tensor, source.decoder, weights)

        with progress(f"writing {path.name}", total=len(tensors)) as bar:
            architecture = source.decoder.architecture
            sha256 = gguf_file.write(place, architecture, tensors, blocks, add_metadata, bar.advance)
    if quantizer:
        gguf_file.check_disk(path, place.stat().st_size // 2)  # q6_k takes 41% of float16
        with progress(f"{QUANTIZER} {kind}"):
            ran = subprocess.run(
                [quantizer, str(place), str(path), kind.upper()], capture_output=True, text=True, errors="replace"
            )
        if ran.returncode or not path.is_file():
            last = ([line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()] or ["no output"])[-1]
            raise ConversionError(f"{quantizer} failed (exit code {ran.returncode}): {last.strip()}")
        place.unlink()
        sha256 = ghost_json.sha256(path)
    return {"tensors": len(tensors), "sha256": sha256, "type": kind, "quantizer": quantizer}


def find_quantizer(kind: str) -> str:
    """Raises ConversionError when llama.cpp's quantizer is not on PATH."""
    if (found := shutil.which(QUANTIZER)) is None:
        raise ConversionError(
            f"--gguf {kind}: needs llama.cpp's {QUANTIZER}, which is not on PATH; install llama.cpp, or take one of "
            f"{', '.join(get_args(Type))}"
        )
    return found


def _summary(file: Path, written: dict[str, Any], source: Source) -> dict[str, Any]:
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        **written,
        "other_ids": list(source.vocabulary.differs),
    }


def own_facts(ghost: Ghost) -> dict[str, Any]:
    """The facts of ghost.json that a file needs without its folder. Only the labels may identify somebody, and the chat
    template holds those too."""
    known = {
        "base_sha256": ("base", "weights_sha256"),
        "adapter_sha256": ("merge", "adapter_sha256"),
        "val_sha256": ("data", "val_sha256"),
    }
    found = {name: (ghost.facts.get(block) or {}).get(key) for name, (block, key) in known.items()}
    facts: dict[str, Any] = {"format": ghost_json.FORMAT} | {name: value for name, value in found.items() if value}
    return facts | {name: ghost.facts[name] for name in ("text", "sampling", "golden") if name in ghost.facts}


def llama_server(files: list[str], ghost: Ghost) -> str:
    """The llama-server command that serves a model; `files` are its arguments that name the files.

    It ignores the template without --jinja, and a GGUF file cannot hold the stops; a request that names stops replaces
    these. Without -c it would allocate the base's 32,768 tokens: 4 GB for a 7B.
    """
    words = ["llama-server", *files, "--jinja", "-c", str(CONTEXT), "-n", str(ghost.settings.max_new_tokens)]
    for stop in ghost.stop_sequences:
        words += ["-r", stop.replace("\\", "\\\\").replace("\n", "\\n")]
    return shlex.join(words)


def check_golden_ids(ghost: Ghost, source: Source) -> None:
    """Raises ConversionError when the vocabulary encodes the golden prompt to other ids than ghost.json records."""
    golden, bos = ghost.block("golden"), source.tokenizer.bos_token_id
    found = [*([] if bos is None else [bos]), *source.vocabulary.encode(source.vocabulary.begin + golden["prompt"])]
    if found != golden["ids"]:
        raise ConversionError(
            f"{ghost.folder}: the golden prompt gives other ids than ghost.json records; type: ghost check"
        )


def general_facts(writer: Any, base: Mapping[str, Any], name: str) -> None:
    """Name and base model. A local base is not named, since its path may identify somebody."""
    writer.add_name(name)
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
