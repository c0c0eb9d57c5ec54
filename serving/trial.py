"""One prediction through Replicate after a push: does what lies there answer as the model did at its merge?

What was sent is written beside the models before it is sent, so that a run that was killed is gone on with and a
prediction that costs money is never made twice.
"""

import asyncio
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from replicate_deployment import ghost_json
from replicate_deployment.errors import GhostError
from replicate_deployment.tokenization import load_tokenizer
from serving.client import Prediction, Replicate
from serving.client.transport import reason
from serving.client.webhooks import Receiver
from training.errors import PredictionFailed, PredictionLost, ServerError

FALLBACK_PROMPT = "hey! tu fais quoi ce soir ?"
TOKENS = 48
DIFFERENT = "DIFFERENT"
LOOK_SECONDS = 30  # between two looks while a webhook is expected
# Replicate fails a set-up after 10 minutes; before it, an image of tens of GB is fetched.
TRIAL_SECONDS = 1800
# Dollars a second of hardware that a 7B model fits, as listed on replicate.com/pricing in 2026.
PRICES = {"gpu-l40s": 0.000975, "gpu-a100-large": 0.0014, "gpu-h100": 0.001525, "gpu-t4": 0.000225, "cpu": 0.0001}


@dataclass(frozen=True)
class Sent:
    """The trial that is under way: a small JSON file."""

    model: str
    version: str
    seed: int  # by which it is known in the list of predictions
    sent_at: str
    prediction: str | None = None  # its id, once told

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)


@dataclass(frozen=True)
class Outcome:
    prediction: str
    version: str
    reply: str
    cold_start_seconds: float | None
    predict_seconds: float | None
    time_to_first_token: float | None
    output_tokens: int | None
    tokens_per_second: float | None
    dollars: float | None
    golden: str
    differs: bool  # from what the merge recorded


