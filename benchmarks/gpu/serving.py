"""Serving rows: tokens a second, first token, memory and READY of a merged model in FP16, one stream."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from statistics import median, quantiles
from textwrap import fill
from typing import Any

from benchmarks.gpu.models import BASE, FLOOR_GPU, Scale, bytes_of_a_token, merged, peak_memory
from benchmarks.training import met
from training.finetuning.base import read_shapes
from training.finetuning.hardware import Gpu

LIMIT = 240  # seconds that a row may take, the folder written included
BANDWIDTH = 4.3e12  # bytes/s, as an H200 was measured to read; its data sheet says 4.8

# What must be reached on FLOOR_GPU. Set before anything was measured.
LEAST_RATE = 240  # tokens/s
MOST_FIRST = 40  # ms to the first token
MOST_START = 20  # s from the page cache to READY

SERVED = "served: static cache, compiled, CUDA graph"
# name → what Engine.load is told, and what is wrapped around it
WAYS: dict[str, dict[str, Any]] = {
    SERVED: {},
    "the same, matrix products by cuBLAS": {"cublas": True},
    "static cache, CUDA graph, not compiled": {"uncompiled": True},
    "dynamic cache: transformers' forward pass, our loop": {"accelerate": False},
    "eager generate": {"accelerate": False, "generate": {}},
    "generate, static cache, compiled": {"accelerate": False, "generate": {"cache_implementation": "static"}},
    "served in 4 bits": {"load_in_4bit": True},
}
# name → what Engine.load is told
STARTS: dict[str, dict[str, Any]] = {
    "READY: served": {"accelerate": True},
    "READY: served in 4 bits": {"accelerate": True, "load_in_4bit": True},
    "READY: dynamic cache": {"accelerate": False},
}
ROWS = [SERVED, "READY: served", *(name for name in WAYS | STARTS if name not in (SERVED, "READY: served"))]


def measure(name: str, scale: Scale, scratch: Path) -> dict[str, Any]:
    folder = merged(scratch, scale)
    return starts(folder, scale, STARTS[name]) if name in STARTS else replies(folder, scale, WAYS[name])


START = """
import json, sys, time
from pathlib import Path
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine
engine = Engine.load(Path(sys.argv[1]), device=sys.argv[2], **json.loads(sys.argv[3]))
"".join(engine.reply([Turn("B:", "hey")], engine.settings.replace(max_new_tokens=8)))
print(time.time())
"""


def starts(folder: Path, scale: Scale, load: dict[str, Any]) -> dict[str, Any]:
    """Seconds from the start of a process to its first reply, hashes included: without compiled code, and with what
    that start has left."""
    rmtree(folder.with_name(f".{folder.name}.inductor"), ignore_errors=True)
    taken = []
    for _ in range(2):
        started = time.time()
        command = [sys.executable, "-c", START, str(folder), scale.device, json.dumps(load)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        taken.append(float(done.stdout.split()[-1]) - started)
    return {"first": taken[0], "later": taken[1]}


def replies(folder: Path, scale: Scale, way: dict[str, Any]) -> dict[str, Any]:
    import torch

    from replicate_deployment import acceleration, decoding
    from replicate_deployment.engine import Engine

    if way.get("uncompiled"):
        acceleration.compiled_layer = lambda: decoding.decoder_layer
    if way.get("cublas"):
        acceleration.compiled_layer = partial(torch.compile, decoding.decoder_layer, fullgraph=True, dynamic=False)
    load = {"accelerate": True, **{key: way[key] for key in ("accelerate", "load_in_4bit") if key in way}}
    engine = Engine.load(folder, device=scale.device, **load)
    if load["accelerate"] and engine.static is None:
        raise RuntimeError("the static decoder could not be set up: see the log")
    settings = engine.settings.replace(max_new_tokens=scale.tokens)
    ids = [1, *(300 + number % 255 for number in range(scale.prompt - 1))]
    write = generating(engine, way["generate"]) if "generate" in way else drawing(engine)
    write(ids, settings.replace(max_new_tokens=8))
    firsts, rates = [], []
    for _ in range(scale.replies):
        times = write(ids, settings)
        firsts.append(1000 * (times[1] - times[0]))
        rates.append((len(times) - 2) / (times[-1] - times[1]))
    return {"rates": rates, "first_ms": firsts, "peak": peak_memory()}


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


def page(found: dict[str, dict[str, Any]], scale: Scale, gpu: Gpu | None) -> Iterator[str]:
    from replicate_deployment.decoding import STATIC_TOKENS

    yield "\n## Serving\n"
    yield fill(
        f"The same shape in FP16 but where a row says otherwise, one stream: {scale.replies} replies of {scale.tokens} "
        f"tokens after {scale.prompt}, sampled as by default. Median, and 10% and 90% in parentheses.",
        120,
    )
    yield "\n| way | tokens/s | first token, ms | peak GiB |"
    yield "|---|---:|---:|---:|"
    for name in WAYS:
        row = found.get(name, {})
        cells = (
            ["–", "–"]
            if "rates" not in row
            else [spread(row["first_ms"]), f"{row['peak'] / 2**30:.1f}" if row["peak"] else "–"]
        )
        rate = spread(row["rates"]) if "rates" in row else row.get("failed", "not measured")
        yield f"| {' | '.join([name, rate, *cells])} |"
    yield "\n| from the start of the process to READY, s | first start | later ones |"
    yield "|---|---:|---:|"
    for name in STARTS:
        row = found.get(name, {})
        both = [f"{row[key]:.1f}" for key in ("first", "later")] if "first" in row else ["not measured", "–"]
        yield f"| {name.removeprefix('READY: ')} | {' | '.join([row['failed'], '–'] if 'failed' in row else both)} |"
    yield "\nWeights in the page cache, hashed, one reply given; a first start compiles, later ones use what it kept.\n"
    shapes, read = read_shapes(scale.facts, BASE), bytes_of_a_token(scale.facts)
    cache = 2 * 2 * shapes.layers * shapes.keys * STATIC_TOKENS
    yield fill(
        f"A token reads {read / 1e9:.2f} GB of weights, and with the static cache of {STATIC_TOKENS:,} tokens "
        f"{cache / 2**20:.0f} MiB more: {BANDWIDTH / (read + cache):.0f} tokens/s at most, at the "
        f"{BANDWIDTH / 1e12} TB/s that an H200 was measured to read. Weights in memory: "
        f"{2 * shapes.parameters / 2**30:.1f} GiB.",
        120,
    )
    yield ""
    floors: list[tuple[str, str, Callable[[dict[str, Any]], bool]]] = [
        (f"{LEAST_RATE} tokens/s at least", SERVED, lambda row: median(row["rates"]) >= LEAST_RATE),
        (f"{MOST_FIRST} ms to the first token at most", SERVED, lambda row: median(row["first_ms"]) <= MOST_FIRST),
        (f"{MOST_START} s to READY at most", "READY: served", lambda row: row["later"] <= MOST_START),
    ]
    for text, name, reached in floors:
        row = found.get(name, {"failed": ""})
        measured = "failed" not in row and gpu is not None and gpu.gpu == FLOOR_GPU
        yield f"- on an {FLOOR_GPU}, {text}: {met(reached(row)) if measured else 'not measured'}"


def spread(numbers: Sequence[float]) -> str:
    cuts = quantiles(numbers, n=10)
    return f"{median(numbers):.1f} ({cuts[0]:.1f}–{cuts[8]:.1f})"
