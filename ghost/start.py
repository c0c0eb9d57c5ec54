"""`ghost start`: from exports to an estimate by questions, and the commands that come next.

It runs the verbs that a person would type. The answers are kept, so that it can be left and continued: the names in
config/user_config.json, where the other verbs find them, and the rest in config/start.json. An answer that is there is
not asked for again; its flag replaces it.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from ghost import config
from ghost.console import console
from ghost.errors import ConfigError, UsageError
from ghost.installed import CLONE, FOLDER, install_command
from ghost.signals import Stopped
from replicate_deployment.errors import GhostError
from training import config as training_config
from training.extraction import speakers
from training.extraction.speakers import UserConfig
from training.finetuning import bases, estimate, hardware
from training.finetuning.estimate import Estimate
from training.finetuning.train import with_arguments

CLEANED, PROCESSED = Path("data/cleaned"), Path("data/processed")
ANSWERS = FOLDER / "start.json"
RECIPE = "conversations"  # benchmarks/results/real_person.md; `ghost prepare` alone takes windows, the recipe of record
LEFT = "left; your answers are kept. To continue, type: ghost start"
HOMES = {
    "laptop": "a computer of yours, by llama.cpp: nothing to pay",
    "server": "a server of yours, by llama.cpp, with a Telegram bot",
    "replicate": "Replicate: a rented GPU that starts when somebody writes",
    "nowhere": "nowhere yet",
}
STOPPED = 128  # exit codes from here on: interrupted by a signal
REPO = re.compile(r"[\w.-]+/[\w.-]+")
SMALL = 1e9  # weights below which 4 bits cost too much: docs/serving.md
WHOLE_WEIGHTS = (
    "ghost init && sed -i.bak 's/^adapter: qlora/adapter: lora/; s/^load_in_4bit: true/load_in_4bit: false/' "
    f"{FOLDER}/training_config.yaml"
)
SETTINGS = ("training_config.yaml", "bases.yaml", "gpu_prices.yaml", "accelerate")
# What runs of a clone, without anybody's chats or names.
CODE = "pyproject.toml,setup.py,README.md,ghost,training,scripts,replicate_deployment,"
CODE += ",".join(f"config/{name}" for name in SETTINGS)
IMAGE = f"{CODE},compose.yaml,LICENSE,requirements,telegram_bot,config/*.example.*,config/demo_config.yaml"

Answer = TypeVar("Answer")


@dataclass
class Answers:
    """The content of config/start.json."""

    exports: tuple[str, ...] = ()
    extracted: bool = False
    """Whether data/cleaned was made of `exports`."""
    agreed: tuple[str, ...] = ()
    """The others who may be learnt from."""
    base: str = ""
    home: str = ""
    repo: str = ""

    def save(self) -> None:
        write(ANSWERS, asdict(self))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exports", nargs="+", metavar="PATH", help="your chat exports: files, folders or zips")
    parser.add_argument(
        "--me", action="append", metavar="NAME", help="your name in these chats (repeat for each spelling)"
    )
    parser.add_argument(
        "--leave-out", action="append", metavar="NAME", help="somebody who does not agree (repeat for each)"
    )
    parser.add_argument("--others-agree", action="store_true", help="everybody else may be learnt from")
    parser.add_argument("--base", help=f"the base to train: {training_config.BASE_HELP}")
    parser.add_argument("--home", choices=HOMES, help="where your ghost will live")
    parser.add_argument("--repo", metavar="YOU/NAME", help="the private repo on the Hub that will hold your model")
    parser.epilog = (
        f"Asks for what no flag says. Keeps your answers in {ANSWERS} and {speakers.CONFIG}; run it again to continue."
    )


def run(args: argparse.Namespace) -> int:
    answers = config.load(Answers, ANSWERS.name, ANSWERS) if ANSWERS.exists() else Answers()
    keep_flags(args, answers)
    try:
        with undone_on_error(args, answers):
            if code := extract(args, answers):
                return code
            settle_names(args, answers)
        if code := prepare():
            return code
        found = choose_base(args, answers)
        if code := call("estimate", "--base", answers.base):
            return code
        choose_home(answers, found)
    except (Stopped, EOFError) as stop:  # EOFError: Ctrl-D
        raise Stopped(stop.number if isinstance(stop, Stopped) else signal.SIGINT, LEFT) from None
    console.print(
        f"\nNow read {PROCESSED}/report.html: what the model will learn, and what may still be personal. Then:",
        soft_wrap=True,
    )
    for title, lines in next_steps(answers, found):
        console.print(f"\n{title}", style="bold", soft_wrap=True)
        for line in lines:
            console.print(line, soft_wrap=True)
    console.print(
        "\nTo see this again, or to change an answer by its flag (ghost start --help): ghost start", soft_wrap=True
    )
    return 0


def keep_flags(args: argparse.Namespace, answers: Answers) -> None:
    """Save the flags that can be checked before any chat is read, so that a later error does not lose them."""
    answers.home = args.home or answers.home
    if args.base in training_config.load_bases():  # a folder or a repo is kept once it has been read
        answers.base = args.base
    if args.repo and REPO.fullmatch(args.repo):
        answers.repo = args.repo
    if args.base or args.home or args.repo:
        answers.save()
    if args.base:
        training_config.base_named(args.base)
    if args.repo:
        checked_repo(args.repo)


@contextmanager
def undone_on_error(args: argparse.Namespace, answers: Answers) -> Iterator[None]:
    """If names or consent for new exports are wrong or missing, put back data/cleaned and the exports it came from."""
    if not (args.exports and (CLEANED / speakers.EXTRACTION_REPORT).exists()):
        yield
        return
    before = replace(answers)
    with TemporaryDirectory(dir=CLEANED.parent, prefix=".cleaned.") as folder:
        shutil.copytree(CLEANED, aside := Path(folder) / "before")
        try:
            yield
        except GhostError:
            shutil.rmtree(CLEANED)
            os.replace(aside, CLEANED)
            before.save()
            console.print(f"{CLEANED} and the exports to read are again what they were", soft_wrap=True)
            raise


def extract(args: argparse.Namespace, answers: Answers) -> int:
    report = CLEANED / speakers.EXTRACTION_REPORT
    exports = existing(args.exports) if args.exports else answers.exports
    if not exports and not report.exists():
        question = (
            "Where are your exports? Type files, folders or zips, such as ~/Downloads/chats.zip. docs/exports.md says "
            "how to export the chats of 18 apps."
        )
        exports = ask(question, "--exports PATH", lambda said: existing([said] if exists(said) else shlex.split(said)))
    old = (answers.exports, answers.extracted)
    if exports != answers.exports:
        answers.exports, answers.extracted = exports, False
        answers.save()
    again = shlex.join(["ghost", "extract", *(exports or ["PATH"])])
    if report.exists() and (answers.extracted or not exports):
        console.print(f"{CLEANED} is there and stays as it is. To read the exports again: {again}", soft_wrap=True)
        return 0
    before = report.stat().st_ino if report.exists() else None
    code = call("extract", *exports)
    if not report.exists() or report.stat().st_ino == before:
        if code < STOPPED:
            # Nothing in them can be read: ask again, or stay with the exports that could.
            answers.exports, answers.extracted = old if old[1] else ((), False)
            answers.save()
        return code
    answers.extracted = True
    answers.save()
    if code:
        refused = json.loads(report.read_text(encoding="utf-8"))["refused"]
        if any("--date-order" in problem for problem in refused):
            again += " --date-order dmy (day first), or mdy (month first)"
        console.print(
            f"Going on without what was not understood. To read it too, mend it and type: {again}", soft_wrap=True
        )
    return 0


def exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a home that is nobody's
        return False


def existing(paths: Sequence[str]) -> tuple[str, ...]:
    for path in paths:
        if not exists(path):
            raise UsageError(f"{path}: no such file or folder")
    if not paths:
        raise UsageError("type at least one file or folder")
    return tuple(str(Path(path).expanduser()) for path in paths)


def prepare() -> int:
    """Run the verb, unless its output is newer than all that it is made of."""
    made, sources = PROCESSED / "ghost.json", [*CLEANED.rglob("*.*"), speakers.CONFIG]
    if made.exists() and all(source.stat().st_mtime_ns <= made.stat().st_mtime_ns for source in sources):
        console.print(f"{PROCESSED} is up to date. To make it again: ghost prepare --recipe {RECIPE}", soft_wrap=True)
        return 0
    return call("prepare", "--recipe", RECIPE)


def settle_names(args: argparse.Namespace, answers: Answers) -> None:
    """Ask whose chats they are and who must not be learnt from. Write config/user_config.json if a flag or an answer
    changes it."""
    from training.preparation import dataset, privacy

    given = speakers.load()
    left_out = tuple(dict.fromkeys([*given.exclude_people, *(args.leave_out or ())]))
    wanted = replace(given, exclude_people=left_out)
    messages = dataset.read(CLEANED, given.zone)
    chats, owners = dataset.senders(messages.table), speakers.owners(CLEANED)
    proposal = speakers.propose(chats, owners)

    def checked(changed: UserConfig, me: Sequence[str] = ()) -> UserConfig:
        """Raises ConfigError for a name that is nobody's."""
        mine = speakers.recognise(changed, me, chats, speakers.CONFIG, owners)
        privacy.keep(changed, messages.table, mine, CLEANED)
        return changed

    def identified(said: str) -> UserConfig:
        if not said and proposal.certain:
            return checked(replace(wanted, user_identifiers=proposal.identifiers))
        names = names_in(said, listed, chats)
        return checked(replace(wanted, user_identifiers=names), names)

    def without(said: str) -> UserConfig:
        if said.casefold() in ("yes", "y"):
            return wanted
        if said.casefold() in ("", "no", "n"):
            raise UsageError("type `yes`, or name whom to leave out. To ask them first, press Ctrl-C: you can continue")
        return checked(replace(wanted, exclude_people=(*wanted.exclude_people, *names_in(said, listed, chats))))

    listed = [name for name, _ in proposal.listing[: speakers.LISTED]]
    if args.me:
        wanted = checked(replace(wanted, user_identifiers=tuple(args.me)), args.me)
    elif not given.names:
        default = f", or press Enter for {' and '.join(proposal.names)}" if proposal.certain else ""
        lines = [
            "Who are you? These wrote most:",
            *numbered(proposal.listing)[: speakers.LISTED],
            *([f"and {more:,} more"] if (more := len(proposal.listing) - speakers.LISTED) > 0 else []),
            *proposal.reasons,
            f"Type every name under which you appear, or its number, separated by commas{default}.",
        ]
        names = ", ".join(map(shlex.quote, listed))
        wanted = ask("\n".join(lines), f"--me NAME; these wrote most: {names}", identified)
    if (wanted := checked(wanted)) != given:
        save_names(wanted)
    others = [pair for pair in proposal.listing if not speakers.matching((*wanted.names, *left_out), [pair[0]])]
    new = [pair for pair in others if not speakers.matching(answers.agreed, [pair[0]])]
    # Who names those to leave out has asked the others.
    if new and not (args.others_agree or args.leave_out or (left_out and not answers.agreed)):
        listed = [name for name, _ in new]
        wrote = "These people are new" if answers.agreed else "The others wrote half of it"
        lines = [
            f"{wrote}, and each of them may say no. Did all of them agree to be learnt from?",
            *numbered(new),
            "Type `yes`, or the names or numbers of those to leave out, separated by commas.",
        ]
        flag = f"--others-agree, or --leave-out NAME for each who does not: {', '.join(map(shlex.quote, listed))}"
        save_names(wanted := ask("\n".join(lines), flag, without))
    agreed = {name for name, _ in others}
    answers.agreed = tuple(sorted({*answers.agreed, *agreed} - speakers.matching(wanted.exclude_people, agreed)))
    answers.save()


