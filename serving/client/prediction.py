"""What a server tells about one prediction, and what every server of predictions can do."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast, get_args

from serving.client.transport import reason
from training.errors import PredictionFailed, ServerError

Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
TERMINAL: frozenset[Status] = frozenset(("succeeded", "failed", "canceled", "aborted"))


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
        return self.status in TERMINAL


class Backend(Protocol):
    """A server of predictions. An async context manager; every call raises a ServerError of training/errors.py."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def create(self, inputs: Mapping[str, Any], *, id: str | None = None) -> Prediction:
        """Send the inputs, once: when what became of them is not known this raises PredictionLost."""

    async def get(self, id: str) -> Prediction:
        """Its present state."""

    async def cancel(self, id: str) -> None:
        """Stop it, if it still runs; no error if it does not."""

    def stream(
        self,
        inputs: Mapping[str, Any],
        *,
        id: str | None = None,
        on_created: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[str, None]:
        """The reply's pieces as they come. Closing the iterator before its end cancels the prediction.

        Raises PredictionFailed when it ends in another way than "succeeded", or with another text than the pieces'.
        """

    async def answer(
        self,
        inputs: Mapping[str, Any],
        *,
        id: str | None = None,
        on_created: Callable[[str], None] | None = None,
        seconds: float = 300,
    ) -> Prediction:
        """Create, wait to the end, and give what succeeded.

        Raises PredictionFailed when it ends in another way, or runs longer than `seconds` and is therefore canceled.
        """


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
