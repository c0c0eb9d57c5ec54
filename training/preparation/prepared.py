"""What preparation has made of the chats, before a line of it is written: handed whole to the report and its page."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from replicate_deployment.chat_format import Labels, Recipe
from training.preparation.windows import Examples
from training.speakers import UserConfig

if TYPE_CHECKING:
    import pandas as pd

    from training.preparation.conversations import Conversation, Messages


@dataclass(frozen=True)
class Prepared:
    """One data set.

    recipe         how conversations become lines: windows or conversations
    table          a row per message, arranged: path, instant, sender, text, mine, turn, conversation
    conversations  in order of their first message; the first `training` of them train, the others validate
    examples       windows and seeds of each conversation, by position of its turns
    """

    config: UserConfig
    recipe: Recipe
    messages: "Messages"
    table: "pd.DataFrame"
    conversations: "list[Conversation]"
    examples: Examples
    training: int

    @cached_property
    def labels(self) -> Labels:
        return self.config.labels
