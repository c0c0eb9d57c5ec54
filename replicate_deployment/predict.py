"""The Cog interface to the engine.

Cog's builder reads the inputs without running this file, so their defaults and ranges must be literals, and each
description one plain string. A test checks the ranges against settings.py. Inputs left out default to the sampling
settings in the model's ghost.json.
"""

import getpass
import importlib.util
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cog import BaseRunner, ConcatenateIterator, Input, streaming

HERE = Path(__file__).resolve().parent

# In the repository this folder is the package `replicate_deployment`. In Cog's container its files are directly in
# /src, so build the package from there; relative imports then work in both places.
if importlib.util.find_spec("replicate_deployment") is None:
    spec = importlib.util.spec_from_file_location(
        "replicate_deployment", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{HERE / '__init__.py'} cannot be imported")
    sys.modules["replicate_deployment"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["replicate_deployment"])

from replicate_deployment.chat_format import Turn, read_prompt  # noqa: E402

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine


class Predictor(BaseRunner):  # type: ignore[misc]  # cog is untyped here
    def setup(self) -> None:
        """Find (see fetching.py), verify and load the weights, and generate one short reply before reporting READY."""
        logging.basicConfig(format="%(message)s")
        logging.getLogger("ghost").setLevel(logging.INFO)
        self.engine = self.load()
        hello = [Turn(self.engine.labels.other, "hey")]
        "".join(self.engine.reply(hello, self.engine.settings.replace(max_new_tokens=8)))

    def load(self) -> "Engine":
        try:
            getpass.getuser()
        except (KeyError, OSError):  # the image runs as a user without a name, after whom torch would name a folder
            os.environ["USER"] = str(os.getuid())
        # Imported here because reading the inputs must not need torch.
        from replicate_deployment.engine import Engine
        from replicate_deployment.fetching import switch, weights_folder

        folder = weights_folder(HERE / "weights", os.environ)
        return Engine.load(folder, load_in_4bit=switch(os.environ, "GHOST_LOAD_IN_4BIT"))

    @streaming  # type: ignore[untyped-decorator]
    def run(
        self,
        prompt: str = Input(
            description="A message, or a history whose turns start with a label (B: hi), ending with a B: turn."
        ),
        max_new_tokens: int | None = Input(
            default=None,
            ge=1,
            le=1024,
            description="Cut the reply after this many tokens. Leave out for the model's default.",
        ),
        temperature: float | None = Input(
            default=None,
            ge=0,
            le=2,
            description="0 always takes the likeliest token; higher varies more. Leave out for the model's default.",
        ),
        top_p: float | None = Input(
            default=None,
            ge=0,
            le=1,
            description="Sample from the likeliest tokens of this total probability. Leave out for the default.",
        ),
        top_k: int | None = Input(
            default=None,
            ge=0,
            le=1000,
            description="Sample from this many likeliest tokens; 0 is off. Leave out for the model's default.",
        ),
        repetition_penalty: float | None = Input(
            default=None,
            ge=1,
            le=2,
            description="Make tokens already seen less likely; 1 is off. Leave out for the model's default.",
        ),
        stop_sequences: list[str] = Input(
            default=[], description="Extra texts that end the reply and are cut from it; the model's own always apply."
        ),
        seed: int | None = Input(
            default=None,
            ge=0,
            le=4294967295,
            description="The same seed gives the same reply. Leave out for a random one.",
        ),
    ) -> ConcatenateIterator[str]:
        started = time.monotonic()
        given = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": repetition_penalty,
        }
        settings = self.engine.settings.replace(**{name: value for name, value in given.items() if value is not None})
        turns = read_prompt(prompt, self.engine.labels)
        reply = self.engine.reply(turns, settings, stop_sequences=stop_sequences, seed=seed)
        yield from reply
        self.record_metric("input_tokens", reply.prompt_tokens)
        self.record_metric("output_tokens", reply.output_tokens)
        if reply.first_token_at is not None:
            self.record_metric("time_to_first_token", reply.first_token_at - started)
        self.record_metric("ended_by_itself", int(reply.finish_reason == "end_token"))
        self.record_metric("ended_by_stop_sequence", int(reply.finish_reason == "stop_sequence"))
