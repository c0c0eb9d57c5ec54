"""Is a reply likelier if the prompt shows what its message answers, as a first line `> quoted words`?

    python -m benchmarks.quoted_replies --links DIR --scratch DIR

- `--links`: a clone of github.com/jkkummerfeld/irc-disentanglement (CC BY 4.0): IRC channels in which people marked
  what each message answers. Its many writers interleave, so that more messages answer an older one than in a chat of
  two. Whoever writes the reply is A:, everybody else B:. The name at the start of a message, which stands for a quote
  there, is removed.
- Invented: B: offers three things, and later asks about one that only the quote names. The measure must find a gain.

Replies are measured on SmolLM2-135M-Instruct, and on it after two small trainings (LoRA, whole weights, all tokens of
the windows) on the same windows: one without quotes, and one with a quote before each message that answers another than
the one before it.

- `answers a quote`: the reply answers the last message, which answers an older one. The bot knows that quote.
- `quotes`: the reply itself answers an older message. A prompt ends in the bare `A:`, so that no engine is shown this
  quote; the figure says what a change of that rule could give.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.extraction import machine
from benchmarks.trainings import ROOT
from ghost.demo import demo, real
from ghost.evaluation.data import Estimate
from ghost.evaluation.intervals import ratio
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn
from replicate_deployment.tokenization import load_tokenizer
from training.finetuning.data import encode_turns

RESULT = Path(__file__).parent / "results" / "quoted_replies.md"
WINDOW = 8  # messages before the reply
LONGEST = 300  # characters of a message or a quote; the bot cuts quotes there too
TRAINED = 240  # windows, half of each kind
MEASURED = {"answers a quote": 100, "quotes": 60, "invented": 30}
LEARNING_RATE, BATCH = 5e-4, 4

# Committed before the run. Quotes enter the training text and the key `quoted_replies` is added if, for the replies
# that answer a quote, training and prompting with quotes has a lower loss than training without them, prompted either
# way (the bot quotes today), and the 95% intervals of both differences are above 0.
RULE = (
    "Quotes enter the training text if, for replies that answer a quote, training with them beats training without, "
    "prompted with quotes and prompted without, beyond both 95% intervals."
)


@dataclass(frozen=True)
class Message:
    writer: str
    text: str
    answers: int | None
    """Place of the answered message in the channel; None if it answers none."""


@dataclass(frozen=True)
class Case:
    kind: str
    group: int
    """The channel's day: what to resample."""
    context: tuple[Message, ...]
    quotes: tuple[str | None, ...]
    """Of each message of the context, what it answers if that is not the message before it."""
    reply: Message
    quote: str | None
    distance: int
    """Messages from the quoted one to the one that quotes it."""

    def turns(self, shown: bool) -> list[Turn]:
        """The context's turns, and the reply's without its text: its quote, or nothing."""
        labelled = [
            (DEFAULT_LABELS.me if one.writer == self.reply.writer else DEFAULT_LABELS.other, quoted(one.text, quote))
            for one, quote in zip(self.context, self.quotes if shown else [None] * len(self.quotes), strict=True)
        ]
        return [
            Turn(label, "\n".join(text for _, text in burst))
            for label, burst in groupby(labelled, key=lambda each: each[0])
        ]


def quoted(text: str, quote: str | None) -> str:
    """Put the quote on the first line. A line of the text that begins as a quote does gains a space."""
    own = re.sub(r"^(?= *>)", " ", text, flags=re.MULTILINE)
    return own if quote is None else f"> {' '.join(quote.split())}\n{own}"


LINE = re.compile(r"\[\d\d:\d\d\] <([^>]+)> (.*)")


def channel(annotations: Path) -> list[Message]:
    """Read one day. Lines that nobody wrote are left out."""
    raw = annotations.with_name(annotations.name.replace(".annotation.", ".raw."))
    lines = raw.read_text(encoding="utf-8", errors="replace").split("\n")
    said = {number: found for number, line in enumerate(lines) if (found := LINE.fullmatch(line))}
    place = {number: at for at, number in enumerate(said)}
    answers: dict[int, int] = {}
    for line in annotations.read_text(encoding="utf-8").splitlines():
        earlier, later = sorted(int(one) for one in line.split()[:2])
        if earlier != later and earlier in place and later in place:
            answers[later] = max(answers.get(later, 0), place[earlier])
    names = {found[1].lower() for found in said.values()}
    return [
        Message(found[1], without_name(found[2], names)[:LONGEST], answers.get(number))
        for number, found in said.items()
    ]


def without_name(text: str, names: set[str]) -> str:
    first, colon, rest = text.strip().partition(" ")
    return rest.strip() if colon and first[-1:] in ":," and first[:-1].lower() in names else text.strip()


