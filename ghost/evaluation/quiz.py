"""`ghost evaluate --blind` makes a quiz for friends; `--score` reads their answers."""

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console
from ghost.errors import DataError, UsageError
from ghost.evaluation.contenders import Contender
from ghost.evaluation.data import Estimate, Exchange, read_held_out
from ghost.evaluation.intervals import share
from ghost.evaluation.replies import Answers, answer, run_served
from ghost.page import Html, bubble, card, chat, document, element
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels, Turn

# Which of two replies did the person really write? quiz.html goes to friends: one page that makes no request and shows
# real messages. key.json stays with the person: it alone says which side, chosen at random, is real. The page turns the
# answers into a code, which a friend sends back. No two questions show the same turn, or one could show another's
# reply.
#
# The figure is the share of right answers, with an exact two-sided binomial test against ½: friends who are nearly
# always wrong take the ghost for the person. It cannot show that nobody could tell: a quiz of twenty detects only what
# is far from guessing (15 of 20 right, or 5), and a friend may remember the conversation. Several friends answer about
# the same replies, so their sum is less certain than its number suggests.

QUIZ, KEY = "quiz.html", "key.json"
PAIRS = 20
FEWEST = 6  # with fewer, all right or all wrong is what guessing gives once in sixteen
TURNS = 4  # of context that are shown
LONGEST = 400  # characters of a turn that are shown; a longer reply is not asked about
LEFT, RIGHT, UNANSWERED = "1", "2", "0"
HEADING = "Which one is real?"
SCRIPT = """
const quiz = document.querySelector('form'), code = document.querySelector('output');
const names = [...new Set([...quiz.elements].map(one => one.name))];
function tell() {
  const answers = names.map(name => new FormData(quiz).get(name) ?? '0').join('');
  const left = [...answers].filter(one => one === '0').length;
  code.textContent = left ? '…' : quiz.dataset.quiz + '-' + answers;
  document.querySelector('#left').textContent = left ? left + ' not answered yet' : 'All answered. Thank you!';
}
quiz.addEventListener('change', tell);
tell();
"""


@dataclass(frozen=True)
class Pair:
    context: tuple[Turn, ...]
    real: str
    generated: str
    real_first: bool


def independent_questions(exchanges: Sequence[Exchange], count: int, seed: int) -> tuple[list[Exchange], int]:
    """Choose at random at most `count` exchanges of which no two show the same turn; also return how many were passed
    over for sharing one. A conversation gives a second only after every other has given one.

    If conversations are unknown, turns with the same text count as the same turn.
    """
    drawn = random.Random(f"{seed}/questions").sample(exchanges, len(exchanges))
    first = {one.conversation: one for one in reversed(drawn)}
    order = [*first.values(), *(one for one in drawn if first[one.conversation] is not one)]
    shown: dict[int, set[str]] = {}
    chosen: list[Exchange] = []
    passed_over = 0
    for one in order:
        turns = {*(turn.text for turn in one.context[-TURNS:]), one.reply}
        taken = shown.setdefault(one.conversation, set())
        if not taken.isdisjoint(turns):
            passed_over += 1
        elif len(chosen) < count:
            chosen.append(one)
            taken |= turns
    if len(chosen) < FEWEST:
        raise DataError(
            f"{len(chosen)} held-out replies can be asked about without one question showing the reply to another, and "
            f"a quiz takes {FEWEST} or more: export more chats"
        )
    return chosen, passed_over


def pairs(own: Sequence[Exchange], said: Sequence[Exchange], seed: int, count: int = PAIRS) -> list[Pair]:
    """At most `count` pairs, in random order: the person's and a different generated reply to the same context. Raises
    DataError if there are fewer than FEWEST."""
    real = {exchange.context: exchange.reply for exchange in own}
    found = [(one.context, real[one.context], one.reply) for one in said if one.context in real]
    fitting = [
        (context, mine, theirs)
        for context, mine, theirs in dict.fromkeys(found)
        if mine.strip() != theirs.strip() and mine.strip() and theirs.strip() and max(len(mine), len(theirs)) <= LONGEST
    ]
    if len(fitting) < FEWEST:
        raise DataError(
            f"{len(fitting)} held-out replies differ from what the model said to them, and a quiz takes {FEWEST} or "
            "more: export more chats"
        )
    drawn = random.Random(f"{seed}/quiz").sample(fitting, min(count, len(fitting)))
    # Seed with the held-out replies, which no friend has, so that nobody can compute the key.
    sides = random.Random(f"{seed}/{sha256(repr(own).encode()).hexdigest()}")
    return [Pair(*one, sides.random() < 0.5) for one in drawn]


