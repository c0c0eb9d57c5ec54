"""Exchanges of invented people, by the sample's generator: the same contexts, answered in one style or another."""

import random

from ghost.demo.chats import turns
from ghost.demo.people import Person
from ghost.evaluation.data import Exchange
from replicate_deployment.chat_format import Turn
from tests.ghost.demo.another import SHARES, retold


def exchanges(person: Person, count: int = 160, seed: int = 7) -> list[Exchange]:
    """`count` replies of `person`, each once, with the turns before it; drawn from all of the sample's chats."""
    found: list[Exchange] = []
    for title in SHARES:
        said: list[Turn] = []
        for mine, text in turns(retold(title, person, seed=seed, count=250), person):
            if mine and said and said[-1].label == "B:":
                found.append(Exchange(tuple(said[-4:]), text))
            said.append(Turn("A:" if mine else "B:", text))
    return random.Random(0).sample(found, count)
