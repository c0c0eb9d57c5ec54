"""preparation_report.json, val.about.jsonl and the summary: what was made of the chats."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ghost.console import counted
from training.extraction.languages import UNDETERMINED, languages
from training.extraction.speakers import matching, platform_of
from training.preparation.checks import find_concerns, leakage, own_languages, token_lengths
from training.preparation.dataset import WHY, Conversation, Prepared, Window, holds_special_string
from training.preparation.privacy import Candidate, Kept, candidate_counts, groups, pii_candidates

LOOKED_AT = 400  # characters of a conversation that tell its language: a few turns


class Report(NamedTuple):
    """figures     the content of preparation_report.json
    held_out    where each line of val.jsonl is from
    candidates  strings that may still be personal
    """

    figures: dict[str, Any]
    held_out: list[dict[str, Any]]
    candidates: dict[str, list[Candidate]]


def make(prepared: Prepared, kept: Kept, tokenizer: Any | None, sequence_len: int) -> Report:
    """Examine the data set before money is spent on it. Without a `tokenizer` (try_load_tokenizer), lengths are
    estimates and say so."""
    leaks, lengths = leakage(prepared), token_lengths(prepared, tokenizer, sequence_len)
    spoken, held_out, candidates = own_languages(prepared), about(prepared), pii_candidates(prepared)
    found = {
        **figures(prepared),
        "left_out": kept.left_out,
        "groups": groups(prepared, kept.sizes),
        "exposure": prepared.exposure.figures,
        "leakage": leaks,
        "lengths": asdict(lengths),
        "languages": {half: dict(shares) for half, shares in spoken.items()},
        "held_out_lines": counts(held_out),
        "leftovers": candidate_counts(candidates),
        "concerns": [asdict(concern) for concern in find_concerns(prepared, leaks, lengths, spoken)],
    }
    return Report(found, held_out, candidates)


def about(prepared: Prepared) -> list[dict[str, Any]]:
    """val.about.jsonl: where each line of val.jsonl is from, so that held-out figures can be broken down. No name and
    no time of day is in it. For each line, in order:

    conversation  its number among all of the data set, from 0
    first, last   the line's turns, by their place in the conversation
    platform      the folder of the chat's CSV; "" when it lay in none
    language      of the conversation, ISO 639-1; "und" if undetermined
    """
    found: list[dict[str, Any]] = []
    every = zip(prepared.conversations, prepared.examples.by_conversation, strict=True)
    for number, (talk, stretches) in enumerate(every):
        if number >= prepared.training and stretches:
            about = {"platform": platform_of(talk.path), "language": _language([turn.text for turn in talk.turns])}
            found += [{"conversation": number, "first": first, "last": last, **about} for first, last in stretches]
    return found


def encode(found: Sequence[Mapping[str, Any]]) -> bytes:
    """A JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in found).encode()


