"""Seeded sentence generator: reviews with a polarity, and reports of which way a measure went.

Sentences are written from their meaning, so the labels of the data sets follow from it and are not
guessed afterwards. All randomness comes from `Dice`, which uses only `random.Random.random()`, the
one method whose sequence Python promises to keep.
"""

import random
from dataclasses import dataclass

import words as w


class Dice:
    """A seeded source of choices."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def below(self, n: int) -> int:
        return int(self._random.random() * n)

    def pick(self, options):
        return options[self.below(len(options))]

    def chance(self, p: float) -> bool:
        return self._random.random() < p

    def shuffle(self, items: list):
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


# --- reviews -------------------------------------------------------------------------------------


def verdict(d: Dice, good: bool) -> str:
    """What follows "was": the polarity `good`, said straight or by denying the opposite."""
    denied = d.chance(0.12)
    word = d.pick(w.GOOD if good != denied else w.BAD)
    if denied:
        return f"{d.pick(w.DENIALS)} {word}"
    return f"{d.pick(w.INTENSIFIERS)} {word}" if d.chance(0.3) else word


def subject(d: Dice) -> str:
    thing = d.pick(w.THINGS)
    return f"the {thing}" if d.chance(0.4) else f"the {d.pick(w.PARTS)} of the {thing}"


def review(d: Dice, good: bool, of: str = "") -> str:
    of = of or subject(d)
    verdicts = [verdict(d, good) for _ in range(d.pick((1, 2, 2, 3, 3)))]
    return f"{of} was {' and '.join(verdicts)}"


def mixed_review(d: Dice, good: bool) -> str:
    """A review of two minds; what counts is the main clause."""
    main = f"the {d.pick(w.PARTS)} was {verdict(d, good)}"
    side = f"the {d.pick(w.THINGS)} was {verdict(d, not good)}"
    return d.pick([f"{side} but {main}", f"{main} although {side}", f"although {side} {main}"])


def reaction(d: Dice, good: bool) -> str:
    """What somebody did who found it good, or bad."""
    return f"{d.pick(w.PEOPLE)} {d.pick(w.LIKED if good else w.DISLIKED)}"


# --- reports -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    measure: str
    good: str
    way: int
    place: str
    time: str


def report(d: Dice) -> Report:
    return Report(d.pick(w.MEASURES), d.pick(w.GOODS), d.below(2), d.pick(w.PLACES), d.pick(w.TIMES))


def told(d: Dice, r: Report, way: int) -> str:
    """The report in one of several orders and wordings."""
    verb = d.pick(w.WAYS[way])
    what = f"the {r.measure} of {r.good}" if d.chance(0.5) else f"{r.good} {r.measure}"
    where, when = f"in the {r.place}", f"in {r.time}"
    return d.pick(
        [
            f"{what} {verb} {where} {when}",
            f"{when} {what} {verb} {where}",
            f"{where} {what} {verb} {when}",
            f"{what} {verb} {when}",
            f"{what} {verb} {where}",
        ]
    )
