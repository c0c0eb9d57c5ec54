"""Tokens a second, first token, start and memory on a GPU: random weights of Mistral-7B's shape, FP16, one stream.

    python -m benchmarks.serving_gpu [--scratch DIR]        # writes benchmarks/results/serving_gpu.md

A merged folder of that shape (14.5 GB) is written to DIR, and read once so that it lies in the page cache. Each way to
decode then has a process of its own, which loads it with `Engine.load` as the predictor does, hashes included, and says
when it is ready; then it writes replies, one after the other. Random weights: a chip is faster on zeros.

Without a GPU, or where a part fails, its rows say "not measured", beside what is computed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.large_model import HEADS, HIDDEN, KEY_HEADS, LAYERS, shapes_of
from benchmarks.random_merged import write_merged

RESULT = Path(__file__).parent / "results" / "serving_gpu.md"
PROMPT, TOKENS, REPLIES = 256, 256, 12
SAYING = "serving_gpu: "  # before the line of JSON that a child prints

# What must be reached on an H200. Set before anything was measured.
LEAST_RATE = 240  # tokens/s
MOST_FIRST = 40  # ms to the first token after PROMPT tokens
MOST_START = 20  # s from the page cache to READY

BANDWIDTH = 4.3e12  # bytes/s, as an H200 was measured to read; its data sheet says 4.8
NOT = "not measured"
# name → what Engine.load is told, and what is wrapped around it
WAYS: dict[str, dict[str, Any]] = {
    "served: compiled and recorded": {},
    "the same, a second start (compiled code is kept)": {},
    "the same, matrix products by cuBLAS": {"cublas": True},
    "recorded, not compiled": {"uncompiled": True},
    "transformers' forward pass, our loop": {"accelerate": False},
    "eager generate": {"accelerate": False, "generate": {}},
    "generate, static cache, compiled": {"accelerate": False, "generate": {"cache_implementation": "static"}},
    "served in 4 bits": {"load_in_4bit": True},
}


def weights_bytes() -> int:
    """That a token reads: all but the embedding, of which it reads one row."""
    return sum(2 * size for name, size in sizes().items() if "embed" not in name)


def sizes() -> dict[str, int]:
    from math import prod

    return {name: prod(shape) for name, shape in shapes_of(LAYERS).items()}


def cache_bytes(tokens: int) -> int:
    return 2 * 2 * LAYERS * KEY_HEADS * (HIDDEN // HEADS) * tokens


def child(folder: Path, device: str, way: dict[str, Any], started: float) -> dict[str, Any]:
    """What one way does, in this process. `started` is time.time() before the process was."""
    import torch

    from replicate_deployment import acceleration, decoding
    from replicate_deployment.chat_format import Turn
    from replicate_deployment.engine import Engine

    if way.get("uncompiled"):
        acceleration.compiled_layer = lambda: decoding.decoder_layer
    if way.get("cublas"):
        acceleration.compiled_layer = partial(torch.compile, decoding.decoder_layer, fullgraph=True, dynamic=False)
    load = {"accelerate": True, **{key: way[key] for key in ("accelerate", "load_in_4bit") if key in way}}
    engine = Engine.load(folder, device=device, **load)
    settings = engine.settings.replace(max_new_tokens=TOKENS)
    "".join(engine.reply([Turn("B:", "hey")], settings.replace(max_new_tokens=8)))
    ready = time.time() - started
    ids = (list(range(300, 300 + PROMPT - 1)) * 2)[: PROMPT - 1]
    write = generating(engine, way["generate"]) if "generate" in way else drawing(engine)
    write([1, *ids], settings.replace(max_new_tokens=8))
    firsts, rates = [], []
    for _ in range(REPLIES):
        times = write([1, *ids], settings)
        firsts.append(times[1] - times[0])
        rates.append((len(times) - 2) / (times[-1] - times[1]))
    free, total = torch.cuda.mem_get_info() if device == "cuda" else (0, 0)
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU: a try of the program, no figure"
    return {
        "ready": ready,
        "first_ms": [1000 * first for first in firsts],
        "rates": rates,
        "peak": torch.cuda.max_memory_reserved() + total - free - torch.cuda.memory_reserved(),
        "device": f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}",
        "static": engine.static is not None,
    }


def drawing(engine: Any) -> Callable[[list[int], Any], list[float]]:
    """Times: before, and after each token."""
    return lambda ids, settings: [
        time.perf_counter(),
        *(time.perf_counter() for _ in engine._draw(ids, settings, seed=1)),
    ]


def generating(engine: Any, more: dict[str, Any]) -> Callable[[list[int], Any], list[float]]:
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc]  # transformers is untyped here
        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def write(ids: list[int], settings: Any) -> list[float]:
        clock, given = Clock(), torch.tensor([ids], device=engine.model.device)
        new = settings.max_new_tokens
        with torch.inference_mode():
            engine.model.generate(
                given,
                attention_mask=torch.ones_like(given),
                min_new_tokens=new,
                max_new_tokens=new,
                do_sample=True,
                temperature=settings.temperature,
                repetition_penalty=settings.repetition_penalty,
                top_k=0,
                pad_token_id=2,
                streamer=clock,
                **more,
            )
        return clock.times  # the prompt is put first, before anything is computed

    return write


def measured(folder: Path, device: str, name: str) -> dict[str, Any] | str:
    """What the child says, or why it says nothing."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.serving_gpu",
        "--scratch",
        str(folder),
        "--device",
        device,
        "--child",
        name,
    ]
    environment = os.environ | {"GHOST_BENCHMARK_STARTED": str(time.time())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(SAYING):
            return dict(json.loads(line.removeprefix(SAYING)))
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]