def cases(messages: Sequence[Message], group: int) -> Iterator[Case]:
    def quote(place: int) -> str | None:
        """What a message answers, unless that is the one before it."""
        answered = messages[place].answers
        return None if answered is None or answered == place - 1 else messages[answered].text or None

    for place, reply in enumerate(messages):
        answered = reply.answers
        if answered is None or not reply.text or messages[answered].writer == reply.writer or place < WINDOW:
            continue
        if messages[place - 1].writer == reply.writer or not messages[place - 1].text:  # its turn has begun before
            continue
        shown = [at for at in range(place - WINDOW, place) if messages[at].text]
        found = Case(
            "quotes",
            group,
            tuple(messages[at] for at in shown),
            tuple(quote(at) for at in shown),
            reply,
            quote(place),
            place - answered,
        )
        if found.quote is not None:
            yield found
        elif answered == place - 1 == shown[-1] and found.quotes[-1] is not None:
            yield replace(found, kind="answers a quote", distance=answered - (messages[answered].answers or 0))


THINGS = ["bike", "lamp", "desk", "sofa", "guitar", "kettle", "camera", "printer", "helmet", "blender", "jacket"]
COLOURS = ["red", "blue", "green", "black", "white", "yellow"]


def invented(count: int) -> list[Case]:
    rng, found = random.Random(0), []
    for number in range(count):
        things, colours = rng.sample(THINGS, 3), rng.sample(COLOURS, 3)
        offers = [
            Message("other", f"my {colour} {thing} is for sale", None)
            for colour, thing in zip(colours, things, strict=True)
        ]
        chosen = rng.randrange(3)
        talk = [
            *offers,
            Message("me", "I will think about it", None),
            Message("other", "take your time", None),
            Message("me", "how was the weekend?", None),
            Message("other", "good, we went to the lake", None),
            Message("other", "and do you want this one?", None),
        ]
        quotes = [None] * (len(talk) - 1) + [offers[chosen].text]
        reply = Message("me", f"yes, I take the {colours[chosen]} {things[chosen]}", None)
        found.append(Case("invented", number, tuple(talk), tuple(quotes), reply, None, len(talk) - 1 - chosen))
    return found


@dataclass(frozen=True)
class Loss:
    nats: float
    tokens: int


def encoded(tokenizer: Any, case: Case, shown: bool) -> tuple[list[int], int]:
    """The ids of the whole case, with the end token, and where the reply's own words begin."""
    turns, own = case.turns(shown), case.quote if shown else None
    reply = Turn(DEFAULT_LABELS.me, quoted(case.reply.text, own))
    ids = encode_turns(tokenizer, [*turns, reply], DEFAULT_LABELS, recipe="windows", replies_only=True)
    start = int(ids.reply.argmax())
    if own is not None:
        quote = reply._replace(text=quoted("", own).rstrip("\n"))
        before = encode_turns(tokenizer, [*turns, quote], DEFAULT_LABELS, recipe="windows", replies_only=True).ids
        start = len(before)  # its end token stands where the newline does, after which the words begin
        if before[:-1].tolist() != ids.ids[: start - 1].tolist():
            raise ValueError(f"the tokens of the quote {own!r} depend on what follows")
    return ids.ids.tolist(), start


def losses(model: Any, tokenizer: Any, measured: Sequence[Case], shown: bool) -> list[Loss]:
    """Of the replies' words. Tokens are counted without a quote, so that both ways divide by the same number."""
    import torch

    found = []
    for case in measured:
        ids, start = encoded(tokenizer, case, shown)
        plain, begin = encoded(tokenizer, case, False)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids[:-2]]), use_cache=False, logits_to_keep=len(ids) - 1 - start)
        nats = torch.nn.functional.cross_entropy(
            logits.logits[0].float(), torch.tensor(ids[start:-1]), reduction="sum"
        ).item()
        found.append(Loss(nats, len(plain) - 1 - begin))
    return found


def trained(base: Path, tokenizer: Any, windows: Sequence[Case], shown: bool) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model: Any = get_peft_model(load(base), LoraConfig(r=16, lora_alpha=32, target_modules=projections))
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
    steps = len(windows) // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = [encoded(tokenizer, one, shown)[0] for one in windows[step * BATCH : (step + 1) * BATCH]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 10 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return model.merge_and_unload().eval()


def load(base: Path) -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


Measured = Mapping[str, Mapping[str, list[Loss]]]
"""kind → `model, prompt` → loss of each case"""
WITHOUT, WITH = "without quotes", "with quotes"
MODELS = ("base", f"trained {WITHOUT}", f"trained {WITH}")


def measure(base: Path, measured: Mapping[str, Sequence[Case]], windows: Sequence[Case], scratch: Path) -> Measured:
    tokenizer = load_tokenizer(base)
    found: dict[str, dict[str, list[Loss]]] = {kind: {} for kind in measured}
    for name in MODELS:
        model = None
        for kind, some in measured.items():
            for shown in (False, True):
                if not shown and name.endswith(WITH):
                    continue
                way = f"{name}, prompted {WITH if shown else WITHOUT}"
                kept = scratch / f"{kind}, {way}.json"
                if not kept.exists():
                    if model is None:
                        quoting = name.endswith(WITH)
                        model = load(base) if name == "base" else trained(base, tokenizer, windows, quoting)
                    said = losses(model, tokenizer, some, shown)
                    kept.write_text(json.dumps([(one.nats, one.tokens) for one in said]), encoding="utf-8")
                found[kind][way] = [Loss(*one) for one in json.loads(kept.read_text(encoding="utf-8"))]
                print(f"{kind}, {way}: {loss(some, found[kind][way]).value:.3f}", flush=True)
    return found


