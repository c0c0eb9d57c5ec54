"""`ghost push`: a merged model to a private repo on the Hub, compared there file by file, and tagged."""

import argparse
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from ghost.console import console, progress
from ghost.errors import HubError, UsageError
from ghost.hub import leaking, transfer
from ghost.hub.client import Head, Hub, connect, kept
from ghost.hub.transfer import Entry
from replicate_deployment import ghost_json
from replicate_deployment.ghost_json import GUARDED_SUFFIXES, Ghost

# The model card: what a person should know before they talk to this, from ghost.json. No content of any chat.

CARD_TEMPLATE = Path(__file__).parent / "card.md"
UNKNOWN = "not on record"
# Of the resolved configuration: what the recipe is, not where files lie on somebody's disk.
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
    """The card of a merged model as Markdown with the Hub's YAML header; `licence` is the base's, as the Hub has it."""
    base = ghost.facts.get("base") or {}
    name = str(base.get("repo") or UNKNOWN)
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if on_the_hub(base):
        metadata |= {"base_model": name, "base_model_relation": "finetune"}
    if licence and licence != "other":  # which says nothing without a name and a link
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
    """Whether a base is a repo that others can look up, rather than a folder on somebody's disk."""
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
    """Figures and short words only: a text of any length, a list or a block has no place in a card."""
    lines = ["| | |", "|---|---|"]
    for key, value in figures.items():
        if isinstance(value, bool | int | float) or (isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,40}", value)):
            shown = f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)
            lines.append(f"| {key.replace('_', ' ')} | {shown} |")
    return "\n".join(lines) if len(lines) > 2 else f"{UNKNOWN.capitalize()}."