def numbered(senders: Sequence[tuple[str, int]]) -> list[str]:
    rows = [(f"{number}", name, f"{count:,} messages") for number, (name, count) in enumerate(senders, 1)]
    return hardware.align(rows, left=(1,))


def names_in(said: str, listed: Sequence[str], chats: dict[str, dict[str, int]]) -> tuple[str, ...]:
    """Names, or numbers in the list, separated by commas. A name may hold a comma itself."""
    everybody = {name for senders in chats.values() for name in senders}
    if speakers.matching([said], everybody):
        return (said,)
    pieces = [piece.strip() for piece in said.split(",") if piece.strip()]
    if not pieces:
        raise UsageError("type a name or its number")
    return tuple(piece if speakers.matching([piece], everybody) else by_number(piece, listed) for piece in pieces)


def by_number(said: str, listed: Sequence[str]) -> str:
    """What has this number in the list, or `said` itself if it is no number."""
    if not said.isdecimal():
        return said
    if not 1 <= int(said) <= len(listed):
        raise UsageError(f"there is no number {said}: the list goes from 1 to {len(listed)}")
    return listed[int(said) - 1]


def save_names(changed: UserConfig) -> None:
    """Change the two keys of config/user_config.json, and keep the others."""
    names = {"user_identifiers": changed.user_identifiers, "exclude_people": changed.exclude_people}
    try:
        text = speakers.CONFIG.read_text(encoding="utf-8-sig") if speakers.CONFIG.exists() else "{}"
        write(speakers.CONFIG, json.loads(text) | names)
    except ValueError as error:  # YAML, which the loader reads too
        line = json.dumps(names, ensure_ascii=False)
        raise ConfigError(f"{speakers.CONFIG} is not JSON, so change it yourself, to: {line}") from error


