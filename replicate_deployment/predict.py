"""Cog's face on the engine, and nothing else.

Cog's builder reads the inputs without running this file: their defaults and ranges must be literals, and a
description one plain string. A test holds the ranges equal to those of settings.py. What a caller leaves out is as the
model's ghost.json says.
"""

import importlib.util
import logging
import os
import sys
import time
from pathlib import Path

from cog import BaseRunner, ConcatenateIterator, Input, streaming

HERE = Path(__file__).resolve().parent

# In the repository this folder is the package `replicate_deployment`. In Cog's container its files lie flat in /src,
# so the package is put together from there; then every other module keeps its relative imports in both places.
if importlib.util.find_spec("replicate_deployment") is None:
    spec = importlib.util.spec_from_file_location(
        "replicate_deployment", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{HERE / '__init__.py'} cannot be imported")
    sys.modules["replicate_deployment"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["replicate_deployment"])

from replicate_deployment.chat_format import Turn, read_prompt  # noqa: E402


class Predictor(BaseRunner):  # type: ignore[misc]  # cog is untyped here
    def setup(self) -> None:
        """Find, verify and load the weights (fetching.py says which), and answer once: READY means that it can."""
        # Here, for the inputs are read without torch.
        from replicate_deployment.engine import Engine
        from replicate_deployment.fetching import switch, weights_folder

        logging.basicConfig(format="%(message)s")
        logging.getLogger("ghost").setLevel(logging.INFO)
        folder = weights_folder(HERE / "weights", os.environ)
        self.engine = Engine.load(folder, load_in_4bit=switch(os.environ, "GHOST_LOAD_IN_4BIT"))
        hello = [Turn(self.engine.labels.other, "hey")]
        "".join(self.engine.reply(hello, self.engine.settings.replace(max_new_tokens=8)))

    @streaming  # type: ignore[untyped-decorator]
    def run(
        self,
        prompt: str = Input(
            description="A message, or a history whose lines start with the labels (B: hi) and that ends in a B: turn."
        ),
        max_new_tokens: int | None = Input(
            default=None,
            ge=1,
            le=1024,
            description="Cut the reply after this many tokens. Leave out for the model's own.",
        ),
        temperature: float | None = Input(
            default=None, ge=0, le=2, description="0 always takes the likeliest token. Leave out for the model's own."
        ),
        top_p: float | None = Input(
            default=None,
            ge=0,
            le=1,
            description="Choose among the likeliest tokens of this total probability. Leave out for the model's own.",
        ),
        top_k: int | None = Input(
            default=None,
            ge=0,
            le=1000,
            description="Choose among this many likeliest tokens; 0 is off. Leave out for the model's own.",
        ),
        repetition_penalty: float | None = Input(
            default=None,
            ge=1,
            le=2,
            description="Make tokens that were already seen less likely; 1 is off. Leave out for the model's own.",
        ),
        stop_sequences: list[str] = Input(
            default=[], description="More texts that end the reply and are not said; the model's own always do."
        ),
        seed: int | None = Input(
            default=None,
            ge=0,
            le=4294967295,
            description="The same seed gives the same reply. Leave out for a new one.",
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
