"""`ghost push`: upload a merged model to a private repo on the Hub, compare every file there, and tag the version."""

import argparse
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from ghost.console import console, progress
from ghost.errors import HubError, UsageError
from ghost.hub import leaking, transfer
from ghost.hub.client import Head, Hub, connect, resumable
from ghost.hub.transfer import MEGABYTE, Entry
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import Ghost

# The model card, filled from ghost.json: what to know before talking to the model. No content of any chat.

CARD_TEMPLATE = Path(__file__).parent / "card.md"
UNKNOWN = "not on record"
# The configuration values shown: those that define the recipe, no paths on somebody's disk.
RECIPE = (
    "sequence_len",
    "num_epochs",
    "learning_rate",
    "lr_scheduler",
    "micro_batch_size",
    "gradient_accumulation_steps",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "train_on_inputs",
)


def write_card(ghost: Ghost, repo: str, licence: str | None) -> str:
    """The model card as Markdown with the Hub's YAML header; `licence` is the base's, from the Hub."""
    base = ghost.facts.get("base") or {}
    name = str(base.get("repo") or UNKNOWN)
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if on_the_hub(base):
        metadata |= {"base_model": name, "base_model_relation": "finetune"}
    if licence and licence != "other":  # "other" would need a name and a link
        metadata["license"] = licence
    return Template(CARD_TEMPLATE.read_text(encoding="utf-8")).substitute(
        metadata=yaml.safe_dump(metadata | {"tags": ["ghost-in-the-shell"]}, sort_keys=False),
        name=repo.split("/")[1],
        base=f"[{name}](https://huggingface.co/{name})" if on_the_hub(base) else name,
        revision=f"revision {base.get('revision') or UNKNOWN}",
        license=licence or f"{UNKNOWN}; look at the base",
        me=ghost.labels.me,
        other=ghost.labels.other,
        data=_table((ghost.facts.get("data") or {}).get("counts") or {}),
        training=_table(_training(ghost)),
        merge=_table(_merge(ghost)),
    )


def on_the_hub(base: Mapping[str, Any]) -> bool:
    """Whether a base is a repo that others can look up, rather than a local folder."""
    commit = re.fullmatch(r"[0-9a-f]{40}", str(base.get("revision")))
    return bool(commit and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(base.get("repo"))))


def _training(ghost: Ghost) -> dict[str, Any]:
    training = ghost.facts.get("training") or {}
    config, heldout = training.get("config") or {}, training.get("heldout") or {}
    figures = {"recipe": ghost.facts["text"].get("recipe")} | {key: config.get(key) for key in RECIPE}
    figures |= {"steps": training.get("steps"), "step kept": training.get("kept_step")}
    for when in ("before", "after"):
        measured = heldout.get(when) or {}
        figures[f"held-out loss {when}, nats a token"] = measured.get("loss")
        figures[f"held-out loss {when}, replies alone"] = measured.get("reply_loss")
    return figures


def _merge(ghost: Ghost) -> dict[str, Any]:
    merge = ghost.facts["merge"]
    parity = merge.get("parity") or {}
    return {"dtype": merge.get("dtype"), "onto the base's weights": merge.get("base_weights")} | {
        f"parity: {key}": value for key, value in parity.items()
    }


def _table(figures: Mapping[str, Any]) -> str:
    """A table of numbers and short words. Long texts, lists and blocks are left out."""
    lines = ["| | |", "|---|---|"]
    for key, value in figures.items():
        if isinstance(value, bool | int | float) or (isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,40}", value)):
            shown = f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) if len(lines) > 2 else f"{UNKNOWN.capitalize()}."