MEGABYTE = 10**6
SMALL = 100_000  # bytes; what is smaller travels within the commit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="a merged model, as in models/merged")
    parser.add_argument("repo", metavar="USER/REPO", help="made private if it is not there yet")
    parser.add_argument("--tag", help="what to call this version (default: v1, v2, …)")
    parser.add_argument(
        "--public",
        metavar="USER/REPO",
        help="push even though the repo is public, where everybody can read it: say its name a second time",
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FILE",
        help="what `ghost evaluate` wrote; if it is of this model, what it says of leaks counts (default: "
        f"{leaking.EVALUATION}, if it is there)",
    )
    parser.add_argument(
        "--despite-leaks",
        metavar="USER/REPO",
        help="push even though the evaluation found leaks above their limits: say the repo's name a second time",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    if args.public not in (None, args.repo):
        raise UsageError(
            f"--public {args.public}: to push to a public repo, say its name twice; the other is {args.repo}"
        )
    if args.despite_leaks not in (None, args.repo):
        raise UsageError(
            f"--despite-leaks {args.despite_leaks}: to push what leaks, say the repo's name twice; the other is "
            f"{args.repo}"
        )
    if args.evaluation is not None and not args.evaluation.is_file():
        raise UsageError(
            f"--evaluation {args.evaluation}: no such file; write one: ghost evaluate {args.model}, or push without it"
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
    ghost = ghost_json.read(args.model)
    transfer.listed(ghost)
    leaks = leaking.above_limit(evaluation, ghost)
    if args.despite_leaks is None:
        leaking.refuse(leaks or [], evaluation, again, args.repo)
    hub = connect(args.repo, again, lambda line: None if args.json else console.print(line, soft_wrap=True))
    if leaks is None:
        hub.say(f"note: what it gives away was not looked at; to do so first: ghost evaluate {args.model}")
    with kept(again, str(args.model)):
        with progress("hashing"):
            ghost_json.verify(ghost)
        pushed = push(hub, ghost, tag=args.tag, public=args.public is not None)
    print(json.dumps(pushed.__dict__, indent=2)) if args.json else console.print(pushed.told(hub), soft_wrap=True)
    return 0


@dataclass(frozen=True)
class Pushed:
    repo: str
    url: str
    private: bool
    commit: str
    tag: str
    files: int
    bytes: int
    uploaded: list[str]
    ghost_json_sha256: str

    def told(self, hub: Hub) -> str:
        was = f"{len(self.uploaded)} uploaded, {self.files - len(self.uploaded)} were there"
        return (
            f"{self.url}, {'private' if self.private else 'PUBLIC'}: {self.files} files, "
            f"{self.bytes / 1e9:.2f} GB ({was}); every size and hash there is the one here\n"
            f"version {self.tag} is commit {self.commit}; ghost.json's SHA-256 is {self.ghost_json_sha256}\n"
            f"to have it elsewhere: ghost pull {hub.repo} --revision {self.tag}"
        )


def push(hub: Hub, ghost: Ghost, *, tag: str | None, public: bool) -> Pushed:
    """Upload a verified model. Raises HubError; what has been uploaded by then is not uploaded again."""
    hub.log_in()
    for name in transfer.left_out(ghost):
        hub.say(f"{name}: not in ghost.json, so it stays here")
    gate = Gate(hub, public)
    gate.open()
    files = transfer.entries(ghost, write_card(ghost, hub.repo, licence_of_base(hub, ghost)))
    upload = Upload(hub, gate, files, tag)
    commit = hub.ask(upload.attempt)
    compare(hub, commit, files)
    tag = hub.ask(lambda: _tag(hub, commit, tag))
    head = hub.ask(gate.head)  # it may have been opened to all meanwhile: that would be news
    return Pushed(
        repo=hub.repo,
        url=hub.page,
        private=head.private,
        commit=commit,
        tag=tag,
        files=len(files),
        bytes=sum(entry.size for entry in files),
        uploaded=sorted(upload.sent),
        ghost_json_sha256=next(entry.sha256 for entry in files if entry.name == ghost_json.NAME),
    )


@dataclass(frozen=True)
class Gate:
    """No byte of a model passes before the Hub has said that the repo is private; nor any, once it says otherwise."""

    hub: Hub
    public: bool

    def open(self) -> None:
        """Make the repo unless it is there. Raises HubError when it may not be made, or is public and may not be."""
        if not self.hub.ask(self._is_there):
            # Its answer may be lost, and the repo be there all the same; what counts is what is seen afterwards.
            self.hub.ask(lambda: self.hub.api.create_repo(self.hub.repo, private=True, exist_ok=True))
            self.hub.ask(self.head)
            self.hub.say(f"made {self.hub.page}, private")

    def _is_there(self) -> bool:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            self.head()
        except RepositoryNotFoundError:
            return False
        return True

    def head(self) -> Head:
        head = self.hub.head()
        if not head.private and not self.public:
            raise HubError(
                f"{self.hub.page} is public, and everybody could read what it memorised: make it private in its "
                f"settings, or type: {self.hub.again} --public {self.hub.repo}"
            )
        return head


@dataclass
class Upload:
    hub: Hub
    gate: Gate
    files: list[Entry]
    tag: str | None
    sent: set[str] = field(default_factory=set)

    def attempt(self) -> str:
        """Bring what is not there yet; the commit at which all is. Looks before it acts, so it can be done again after
        any fault, also after a commit whose answer was lost."""
        from huggingface_hub import CommitOperationDelete

        head = self.gate.head()
        remote = self.hub.tree(head.commit)
        todo = [entry for entry in self.files if not entry.is_at(remote.get(entry.name))]
        ours = {entry.name for entry in self.files}
        # Shards of an earlier version: whoever loads the folder would load them too, and `ghost pull` refuse them.
        old = sorted(name for name in remote if Path(name).suffix in GUARDED_SUFFIXES and name not in ours)
        if not todo and not old:
            return head.commit
        if self.tag is not None:
            _refuse_taken(self.hub, self.tag)
        additions = []
        with progress("uploading, MB", total=sum(entry.size for entry in todo) // MEGABYTE) as bar:
            for entry in todo:
                reached = 0

                def read_to(position: int, entry: Entry = entry) -> None:
                    nonlocal reached
                    if position > reached:
                        bar.advance((position - reached) / MEGABYTE)
                        reached = position
                        self.sent.add(entry.name)

                bar.describe(f"{entry.name}, MB")
                additions.append(transfer.addition(entry, read_to))
                if entry.size > SMALL:  # one file a call: what is up by then stays up, and a stop waits for nobody
                    self.hub.api.preupload_lfs_files(self.hub.repo, additions[-1:], free_memory=False)
        for name in old:
            self.hub.say(f"{name}: of an earlier version, no longer in this one")
        self.gate.head()  # uploading takes hours, and nobody can read what is uploaded before it is committed
        digest = next(entry.sha256 for entry in self.files if entry.name == ghost_json.NAME)
        done = self.hub.api.create_commit(
            self.hub.repo,
            [*additions, *(CommitOperationDelete(name) for name in old)],
            commit_message=f"Model whose ghost.json has SHA-256 {digest}",
            parent_commit=head.commit,  # so that two who push at once do not mix their files
        )
        self.sent |= {entry.name for entry in todo if isinstance(entry.source, bytes)}
        return done.oid


def compare(hub: Hub, commit: str, files: list[Entry]) -> None:
    """Raises HubError unless the Hub holds every file, with the size and the hash that it has here."""
    remote = hub.ask(lambda: hub.tree(commit))
    wrong = [entry.name for entry in files if not entry.is_at(remote.get(entry.name))]
    if wrong:
        why = "arrived altered" if wrong[0] in remote else "is not there (does a .gitignore in the repo exclude it?)"
        raise HubError(
            f"{hub.repo}: {wrong[0]} {why}; {len(files) - len(wrong)} of {len(files)} files are as they are here, and "
            f"no version was tagged. Go on with: {hub.again}"
        )


def licence_of_base(hub: Hub, ghost: Ghost) -> str | None:
    """What the Hub says of the base's licence. A card without it is better than no push."""
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
    """A tag that is there names another commit than the one to come."""
    if commit := _tags(hub).get(tag):
        raise HubError(f"--tag {tag}: already the name of commit {commit[:12]}; give this version another")


def _tag(hub: Hub, commit: str, tag: str | None) -> str:
    """Tag `commit`, unless it is tagged: as asked, or with the next of v1, v2, …"""
    tags = _tags(hub)
    mine = [name for name, target in tags.items() if target == commit and tag in (None, name)]
    if mine:
        return mine[0]
    numbers = [int(found[1]) for name in tags if (found := re.fullmatch(r"v(\d+)", name))]
    if tag is not None:
        _refuse_taken(hub, tag)
    name = tag or f"v{max(numbers, default=0) + 1}"
    hub.api.create_tag(hub.repo, tag=name, revision=commit)
    if _tags(hub).get(name) != commit:  # huggingface_hub does not read the answer: any page would do
        raise HubError(f"{hub.repo}: all files are there, but not the tag {name}; type again: {hub.again}")
    return name