def row(name: str, found: dict[str, Any] | str | None) -> str:
    if not isinstance(found, dict):
        return f"| {name} | {NOT if found is None else f'failed: {found}'} | – | – | – |"
    rate, first = (spread(found[key]) for key in ("rates", "first_ms"))
    return f"| {name} | {rate} | {first} | {found['ready']:.1f} | {found['peak'] / 2**30:.1f} |"


def spread(numbers: Sequence[float]) -> str:
    cuts = quantiles(numbers, n=10)
    return f"{median(numbers):.1f} ({cuts[0]:.1f}–{cuts[8]:.1f})"


def page(found: dict[str, dict[str, Any] | str]) -> Iterator[str]:
    from replicate_deployment.decoding import STATIC_TOKENS

    results = [one for one in found.values() if isinstance(one, dict)]
    read = weights_bytes() + cache_bytes(STATIC_TOKENS)
    yield from ("# Serving on a GPU", "", "```", "python -m benchmarks.serving_gpu", "```", "")
    if results:
        yield f"{datetime.now(UTC):%Y-%m-%d}; {results[0]['device']}; {os.cpu_count()} cores."
    else:
        yield "**Not measured**: no GPU was at hand. What stands here is computed, for an H200."
    yield ""
    yield (
        f"Random weights of Mistral-7B-v0.3's shape, FP16 but where a row says otherwise, one stream: {REPLIES} "
        f"replies of {TOKENS} tokens after {PROMPT}, sampled as by default. Median (10%–90%)."
    )
    yield from ("", "| way | tokens/s | first token, ms | READY, s | peak, GiB |", "|---|---:|---:|---:|---:|")
    yield from (row(name, found.get(name)) for name in WAYS)
    yield from ("", "*READY*: from the start of the process, weights in the page cache, hashed, one reply given.", "")
    yield from ("## Computed", "")
    yield f"- A token reads {weights_bytes() / 1e9:.2f} GB of weights: {BANDWIDTH / weights_bytes():.0f} tokens/s at"
    yield f"  most, at the {BANDWIDTH / 1e12} TB/s that an H200 was measured to read."
    yield f"- The static cache of {STATIC_TOKENS:,} tokens is {cache_bytes(STATIC_TOKENS) / 2**20:.0f} MiB, read whole"
    yield f"  for every token: {BANDWIDTH / read:.0f} tokens/s at most."
    yield f"- Weights in memory: {2 * sum(sizes().values()) / 2**30:.1f} GiB."
    yield from ("", "## Floors", "")
    served = found.get("served: compiled and recorded")
    again = found.get("the same, a second start (compiled code is kept)")
    floors: list[tuple[str, Any, Callable[[dict[str, Any]], bool]]] = [
        (f"{LEAST_RATE} tokens/s at least", served, lambda one: median(one["rates"]) >= LEAST_RATE),
        (f"{MOST_FIRST} ms to the first token", served, lambda one: median(one["first_ms"]) <= MOST_FIRST),
        (f"{MOST_START} s to READY", again, lambda one: one["ready"] <= MOST_START),
    ]
    for text, one, met in floors:
        verdict = NOT if not isinstance(one, dict) else "met" if one["static"] and met(one) else "NOT met"
        yield f"- {text}: {verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scratch", type=Path, default=Path("models/.serving_gpu"))
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer for a try; the page is then not the figure's")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu tries the program, no more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    if args.child:
        started = float(os.environ["GHOST_BENCHMARK_STARTED"])
        print(SAYING + json.dumps(child(args.scratch, args.device, WAYS[args.child], started)), flush=True)
        return
    found: dict[str, dict[str, Any] | str] = {}
    if args.device == "cpu" or torch.cuda.is_available():
        folder = args.scratch / "merged"
        if not folder.is_dir():
            write_merged(folder, args.layers, args.device)
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as stream:
                while stream.read(2**24):
                    pass
        for name in WAYS:
            found[name] = measured(folder, args.device, name)
            args.out.write_text("\n".join(page(found)) + "\n", encoding="utf-8")  # what there is, if time runs out
    text = "\n".join(page(found)) + "\n"
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
