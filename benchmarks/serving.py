"""Tokens a second on a CPU, beside transformers' own `generate`, and what looking for stops costs. In one run.

    python -m benchmarks.serving [MODEL] [--compiled]       # a ghost of the sample; default: demo/merged

Each round every way writes the same number of tokens after the same prompt, by the same settings, in a random order, so
that a machine that is busy slows all of them. Nothing ends early: a drawn end token counts as a newline. The share of
stop handling is between two ways that draw the same tokens: the scores and draws alone, and the whole engine with eight
stop sequences, two of which begin like what ends a turn.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.extraction import machine
from replicate_deployment.chat_format import Turn
from replicate_deployment.decoding import STATIC_TOKENS, StaticDecoder
from replicate_deployment.engine import Engine, Reply
from replicate_deployment.settings import Settings
from replicate_deployment.stopping import ReplyScanner

RESULT = Path(__file__).parent / "results" / "serving.md"
TURNS = [
    Turn("B:", "Tu fais quoi ce soir ?"),
    Turn("A:", "rien pr linstant\ntu proposes qqch ?"),
    Turn("B:", "Un ciné à 20 h ? Il y a le nouveau film au Rex."),
]
STOPS = ["\nB: never said", "\nA: never said", "</never>", ", never", "zz, zz", "👩‍🍳🍳", "never", "zq"]

# What must be reached. Set before anything was measured.
MOST_STOP_HANDLING = 0.03  # of the time, added by the engine to scores and draws
LEAST_OF_GENERATE = 0.95  # of its tokens a second, by the engine


@dataclass
class Way:
    name: str
    write: Callable[[], int]
    """Writes the tokens; gives how many."""
    seconds: list[float] = field(default_factory=list)


def prompt_ids(engine: Engine, settings: Settings) -> list[int]:
    return engine._context(TURNS, settings.max_new_tokens)


def engine_ways(engine: Engine, settings: Settings, compiled: bool) -> Iterator[Way]:
    ids, end = prompt_ids(engine, settings), engine.tokenizer.eos_token_id
    newline = engine.token_bytes.index(b"\n")

    def bare() -> int:
        return sum(1 for _ in engine._draw(ids, settings, seed=1))

    def whole() -> int:
        drawn = (newline if token == end else token for token in engine._draw(ids, settings, seed=1))
        reply = Reply(engine, ids, drawn, ReplyScanner(STOPS, engine.labels))
        "".join(reply)
        return reply.output_tokens

    yield Way("scores and draws alone", bare)
    yield Way("the engine", whole)
    length = min(STATIC_TOKENS, engine.model.config.max_position_embeddings)
    for name, static in static_caches(engine, length, compiled):
        yield Way(name, static_way(static, engine, ids, settings))


def static_caches(engine: Engine, length: int, compiled: bool) -> Iterator[tuple[str, StaticDecoder]]:
    from replicate_deployment.acceleration import compiled_layer

    yield f"our static cache of {length:,}, not compiled", StaticDecoder(engine.model, length)
    if compiled:
        yield f"our static cache of {length:,}, compiled", StaticDecoder(engine.model, length, compiled_layer())


def static_way(static: StaticDecoder, engine: Engine, ids: list[int], settings: Settings) -> Callable[[], int]:
    way = dataclasses.replace(engine, static=static)
    return lambda: sum(1 for _ in way._draw(ids, settings, seed=1))


def generate_ways(engine: Engine, settings: Settings, compiled: bool) -> Iterator[Way]:
    import torch
    from transformers import CompileConfig

    ids = torch.tensor([prompt_ids(engine, settings)])
    asked: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "min_new_tokens": settings.max_new_tokens,
        "max_new_tokens": settings.max_new_tokens,
        "do_sample": True,
        "temperature": settings.temperature,
        "repetition_penalty": settings.repetition_penalty,
        "top_k": 0,
        "pad_token_id": engine.tokenizer.eos_token_id,
    }

    def way(name: str, **more: Any) -> Way:
        def write() -> int:
            with torch.inference_mode():
                return int(engine.model.generate(ids, **asked, **more).shape[1] - ids.shape[1])

        return Way(name, write)

    yield way("generate")
    yield way("generate, static cache, not compiled", cache_implementation="static", disable_compile=True)
    if compiled:
        config = CompileConfig(mode="default", fullgraph=False)
        config._compile_all_devices = True  # as transformers' own tests do; else a CPU is left out
        yield way("generate, static cache, compiled", cache_implementation="static", compile_config=config)


def measure(ways: list[Way], rounds: int, tokens: int) -> None:
    for way in ways:  # compilation, first allocations
        way.write()
    random = Random(0)
    for _ in range(rounds):
        for way in random.sample(ways, len(ways)):
            started = time.perf_counter()
            written = way.write()
            way.seconds.append(time.perf_counter() - started)
            if written != tokens:
                raise SystemExit(f"{way.name} wrote {written} tokens, not {tokens}")


def beside(way: Way, other: Way) -> tuple[float, float, float]:
    """Times as many seconds as `other`, round by round: 10%, median, 90%."""
    ratios = [one / two for one, two in zip(way.seconds, other.seconds, strict=True)]
    cuts = statistics.quantiles(ratios, n=10)
    return cuts[0], statistics.median(ratios), cuts[8]


def page(ways: list[Way], tokens: int, prompt: int, model: Path) -> Iterator[str]:
    named = {way.name: way for way in ways}
    engine, bare, plain = named["the engine"], named["scores and draws alone"], named["generate"]
    compiled = " --compiled" if any(name.endswith(", compiled") for name in named) else ""
    yield from ("# Serving on a CPU", "", "```", f"python -m benchmarks.serving{compiled}", "```", "")
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}, transformers {version('transformers')}. "
        f"Model: `{model}`. {len(engine.seconds)} rounds of {tokens} tokens after {prompt}."
    )
    yield from ("", "| way | tokens/s: 10% | median | 90% | beside generate: 10% | median | 90% |")
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for way in ways:
        slow, fast = (statistics.quantiles(way.seconds, n=10)[place] for place in (8, 0))
        ratios = " | ".join(f"{1 / ratio:.2f}" for ratio in reversed(beside(way, plain)))
        rates = [tokens / seconds for seconds in (slow, statistics.median(way.seconds), fast)]
        yield f"| {way.name} | {' | '.join(f'{rate:.1f}' for rate in rates)} | {ratios} |"
    low, added, high = (ratio - 1 for ratio in beside(engine, bare))
    rate = 1 / beside(engine, plain)[1]
    yield from ("", "## Floors", "")
    yield (
        f"- stop handling, {MOST_STOP_HANDLING:.0%} at most: {added:+.1%} ({low:+.1%} to {high:+.1%} in 80%), "
        f"{'met' if added <= MOST_STOP_HANDLING else 'NOT met'}"
    )
    met = "met" if rate >= LEAST_OF_GENERATE else "NOT met"
    yield f"- {LEAST_OF_GENERATE} of generate's tokens/s at least: {rate:.2f}, {met}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", nargs="?", type=Path, default=Path("demo/merged"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--compiled", action="store_true", help="the compiled ways too; they compile for minutes")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    engine = Engine.load(args.model, device="cpu")
    settings = engine.settings.replace(max_new_tokens=args.tokens)
    ways = [*engine_ways(engine, settings, args.compiled), *generate_ways(engine, settings, args.compiled)]
    measure(ways, args.rounds, args.tokens)
    text = "\n".join(page(ways, args.tokens, len(prompt_ids(engine, settings)), args.model)) + "\n"
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
