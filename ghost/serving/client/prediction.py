"""What a server tells about one prediction, and what every server of predictions can do."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from serving.client.transport import reason
from training.errors import PredictionFailed, ServerError

if TYPE_CHECKING:
    import httpx2

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
STREAM_SECONDS = 1800  # a stream is read by a person, who may stop it


@dataclass(frozen=True)
class Prediction:
    """One prediction, as the server last told it."""

    id: str
    status: Status
    output: str = ""  # the pieces so far, joined
    error: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """As told: predict_time and time_to_first_token in seconds, input_tokens, output_tokens, ended_by_itself (0, 1)."""
    urls: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""  # this and the next two: ISO 8601, Replicate only
    started_at: str = ""
    completed_at: str = ""
    data_removed: bool = False  # Replicate deletes inputs and outputs after an hour

    @property
    def done(self) -> bool:
        return self.status not in ("starting", "processing")


class Backend(ABC):
    """A server of predictions. An async context manager; every call raises a ServerError of training/errors.py."""

    http: "httpx2.AsyncClient"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    @abstractmethod
    async def get(self, id: str) -> Prediction:
        """Its present state."""

    @abstractmethod
    async def cancel(self, id: str) -> None:
        """Stop it, if it still runs; no error if it does not."""

    @abstractmethod
    def states(self, inputs: Mapping[str, Any], seconds: float) -> AsyncGenerator[Prediction, None]:
        """Send the inputs, once, and yield the prediction each time more of it is known; the last one is done.

        Closing the iterator before its end cancels the prediction. When what became of the inputs is not known this
        raises PredictionLost. A server that can end a prediction by itself is told to after `seconds`.
        """

    async def stream(self, inputs: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """The reply's pieces as they come. Closing the iterator before its end cancels the prediction.

        Raises PredictionFailed when it ends in another way than "succeeded", or with another text than the pieces'.
        """
        said, prediction = "", None
        async with aclosing(self.states(inputs, STREAM_SECONDS)) as states:
            async for prediction in states:
                if prediction.output.startswith(said) and (piece := prediction.output[len(said) :]):
                    said += piece
                    yield piece
        ended = check(prediction, inputs)
        # Line ends aside, which an event stream does not keep. What was yielded cannot be taken back.
        if not ended.data_removed and said.splitlines() != ended.output.splitlines():
            raise PredictionFailed(f"prediction {ended.id}: what was streamed is not its output", ended)

    async def answer(self, inputs: Mapping[str, Any], *, seconds: float = 300) -> Prediction:
        """The prediction, once it has succeeded.

        Raises PredictionFailed when it ends in another way, or runs longer than `seconds` and is therefore canceled.
        """
        deadline = time.monotonic() + seconds
        async with aclosing(self.states(inputs, seconds)) as states:
            prediction = await anext(states)  # not cut short: what was sent and not answered could not be canceled
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    async for later in states:
                        prediction = later
            except TimeoutError as error:
                raise PredictionFailed(f"no reply within {seconds:g} s: canceled", prediction) from error
        return check(prediction, inputs)


def read(answer: Mapping[str, Any]) -> Prediction:
    """The prediction object of a server's JSON. Raises ServerError when it is none."""
    status, id = answer.get("status"), answer.get("id")
    if status not in get_args(Status) or not isinstance(id, str):
        raise ServerError(f"the server answers with something else than a prediction (status {status!r:.40})")
    return Prediction(
        id,
        cast(Status, status),
        joined(answer.get("output")),
        answer.get("error") or None,
        {name: value for name, value in (answer.get("metrics") or {}).items() if isinstance(value, int | float)},
        {name: url for name, url in (answer.get("urls") or {}).items() if isinstance(url, str)},
        answer.get("created_at") or "",
        answer.get("started_at") or "",
        answer.get("completed_at") or "",
        bool(answer.get("data_removed")),
    )


def joined(output: Any) -> str:
    """Servers tell an iterator's output as a list, and no output as null."""
    return "".join(map(str, output)) if isinstance(output, list) else str(output or "")


def check(prediction: Prediction | None, inputs: Mapping[str, Any]) -> Prediction:
    """The prediction, if it succeeded. Raises PredictionFailed with the server's reason."""
    if prediction is None or prediction.status != "succeeded":
        status = prediction.status if prediction else "lost"
        why = prediction.error if prediction else None
        raise PredictionFailed(reason(why, inputs) if why else f"the prediction was {status}", prediction)
    return prediction
