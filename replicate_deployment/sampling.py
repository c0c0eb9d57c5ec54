"""Sample the next token id from its scores, on the device that computed them.

Apply our own repetition penalty, which exempts the tokens of the format, then transformers' score processors in the
order of its `generate`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .settings import Settings


class Sampler:
    """Call with the scores (vocabulary,) of the next token; returns its id (1,) on the same device.

    A seed fixes one random number per token, drawn on the CPU, which selects from the cumulative probabilities. So a
    seed gives the same ids on every device, unless rounding changes a choice.

    The penalty is that of CTRL (Keskar et al. 2019, https://arxiv.org/abs/1909.05858): the score of a token already
    seen, in the prompt too, is divided by the penalty if positive and multiplied if negative.
    """

    def __init__(
        self, settings: Settings, prompt_ids: Sequence[int], penalty_exempt: Iterable[int], seed: int | None, like: Any
    ) -> None:
        """`penalty_exempt`: ids that the penalty never applies to; `like`: a tensor shaped like the scores to come."""
        self._settings = settings
        self._processors = _processors(settings)
        # A mask on the device; a list of ids would be copied to it for every token.
        self._penalizable = torch.ones(like.shape, dtype=torch.bool, device=like.device)
        self._penalizable[list(penalty_exempt)] = False
        seen = torch.zeros_like(self._penalizable)
        seen[torch.tensor(prompt_ids, dtype=torch.long, device=like.device)] = True
        self._penalized = seen & self._penalizable
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
        drawn: Any = torch.rand(settings.max_new_tokens, generator=generator, dtype=torch.float64)
        self._drawn = iter(drawn.to(like.device).split(1))

    @torch.inference_mode()
    def __call__(self, scores: Any) -> Any:
        scores, penalty = scores.float(), self._settings.repetition_penalty
        if penalty != 1:
            scores = torch.where(self._penalized, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        scores = self._processors(None, scores[None])[0]
        if self._settings.temperature == 0:
            token = scores.argmax(keepdim=True)
        else:
            # The first id whose cumulative probability exceeds the number, so never one of probability zero.
            cumulative = scores.softmax(-1).double().cumsum(-1)
            token = torch.searchsorted(cumulative, next(self._drawn) * cumulative[-1], right=True)
            token = token.clamp(max=len(scores) - 1)
        self._penalized[token] = self._penalizable[token]
        return token


def _processors(settings: Settings) -> Any:
    from transformers.generation import logits_process

    processors = logits_process.LogitsProcessorList()
    if settings.temperature != 0:
        processors.append(logits_process.TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k > 0:
            processors.append(logits_process.TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            processors.append(logits_process.TopPLogitsWarper(settings.top_p))
    return processors
