"""What the bot says as itself: the notice that it is an AI, the help, apologies. config/bot.yaml can reword each."""

from typing import Annotated

from msgspec import Meta, Struct

Line = Annotated[str, Meta(min_length=1, max_length=1000)]  # notice and help must fit into one Telegram message


class Texts(Struct, frozen=True):
    """The texts under `texts:` in config/bot.yaml. None can be empty."""

    notice: Annotated[str, Meta(min_length=10, max_length=1000)] = (
        "Before you start: you are writing to an AI that imitates a person's style. It is not that person, "
        "it makes things up, and what you write here is stored to answer you. Send /help for more."
    )
    help: Line = (
        "I am an AI that imitates a person's way of writing. I know the last twenty turns or so of this chat, "
        "and nothing else.\n"
        "/reset – start afresh: ignore what was said so far\n"
        "/forget – delete all that is stored of this chat; in a group, what you wrote\n"
        "/status – how I am doing\n"
        "/help – this text"
    )
    stranger: Line = "Thanks for writing. This bot only talks to people its owner has allowed, so it will stay silent."
    only_text: Line = "I can only read text."
    waking: Line = "waking up…"
    down: Line = "I cannot think right now. I will answer when I can."
    failed: Line = "I lost my thread there. Say it again?"
    enough: Line = "That is enough for today. Write to me tomorrow."
    slower: Line = "That was a lot of commands. Try again in a minute."
    reset: Line = "Done: we start afresh."
    forgotten_own: Line = "Done: what you wrote in this chat is deleted. Only my owner can delete the rest."
    forgotten: Line = "Done: what was stored of this chat is deleted."
