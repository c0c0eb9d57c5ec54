"""A ghost at home: GGUF files through `ghost serve` beside llama.cpp's own server, the engine and transformers.

    python -m benchmarks.home MERGED              a merged SmolLM2; some 8 minutes, 1 GB of disk
    python -m benchmarks.home --large SCRATCH     llama.cpp at Mistral-7B's shape, random weights in q4_0:
                                                  some 6 minutes, 4.2 GB of disk, 10 GB of memory

Needs the extras serve and home, bitsandbytes and psutil. Each way is a process of its own with one thread, asked in
turns over HTTP (`generate`: a pipe), with the default sampling settings. Core-seconds are those of all its processes,
from request to answer; seconds are the client's. Stop sequences are left out, so that every reply has its length.
Resident memory is the highest seen after a reply; pages of the file that are mapped can be dropped.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, pairwise
from pathlib import Path
from types import SimpleNamespace

import httpx2
import psutil

from benchmarks.extraction import machine
from benchmarks.large_model import CONFIG, LAYERS
from ghost import artifact
from ghost.demo.starter import make_tokenizer
from ghost.serving import export, gguf_file, serve
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import DEFAULT_LABELS
from replicate_deployment.settings import Settings
from training.merging.weights import row_blocks

RESULTS = Path(__file__).parent / "results"
TYPES = ("f16", "q8_0", "q4_0")
WITHIN = 0.05  # of llama.cpp's own server on the same file; written before the run that it judges
LINES = ("hey tu fais quoi ce soir", "pas grand chose, I was about to cook something 😂", "ok cool, see you there then")

LLAMA_SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.n_gpu_layers, params.port = sys.argv[1], 2048, 1, 0, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(1e6)
"""
GENERATE = """
import json, sys, torch
from transformers import AutoModelForCausalLM
from replicate_deployment.tokenization import encode, load_tokenizer
tokenizer = load_tokenizer(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
print("ready", flush=True)
for line in sys.stdin:
    prompt, tokens, seed = json.loads(line)
    torch.manual_seed(seed)
    ids = torch.tensor([encode(tokenizer, prompt + "\\nA:").ids])
    limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": tokenizer.eos_token_id}
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.2}
    drawn = model.generate(ids, attention_mask=torch.ones_like(ids), **sampling, **limits)
    print(drawn.shape[1] - ids.shape[1], flush=True)
"""

Ask = Callable[[str, int, int], int]  # prompt without the last tag, tokens, seed → tokens written


@dataclass
class Way:
    """`ask` answers a prompt in `process` and its children."""

    name: str
    ask: Ask
    process: psutil.Process
    tokens: int = 64
    file: Path | None = None
    core_seconds: list[float] = field(default_factory=list)  # a token
    seconds: list[float] = field(default_factory=list)  # a token
    first: list[float] = field(default_factory=list)
    next: list[float] = field(default_factory=list)
    resident: int = 0
    mapped: int = 0

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def spent(self) -> float:
        times = [process.cpu_times() for process in self.family()]
        return sum(one.user + one.system for one in times)

    def measure(self, number: int, turns: int) -> None:
        began, spent = time.perf_counter(), self.spent()
        written = self.ask(f"B: hey, number {number}, tu fais quoi ?", self.tokens, number)
        self.seconds.append((time.perf_counter() - began) / written)
        self.core_seconds.append((self.spent() - spent) / written)
        told = [f"{tag} {line}" for tag, line in zip(cycle(("A:", "B:")), LINES * turns, strict=False)][:turns]
        history = "\n".join([f"B: number {number}", *told])
        for found, more in ((self.first, ""), (self.next, "\nA: haha yes\nB: and then?")):
            began = time.perf_counter()
            self.ask(history + more, 1, number)
            found.append(time.perf_counter() - began)
        held = [process.memory_info() for process in self.family()]
        resident = sum(one.rss for one in held)
        if resident > self.resident:
            self.resident, self.mapped = resident, sum(one.shared for one in held)


