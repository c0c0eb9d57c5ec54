"""`ghost`: one verb per stage. A verb's module is imported only when that verb is called.

A verb module offers two functions: `add_arguments(parser)` and `run(args) -> int` (the exit code).
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from replicate_deployment.errors import GhostError
from training.signals import Stopped, handled_by, stop_at_once


class Verb(NamedTuple):
    module: str
    help: str
    extra: str = ""  # the part of pyproject.toml that installs what this verb needs
    needs: str = ""  # a package of it that the verb would come to only after minutes


VERBS = {
    "extract": Verb("training.extraction.extract", "chat exports (files, folders, zips) → clean CSV"),
    "prepare": Verb("training.preparation.prepare", "CSV → train.jsonl and val.jsonl of A:/B: windows"),
    "estimate": Verb("training.finetuning.estimate", "what training will need and cost, before anything is rented"),
    "train": Verb("training.finetuning.train", "JSONL → LoRA adapter, by QLoRA", "train"),
    "merge": Verb("scripts.merge_lora_fp16", "adapter + base → FP16 safetensors, with a proof", "train", "peft"),
    "check": Verb("scripts.sanity_check", "is this model whole, and the one that was trained?", "serve"),
    "try": Verb("scripts.test_model", "a fixed set of prompts, with replies and timing", "serve"),
    "evaluate": Verb(
        "training.evaluation.evaluate", "does it sound like you? held-out figures → a page", "train,serve", "sklearn"
    ),
    "push": Verb("training.hub.push", "merged model → private repo on the Hub, compared there and tagged", "train"),
    "pull": Verb("training.hub.pull", "repo on the Hub → models/merged, verified against its ghost.json", "serve"),
    "export": Verb("scripts.portable.export", "merged model → one GGUF file for llama.cpp and Ollama", "serve", "gguf"),
    "preflight": Verb("serving.preflight", "all that can be known to fail before `cog push`"),
    "chat": Verb("serving.chat.chat", "talk to it: in the terminal, or on a page of this machine (--web)", "serve"),
    "serve": Verb("serving.serve", "Cog's own HTTP server, without Docker", "serve"),
    "bot": Verb("telegram_bot.bot", "the Telegram bot: a ghost to talk to, drafts to approve", "bot"),
    "release": Verb("serving.release", "the way to Replicate: checks, push and a trial; dry-run by default", "serve"),
    "demo": Verb("training.sample.demo", "the whole line on a bundled sample, offline, on a CPU", "train,serve"),
}

OURS = {"training", "scripts", "serving", "telegram_bot", "replicate_deployment"}

# The house rule: nothing here reports home, and no code is fetched at run time. Set before any import reads them.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "0",  # else bitsandbytes' CPU path fetches native code when `kernels` is installed
    "TOKENIZERS_PARALLELISM": "false",
}


def build_parser(called: str | None) -> argparse.ArgumentParser:
    """All verbs with a line each; the flags only of the one that is called, whose module is imported for them."""
    parser = argparse.ArgumentParser(
        prog="ghost",
        description="Turns the chats you have already written into a small language model that answers as you would.",
        epilog="`ghost VERB --help` tells more about each.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        subparser = verbs.add_parser(name, help=verb.help, description=verb.help)
        if name == called:
            module = importlib.import_module(verb.module)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Exit codes: 0 success, 1 a reported failure, 2 bad usage, 128 + n a stop by signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for name, value in QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    parser = build_parser(next((word for word in arguments if not word.startswith("-")), None))
    args = parser.parse_args(arguments)
    try:
        with handled_by(stop_at_once):
            needed = VERBS[args.verb].needs
            if needed and importlib.util.find_spec(needed) is None:
                raise ModuleNotFoundError(name=needed)
            return int(args.run(args))
    except GhostError as error:
        return fail(args.verb, str(error), error.exit_code)
    except Stopped as stop:
        return fail(args.verb, str(stop), stop.exit_code)
    except ModuleNotFoundError as error:
        extra = VERBS[args.verb].extra
        if not extra or (error.name or "").split(".")[0] in OURS:
            raise
        return fail(args.verb, f"{error.name} is not installed; type: pip install -e '.[{extra}]'")
    except OSError as error:  # a full disk, a read-only folder
        return fail(args.verb, f"{error.filename or 'the disk'}: {error.strerror or error}")


def fail(verb: str, message: str, code: int = 1) -> int:
    print(f"ghost {verb}: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
