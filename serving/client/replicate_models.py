"""Models of an account on Replicate: is one there, who sees it, and a new one that only its owner sees."""

from contextlib import suppress
from dataclasses import dataclass

from serving.client.replicate_api import ReplicateApi
from training.errors import PredictionLost, ServerError


@dataclass(frozen=True)
class Model:
    name: str  # OWNER/NAME
    visibility: str
    version: str | None  # the latest

    @property
    def private(self) -> bool:
        return self.visibility == "private"


async def find_model(api: ReplicateApi, name: str) -> Model | None:
    """None when there is none that this account sees."""
    answer = await api.get(f"/v1/models/{name}", missing=True)
    if "visibility" not in answer:
        return None
    return Model(name, answer["visibility"], (answer.get("latest_version") or {}).get("id"))


async def create_private(api: ReplicateApi, name: str, hardware: str) -> Model:
    """A new private model that runs on `hardware` (a SKU). Raises ServerError unless Replicate then says it is private.

    What counts is what is seen afterwards: the answer may be lost, and the model be there all the same.
    """
    skus = [row.get("sku", "") for row in await api.get_list("/v1/hardware")]
    if hardware not in skus:
        raise ServerError(f"Replicate has no hardware {hardware!r}; there are {', '.join(skus)}")
    owner, _, short = name.partition("/")
    body = {"owner": owner, "name": short, "visibility": "private", "hardware": hardware}
    with suppress(PredictionLost):
        await api.post_once("/v1/models", body, sent="whether the model was made is looked up", headers={})
    model = await find_model(api, name)
    if model is None:
        raise ServerError(f"Replicate did not make {name}; make it by hand, private, at replicate.com/create")
    if not model.private:
        raise ServerError(f"replicate.com/{name} is {model.visibility}; make it private in its settings")
    return model
