"""The vocabulary of the small world that `grammar.py` writes about.

All of it was written for this project. Every tuple inside a list is a set of words with the same
meaning; which word of a set is used never changes what a sentence says.
"""

# --- reviews -------------------------------------------------------------------------------------

# What is reviewed, and the parts of it that a review may talk about.
TOPICS = {
    "film": ("plot", "cast", "music", "ending"),
    "novel": ("plot", "hero", "style", "ending"),
    "hotel": ("room", "staff", "view", "breakfast"),
    "meal": ("soup", "sauce", "wine", "service"),
    "concert": ("band", "sound", "singer", "hall"),
    "tour": ("guide", "route", "view", "bus"),
}

GOOD = (
    "lovely brilliant charming superb splendid fine great good warm clever witty fresh elegant pleasant rich perfect"
).split()
BAD = (
    "dull awful dreadful clumsy boring poor bad weak stale bland tedious silly rude ugly messy stupid"
).split()
GOOD_NOUNS = "charm wit warmth grace skill joy".split()
BAD_NOUNS = "noise dust waste clutter fuss gloom".split()
LIKED = "loved enjoyed admired liked".split()
DISLIKED = "hated disliked loathed regretted".split()
INTENSIFIERS = "very really quite truly".split()
DENIALS = ("not", "never", "hardly")
# How a review ends. In the pretraining text the reaction follows from the review before it.
HAPPY = "gladly happily cheerfully eagerly".split()
UNHAPPY = "sadly angrily grudgingly wearily".split()
REACTIONS = ("we {} left", "we {} paid", "they {} wrote")

# --- events --------------------------------------------------------------------------------------

# Who or what a report is about, with the verbs that say that things went up and that they went down.
UP_AND_DOWN = (
    (
        "sales prices profits exports wages rents".split(),
        "rose climbed grew jumped soared surged".split(),
        "fell dropped sank slid declined slipped".split(),
    ),
    (
        "sailors farmers teachers pilots painters drivers".split(),
        "won triumphed prevailed succeeded advanced conquered".split(),
        "lost failed stumbled struggled surrendered retreated".split(),
    ),
)
OWNERS = "local foreign northern southern young old".split()
PLACES = "england france spain norway canada brazil".split()
TIMES = "monday tuesday wednesday thursday friday sunday".split()

# How a sentence affirms or denies a report.
TRUE = "true right correct certain sure clear".split()
FALSE = "false wrong untrue doubtful absurd unlikely".split()
BELIEVED = "believed confirmed admitted accepted".split()
DOUBTED = "doubted denied disputed rejected".split()