@contextmanager
def served(model: Path, **options: bool) -> Iterator[tuple[Ask, psutil.Process]]:
    """Through `ghost serve`."""
    with (
        serve._started(model, 0, serve.LOOPBACK, **options) as server,
        httpx2.Client(trust_env=False, timeout=600) as http,
    ):

        def ask(prompt: str, tokens: int, seed: int) -> int:
            while http.get(f"{server.url}/health-check").json()["status"] != "READY":
                time.sleep(0.002)
            inputs = {"prompt": prompt, "max_new_tokens": tokens, "seed": seed}
            answer = http.post(f"{server.url}/predictions", json={"input": inputs}).json()
            return int(answer["metrics"]["output_tokens"])

        yield ask, psutil.Process(server.process.pid)


@contextmanager
def started(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def llama_server(file: Path) -> Iterator[tuple[Ask, psutil.Process]]:
    """llama.cpp's own, with its sampler for the same settings."""
    with started(LLAMA_SERVER, file, os.environ["OMP_NUM_THREADS"]) as process:
        url = process.stdout.readline().strip()
        with httpx2.Client(trust_env=False, timeout=600) as http:

            def ask(prompt: str, tokens: int, seed: int) -> int:
                sampling = {"temperature": 0.7, "repeat_penalty": 1.2, "repeat_last_n": 2048, "top_k": 0, "top_p": 1.0}
                asked = {"prompt": f"{prompt}\nA:", "n_predict": tokens, "seed": seed, "min_p": 0, "ignore_eos": True}
                answer = http.post(f"{url}/completion", json=asked | sampling | {"cache_prompt": True}).json()
                return int(answer["tokens_predicted"])

            yield ask, psutil.Process(process.pid)


@contextmanager
def generate(folder: Path) -> Iterator[tuple[Ask, psutil.Process]]:
    with started(GENERATE, folder) as process:
        process.stdout.readline()

        def ask(prompt: str, tokens: int, seed: int) -> int:
            process.stdin.write(json.dumps([prompt, tokens, seed]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield ask, psutil.Process(process.pid)


def without_stops(model: Path, folder: Path, *, golden: bool = True) -> Path:
    """A copy whose replies end at their length. Without `golden` its log-probabilities are not compared: bitsandbytes
    moves those of SmolLM2 too far."""
    shutil.copytree(model, folder, copy_function=os.link)
    facts = ghost_json.read(model).facts
    facts["text"]["stop_sequences"] = []
    if not golden:
        facts["golden"]["next_top5_logprobs"] = []
    (folder / ghost_json.NAME).unlink()
    artifact.write(folder, facts)
    return folder


def write_large(file: Path, layers: int) -> None:
    """A 7B in q4_0: the same random rows all over, which take as long to read."""
    import numpy as np

    config = file.with_name("config.json")
    config.write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}), encoding="utf-8")
    decoder = gguf_file.read_decoder(file.parent)
    tokenizer = make_tokenizer([*LINES] * 50, 512)
    vocabulary = gguf_file.read_vocabulary(tokenizer, decoder.shapes.vocabulary)
    text = {
        "labels": {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other},
        "recipe": "windows",
        "stop_sequences": [],
    }
    facts = {"format": ghost_json.FORMAT, "kind": "merged", "text": text, "sampling": asdict(Settings())}
    values = np.random.default_rng(0).standard_normal(2**24, np.float32) * 0.02

    def add_metadata(writer: object) -> None:
        gguf_file.model_facts(writer, decoder, "q4_0")
        gguf_file.tokenizer_facts(writer, tokenizer, vocabulary)
        gguf_file.own_facts(writer, facts)

    def blocks(tensor: gguf_file.Stored) -> Iterator[object]:
        for start, stop in row_blocks(tensor.shape, 1):
            rows = (stop - start, *tensor.shape[1:])
            yield np.resize(values, rows) if len(tensor.shape) > 1 else np.ones(rows, np.float32)

    tensors = gguf_file.plan(decoder, SimpleNamespace(shapes=decoder.tensors()), "q4_0")
    gguf_file.write(file, decoder.architecture, tensors, blocks, add_metadata, lambda: None)
    config.unlink()