def loss(some: Sequence[Case], said: Sequence[Loss]) -> Estimate:
    return ratio([one.nats for one in said], [one.tokens for one in said], [case.group for case in some], 0)


def gain(some: Sequence[Case], said: Sequence[Loss], other: Sequence[Loss]) -> Estimate:
    """Nats a token by which `said` is likelier than `other`; paired."""
    differences = [two.nats - one.nats for one, two in zip(said, other, strict=True)]
    return ratio(differences, [one.tokens for one in said], [case.group for case in some], 0)


def split(links: Path) -> tuple[list[list[Message]], list[list[Message]]]:
    """(to train on, to measure on): the corpus's own parts."""
    return tuple(  # type: ignore[return-value]
        [channel(path) for part in parts for path in sorted((links / "data" / part).glob("*.annotation.txt"))]
        for parts in (("train",), ("dev", "test"))
    )


def drawn(days: Sequence[Sequence[Message]], kind: str, count: int) -> list[Case]:
    every = [case for group, day in enumerate(days) for case in cases(day, group) if case.kind == kind]
    return random.Random(0).sample(every, count)


def distances(days: Sequence[Sequence[Message]]) -> list[int]:
    """Of each message that answers another person's: how many messages further back that is."""
    return [
        place - one.answers
        for day in days
        for place, one in enumerate(day)
        if one.answers is not None and day[one.answers].writer != one.writer
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="keeps finished parts; the same command goes on")
    args = parser.parse_args()
    base, _ = real.fetch(ROOT / demo.REAL_CACHE)
    train, held_out = split(args.links)
    windows = [case for kind in ("answers a quote", "quotes") for case in drawn(train, kind, TRAINED // 2)]
    random.Random(0).shuffle(windows)
    measured = {
        kind: invented(count) if kind == "invented" else drawn(held_out, kind, count)
        for kind, count in MEASURED.items()
    }
    args.scratch.mkdir(parents=True, exist_ok=True)
    lines = page(measured, measure(base, measured, windows, args.scratch), distances(held_out))
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


def page(measured: Mapping[str, Sequence[Case]], found: Measured, apart: Sequence[int]) -> Iterator[str]:
    yield from (
        "# Quoted replies",
        "",
        "```",
        "python -m benchmarks.quoted_replies --links DIR --scratch DIR",
        "```",
        "",
    )
    yield (
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; torch {version('torch')}, transformers "
        f"{version('transformers')}. SmolLM2-135M-Instruct; one epoch on {TRAINED} windows of {WINDOW} messages."
    )
    yield from ("", f"Rule, committed before the run: {RULE} {verdict(measured, found)}", "")
    yield from ("## How far back the answered message is", "")
    yield (
        f"Held-out days: {len(apart):,} messages that answer another person's; {shares(apart)}. Each message "
        "counts as one, whoever wrote it."
    )
    for kind, some in measured.items():
        far = [case.distance for case in some]
        tokens = [one.tokens for one in next(iter(found[kind].values()))]
        yield from ("", f"## {kind.capitalize()}", "")
        yield (
            f"{len(some)} replies; the quoted message is {_quartiles(far)} messages back, replies have "
            f"{_quartiles(tokens)} tokens (quartiles)."
        )
        yield from ("", "| model | nats a token | gain over the base without quotes |", "|---|---:|---:|")
        first = found[kind][f"base, prompted {WITHOUT}"]
        for name, said in found[kind].items():
            yield f"| {name} | {_interval(loss(some, said))} | {_interval(gain(some, said, first))} |"
        yield ""
        for name, other in compared():
            yield f"- {name} against {other}: {_interval(gain(some, found[kind][name], found[kind][other]))}"


def compared() -> Iterator[tuple[str, str]]:
    base, plain, quoting = MODELS
    yield f"{base}, prompted {WITH}", f"{base}, prompted {WITHOUT}"
    yield f"{plain}, prompted {WITH}", f"{plain}, prompted {WITHOUT}"
    for shown in (WITHOUT, WITH):
        yield f"{quoting}, prompted {WITH}", f"{plain}, prompted {shown}"


def verdict(measured: Mapping[str, Sequence[Case]], found: Measured) -> str:
    kind = "answers a quote"
    gains = [gain(measured[kind], found[kind][name], found[kind][other]) for name, other in list(compared())[2:]]
    return "They do." if all(one.low > 0 for one in gains) else "They do not."


def shares(apart: Sequence[int]) -> str:
    borders = {"the message before": (1, 1), "2 to 4 back": (2, 4), "5 to 10": (5, 10), "further": (11, 10**9)}
    return ", ".join(
        f"{name} {sum(low <= one <= high for one in apart) / len(apart):.0%}" for name, (low, high) in borders.items()
    )


def _quartiles(values: Sequence[int]) -> str:
    return ", ".join(f"{one:.0f}" for one in quantiles(values, n=4))


def _interval(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    main()