def counts(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Count the lines of val.jsonl by platform and by language, the most first."""
    return {key: dict(Counter(str(one[key]) for one in found).most_common()) for key in ("platform", "language")}


def _language(texts: list[str]) -> str:
    """Detect it once per conversation: two seconds for a million messages, not minutes."""
    text = " ".join(" ".join(texts)[:LOOKED_AT].split())
    return next(iter(languages([text])), UNDETERMINED) if text else UNDETERMINED


def figures(prepared: Prepared) -> dict[str, Any]:
    """Counts for preparation_report.json.

    It names you and counts the others, holds no times of day and no paths, and is the same from run to run.
    """
    config, messages, table = prepared.config, prepared.messages, prepared.table
    conversations, found, training = prepared.conversations, prepared.examples, prepared.training
    turns = [len(talk.turns) for talk in conversations]
    windows = [len(some) for some in found.windows]
    seeds = [len(some) for some in found.seeds]
    sizes = Counter(target - start for start, target in chain.from_iterable(found.windows))
    own = table.loc[table["mine"], "sender"]
    return {
        "recipe": prepared.recipe,
        "labels": {"yours": config.user_label, "others": config.other_label},
        "timezone": config.timezone,
        "your_names": sorted(map(str, own.unique())),
        "people": int(table["sender"].nunique()),
        "chats": int(table["path"].nunique()),
        "chats_without_you": len(_chats(table, mine=False)),
        "chats_of_yours_alone": len(_chats(table, mine=True)),
        "held_out": prepared.held_out,
        "in_examples": _in_examples(prepared),
        "messages": {
            "read": messages.read,
            "empty": messages.empty,
            "used": len(table),
            "yours": len(own),
            "placed_by_timezone": messages.without_offset,
            "out_of_order": messages.out_of_order,
        },
        "conversations": {
            **_halves([1] * len(turns), training),
            "without_a_line": sum(not some for some in found.by_conversation),
            "with_a_line_but_no_reply": sum(
                bool(some) and not prepared.has_reply(talk)
                for talk, some in zip(conversations, found.by_conversation, strict=True)
            ),
        },
        "turns": {
            **_halves(turns, training),
            "yours": sum(turn.label == config.user_label for talk in conversations for turn in talk.turns),
        },
        "windows": {
            **_halves(windows, training),
            "by_context_turns": {str(size): sizes[size] for size in sorted(sizes)},
        },
        "seeds": {
            **_halves(seeds, training),
            "drawn": found.drawn,
            "equal_to_a_window": found.drawn - sum(seeds),
        },
        "lines": {
            **_halves([a + b for a, b in zip(windows, seeds, strict=True)], training),
            "with_special_strings": sum(map(_with_special_strings, conversations, found.by_conversation)),
        },
    }


def _in_examples(prepared: Prepared) -> dict[str, int]:
    """How much of the data is in an example, to train or to validate; the rest teaches nothing. Leaving a person out
    can leave much of what the others wrote without an example."""
    table, talks = prepared.table, prepared.conversations
    is_shown = np.zeros(len(table) and int(table["turn"].iloc[-1]) + 1, bool)
    for talk, stretches in zip(talks, prepared.examples.by_conversation, strict=True):
        for start, last in stretches:
            is_shown[talk.first + start : talk.first + last + 1] = True
    shown = table[is_shown[table["turn"].to_numpy()]]
    return {
        "messages": len(shown),
        "yours": int(shown["mine"].sum()),
        "people": int(shown["sender"].nunique()),
        "chats": int(shown["path"].nunique()),
        "conversations": sum(map(bool, prepared.examples.by_conversation)),
        "turns": int(is_shown.sum()),
        "your_turns": int(shown.loc[shown["mine"], "turn"].nunique()),
    }


def _chats(table: pd.DataFrame, *, mine: bool) -> "pd.Index[str]":
    """The chats in which every message is yours, or none."""
    same = (table["mine"] == mine).groupby(table["path"], observed=True).all()
    return same.index[same]


def writers(table: pd.DataFrame, *, mine: bool) -> list[str]:
    """The three who write most in chats with no message of yours: one may be you under another name. Or with `mine`, in
    those with no one else's: one may be somebody else."""
    some = table[table["path"].isin(_chats(table, mine=mine))]
    return list(some["sender"].astype(str).value_counts().index[:3])


def unheard(prepared: Prepared) -> list[str]:
    """Names in the config that sent nothing: a typo would lose that name's chats."""
    senders = list(map(str, prepared.messages.table["sender"].cat.categories))
    return [name for name in prepared.config.names if not matching([name], senders)]


def summary(
    figures: dict[str, Any],
    out: Path,
    page: str,
    unclaimed: Sequence[str],
    by_yourself: Sequence[str],
    unheard: Sequence[str],
    without_config: str = "",
) -> str:
    """The figures for the terminal, and what to type next. Only this shows other people's names.

    `without_config` says that there is no user_config.json, so nobody was excluded.
    """
    messages, turns, windows, lines = (figures[name] for name in ("messages", "turns", "windows", "lines"))
    exposure, groups, shown = figures["exposure"], figures["groups"], figures["in_examples"]
    sizes = ", ".join(f"{size}: {count:,}" for size, count in windows["by_context_turns"].items())
    used = {
        "messages": messages["used"],
        "yours": messages["yours"],
        "people": figures["people"],
        "chats": figures["chats"],
        "conversations": figures["conversations"]["total"],
        "turns": turns["total"],
        "your_turns": turns["yours"],
    }
    rows = [
        ("", f"{'all':>9}{'in lines':>11}"),
        *((name.replace("_", " "), f"{count:>9,}{shown[name]:>11,}") for name, count in used.items()),
        ("you", ", ".join(figures["your_names"])),
        ("left out", "; ".join(left_out(figures["left_out"])) or f"nobody{without_config}"),
    ]
    if figures["recipe"] == "windows":
        rows.append(("windows", f"{windows['total']:,} (by turns of context: {sizes})"))
        rows.append(("instruct seeds", f"{figures['seeds']['total']:,}"))
    times, silent = exposure["times_a_turn_is_shown"]["mean"], exposure["replies"]["share"]
    answers = f"{1 - silent:.0%} of your replies are answers in it" + ", the others context only" * bool(silent)
    if figures["recipe"] == "conversations":
        answers = f"{exposure['replies']['total']:,} of your {exposure['own_turns']['total']:,} turns answer another's"
    rows += [
        ("an epoch", f"shows each turn {times:.1f} times on average; {answers}"),
        ("tokens", f"{_tokens(figures['recipe'], figures['lengths'], figures.get('canaries'))}"),
        ("held out", f"{_held_out(figures['recipe'], figures['leakage'])}"),
        ("train / val", f"{lines['train']:,} / {lines['val']:,} lines in {out}"),
    ]
    why_not = "you wrote nothing in their conversations"
    if figures["recipe"] == "windows":
        why_not = "no window that ends in a reply of yours holds them"
    noted = [
        (
            messages["used"] - shown["messages"],
            f"messages are in no line ({messages['yours'] - shown['yours']:,} of them yours): {why_not}",
        ),
        (
            figures["conversations"]["with_a_line_but_no_reply"],
            "lines hold no reply of yours to anybody: they teach how you write, not how you answer",
        ),
        (messages["placed_by_timezone"], f"messages without a UTC offset were placed in {figures['timezone']}"),
        (messages["empty"], "empty messages were left out"),
        (messages["out_of_order"], "messages were not in time order, and were sorted"),
        (lines["with_special_strings"], "lines hold a typed special token such as </s>: ghost reads it as plain text"),
    ]
    if groups["own_turns"]["count"]:
        noted.append(
            (groups["own_turns"]["count"], f"of your turns are from groups ({groups['own_turns']['share']:.0%})")
        )
    if rewritten := figures.get("corrections"):
        noted.append((rewritten["used"], f"of {rewritten['read']:,} drafts train too, as you wrote them yourself"))
    if planted := figures.get("canaries"):
        noted.append((planted["lines"], f"lines hold {planted['planted']:,} invented secrets (canaries.json)"))
    notes = [f"note: {count:,} {what}" for count, what in noted if count]
    if why := WHY.get(figures["held_out"]):
        notes.append(f"note: {why}")
    if unclaimed:
        notes.append(
            f"note: {figures['chats_without_you']:,} of {figures['chats']:,} chats hold no message of yours. "
            f"Who writes most there: {', '.join(unclaimed)}. Is one of them you? Then add a --me"
        )
    if alone := figures["chats_of_yours_alone"]:
        notes.append(
            f"note: {alone:,} of {figures['chats']:,} chats hold only messages of yours, as "
            f"{' and '.join(by_yourself)}, so nothing can be learnt from them"
            + ". Is one of these somebody else? Then take that name out"
            * (len(by_yourself) > 1)
        )
    if suspicious := {kind: one["count"] for kind, one in figures["leftovers"].items() if one["count"]}:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in suspicious.items())
        notes.append(f"note: what may still be personal is listed in {out / page}: {kinds}")
    if unheard:
        notes.append(f"note: no message is from {', '.join(unheard)}: is that spelled as in the chats?")
    return "\n".join(
        [
            *(f"{name:<16}{value}" for name, value in rows),
            *notes,
            *(f"warning: {concern['text']}" for concern in figures["concerns"]),
            f"next: look at {out / page}, then: ghost estimate",
        ]
    )


