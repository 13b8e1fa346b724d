"""Seeded sentence generator: reviews with a polarity, and events with paraphrases and consequences.

A review is built around its polarity, an event is a record of who did what to which thing, where and
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
    """Who did what to which thing. Numbers index the tables of `words`; None means "not said"."""

    agent: str | None  # a role; None is said as "somebody"
    verb: int
    adjective: int | None
    thing: str  # a member or a kind of THINGS
    place: str | None
    time: str | None


THINGS = tuple(t for members in w.THINGS.values() for t in members)
KINDS = {t: kind for kind, members in w.THINGS.items() for t in members}


def event(d: Dice) -> Event:
    """A random event with all its facts."""
    adjective = d.below(len(w.ADJECTIVES))
    return Event(d.pick(w.ROLES), d.below(len(w.VERBS)), adjective, d.pick(THINGS), d.pick(w.PLACES), d.pick(w.TIMES))


def agrees(first: Event, second: Event, field: str) -> bool:
    """Whether a fact of the second event is that of the first, or its kind."""
    old, new = getattr(first, field), getattr(second, field)
    return old == new or (field == "thing" and KINDS.get(old) == new)


def sentence(d: Dice, e: Event, first: Event | None = None) -> str:
    """The event as a sentence (no full stop): one wording of many.

    With `first`, each fact is tagged by whether it is as in that event: "the same baker also bought the
    other car" (pretraining text only).
    """

    def tag(field: str, tags: tuple) -> str:
        return "" if first is None else tags[0 if agrees(first, e, field) else 1] + " "

    verb = tag("verb", w.VERB_TAGS) + d.pick(w.VERBS[e.verb])
    thing = tag("thing", w.NOUN_TAGS)
    if e.adjective is not None:
        thing += tag("adjective", w.ADJECTIVE_TAGS) + d.pick(w.ADJECTIVES[e.adjective]) + " "
    thing = f"the {thing}{e.thing}"
    agent = "somebody" if e.agent is None else f"the {tag('agent', w.NOUN_TAGS)}{e.agent}"
    tail = []
    if e.place is not None:
        tail.append(f"in the {tag('place', w.NOUN_TAGS)}{e.place}")
    if e.time is not None:
        tail.append(f"on {tag('time', w.NOUN_TAGS)}{e.time}")
    if len(tail) == 2 and d.chance(0.3):
        tail.reverse()
    front = [tail.pop()] if tail and d.chance(0.2) else []
    return " ".join([*front, f"{agent} {verb} {thing}", *tail])


# --- what changes and what keeps the truth -------------------------------------------------------


def weaken(d: Dice, e: Event) -> Event:
    """An event that follows from `e` and says strictly less, or `e` if nothing can be left out."""
    options = []
    if e.place is not None:
        options.append({"place": None})
    if e.time is not None:
        options.append({"time": None})
    if e.adjective is not None:
        options.append({"adjective": None})
    if e.thing in KINDS:
        options.append({"thing": KINDS[e.thing]})
    if e.agent is not None:
        options.append({"agent": None})
    return replace(e, **d.pick(options)) if options else e


FACTS = ("agent", "verb", "adjective", "thing", "place", "time")


def other_fact(d: Dice, e: Event, field: str):
    values = {
        "agent": w.ROLES,
        "verb": range(len(w.VERBS)),
        "adjective": range(len(w.ADJECTIVES)),
        "thing": THINGS if e.thing in KINDS else tuple(w.THINGS),
        "place": w.PLACES,
        "time": w.TIMES,
    }
    return d.other(values[field], getattr(e, field))


def change(d: Dice, e: Event, facts: int) -> Event:
    """An event of the same shape with so many facts changed."""
    fields = [n for n in FACTS if getattr(e, n) is not None]
    d.shuffle(fields)
    return replace(e, **{n: other_fact(d, e, n) for n in fields[:facts]})


def change_some(d: Dice, e: Event) -> Event:
    """Each fact changed or not by a toss of a coin."""
    return replace(e, **{n: other_fact(d, e, n) for n in FACTS if getattr(e, n) is not None and d.chance(0.5)})


def consequence(d: Dice, e: Event) -> Event:
    """One or two weakenings of `e`."""
    out = weaken(d, e)
    return weaken(d, out) if d.chance(0.5) else out


def not_consequence(d: Dice, e: Event) -> Event:
    """A consequence of `e` with two or three of the facts that are left changed."""
    return change(d, consequence(d, e), 2 + d.below(2))
