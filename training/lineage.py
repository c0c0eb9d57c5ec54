"""The finished adapter that a training continues: `ghost prepare --continue` and `ghost train --continue`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ghost.errors import TrainingError
from replicate_deployment import ghost_json, model_folder
from replicate_deployment.chat_format import SILENCE_SECONDS, Labels, Recipe
from replicate_deployment.errors import WeightsError
from training.config import TrainingConfig

WEIGHTS = model_folder.ADAPTER
TIMES = ("first", "last", "end")  # of a Span


@dataclass(frozen=True)
class Span:
    """Held out were the conversations that started from `first` to `last`, both included, in UTC. `end` is the time of
    their last message.

    With `cuts`, `first` is inside of a conversation, whose beginning trained.
    """

    first: datetime
    last: datetime
    cuts: bool
    end: datetime

    def holds(self, time: datetime) -> bool:
        """Whether a reply of this time may be in them: up to half an hour after a message, it belongs to the same
        conversation."""
        return self.first <= time <= self.end + timedelta(seconds=SILENCE_SECONDS)


@dataclass(frozen=True)
class Known:
    """What a data set held out, and when the last of all its conversations started.

    It holds times, not hashes of conversations: times still fit after messages were masked otherwise, a chat was
    renamed or its last conversation went on. And hashes in ghost.json, which travels, would let short messages be
    guessed.
    """

    held_out: Sequence[Span]
    until: datetime

    def to_json(self) -> dict[str, Any]:
        spans = [{**asdict(span), **{key: getattr(span, key).isoformat() for key in TIMES}} for span in self.held_out]
        return {"held_out": spans, "until": self.until.isoformat()}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Known":
        """Raises KeyError, TypeError or ValueError on anything that `to_json` has not written."""
        when = datetime.fromisoformat
        spans = [
            # Earlier versions did not record `end`.
            Span(when(one["first"]), when(one["last"]), bool(one["cuts"]), when(one.get("end", one["last"])))
            for one in found["held_out"]
        ]
        known = cls(spans, when(found["until"]))
        times = (known.until, *(getattr(span, key) for span in spans for key in TIMES))
        if any(time.tzinfo is None for time in times):
            raise ValueError("a time without an offset")
        return known

    @classmethod
    def of(cls, ghost: ghost_json.Ghost) -> "Known | None":
        """What the data of `ghost` held out; None if an earlier version of ghost or another program prepared it. Raises
        TrainingError if the record is damaged."""
        found = (ghost.facts.get("data") or {}).get("known")
        try:
            return None if found is None else cls.from_json(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(f"{ghost.folder / ghost_json.NAME}: data.known is damaged ({error})") from error


@dataclass(frozen=True)
class Parent:
    """A finished adapter."""

    ghost: ghost_json.Ghost

    @classmethod
    def read(cls, folder: Path) -> "Parent":
        """Raises TrainingError, beginning with --continue, if the folder holds none, and says what to name instead."""
        given, whole = f"--continue {folder}", folder.parent / folder.name.removesuffix(".checkpoint")
        finished = whole == folder and (folder / ghost_json.NAME).exists()
        if not finished and (whole.parent / f"{whole.name}.checkpoint").is_dir():
            raise TrainingError(
                f"{given}: this training is not finished; finish it: ghost train --resume --out {whole}"
            )
        try:
            ghost = ghost_json.read(folder)
            if "merge" in ghost.facts:
                raise TrainingError(f"{given}: a merged model; name the adapter that it was merged from")
            if "training" not in ghost.facts:
                raise TrainingError(f"{given}: holds no adapter; name a folder that ghost train wrote")
            ghost_json.verify(ghost)
            ghost.block("data"), ghost.block("base"), model_folder.path_of(folder, WEIGHTS)
        except WeightsError as error:
            raise TrainingError(f"--continue: {error}. Name a folder that ghost train wrote") from error
        return cls(ghost)

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes of its data, by which the data of its successors names it."""
        data = self.ghost.block("data")
        return {key: data[key] for key in ("train_sha256", "val_sha256")}

    @property
    def known(self) -> Known:
        """Raises TrainingError if an earlier version of ghost prepared its data."""
        found = Known.of(self.ghost)
        if found is None:
            raise TrainingError(
                f"--continue {self.ghost.folder}: an earlier version of ghost prepared its data, which did not record "
                "what it held out; train on that same data, or from the start on all chats"
            )
        return found

    @property
    def epochs(self) -> int:
        """The epochs that were planned for it and for all that it continued."""
        training = self.ghost.block("training")
        return int(training["config"]["num_epochs"]) + int(training.get("continues", {}).get("epochs", 0))

    @property
    def lineage(self) -> dict[str, Any]:
        """For ghost.json of its successor: what it was, and what it continued itself."""
        training = self.ghost.block("training")
        older = {"continues": training["continues"]} if "continues" in training else {}
        weights = self.ghost.block("files")[WEIGHTS]["sha256"]
        done = {"steps": training.get("kept_step"), "epochs": self.epochs}
        return {"adapter_sha256": weights, **self.hashes, **done, **older}

    def check_text(self, labels: Labels, recipe: Recipe) -> None:
        """Raises TrainingError if it was trained on text of another form."""
        given = f"--continue {self.ghost.folder}"
        if self.ghost.labels != labels:
            own, other = (f"{one.me} and {one.other}" for one in (self.ghost.labels, labels))
            raise TrainingError(
                f"{given}: trained with the labels {own}, and the data has {other}; train from the start, without "
                "--continue"
            )
        if self.ghost.recipe != recipe:
            raise TrainingError(
                f"{given}: trained with the recipe {self.ghost.recipe}, and the data has {recipe}; type: ghost prepare "
                f"{given} --recipe {self.ghost.recipe}"
            )

    def check_lora(self, config: TrainingConfig) -> None:
        """Raises TrainingError if the config asks for matrices of another shape or scale."""
        trained = self.ghost.block("training")["config"]
        for key in ("lora_r", "lora_alpha", "lora_target_modules"):
            found, now = trained.get(key), getattr(config, key)
            same = sorted(found or ()) == sorted(now) if key == "lora_target_modules" else found == now
            if not same:
                shown = [", ".join(one) if isinstance(one, (list, tuple)) else one for one in (found, now)]
                raise TrainingError(
                    f"--continue {self.ghost.folder}: its {key} is {shown[0]}, that of the config {shown[1]}; take its "
                    f"own config: --config {self.ghost.folder / 'training_config.yaml'}"
                )

    def check_data(self, ghost: ghost_json.Ghost) -> None:
        """Raises TrainingError unless the data is its own, or was prepared to continue it."""
        self.check_text(ghost.labels, ghost.recipe)
        data = ghost.block("data")
        if self.hashes not in (data.get("continues"), {key: data[key] for key in self.hashes}):
            raise TrainingError(
                f"--continue {self.ghost.folder}: {ghost.folder} was not prepared to continue it, so it may train on "
                f"what was held out; type: ghost prepare --continue {self.ghost.folder}"
            )

    def check_base(self, name: str, weights_sha256: str) -> None:
        """Raises TrainingError if it was trained on another base than `name`."""
        base = self.ghost.block("base")
        if base["weights_sha256"] != weights_sha256:
            raise TrainingError(
                f"--continue {self.ghost.folder}: trained on {base['repo']}, and {name} has other weights; name its "
                "own base: --base BASE"
            )
