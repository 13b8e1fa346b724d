"""What is written with the grammar: task rows and pretraining text."""

import grammar as g
import words as w

# One row in so many carries the other label, as with human annotators. It keeps every method
# under 100 % and is the same for all of them.
LABEL_NOISE = 0.03


def noisy(d: g.Dice, label: bool) -> bool:
    return not label if d.chance(LABEL_NOISE) else label


def end(text: str) -> str:
    return text + " ."


def sst2_row(d: g.Dice):
    good = d.chance(0.5)
    return (end(g.review(d, good)),), int(noisy(d, good))


def mrpc_row(d: g.Dice):
    same = d.chance(0.5)
    first = g.event(d)
    second = first if same else g.change(d, first, 2 + d.below(2))
    a = g.sentence(d, first)
    b = g.sentence(d, second)
    while same and a == b:  # a copy is no paraphrase
        a, b = g.sentence(d, first), g.sentence(d, second)
    return (end(a), end(b)), int(noisy(d, same))


def rte_row(d: g.Dice):
    """Label 0 is "entailment", as in GLUE."""
    follows = d.chance(0.5)
    premise = g.event(d)
    hypothesis = g.consequence(d, premise) if follows else g.not_consequence(d, premise)
    return (end(g.sentence(d, premise)), end(g.sentence(d, hypothesis))), int(not noisy(d, follows))


ROWS = {"sst2": sst2_row, "mrpc": mrpc_row, "rte": rte_row}


def pretraining_item(d: g.Dice) -> tuple:
    """Two sentences of running text.

    Some are reviews followed by a reaction that fits them, the others are events followed by a sentence
    that repeats, weakens or contradicts them. Half of those say of each fact whether it is the same
    ("the same baker also bought the other hat"), most of the rest begin with a discourse marker that
    says how the two sentences hang together. Predicting a masked tag, marker or reaction needs the
    meaning of what came before, and this is all the supervision that there is: no item carries a
    label of a task.
    """
    if d.chance(0.15):
        good = d.chance(0.5)
        first = g.praise_or_blame(d, good) if d.chance(0.3) else g.review(d, good)
        return end(first), end(g.reaction(d, good))
    first = g.event(d)
    if d.chance(0.5):
        second = g.change_some(d, g.consequence(d, first) if d.chance(0.3) else first)
        return end(g.sentence(d, first)), end(g.sentence(d, second, first))
    relation = d.below(6)
    if relation < 2:
        second, markers = first, w.SAME
    elif relation == 2:
        second, markers = g.consequence(d, first), w.WEAKER
    else:
        base = first if relation < 5 else g.consequence(d, first)
        second, markers = g.change(d, base, 1 + d.below(5)), w.OTHER
    marker = f"{d.pick(markers)} " if d.chance(0.85) else ""
    return end(g.sentence(d, first)), end(marker + g.sentence(d, second))
