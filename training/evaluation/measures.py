"""Every measure: its formula, its range, where it is from, and what it cannot say. docs/evaluation.md is made of this:

python -m training.evaluation.measures > docs/evaluation.md
"""

from typing import NamedTuple


class Measure(NamedTuple):
    name: str
    formula: str
    range: str
    source: str
    cannot_say: str


MEASURES = (
    Measure(
        "loss of replies",
        "Σ −ln p(token | context, tokens before it) over the text of your held-out replies / their tokens. The end "
        "token is apart: Σ −ln p(end | context, reply) / replies",
        "0 … ∞ nats a token; ln(vocabulary) is chance",
        "cross-entropy; `training/evaluation/likelihood.py`",
        "whether what it would say is any good: many replies would be right, and one was written. Models with other "
        "tokenizers cannot be compared by it",
    ),
    Measure(
        "perplexity",
        "exp(loss of replies)",
        "1 … ∞",
        "Jelinek et al. 1977",
        "what the loss cannot",
    ),
    Measure(
        "loss a character",
        "the same sum / characters of the replies",
        "0 … ∞ nats a character",
        "as bits per character, Graves 2013 (arXiv:1308.0850), in nats",
        "how easy the language is to spell: compare within one language",
    ),
    Measure(
        "gain over the base",
        "(Σ nats of the base − Σ nats of the model) / tokens, over the same replies",
        "above 0: likelier than to the base; the interval is of the paired difference",
        "paired bootstrap, Efron & Tibshirani 1993",
        "what was learnt: style, names, or how the format goes",
    ),
    Measure(
        "how replies end",
        "share by end token, by stop sequence, at max_new_tokens; begun as the other side or as "
        "another turn of one's own; empty",
        "0 … 1, Wilson's interval (1927)",
        "counts; `training/evaluation/stopping.py`",
        "whether a reply ended at a good place",
    ),
    Measure(
        "distinct-1, distinct-2",
        "different n-grams of words / n-grams of words, over all replies",
        "0 … 1, falling with the amount of text",
        "Li et al. 2016 (arXiv:1510.03055)",
        "whether what varies makes sense; texts of other lengths cannot be compared",
    ),
    Measure(
        "use of the context",
        "loss of replies after another conversation's context − after their own; and after no context",
        "0: it does not listen; higher is better",
        "`training/evaluation/context.py`",
        "whether it understands: a language or a name in the context is enough to gain",
    ),
    Measure(
        "style",
        "for each of the figures below: the distance of generated replies from yours, as a mean over equal samples; "
        "the floor is the distance of two samples of your own",
        "0 … 1; at the floor there is no difference to be seen",
        "Lin 1991 (Jensen-Shannon), Smirnov 1939; `training/evaluation/style.py`",
        "what nobody counts: irony, warmth, running jokes. Each figure says more below. How many are beyond the floor "
        "tells ghosts apart only near the person: far away nearly all are, however far",
    ),
    Measure(
        "authorship",
        "area under the ROC curve of a classifier of character n-grams that is shown replies it has not learnt from, "
        "yours and the model's, of equal lengths, each different one once",
        "0.5: it cannot tell; 1: it always can",
        "Stamatatos 2013; Mann & Whitney 1947; `training/evaluation/authorship.py`",
        "what gave it away, style or topic, and whether a person would notice",
    ),
    Measure(
        "overlap with training",
        "share of replies with so many characters in a row that training holds; beside it, of your held-out replies",
        "0 … 1",
        "exact matching, after Altschul et al. 1990; `training/evaluation/overlap.py`",
        "whether a run was memorised or is what everybody writes: hence the base rate",
    ),
    Measure(
        "extraction",
        "share of replies that greedy decoding completes to the letter, for 48 characters at most, from their context "
        "and first half; of training, and of held-out ones, which cannot be known",
        "0 … 1, Wilson's interval",
        "Carlini et al. 2023 (arXiv:2202.07646); `training/evaluation/memorisation.py`",
        "that nothing can be extracted: a better prompt may. Replies without a blank near their middle are cut between "
        "two characters, which a tokenizer may not do",
    ),
    Measure(
        "exposure of canaries",
        "log₂ |R| − log₂ rank of a planted secret among all of its form, by likelihood",
        "0 … 8 bits by rank in a sample, to 19.9 extrapolated; 1.4 is chance",
        "Carlini et al. 2019 (arXiv:1802.08232); `training/evaluation/canaries.py`",
        "that a real secret of another form is as exposed",
    ),
    Measure(
        "personal data",
        "different phone numbers, addresses, IBANs, … in the ghost's replies and in how it goes on with begun ones, "
        "but not in the turns before; and how many of them training holds",
        "0 … ∞",
        "the recognisers of `ghost extract`; `training/extraction/privacy`",
        "names and what they do not know the form of; they are not guarantees",
    ),
)


def document() -> str:
    """docs/evaluation.md, whole."""
    from training.evaluation.features import FEATURES

    rows = "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in measure) + " |" for measure in MEASURES)
    features = "\n".join(f"| {one.title} | {one.measure} | {one.cannot_say} |" for one in FEATURES)
    return f"""# What `ghost evaluate` measures

Made of `training/evaluation/measures.py` and `features.py`; a test holds it equal to them.

Everything is asked of replies that training never saw, with the prompt, the sampling and the cut of the engine that
serves. Intervals are of 95%. Those of losses are bootstrapped over conversations, since the replies of one resemble
each other; data that was prepared before `val.about.jsonl` existed does not tell its conversations, and replies are
resampled, as they are where all are of one conversation; so are those of authorship. Intervals of shares (Wilson) take
replies for independent: they are too narrow where a conversation's resemble each other.

| measure | formula | range | source | what it cannot say |
|---|---|---|---|---|
{rows}

## The figures of style

| figure | distance | what it cannot say |
|---|---|---|
{features}
"""


if __name__ == "__main__":
    print(document(), end="")
