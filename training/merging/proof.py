"""The proof that a merged model is the one that was trained: both say the same of the same text.

Against base + adapter in float32 the log-probabilities differ only by FP16's rounding of the weights, so their mean
gates. Against the 4-bit base that training saw they also differ by what nf4 rounded, which a merge onto the original
weights undoes on purpose: printed, never gated. Nor is greedy agreement: rounding alone changed 0.2-0.4% of argmaxes
on a toy model.

Both models run a layer at a time, each layer once for all probes, with its weights read from the disk when its turn
comes: the proof of a 7B model needs the memory of its largest matrix, not of the model.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import Tokenizer, encode
from scripts.adapter import Adapter
from scripts.merging import Source
from scripts.names import place
from scripts.skeleton import skeleton, streamed, with_adapter
from scripts.weights import Tensor, Weights, row_blocks
from training.console import progress

LIMIT = 2e-3  # nats


class Difference(NamedTuple):
    """Two models on the same text: log-probabilities of its tokens in nats, and the share of equal argmaxes."""

    mean_abs_logprob: float
    max_abs_logprob: float
    greedy_agreement: float
    tokens: int


def probes(tokenizer: Tokenizer, labels: Labels) -> list[list[int]]:
    """Ids of a few finished conversations: both languages, mixed, accents, emoji, short and long."""
    conversations = [
        ["hey! tu fais quoi ce soir ?", "rien de spécial, je cuisine 🍝"],
        ["did you watch the match yesterday?", "yeah, what a game. I still can't believe that last goal"],
        ["on se voit at the café?", "oui, give me ten minutes", "ok à toute !", "👍"],
        ["ça va mieux depuis hier ?", "un peu, merci\nj'ai dormi douze heures", "tant mieux 😊", "et toi ?"],
        ["can you send me the address", "12 rue des Lilas, second floor, the door on the left after the stairs"],
        ["lol", "mdr"],
    ]
    sides = (labels.other, labels.me)
    texts = [
        render([Turn(sides[number % 2], text) for number, text in enumerate(texts)], labels) for texts in conversations
    ]
    return [encode(tokenizer, text, end=True).ids for text in texts]


class Score(NamedTuple):
    """A model on one probe of n tokens."""

    logprobs: Tensor
    """(n - 1,): of each token after the first, in nats."""
    greedy: Tensor
    """(n - 1,): the likeliest token in its place."""
    following: Tensor
    """(vocabulary,): of the token after the last."""


def difference(one: list[Score], other: list[Score]) -> Difference:
    """Of two models on the same probes."""
    import torch

    distances = torch.cat([(a.logprobs - b.logprobs).abs() for a, b in zip(one, other, strict=True)])
    agreed = torch.cat([a.greedy == b.greedy for a, b in zip(one, other, strict=True)])
    mean, largest = float(distances.mean()), float(distances.max())
    return Difference(mean, largest, float(agreed.double().mean()), len(distances))


def score_merged(folder: Path, probes: list[list[int]]) -> list[Score]:
    """The merged model, from its files."""
    model = skeleton(folder)
    ties = dict(model.all_tied_weights_keys)
    with Weights.of_model(folder) as weights:

        def read(name: str) -> Tensor:
            return _float32(weights, name if name in weights.shapes else ties[name])

        return score(model, probes, read, "merged model")


def score_trained(
    base_folder: Path, base: Source, adapter: Adapter, probes: list[list[int]], label: str
) -> list[Score]:
    """Base and adapter as they were trained, not merged, as peft runs them; with the base's weights from `base`."""
    model = with_adapter(skeleton(base_folder, adapter.vocab_size), adapter.config)
    with adapter.open() as weights:

        def read(name: str) -> Tensor:
            name = place(name)
            if name in adapter.names:
                return _float32(weights, adapter.names[name])
            output = adapter.outputs.get(name) or adapter.outputs[adapter.ties[name]]
            return _float32(weights if output.from_adapter else base, output.source)

        return score(model, probes, read, label)


def score(model: Any, probes: list[list[int]], read: Callable[[str], Tensor], label: str) -> list[Score]:
    """All probes in one batch: each token sees those before it, so what fills up the shorter ones is seen by none."""
    import torch

    longest = max(map(len, probes))
    batch = torch.tensor([ids + [0] * (longest - len(ids)) for ids in probes])
    with progress(label) as bar, torch.inference_mode():

        def told(name: str) -> Tensor:
            bar.advance()
            return read(name)

        with streamed(model, told):
            logits = model(input_ids=batch, use_cache=False).logits
        return [*_scores(logits, batch, [*map(len, probes)])]


def _scores(logits: Tensor, batch: Tensor, lengths: list[int]) -> Iterator[Score]:
    for row, ids, length in zip(logits, batch, lengths, strict=True):
        logprobs = row[:length].float().log_softmax(-1)
        of_tokens = logprobs[:-1].gather(1, ids[1:length, None])[:, 0]
        yield Score(of_tokens, logprobs[:-1].argmax(-1), logprobs[-1].clone())


def _float32(source: Source, name: str) -> Tensor:
    import torch

    shape = source.shapes[name]
    values = torch.empty(shape)
    for start, stop in row_blocks(shape):  # never the whole tensor in two formats
        values[start:stop] = source.rows(name, start, stop)
    return values
