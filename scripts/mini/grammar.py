"""Seeded sentence generator: reviews with a polarity, and reports that are affirmed or denied.

A review is built around its polarity, a report (`Event`) is a record of what went up or down, where and
when. Sentences are written from these, so the labels of the data sets follow from meaning and are not
guessed afterwards.

All randomness comes from `Dice`, which uses only `random.Random.random()`, the one method whose
sequence Python promises to keep.
"""

import random
from dataclasses import dataclass, replace

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

    def other(self, options, than):
        return self.pick([o for o in options if o != than])

    def shuffle(self, items: list):
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


# --- reviews -------------------------------------------------------------------------------------


def adjective(d: Dice, good: bool) -> str:
    word = d.pick(w.GOOD if good else w.BAD)
    return f"{d.pick(w.INTENSIFIERS)} {word}" if d.chance(0.2) else word


def verdict(d: Dice, good: bool) -> str:
    """What follows "was": polarity `good`, said straight or by denying the opposite."""
    if d.chance(0.65):
        return adjective(d, good)
    return f"{d.pick(w.DENIALS)} {adjective(d, not good)}"


def quality(d: Dice, good: bool) -> str:
    """What follows a noun: "full of charm", "without noise"."""
    straight, denied = (w.GOOD_NOUNS, w.BAD_NOUNS) if good else (w.BAD_NOUNS, w.GOOD_NOUNS)
    return f"full of {d.pick(straight)}" if d.chance(0.6) else f"without {d.pick(denied)}"


def review(d: Dice, good: bool) -> str:
    """One review whose overall polarity is `good` (no full stop)."""
    topic = d.pick(tuple(w.TOPICS))
    part = d.pick(w.TOPICS[topic])
    kind = d.below(7)
    if kind == 0:
        return f"the {part} of the {topic} was {verdict(d, good)}"
    if kind == 1:
        return f"the {topic} was {verdict(d, good)}"
    if kind == 2:  # the last word decides
        return f"the {part} was {verdict(d, not good)} but the {topic} was {verdict(d, good)}"
    if kind == 3:
        return f"the {topic} was {verdict(d, good)} although the {part} was {verdict(d, not good)}"
    if kind == 4:
        return f"a {d.pick(w.GOOD if good else w.BAD)} {topic} {quality(d, good)}"
    if kind == 5:
        return f"we {d.pick(w.LIKED if good else w.DISLIKED)} the {topic} and the {part} was {verdict(d, good)}"
    return f"the {topic} was {quality(d, good)}"


def praise_or_blame(d: Dice, good: bool) -> str:
    """Plain remarks of one polarity (pretraining text only): where words get theirs from."""
    words = w.GOOD if good else w.BAD
    topic = d.pick(tuple(w.TOPICS))
    remark = f"the {d.pick(w.TOPICS[topic])} was {d.pick(words)}"
    if d.chance(0.5):
        return f"we {d.pick(w.LIKED if good else w.DISLIKED)} the {d.pick(words)} {topic} and {remark}"
    return f"a {d.pick(words)} {topic} full of {d.pick(w.GOOD_NOUNS if good else w.BAD_NOUNS)} and {remark}"


def reaction(d: Dice, good: bool) -> str:
    """How a review of polarity `good` ends; one word of it tells the polarity."""
    return d.pick(w.REACTIONS).format(d.pick(w.HAPPY if good else w.UNHAPPY))


# --- events --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """What went up or down. None means "not said"."""

    family: int  # of UP_AND_DOWN
    subject: str
    up: bool
    owner: str | None
    place: str | None
    time: str | None


def event(d: Dice) -> Event:
    """A random event with all its facts."""
    family = d.below(len(w.UP_AND_DOWN))
    subject = d.pick(w.UP_AND_DOWN[family][0])
    return Event(family, subject, d.chance(0.5), d.pick(w.OWNERS), d.pick(w.PLACES), d.pick(w.TIMES))


def sentence(d: Dice, e: Event) -> str:
    """The event as a sentence (no full stop): one wording of many."""
    _, up, down = w.UP_AND_DOWN[e.family]
    owner = "" if e.owner is None else e.owner + " "
    tail = [] if e.place is None else [f"in {e.place}"]
    if e.time is not None:
        tail.insert(d.below(len(tail) + 1), f"on {e.time}")
    front = [tail.pop()] if tail and d.chance(0.2) else []
    return " ".join([*front, f"the {owner}{e.subject} {d.pick(up if e.up else down)}", *tail])


# --- what is left of a report, and whether it is affirmed -----------------------------------------


def weaken(d: Dice, e: Event) -> Event:
    """An event that follows from `e` and says less: one to three facts are left out."""
    fields = ["owner", "place", "time"]
    d.shuffle(fields)
    return replace(e, **{n: None for n in fields[: 1 + d.below(3)]})


def stance(d: Dice, affirmed: bool, plain: bool = False) -> str:
    """What comes before a report to affirm or deny it, straight or by denying the opposite."""
    straight = plain or d.chance(0.6)
    said = affirmed if straight else not affirmed
    if d.chance(0.5):
        words = w.TRUE if said else w.FALSE
        return f"it is {d.pick(words)} that" if straight else f"it is {d.pick(w.DENIALS)} {d.pick(words)} that"
    words = w.BELIEVED if said else w.DOUBTED
    return f"{'everybody' if straight else 'nobody'} {d.pick(words)} that"