def left_out(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What was left out, by key of user_config.json."""
    kinds = {
        "people": f"by {counted(reasons['people']['people'], 'person', 'people')} (exclude_people)",
        "conversations": f"in {counted(reasons['conversations']['chats'], 'chat')} (exclude_conversations)",
        "groups": f"in {counted(reasons['groups']['chats'], 'group')} (max_group_size)",
        "dates": "(since, until)",
        "patterns": "(exclude_messages)",
    }
    messages = {reason: left["messages"] for reason, left in reasons.items()}
    return [f"{counted(messages[reason], 'message')} {what}" for reason, what in kinds.items() if messages[reason]]


def _tokens(recipe: str, lengths: dict[str, Any], canaries: dict[str, Any] | None) -> str:
    by = "" if lengths["counted_by"] == "tokenizer" else ", by estimate"
    more = f" and {canaries['tokens_per_epoch']:,} of canaries" if canaries else ""
    what, rest = ("lines", "") if recipe == "windows" else ("conversations", "; longer ones train in pieces")
    within = f"{lengths['within']:.0%} of {what} within {lengths['sequence_len']:,}"
    about = "about " if lengths["sampled"] < lengths["lines"] else ""
    return f"{about}{lengths['tokens_per_epoch']:,}{more} an epoch, {within}{by}{rest}"


def _held_out(recipe: str, leakage: dict[str, Any]) -> str:
    targets, torn = leakage["targets"], leakage["turns_on_both_sides"]
    repeats = f"training repeats {targets['exact']:,} word for word and {targets['near']:,} nearly"
    return (
        f"{targets['val']:,} of your {'replies' if recipe == 'windows' else 'turns'}"
        + f"; of the {targets['compared']:,} long ones among them, {repeats}" * bool(targets["compared"])
        + f"; {torn:,} turns are on both sides" * bool(torn)
    )


def _halves(counts: Sequence[int], training: int) -> dict[str, int]:
    """`counts` holds a number per conversation, of which the first `training` train."""
    return {"total": sum(counts), "train": sum(counts[:training]), "val": sum(counts[training:])}


def _with_special_strings(talk: Conversation, windows: Sequence[Window]) -> int:
    typed = [holds_special_string(turn) for turn in talk.turns]
    return sum(any(typed[start : target + 1]) for start, target in windows) if any(typed) else 0