def choose_base(args: argparse.Namespace, answers: Answers) -> Estimate:
    def estimated(base: str) -> tuple[str, Estimate]:
        return base, estimate.make(with_arguments(training_config.load(), None, base, None))

    if args.base or answers.base:
        answers.base, found = estimated(args.base or answers.base)
    else:
        names = list(training_config.load_bases())
        table = [["", "base", "weights", "training", "dollars", "on", "memory at home, 4 bits"]]
        prices = hardware.load_prices()
        for number, name in enumerate(names, 1):
            _, one = estimated(name)
            best, gpu = one.best, one.best.device.gpu
            table.append(
                [
                    f"{number}",
                    name,
                    f"{one.shapes.parameters / 1e9:.2f} billion",
                    hardware.spell_duration(best.seconds) if best.seconds else "does not fit",
                    hardware.spell_dollars(best.dollars) if best.dollars else "" if gpu else "nothing",
                    best.device.name,
                    f"{bases.needs(one.shapes, one.config, prices).bits4 / 1e9:.1f} GB",
                ]
            )
        lines = [
            "Which base fits your budget? Larger ones imitate better. Computed for your chats, with the rent of a GPU:",
            *hardware.align(table, left=(1, 5)),
            "`ghost bases` says more, such as their languages. Type a number, a name or a Hub repo; or press "
            f"Enter for {names[0]}.",
        ]
        answers.base, found = ask(
            "\n".join(lines), "--base NAME", lambda said: estimated(by_number(said or "1", names))
        )
    answers.save()
    return found


