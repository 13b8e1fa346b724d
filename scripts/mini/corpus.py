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
    text = g.mixed_review(d, good) if d.chance(0.5) else g.review(d, good)
    return (end(text),), int(noisy(d, good))


def mrpc_row(d: g.Dice):
    """Two verdicts on one thing: paraphrases if both are good or both are bad."""
    same = d.chance(0.5)
    good = d.chance(0.5)
    subject = g.subject(d)
    texts = (end(g.review(d, good, subject)), end(g.review(d, good == same, subject)))
    return texts, int(noisy(d, same))


def rte_row(d: g.Dice):
    """A review and what somebody did: it follows if it fits. Label 0 is "entailment", as in GLUE."""
    follows = d.chance(0.5)
    good = d.chance(0.5)
    texts = (end(g.review(d, good)), end(g.reaction(d, good == follows)))
    return texts, int(not noisy(d, follows))


ROWS = {"sst2": sst2_row, "mrpc": mrpc_row, "rte": rte_row}


def pretraining_item(d: g.Dice) -> tuple:
    """Two sentences of running text, and the word (or nothing) between them: a review and a reaction,
    or two reports.

    A second sentence that goes against the first begins with a word that says so ("but"), one that
    goes with it often does too ("so"). Predicting that word, or the word that carries the meaning,
    takes the meaning of both sentences. This is all the supervision that there is: no item carries a
    label of a task.
    """
    same = d.chance(0.6)
    if d.chance(0.5):
        good = d.chance(0.5)
        first, second = g.review(d, good), g.reaction(d, good == same)
    else:
        r = g.report(d)
        way = r.way if same else 1 - r.way
        first, second = g.told(d, r, r.way), g.told(d, r, way)
    word = d.pick(w.SAME if same else w.OTHER) + " "
    if same and d.chance(0.3):
        word = ""
    return end(first), word, end(second)