def read_sent(path: Path) -> Sent | None:
    """Raises ServerError when the file is there and not ours."""
    try:
        return Sent(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ServerError(f"{path}: not the note of a trial; remove it to begin a new one") from error


def inputs(weights: Path, seed: int) -> dict[str, Any]:
    """Greedy, without the penalty: the reply then begins with the golden prompt's likeliest token."""
    try:
        prompt = ghost_json.read(weights).block("golden")["prompt"]
    except GhostError:
        prompt = FALLBACK_PROMPT
    return {"prompt": prompt, "temperature": 0, "repetition_penalty": 1, "max_new_tokens": TOKENS, "seed": seed}


@dataclass(frozen=True)
class Trial:
    """The trial of one version. `note` is where what was sent is written down; it is gone once the trial has ended."""

    replicate: Replicate
    version: str
    weights: Path
    note: Path
    say: Callable[[str], None]
    seconds: float = TRIAL_SECONDS

    async def run(self, webhook: str | None = None, receiver: Receiver | None = None) -> Prediction:
        """The prediction at its end, whichever that is; one that is under way is gone on with.

        With a webhook its URL is given to Replicate, and `receiver` waits for it.
        """
        sent = self._under_way()
        if sent:
            prediction = await self._found(sent)
            self.say(f"going on with prediction {prediction.id}")
        else:
            prediction = await self._sent(webhook)
            self.say(f"prediction {prediction.id}: replicate.com/p/{prediction.id}")
        if receiver and webhook:
            prediction = await self._told(prediction, receiver)
        else:
            prediction = await self.replicate.wait(prediction, seconds=self.seconds)
        self.note.unlink()
        return prediction

    def _under_way(self) -> Sent | None:
        sent = read_sent(self.note)
        if sent and (sent.model, sent.version) != (self.replicate.name, self.version):
            self.say(f"forgetting the trial of {sent.model}:{sent.version[:12]}, which ends by itself")
            return None
        return sent

    async def _sent(self, webhook: str | None) -> Prediction:
        now = datetime.now(UTC).isoformat()
        sent = Sent(self.replicate.name, self.version, secrets.randbits(32), now)
        sent.write(self.note)
        asked = inputs(self.weights, sent.seed)
        try:
            prediction = await self.replicate.create(asked, seconds=self.seconds, webhook=webhook)
        except PredictionLost as error:
            raise PredictionLost(f"{error}. The same command looks for it again, and sends nothing") from error
        except ServerError:
            self.note.unlink()  # refused: nothing runs
            raise
        replace(sent, prediction=prediction.id).write(self.note)
        return prediction

    async def _found(self, sent: Sent) -> Prediction:
        if sent.prediction:
            try:
                return await self.replicate.get(sent.prediction)
            except ServerError as error:
                raise ServerError(f"{error}. To forget this trial and begin another, remove {self.note}") from error
        found = await self.replicate.find({"seed": sent.seed}, datetime.fromisoformat(sent.sent_at))
        if found is None:
            raise PredictionLost(
                f"a trial was sent at {sent.sent_at[:16]} and is not in Replicate's list; if replicate.com/predictions "
                f"does not show it either, remove {self.note} and begin again"
            )
        replace(sent, prediction=found.id).write(self.note)
        return found

    async def _told(self, prediction: Prediction, receiver: Receiver) -> Prediction:
        """By webhook or by looking now and then, whichever is first: a tunnel may be closed."""
        waits = [
            asyncio.ensure_future(receiver.ended(prediction.id)),
            asyncio.ensure_future(self.replicate.wait(prediction, seconds=self.seconds, pause=LOOK_SECONDS)),
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            by_webhook = waits[0] in done
            ended = waits[0 if by_webhook else 1].result()
            self.say("told by webhook, signature verified" if by_webhook else "found by looking; no webhook came")
            return ended
        finally:
            for task in waits:
                task.cancel()


def outcome(prediction: Prediction, version: str, weights: Path, hardware: str) -> Outcome:
    """Raises PredictionFailed when it did not succeed."""
    if prediction.status != "succeeded":
        why = {"aborted": "its time was over before it started", "canceled": "canceled, or its time was over"}
        told = reason(prediction.error) if prediction.error else why.get(prediction.status, prediction.status)
        raise PredictionFailed(
            f"the trial {prediction.status}: {told}; logs: replicate.com/p/{prediction.id}", prediction
        )
    metrics = prediction.metrics
    seconds, tokens = metrics.get("predict_time"), metrics.get("output_tokens")
    online = _between(prediction.created_at, prediction.completed_at)
    price = PRICES.get(hardware)
    compared = (
        "not compared: Replicate has deleted the reply" if prediction.data_removed else golden(prediction, weights)
    )
    return Outcome(
        prediction=prediction.id,
        version=version,
        reply=prediction.output,
        cold_start_seconds=_between(prediction.created_at, prediction.started_at),
        predict_seconds=seconds,
        time_to_first_token=metrics.get("time_to_first_token"),
        output_tokens=None if tokens is None else int(tokens),
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        dollars=online * price if online is not None and price else None,
        golden=compared,
        differs=compared.startswith(DIFFERENT),
    )


def golden(prediction: Prediction, weights: Path) -> str:
    """Whether the reply begins as the merge recorded: the golden prompt's likeliest token, or one level with it.

    Compared as text, since a reply is text: a token that is no whole character, or that ends the reply, says nothing.
    """
    try:
        block = ghost_json.read(weights).block("golden")
        tokenizer = load_tokenizer(weights)
    except GhostError:
        return f"not compared: no model in {weights}"
    except ModuleNotFoundError as error:
        return f"not compared: {error.name} is not installed"
    best = block["next_top5_logprobs"][0][1]
    level = [token for token, logprob in block["next_top5_logprobs"] if best - logprob <= 2 * block["tolerance"]]
    texts = [tokenizer.decode([token], skip_special_tokens=True).strip() for token in level]
    if not all(texts) or any("\ufffd" in text for text in texts):
        return "not compared: the recorded token is no text of its own"
    if prediction.output.strip().startswith(tuple(texts)):
        return "as recorded at the merge"
    return f"{DIFFERENT}: the reply does not begin as the merge recorded; was this model pushed?"


def told(outcome: Outcome, hardware: str) -> list[str]:
    """Lines for a person: the reply, which is what a trial is for, and its figures."""

    def figure(value: float | None, unit: str, digits: int = 1) -> str:
        return "not told" if value is None else f"{value:,.{digits}f}{unit}"

    cost = (
        "not known for this hardware" if outcome.dollars is None else f"${outcome.dollars:.4f} at most, on {hardware}"
    )
    return [
        f"reply          {outcome.reply}",
        f"golden prompt  {outcome.golden}",
        f"cold start     {figure(outcome.cold_start_seconds, ' s')} from created to started",
        f"prediction     {figure(outcome.predict_seconds, ' s', 2)}, first token after "
        f"{figure(outcome.time_to_first_token, ' s', 3)}, {figure(outcome.tokens_per_second, ' tokens/s')}",
        f"cost           {cost}, from created to completed; idling until it is switched off comes on top",
    ]


def _between(start: str, end: str) -> float | None:
    """Seconds between two ISO 8601 instants."""
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except ValueError:
        return None
