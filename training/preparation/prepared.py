"""What preparation has made of the chats, before a line of it is written: handed whole to the report and its page."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from replicate_deployment.chat_format import Labels, Recipe
from training.preparation import recipes
from training.preparation.split import HeldOut, split
from training.preparation.windows import Examples
from training.speakers import Mine, UserConfig

if TYPE_CHECKING:
    from collections.abc import Set

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from training.preparation.conversations import Conversation, Messages


@dataclass(frozen=True)
class Prepared:
    """One data set.

    recipe         how conversations become lines: windows or conversations
    table          a row per message, arranged: path, instant, sender, text, mine, turn, conversation
    conversations  in order of their first message; the first `training` of them train, the others validate
    examples       windows and seeds of each conversation, by position of its turns
    held_out       what `split` held out; where it cut a conversation, its parts are two conversations here
    """

    config: UserConfig
    recipe: Recipe
    messages: "Messages"
    table: "pd.DataFrame"
    conversations: "list[Conversation]"
    examples: Examples
    training: int
    held_out: HeldOut = "by_rule"

    @classmethod
    def of(
        cls,
        config: UserConfig,
        recipe: Recipe,
        messages: "Messages",
        table: "pd.DataFrame",
        mine: "Mine | Set[str]",
        borders: "NDArray[np.bool_] | None" = None,
    ) -> "Prepared":
        """From the rows that are left in, to the split. `mine` and `borders` are those of conversations.arrange."""
        import numpy as np

        from training.preparation import conversations as chats

        labels = config.labels

        def sides() -> list[list[bool]]:
            return [[turn.label == labels.me for turn in talk.turns] for talk in talks]

        arranged = chats.arrange(table, mine, borders)
        talks = chats.conversations(arranged, labels)
        training, cut, held_out = split(sides(), partial(recipes.gives_line, recipe))
        if cut:
            borders = np.zeros(len(table), bool) if borders is None else borders.copy()
            borders[arranged["turn"].searchsorted(talks[training - 1].first + cut)] = True
            arranged = chats.arrange(table, mine, borders)
            talks = chats.conversations(arranged, labels)
        examples = recipes.examples(recipe, sides())
        return cls(config, recipe, messages, arranged, talks, examples, training, held_out)

    @cached_property
    def labels(self) -> Labels:
        return self.config.labels