def refuse_occupied(folder: Path) -> None:
    """Raises UsageError if `folder` holds a quiz, which friends may be answering, or something else."""
    refuse_foreign_files(folder, (QUIZ, KEY))
    if found := [name for name in (KEY, QUIZ) if (folder / name).exists()]:
        raise UsageError(
            f"{folder / found[0]}: of an earlier quiz, and codes of friends who have its page would be lost; write "
            f"elsewhere (--blind OTHER_FOLDER), or delete {folder}"
        )


def write_pairs(folder: Path, asked: Sequence[Pair], labels: Labels, name: str = "") -> str:
    """Write quiz.html and key.json to `folder`. Returns the quiz's number.

    `name` is how the page calls the person. Raises UsageError when the folder holds a quiz or something else.
    """
    refuse_occupied(folder)
    right = "".join(LEFT if pair.real_first else RIGHT for pair in asked)
    # Hash only what the page shows: with the order in it, the key could be found by trying all orders.
    number = sha256(repr([sorted((pair.real, pair.generated)) for pair in asked]).encode()).hexdigest()[:8]
    with replace_folder(folder) as aside:
        (aside / QUIZ).write_text(_page(asked, labels, number, name or "your friend"), encoding="utf-8")
        (aside / KEY).write_text(json.dumps({"quiz": number, "right": right}, indent=2) + "\n", encoding="utf-8")
    return number


def _page(asked: Sequence[Pair], labels: Labels, number: str, name: str) -> str:
    return document(
        HEADING,
        element(
            "p",
            "This page shows private messages. It was made for you to look at, not to pass on; delete it when you are "
            "done. It sends nothing anywhere.",
            class_="warning",
        ),
        element(
            "p",
            "To each of these messages there are two answers: one that ",
            element("bdi", name),
            " really wrote, and one by a machine that imitates them. Choose the real one. Guess where you cannot tell.",
        ),
        element(
            "form",
            element("div", *(_card(place, pair, labels) for place, pair in enumerate(asked, start=1)), class_="cards"),
            data_quiz=number,
            autocomplete="off",
        ),
        element("h2", "Your answers, as a code to send back"),
        element("p", "", id="left"),
        element("output", "…"),
        element(
            "noscript", element("p", "Without scripts: write down 1 for the upper answer of each, 2 for the lower.")
        ),
        script=SCRIPT,
    )


def _card(place: int, pair: Pair, labels: Labels) -> Html:
    shown = [bubble(turn.text, LONGEST, mine=turn.label == labels.me) for turn in pair.context[-TURNS:]]
    texts = (pair.real, pair.generated) if pair.real_first else (pair.generated, pair.real)
    choices = [
        element(
            "label",
            element("input", type="radio", name=f"q{place:03}", value=value),
            # Strip both: blank edges would show which one a model wrote.
            chat(bubble(text.strip(), LONGEST, mine=True)),
            class_="choice",
        )
        for value, text in zip((LEFT, RIGHT), texts, strict=True)
    ]
    return card(f"{place}", chat(*shown), *choices)


@dataclass(frozen=True)
class Score:
    """One friend's answers, or all friends'."""

    right: Estimate
    """The share of right answers; ½ is guessing."""
    p: float
    """Probability of a share at least as far from ½ by guessing."""

    def __str__(self) -> str:
        correct = round(self.right.value * self.right.n)
        verdict = "not more than guessing explains"
        if self.p < 0.05:
            verdict = "can tell" if self.right.value > 0.5 else "take the ghost for you"
        return (
            f"{correct} of {self.right.n} right ({self.right.value:.0%}, {self.right.low:.0%} to {self.right.high:.0%}"
            f"; by guessing p = {self.p:.2g}): {verdict}"
        )


@dataclass(frozen=True)
class Unfinished:
    """A code with unanswered questions. It does not count: whoever answers only when sure is right more often than by
    guessing, whatever the ghost is like."""

    unanswered: int
    questions: int

    def __str__(self) -> str:
        return f"{self.unanswered} of {self.questions} not answered: not counted; ask them to guess those too"


