"""Which token comes next: scores in, one id out, without leaving the device that computed them.

The penalty is our own, since it spares the format; what follows it are transformers' own score processors, in the
order in which its `generate` applies them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from .settings import Settings


class Sampler:
    """Called with the scores (vocabulary,) of the next token, gives its id (1,), on the scores' device.

    A seed fixes the random numbers and not the ids: they are drawn on the CPU, one for each token, and choose by the
    cumulated probabilities. So a seed means the same on every device, where rounding does not tip a choice.

    The penalty is that of CTRL (Keskar et al. 2019, https://arxiv.org/abs/1909.05858): the score of a token that was
    seen, in the prompt too, is divided by it where positive and multiplied where negative.
    """

    def __init__(
        self, settings: Settings, prompt_ids: Sequence[int], spared: Iterable[int], seed: int | None, like: Any
    ) -> None:
        """`spared` are ids that the penalty never touches; `like` is a tensor of scores, as will be given."""
        self._settings = settings
        self._processors = _processors(settings)
        # Flags rather than a list of ids, which would go to the device anew with every token.
        self._punishable = torch.ones(like.shape, dtype=torch.bool, device=like.device)
        self._punishable[list(spared)] = False
        seen = torch.zeros_like(self._punishable)
        seen[torch.tensor(prompt_ids, dtype=torch.long, device=like.device)] = True
        self._punished = seen & self._punishable
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
            scores = torch.where(self._punished, torch.where(scores < 0, scores * penalty, scores / penalty), scores)
        scores = self._processors(None, scores[None])[0]
        if self._settings.temperature == 0:
            token = scores.argmax(keepdim=True)
        else:
            # The first id whose cumulated probability exceeds the number: one of probability zero never does.
            cumulated = scores.softmax(-1).double().cumsum(-1)
            token = torch.searchsorted(cumulated, next(self._drawn) * cumulated[-1], right=True)
            token = token.clamp(max=len(scores) - 1)
        self._punished[token] = self._punishable[token]
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