SMALL = 100_000  # bytes; smaller files are sent within the commit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a merged model, as in models/merged")
    parser.add_argument("repo", metavar="USER/REPO", help="created as private if it does not exist")
    parser.add_argument("--tag", help="name of this version (default: v1, v2, …)")
    parser.add_argument(
        "--public",
        metavar="USER/REPO",
        help="push even though the repo is public, where everybody can read it; repeat the repo's name",
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="report of `ghost evaluate`; leaks it lists for this model block the push (default: "
        f"{leaking.EVALUATION}, if it exists)",
    )
    parser.add_argument(
        "--despite-leaks",
        metavar="USER/REPO",
        help="push even though the evaluation found leaks above their limits; repeat the repo's name",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    if args.public not in (None, args.repo):
        raise UsageError(f"--public {args.public}: to push to a public repo, repeat its name; the repo is {args.repo}")
    if args.despite_leaks not in (None, args.repo):
        raise UsageError(
            f"--despite-leaks {args.despite_leaks}: to push a model that leaks, repeat the repo's name; the repo is "
            f"{args.repo}"
        )
    if args.evaluation is not None and not args.evaluation.is_file():
        raise UsageError(
            f"--evaluation {args.evaluation}: no such file; create it: ghost evaluate {args.model}, or push without it"
        )
    evaluation = args.evaluation or leaking.EVALUATION
    given = {
        "--tag": args.tag,
        "--public": args.public,
        "--despite-leaks": args.despite_leaks,
        "--evaluation": args.evaluation,
    }
    flags = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    again = shlex.join(["ghost", "push", str(args.model), args.repo, *flags, *(["--json"] if args.json else [])])
    ghost = ghost_json.read_merged(args.model)
    leaks = leaking.above_limit(evaluation, ghost)
    if args.despite_leaks is None:
        leaking.refuse(leaks or [], evaluation, again, args.repo)
    hub = connect(args.repo, again, lambda line: None if args.json else console.print(line))
    if leaks is None:
        hub.say(f"note: this model was not checked for leaks; to check it first: ghost evaluate {args.model}")
    with resumable(again, str(args.model)):
        with progress("hashing"):
            ghost_json.verify(ghost)
        pushed = push(hub, ghost, tag=args.tag, public=args.public is not None)
    print(json.dumps(pushed, indent=2)) if args.json else console.print(summary(pushed))
    return 0


def summary(pushed: dict[str, Any]) -> str:
    files, sent = pushed["files"], len(pushed["uploaded"])
    return (
        f"{pushed['url']}, {'private' if pushed['private'] else 'PUBLIC'}: {files} files, "
        f"{pushed['bytes'] / 1e9:.2f} GB ({sent} uploaded, {files - sent} already there); every size and hash matches "
        f"the local file\nversion {pushed['tag']} is commit {pushed['commit']}; ghost.json has SHA-256 "
        f"{pushed['ghost_json_sha256']}\nto download it: ghost pull {pushed['repo']} --revision {pushed['tag']}"
    )


def push(hub: Hub, ghost: Ghost, *, tag: str | None, public: bool) -> dict[str, Any]:
    """Upload a verified model; return facts for the user. Raises HubError; the next call does not upload finished files
    again."""
    hub.log_in()
    for name in transfer.left_out(ghost):
        hub.say(f"{name}: not in ghost.json, so it is not uploaded")
    create(hub, public)
    files = transfer.entries(ghost, write_card(ghost, hub.repo, licence_of_base(hub, ghost)))
    sent: set[str] = set()
    commit = hub.ask(lambda: upload(hub, public, files, tag, sent))
    compare(hub, commit, files)
    tag = hub.ask(lambda: _tag(hub, commit, tag))
    head = hub.ask(lambda: private_head(hub, public))  # report it if the repo was made public meanwhile
    return {
        "repo": hub.repo,
        "url": hub.page,
        "private": head.private,
        "commit": commit,
        "tag": tag,
        "files": len(files),
        "bytes": sum(entry.size for entry in files),
        "uploaded": sorted(sent),
        "ghost_json_sha256": next(entry.sha256 for entry in files if entry.name == ghost_json.NAME),
    }


def create(hub: Hub, public: bool) -> None:
    """Create the repo, private, if it does not exist. Raises HubError if that fails, or as `private_head` does."""
    from huggingface_hub.errors import RepositoryNotFoundError

    def is_there() -> bool:
        try:
            private_head(hub, public)
        except RepositoryNotFoundError:
            return False
        return True

    if not hub.ask(is_there):
        # The answer may be lost although the repo was created, so look afterwards.
        hub.ask(lambda: hub.api.create_repo(hub.repo, private=True, exist_ok=True))
        hub.ask(lambda: private_head(hub, public))
        hub.say(f"created {hub.page}, private")


def private_head(hub: Hub, public: bool) -> Head:
    """The head of a private repo. Called before every upload: raises HubError if the repo is public, unless `public`
    allows that."""
    head = hub.head()
    if not head.private and not public:
        raise HubError(
            f"{hub.page} is public, so everybody could read what the model memorised: make it private in its "
            f"settings, or type: {hub.again} --public {hub.repo}"
        )
    return head


def upload(hub: Hub, public: bool, files: list[Entry], tag: str | None, sent: set[str]) -> str:
    """Upload what is missing; add its names to `sent`, and return the commit that holds everything.

    It checks the repo's state first, so it can be retried after any fault, also after a commit whose answer was lost.
    """
    from huggingface_hub import CommitOperationDelete

    head = private_head(hub, public)
    remote = hub.tree(head.commit)
    todo = [entry for entry in files if not entry.is_at(remote.get(entry.name))]
    ours = {entry.name for entry in files}
    # Shards of an earlier version: loaders would read them too, and `ghost pull` would refuse them.
    old = sorted(name for name in remote if ghost_json.is_guarded(name) and name not in ours)
    if not todo and not old:
        return head.commit
    if tag is not None:
        _refuse_taken(hub, tag)
    additions = []
    with progress("uploading, MB", total=sum(entry.size for entry in todo) // MEGABYTE) as bar:
        for entry in todo:
            reached = 0

            def read_to(position: int, entry: Entry = entry) -> None:
                nonlocal reached
                if position > reached:
                    bar.advance((position - reached) / MEGABYTE)
                    reached = position
                    sent.add(entry.name)

            bar.describe(f"{entry.name}, MB")
            additions.append(transfer.addition(entry, read_to))
            if entry.size > SMALL:  # one file per call: finished files stay uploaded, and a stop takes effect soon
                hub.api.preupload_lfs_files(hub.repo, additions[-1:], free_memory=False)
    for name in old:
        hub.say(f"{name}: removed; it belongs to an earlier version")
    # The upload took hours, and nothing is readable before the commit: check once more.
    private_head(hub, public)
    digest = next(entry.sha256 for entry in files if entry.name == ghost_json.NAME)
    done = hub.api.create_commit(
        hub.repo,
        [*additions, *(CommitOperationDelete(name) for name in old)],
        commit_message=f"Model whose ghost.json has SHA-256 {digest}",
        parent_commit=head.commit,  # so that two concurrent pushes do not mix their files
    )
    sent |= {entry.name for entry in todo if isinstance(entry.source, bytes)}
    return done.oid


def compare(hub: Hub, commit: str, files: list[Entry]) -> None:
    """Raises HubError unless the Hub holds every file with the local size and hash."""
    remote = hub.ask(lambda: hub.tree(commit))
    wrong = [entry.name for entry in files if not entry.is_at(remote.get(entry.name))]
    if wrong:
        why = "was altered on the way" if wrong[0] in remote else "is missing (excluded by the repo's .gitignore?)"
        raise HubError(
            f"{hub.repo}: {wrong[0]} {why}; {len(files) - len(wrong)} of {len(files)} files match, and "
            f"no version was tagged. Continue with: {hub.again}"
        )


def licence_of_base(hub: Hub, ghost: Ghost) -> str | None:
    """The base's licence according to the Hub; None if it cannot be read, so that the push goes on without it."""
    base = ghost.facts.get("base") or {}
    if not on_the_hub(base):
        return None
    asked = Hub(base["repo"], hub.again, hub.say, hub.api, hub.token, hub.user)
    try:
        found = asked.ask(lambda: hub.api.model_info(asked.repo, timeout=60)).card_data
    except HubError:
        return None
    licence = found.get("license") if found else None
    return licence if isinstance(licence, str) and re.fullmatch(r"[\w.-]{1,60}", licence) else None


def _tags(hub: Hub) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in hub.api.list_repo_refs(hub.repo).tags}


def _refuse_taken(hub: Hub, tag: str) -> None:
    """Raises HubError if the tag exists: it names an earlier commit."""
    if commit := _tags(hub).get(tag):
        raise HubError(f"--tag {tag}: already names commit {commit[:12]}; choose another")


def _tag(hub: Hub, commit: str, tag: str | None) -> str:
    """Tag `commit`, unless it has a tag: with `tag`, or the next of v1, v2, …"""
    tags = _tags(hub)
    mine = [name for name, target in tags.items() if target == commit and tag in (None, name)]
    if mine:
        return mine[0]
    numbers = [int(found[1]) for name in tags if (found := re.fullmatch(r"v(\d+)", name))]
    if tag is not None:
        _refuse_taken(hub, tag)
    name = tag or f"v{max(numbers, default=0) + 1}"
    hub.api.create_tag(hub.repo, tag=name, revision=commit)
    if _tags(hub).get(name) != commit:  # huggingface_hub ignores the answer's content
        raise HubError(f"{hub.repo}: all files are uploaded, but the tag {name} is missing; type again: {hub.again}")
    return name
