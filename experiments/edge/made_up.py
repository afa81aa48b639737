"""Commands made on the spot, for runs without any data."""

import itertools
import random

from edge.commands import Command, Corpus, split

_ROOMS = ("kitchen", "bedroom", "garage", "hall", "office", "porch")
_SAID = {
  "light_on": ("turn on the {} light", "lights on in the {}", "light the {}"),
  "light_off": ("turn off the {} light", "make the {} dark", "no {} light"),
  "heat_up": ("make the {} warmer", "heat the {}", "it is cold in the {}"),
  "heat_down": ("cool the {}", "the {} is too hot", "less heat in the {}"),
  "clean": ("clean the {}", "vacuum the {} floor", "sweep the {} please"),
  "lock": ("lock the {} door", "is the {} door locked", "close the {}"),
}
_NEW = {
  "music": ("play a song in the {}", "music for the {}", "sing in the {}"),
  "water": ("water the plants of the {}", "the {} plants are dry"),
}
_POLITE = ("", "please ", "hey ", "could you ", "now ")
_STORY = (
  "The {0} of the old house was quiet, and nobody had opened its window for"
  " a year. One day the {1} light was on, and the people wondered who lived"
  " there."
)


def _all(said: dict[str, tuple[str, ...]], seed: int) -> list[Command]:
  found = [
    Command(polite + text.format(room), intent)
    for intent, texts in said.items()
    for text, room, polite in itertools.product(texts, _ROOMS, _POLITE)
  ]
  random.Random(seed).shuffle(found)
  return found


def corpus() -> Corpus:
  """A few hundred commands of six intents, two new ones, and some prose."""
  train, test = split(_all(_SAID, 0))
  new = _all(_NEW, 1)
  half = len(new) // 2
  return Corpus(
    tuple(sorted(_SAID)),
    train,
    test,
    [f"what is in the {room}" for room in _ROOMS],
    [_STORY.format(*pair) for pair in itertools.permutations(_ROOMS, 2)],
    new[:half],
    new[half:],
  )