def score_pairs(codes: Sequence[str], key: Path) -> tuple[list[Score | Unfinished], Score | None]:
    """Score each code and, if several are complete, all of these together.

    `key` is the file or its folder. Raises DataError if it is no key, UsageError for a code of another quiz.
    """
    key = key / KEY if key.is_dir() else key
    try:
        document = json.loads(key.read_text(encoding="utf-8"))
        number, right = str(document["quiz"]), str(document["right"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{key}: no key of a quiz; `ghost evaluate --blind` writes one beside the page") from error
    answers = [_read(code, number, len(right)) for code in codes]
    finished = [one for one in answers if UNANSWERED not in one]
    each = [_score(one, right) if one in finished else Unfinished(one.count(UNANSWERED), len(one)) for one in answers]
    return each, _score("".join(finished), right * len(finished)) if len(finished) > 1 else None


def _read(code: str, number: str, count: int) -> str:
    found = re.fullmatch(r"\s*(?:([0-9a-f]{8})-)?([012]+)\s*", code)
    if not found or len(found[2]) != count:
        raise UsageError(f"--score {code.strip()[:60]}: not a code of this quiz, as in {number}-{'12' * (count // 2)}…")
    if found[1] and found[1] != number:
        raise UsageError(
            f"--score {code.strip()[:60]}: the answers to quiz {found[1]}, and the key is that of {number}"
        )
    return found[2]


def _score(answers: str, right: str) -> Score:
    from scipy.stats import binomtest

    correct = sum(answer == truth for answer, truth in zip(answers, right, strict=True))
    return Score(share(correct, len(right)), float(binomtest(correct, len(right), 0.5).pvalue))


FOLDER = Path("quiz")  # git ignores it: it shows messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    friends = parser.add_argument_group("a blind quiz for friends, in place of the report")
    friends.add_argument(
        "--blind",
        type=Path,
        nargs="?",
        const=FOLDER,
        metavar="FOLDER",
        help=f"write {QUIZ}, in which friends choose between your reply and the model's, and {KEY}, which you keep "
        f"(default: {FOLDER})",
    )
    friends.add_argument("--pairs", type=int, default=PAIRS, help="number of questions (default: %(default)s)")
    friends.add_argument("--name", default="", help="your name on the page")
    friends.add_argument("--score", nargs="+", metavar="CODE", help="score the codes that friends sent back")
    friends.add_argument(
        "--key",
        type=Path,
        default=FOLDER / KEY,
        metavar="FILE",
        help="key of the quiz that they answered, or its folder (default: %(default)s)",
    )


def make(args: argparse.Namespace) -> int:
    """Answer held-out exchanges and write the quiz."""
    if args.pairs < FEWEST:
        raise UsageError(f"--pairs {args.pairs}: {FEWEST} or more; with fewer, guessing is right too often")
    refuse_occupied(args.blind)
    held_out = read_held_out(args.val, CONTEXT_TURNS)
    # Twice as many as needed: pairs whose replies are the same, empty or too long to be shown are left out.
    exchanges, passed_over = independent_questions(held_out.exchanges, 2 * args.pairs, args.seed)
    answers = _answers(args, exchanges, held_out.ghost.labels)
    asked = pairs(exchanges, [said.exchange for said in answers.said], args.seed, args.pairs)
    number = write_pairs(args.blind, asked, held_out.ghost.labels, args.name)
    if args.json:
        told = {"quiz": number, "pairs": len(asked), "pairs_wanted": args.pairs, "passed_over": passed_over}
        print(json.dumps(told | {"folder": str(args.blind)}))
    else:
        if passed_over:
            console.print(
                f"note: {passed_over} of {len(held_out.exchanges)} held-out replies were passed over: another question "
                "would show them, or they would show its reply"
            )
        if len(asked) < args.pairs:
            console.print(
                f"note: {len(asked)} pairs, fewer than the {args.pairs} of --pairs: the model answered "
                f"{len(exchanges)}, of which the others are too long to be shown, empty, or what you wrote, too"
            )
        console.print(
            f"{args.blind / QUIZ}: {len(asked)} pairs of real messages and imitated ones. It shows what you and "
            "others really wrote: read it first, and give it to nobody whom you would not show these chats.\n"
            f"Keep {args.blind / KEY}: it says which is which. With the codes that come back: "
            f"ghost evaluate --score CODE… --key {args.blind / KEY}"
        )
    return 0


def score(args: argparse.Namespace) -> int:
    scores, together = score_pairs(args.score, args.key)
    if args.json:
        told = {"friends": [asdict(one) for one in scores], "together": together and asdict(together)}
        print(json.dumps(told, indent=2))
        return 0
    for number, one in enumerate(scores, start=1):
        console.print(f"{f'friend {number}':<10} {one}")
    if together:
        console.print(f"{'together':<10} {together}")
    return 0


def _answers(args: argparse.Namespace, exchanges: Sequence[Exchange], labels: Labels) -> Answers:
    if args.url is not None:
        return run_served(args.url, args.model, exchanges, labels, args.seed).answers
    from replicate_deployment.engine import Engine

    engine = Engine.load(args.model)
    return answer(Contender("merged", engine), exchanges, engine.settings, args.seed)
