"""The training loss: the weighted negative log-likelihood of a packed row's targets."""

import math
from typing import Any

import torch
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

# Logits computed at once: 128 MB in float32, a thousand targets of Mistral's vocabulary. All targets of 8,192 tokens
# would need 1 GB for the logits and as much again for their gradient.
CHUNK = 1 << 25


class SegmentLoss(torch.nn.Module):
    """A causal language model (a PeftModel around one) with a loss over segments."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, *, weights: torch.Tensor, places: torch.Tensor, labels: torch.Tensor, **inputs: Any
    ) -> torch.Tensor:
        """Return the sum over the targets of weight × negative log-likelihood, in nats: a differentiable float32
        scalar.

        Takes what `packing.flatten` returns. Divide `weights` by the labels of the whole step before.
        """
        causal = self.model.get_base_model()
        hidden = _hidden(causal, inputs)[places]
        with torch.autocast(hidden.device.type, enabled=False):  # autocast would round the sums to bfloat16
            loss: torch.Tensor = _Loss.apply(hidden, causal.lm_head.weight, labels, weights)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def losses(
        self, *, weights: torch.Tensor, places: torch.Tensor, labels: torch.Tensor, **inputs: Any
    ) -> torch.Tensor:
        """Return the unweighted negative log-likelihood of each target, (targets,) float32 nats, without gradient."""
        causal = self.model.get_base_model()
        hidden = _hidden(causal, inputs)[places]
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.cat([_nll(logits, some) for logits, some in _chunks(hidden, causal.lm_head.weight, labels)])


class DistillationLoss(SegmentLoss):
    """The loss of a student beside its teacher, of the same vocabulary, on the same packed rows.

    On the training lines: half the negative log-likelihood of the targets, half KL(teacher ‖ student) over all tokens
    of the row, the cross-entropy with hard and soft targets of Hinton et al. (arXiv:1503.02531). On the student's own
    replies (`own_replies`): the generalised Jensen-Shannon divergence of GKD (arXiv:2306.13649, eq. 1) with β = 1/2.
    """

    own_replies = False

    def __init__(self, model: Any, teacher: Any) -> None:
        super().__init__(model)
        self._teacher = [teacher]  # in a list: it is no part of what is trained, saved or switched to training

    def forward(
        self, *, weights: torch.Tensor, places: torch.Tensor, labels: torch.Tensor, **inputs: Any
    ) -> torch.Tensor:
        causal, teacher = self.model.get_base_model(), self._teacher[0]
        hidden, head = _hidden(causal, inputs), causal.lm_head.weight
        with torch.no_grad():
            teacher_hidden, teacher_head = _hidden(teacher, inputs), teacher.lm_head.weight
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            if not self.own_replies:
                nll = _Loss.apply(hidden[places], head, labels, weights)  # type: ignore[no-untyped-call]
                total = total + nll / 2
                places = torch.arange(len(hidden), device=hidden.device)
                weights = weights.sum().expand(len(hidden)) / (2 * len(hidden))
            for rows in torch.split(torch.arange(len(places), device=hidden.device), max(1, CHUNK // len(head))):
                # Computed again in the backward pass, so that no logits are kept.
                where = places[rows]
                states = hidden[where], head, teacher_hidden[where], teacher_head
                total = total + checkpoint(self._divergence, *states, weights[rows], use_reentrant=False)
        return total

    def _divergence(self, hidden: Any, head: Any, teacher_hidden: Any, teacher_head: Any, weights: Any) -> Any:
        known = min(len(head), len(teacher_head))  # a vocabulary may be padded beyond the tokenizer's ids
        student, teacher = (
            linear(states.to(matrix.dtype), matrix[:known]).float().log_softmax(-1)
            for states, matrix in ((hidden, head), (teacher_hidden, teacher_head))
        )
        return weights @ (jensen_shannon if self.own_replies else divergence)(teacher, student)


def _hidden(causal: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The last hidden states, (tokens, width), of a packed row: `input_ids`, `position_ids` and `lengths`."""
    states: torch.Tensor = causal.model(**inputs, use_cache=False).last_hidden_state[0]
    return states


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) in nats, (rows,), of log-probabilities (rows, vocabulary)."""
    return (p.exp() * (p - q)).sum(-1)


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The Jensen-Shannon divergence in nats, (rows,), of log-probabilities (rows, vocabulary): from 0 to log 2."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return (divergence(p, middle) + divergence(q, middle)) / 2


class _Loss(torch.autograd.Function):
    """Head and cross-entropy fused, a chunk of targets at a time, with the gradient computed in the forward pass.

    The head is frozen, so the only gradient is that of the hidden states: (softmax − one-hot) · head. No logits are
    kept. After Liger Kernel's fused linear cross-entropy (arXiv:2410.10989, section 3.2).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        start = 0
        for logits, some in _chunks(hidden, head, labels):
            rows = slice(start, start + len(some))
            start += len(some)
            total += weights[rows] @ _nll(logits, some)
            logits.sub_(logits.logsumexp(dim=1, keepdim=True)).exp_()
            logits[torch.arange(len(some), device=logits.device), some] -= 1
            gradient[rows] = logits.mul_(weights[rows, None]).to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None


def _chunks(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> Any:
    """Yield (float32 logits, labels), a chunk of targets at a time."""
    size = max(1, CHUNK // len(head))
    for states, some in zip(torch.split(hidden, size), torch.split(labels, size), strict=True):
        yield linear(states.to(head.dtype), head).float(), some


def _nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0]