def table(ways: list[Way]) -> Iterator[str]:
    yield (
        "| | tokens a core-second | tokens a second | first token after a history, s | in its next turn, s | "
        "resident, MB | of it mapped |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for way in ways:
        cores, seconds, first, later = map(statistics.median, (way.core_seconds, way.seconds, way.first, way.next))
        yield (
            f"| {way.name} | {1 / cores:.1f} | {1 / seconds:.1f} | {first:.2f} | {later:.3f} | "
            f"{way.resident / 1e6:,.0f} | {way.mapped / 1e6:,.0f} |"
        )
    yield ""
    for one, other in pairwise(ways):
        if one.file and one.file == other.file:
            ratios = sorted(b / a for a, b in zip(one.core_seconds, other.core_seconds, strict=True))
            middle = statistics.median(ratios)
            met = "met" if middle >= 1 - WITHIN else "NOT met"
            yield (
                f"- {one.name}: {middle:.3f} of llama.cpp's own tokens a core-second, round by round "
                f"({ratios[0]:.3f} to {ratios[-1]:.3f}); within {WITHIN:.0%}: {met}"
            )


def measure_small(model: Path, rounds: int) -> list[str]:
    """Return the lines of the table for the merged `model`."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=model.parent)))
        merged = without_stops(model, scratch / "merged")
        in_4bit = served(without_stops(model, scratch / "4bit", golden=False), load_in_4bit=True)
        ways = [
            Way("the engine, float32", *stack.enter_context(served(merged))),
            Way("transformers' generate, float32", *stack.enter_context(generate(merged))),
            Way("the engine, 4 bits by bitsandbytes", *stack.enter_context(in_4bit), tokens=8),
        ]
        for kind in TYPES:
            file = Path(export.export(merged, scratch / kind, kind)["file"])
            ways.append(Way(f"`ghost serve`, {kind}", *stack.enter_context(served(file)), file=file))
            ways.append(Way(f"llama.cpp's server, {kind}", *stack.enter_context(llama_server(file)), file=file))
        for number in range(rounds):
            for way in ways if number % 2 else reversed(ways):
                way.measure(number, turns=14)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        return [f"## {model.name}: replies of 64 tokens (4 bits: 8), histories of 15 turns", "", *table(ways)]


def measure_large(scratch: Path, layers: int, rounds: int) -> list[str]:
    """Return the lines of the table for the 7B, of which `layers` are enough for a trial."""
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / "ghost-q4_0.gguf"
    try:
        write_large(file, layers)
        kinds = {"`ghost serve`, q4_0": served, "llama.cpp's server, q4_0": llama_server}
        ways: dict[str, Way] = {}
        for number in range(rounds):
            for name in kinds if number % 2 else reversed(kinds):  # one at a time: each takes 8 GB
                with kinds[name](file) as (ask, process):
                    way = ways.setdefault(name, Way(name, ask, process, tokens=16, file=file))
                    way.ask, way.process = ask, process
                    way.measure(number, turns=4)
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        size = file.stat().st_size / 1e9
    finally:
        file.unlink(missing_ok=True)
    ordered = [ways[name] for name in kinds]
    rate = 1 / statistics.median(ordered[0].core_seconds)
    return [
        f"## Mistral-7B's widths, {layers} layers, random weights in q4_0 ({size:.2f} GB): 16 tokens, 5 turns",
        "",
        *table(ordered),
        f"- each token reads the file once: {rate:.2f} tokens a core-second are {rate * size:.1f} GB a core-second",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="a merged model")
    parser.add_argument(
        "--large", type=Path, metavar="SCRATCH", help="folder for the file of the 7B, deleted afterwards"
    )
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the 7B (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    packages = ", ".join(f"{name} {version(name)}" for name in ("xllamacpp", "torch", "transformers", "bitsandbytes"))
    load = f"load {psutil.getloadavg()[0]:.1f} at the start"
    head = f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; {packages}; {load}. {args.rounds} rounds, medians, one thread."
    for page, command, asked, measured in (
        ("home.md", "MERGED", args.model, lambda: measure_small(args.model.resolve(), args.rounds)),
        ("home_7b.md", "--large SCRATCH", args.large, lambda: measure_large(args.large, args.layers, args.rounds)),
    ):
        if asked:
            lines = [
                "# A ghost at home",
                "",
                f"```\npython -m benchmarks.home {command}\n```",
                "",
                head,
                "",
                *measured(),
            ]
            (args.out / page).write_text("\n".join(lines) + "\n", encoding="utf-8")
            print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
