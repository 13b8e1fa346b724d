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
    """Two tellings of one report, one of them affirmed or denied: paraphrases if it is affirmed."""
    same = d.chance(0.5)
    e = g.event(d)
    texts = [g.sentence(d, e), g.sentence(d, e)]
    at = d.below(2)
    texts[at] = f"{g.stance(d, same)} {texts[at]}"
    return tuple(map(end, texts)), int(noisy(d, same))


def rte_row(d: g.Dice):
    """A report, and less of it affirmed or denied. Label 0 is "entailment", as in GLUE."""
    follows = d.chance(0.5)
    premise = g.event(d)
    hypothesis = f"{g.stance(d, follows)} {g.sentence(d, g.weaken(d, premise))}"
    return (end(g.sentence(d, premise)), end(hypothesis)), int(not noisy(d, follows))


ROWS = {"sst2": sst2_row, "mrpc": mrpc_row, "rte": rte_row}


def pretraining_item(d: g.Dice) -> tuple:
    """Two sentences of running text.

    A review is followed by a reaction that fits it. A report is told twice, one of the two affirmed or
    denied, and a reaction ends the second. Predicting a masked reaction needs the meaning of what came
    before, and this is all the supervision that there is: no item carries a label of a task.
    """
    good, plain = d.chance(0.5), d.chance(0.4)
    reaction = g.reaction(d, good)
    if d.chance(0.4):
        first = g.praise_or_blame(d, good) if plain else g.review(d, good)
        return end(first), end(reaction)
    e = g.event(d)
    texts = [g.sentence(d, e), g.sentence(d, g.weaken(d, e) if d.chance(0.5) else e)]
    at = d.below(2)
    texts[at] = f"{g.stance(d, good, plain)} {texts[at]}"
    if d.chance(0.3):
        return end(texts[at]), end(reaction)
    return end(texts[0]), end(f"{texts[1]} and {reaction}")
