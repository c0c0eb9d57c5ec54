"""`ghost`: one verb per stage. Only the called verb's module is imported.

A verb module defines `add_arguments(parser)` and `run(args) -> int` (the exit code). It must import with the core
install alone, so that every verb can show its help; import an extra's packages inside functions.
"""

import argparse
import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from ghost.signals import Stopped, handled_by, stop_at_once
from replicate_deployment.errors import GhostError


class Verb(NamedTuple):
    module: str
    help: str
    extra: str = ""  # the extras in pyproject.toml that install what this verb needs
    needs: tuple[str, ...] = ()  # packages checked before any work starts, which may take hours


TRAINING = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "filelock", "safetensors")
RUNNING = ("torch", "transformers", "accelerate", "safetensors")
VERBS = {
    "start": Verb("ghost.start", "begin here: questions, an estimate, and the commands that come next"),
    "init": Verb("ghost.installed", "write the configs that people edit into ./config"),
    "extract": Verb("training.extraction.extract", "chat exports (files, folders, zips) → clean CSV"),
    "prepare": Verb("training.preparation.prepare", "CSV → train.jsonl and val.jsonl of A:/B: windows"),
    "bases": Verb("training.finetuning.bases", "base models to choose from, and what fits this machine"),
    "estimate": Verb("training.finetuning.estimate", "what training will need and cost, before you rent a GPU"),
    "train": Verb("training.finetuning.train", "train a LoRA adapter on the JSONL with QLoRA", "train", TRAINING),
    "distill": Verb(
        "training.finetuning.distill", "train a smaller model to write as a ghost does", "train,serve", TRAINING
    ),
    "merge": Verb(
        "scripts.merge_lora_fp16",
        "adapter + base → FP16 safetensors, with a check that both give the same logits",
        "train",
        ("torch", "transformers", "peft", "safetensors"),
    ),
    "check": Verb(
        "scripts.sanity_check", "check that a model is complete and is the one that was trained", "serve", RUNNING
    ),
    "try": Verb("scripts.test_model", "run a fixed set of prompts; show replies and timing", "serve", RUNNING),
    "evaluate": Verb(
        "ghost.evaluation.evaluate",
        "measure on held-out messages whether it sounds like you; write a report page",
        "train,serve",
        ("torch", "transformers", "peft", "sklearn", "scipy", "regex", "httpx2"),
    ),
    "push": Verb(
        "ghost.hub.push",
        "merged model → private repo on the Hub, verified there and tagged",
        "train",
        ("huggingface_hub", "safetensors"),
    ),
    "pull": Verb(
        "ghost.hub.pull",
        "repo on the Hub → models/merged, verified against its ghost.json",
        "serve",
        ("huggingface_hub",),
    ),
    "export": Verb(
        "ghost.serving.export",
        "merged model → one GGUF file for llama.cpp and Ollama",
        "serve",
        ("gguf", "torch", "transformers", "safetensors"),
    ),
    "preflight": Verb("ghost.serving.preflight", "find what would make `cog push` fail", "serve"),
    "chat": Verb(
        "ghost.serving.chat.chat",
        "chat with a model in the terminal, or on a local web page (--web)",
        "serve",
        ("httpx2", "prompt_toolkit"),
    ),
    "serve": Verb(
        "ghost.serving.serve",
        "serve a model over HTTP: Cog's server, without Docker, and OpenAI's API",
        "serve",
        ("cog", "httpx2", "starlette", "uvicorn"),
    ),
    "bot": Verb(
        "telegram_bot.bot",
        "run the Telegram bot: chat with the ghost, approve drafts",
        "bot",
        ("telegram", "httpx2", "filelock", "rapidfuzz", "regex"),
    ),
    "release": Verb(
        "ghost.serving.release",
        "release to Replicate: checks, push, one trial prediction; dry run by default",
        "serve",
        ("httpx2",),
    ),
    "demo": Verb(
        "ghost.demo.demo",
        "run all stages on a bundled sample, offline, on a CPU",
        "train,serve",
        ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "cog", "httpx2"),
    ),
}