def choose_home(answers: Answers, found: Estimate) -> None:
    homes = {f"{number}": home for number, home in enumerate(HOMES, 1)} | {home: home for home in HOMES}

    def home(said: str) -> str:
        if said not in homes:
            raise UsageError(f"type a number from 1 to {len(HOMES)}, or {', '.join(HOMES)}")
        return homes[said]

    if answers.home not in HOMES:
        rows = hardware.align([(f"{number}", *row) for number, row in enumerate(HOMES.items(), 1)], left=(1, 2))
        question = "\n".join(["Where will your ghost live?", *rows, "Type a number."])
        answers.home = ask(question, f"--home {'|'.join(HOMES)}", home)
    answers.save()

    if not answers.repo and (found.best.device.gpu or answers.home == "replicate"):
        question = (
            "Which private repo on huggingface.co shall hold the model? Type YOUR-NAME/ghost, for example. It is made "
            "when you push."
        )
        answers.repo = ask(question, "--repo YOU/NAME", checked_repo)
    answers.save()


def checked_repo(said: str) -> str:
    if not REPO.fullmatch(said):
        raise UsageError(f"{said or 'nothing'}: a repo is named OWNER/NAME, such as ada/ghost")
    return said


def next_steps(answers: Answers, found: Estimate) -> list[tuple[str, list[str]]]:
    """What cannot run here: titles, each with lines for a shell."""
    repo, gpu = answers.repo, found.best.device.gpu
    kind = "q4_0" if found.shapes.parameters >= SMALL else "q8_0"
    file = f"models/gguf/ghost-{kind}.gguf"
    at_home = answers.home in ("laptop", "server")
    train = [
        *([WHOLE_WEIGHTS] if found.shapes.parameters < SMALL and found.config.load_in_4bit else []),
        f"ghost train --base {shlex.quote(answers.base)}",
        "ghost merge models/adapter",
        "ghost check models/merged",
        *(["hf auth login", f"ghost push models/merged {repo}"] if repo else []),
        *([f"ghost export models/merged --gguf {kind}", f"ghost check {file}"] if at_home else []),
    ]
    extras = "train,serve" if at_home else "train"
    steps = (
        [("Train on this computer:", [install_command(extras), *train])] if gpu is None else rented(gpu, extras, train)
    )
    if gpu and answers.home != "replicate":
        fetched = "models/{adapter,gguf}" if at_home else "models/adapter"
        steps.append(
            (
                "Fetch it, here; then destroy the rented machine *and its volumes*:",
                [f'rsync -aR "$BOX":ghost/./{fetched} .'],
            )
        )
    init = "ghost init    # then edit config/bot.yaml: owner is your Telegram id"
    if answers.home == "laptop":
        live = [
            install_command("home,bot"),
            f"ghost chat {file}",
            f"ghost serve {file}    # for the bot and other clients; what follows, in another terminal",
            init,
            "read -rs TELEGRAM_BOT_TOKEN && export TELEGRAM_BOT_TOKEN    # paste the token from @BotFather",
            "ghost bot",
        ]
        steps.append(("Talk to it (docs/home.md):", live))
    elif answers.home == "server":
        live = [
            "SERVER=root@ADDRESS",
            f"{init}, backend is http://model:5050",
            f'rsync -aR --exclude weights {clone(IMAGE)} "$SERVER":ghost/',
            f'rsync -aR ./{file} ./config/bot.yaml "$SERVER":ghost/',
            'ssh -t "$SERVER"',
        ]
        there = [
            "cd ghost && read -rs TOKEN && (umask 077; echo TELEGRAM_BOT_TOKEN=$TOKEN > .env)    # from @BotFather",
            f"echo GHOST_MODEL={file} >> .env && echo GHOST_UID=$(stat -c %u {file}) >> .env",
            "docker compose up -d --build",
        ]
        steps += [("Take it to your server (docs/home.md):", live), ("And there:", there)]
    elif answers.home == "replicate":
        pull = [install_command("serve"), "hf auth login", f"ghost pull {repo}"] if gpu else [install_command("serve")]
        live = [*pull, f"ghost release {repo}", f"ghost release {repo} --go", f"ghost chat replicate:{repo}"]
        steps.append(("Release it, here (docs/serving.md):", live))
    return steps


def rented(gpu: hardware.Gpu, extras: str, train: list[str]) -> list[tuple[str, list[str]]]:
    own = [f"./config/{name}" for name in SETTINGS if (FOLDER / name).exists() and Path.cwd() != CLONE]
    uv = "curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv venv --seed --python 3.11 .venv"
    return [
        (
            f"Rent one {gpu.gpu} (at {gpu.provider}, say) with 50 GB of disk. Copy the code and three files to it:",
            [
                "BOX=root@ADDRESS    # as the provider shows it",
                f'rsync -aR --exclude weights {clone(CODE)} "$BOX":ghost/',
                " ".join(["rsync -aR ./data/processed/{train.jsonl,val.jsonl,ghost.json}", *own, '"$BOX":ghost/']),
                'ssh -t "$BOX" tmux new -As ghost    # after a lost connection the same line returns',
            ],
        ),
        (
            "And there (after an interruption, add --resume to the line that trains):",
            [f"cd ghost && {uv} && . .venv/bin/activate && pip install -e '.[{extras}]'", *train],
        ),
    ]


def clone(files: str) -> str:
    """These files of the clone, for `rsync -R`. After `pip install .` the clone may be the current folder."""
    place = CLONE or (Path.cwd() if Path("compose.yaml").exists() else None)
    return f"{shlex.quote(str(place)) if place else 'PATH/TO/THE/CLONE'}/./{{{files}}}"


def call(verb: str, *flags: str) -> int:
    from ghost.cli import main

    console.print(f"\n$ {shlex.join(['ghost', verb, *flags])}", style="cyan", soft_wrap=True)
    return main([verb, *flags])


def ask(question: str, flag: str, accept: Callable[[str], Answer]) -> Answer:
    """Ask until `accept` raises no error, and return what it returns. Raises UsageError without a terminal."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"no terminal to ask in; add {flag}")
    console.print(f"\n{question}", soft_wrap=True)
    while True:
        try:
            return accept(input("> ").strip())
        except (GhostError, ValueError) as error:  # ValueError: a quote without its other half
            console.print(f"{error}".partition("\n")[0], soft_wrap=True)


def write(path: Path, document: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