OURS = {"ghost", "training", "scripts", "telegram_bot", "replicate_deployment"}
BROKEN_PIPE = 128 + 13  # the exit code a shell gives for SIGPIPE

# No telemetry, and no code fetched at run time. Set before any import reads these variables.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "0",  # else bitsandbytes' CPU path fetches native code when `kernels` is installed
    "TOKENIZERS_PARALLELISM": "false",
}


def build_parser(called: str | None) -> argparse.ArgumentParser:
    """Build the parser with one line per verb. Only the called verb's module is imported, for its flags."""
    parser = argparse.ArgumentParser(
        prog="ghost",
        description="Turn the chats you have already written into a small language model that answers as you would.",
        epilog="Type `ghost VERB --help` for more about a verb.",
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        subparser = verbs.add_parser(name, help=verb.help, description=verb.help)
        if name == called:
            module = importlib.import_module(verb.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit codes: 0 success, 1 a reported failure, 2 bad usage, 128 + n stopped by signal n."""
    for stream in (sys.stdout, sys.stderr):
        # An encoding that lacks a character (a pipe on Windows) must not end a verb in the middle of its report.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
    try:
        try:
            return dispatch(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # so that a closed pipe raises here, where it is caught
    except OSError as error:
        with suppress(OSError, ValueError):  # stdout without a file descriptor: a test's, or a notebook's
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes again and complains
        silent = isinstance(error, BrokenPipeError)
        return BROKEN_PIPE if silent else fail(None, f"standard output: {error.strerror or error}")


def dispatch(arguments: list[str]) -> int:
    """Run the verb. Print a failure the user can fix as one line on stderr and return its exit code; raise others."""
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # It warns on each CPU that could use a kernel of the Hub, which USE_HUB_KERNELS refuses on purpose.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    called = next((word for word in arguments if not word.startswith("-")), None)
    try:
        with handled_by(partial(stop_at_once, within=sys._getframe())):
            parser = build_parser(called)
            args = parser.parse_args(arguments)
            if args.version:
                print(f"ghost {version()}")
                return 0
            if args.verb is None:
                parser.print_help()
                return 0
            for package in VERBS[args.verb].needs:
                if importlib.util.find_spec(package) is None:
                    raise ModuleNotFoundError(name=package)
            return int(args.run(args))
    except GhostError as error:
        return fail(called, str(error), error.exit_code)
    except Stopped as stop:
        return fail(called, str(stop), stop.exit_code)
    except ImportError as error:
        return fail(called, unimportable(error, VERBS[called].extra if called in VERBS else ""))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not (sys.stdout and sys.stdout.isatty()):
            raise  # `| head` has closed the pipe
        # A full disk, a read-only folder, or a package whose shared library does not load (which has no errno).
        where = error.filename or ("the disk" if error.errno else "")
        return fail(called, f"{where}: {error.strerror or error}" if where else first_line(error))
    except Exception as error:  # tokenizers and safetensors say so of a full disk, in exceptions of their own
        system = re.search(r"\(os error (\d+)\)", str(error))
        if system is None:
            raise
        return fail(called, f"the disk: {os.strerror(int(system[1]))}")


def fail(verb: str | None, message: str, code: int = 1) -> int:
    from ghost.console import echo

    echo(f"ghost {verb}: {message}" if verb else f"ghost: {message}", error=True)
    return code


def unimportable(error: ImportError, extra: str) -> str:
    """The message for a package that is missing, broken or of another version. Re-raises an error in our own code."""
    from ghost.installed import install_command

    package = (error.name or "").partition(".")[0]
    if package in OURS:
        raise error
    if package and importlib.util.find_spec(package) is None:
        return f"{package} is not installed; type: {install_command(extra)}"
    broken = f"{package or 'a package'} cannot be imported ({first_line(error)})"
    return f"{broken}; in a new virtual environment, type: {install_command(extra)}"


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ghost-in-the-shell")
    except metadata.PackageNotFoundError:
        return "of a clone that is not installed"


if __name__ == "__main__":
    sys.exit(main())
