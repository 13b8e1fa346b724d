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

ROLES = "baker nurse farmer teacher sailor lawyer painter doctor driver pilot".split()

# Kinds of things, each with its members.
THINGS = {
    "fruit": ("apple", "pear", "plum"),
    "tool": ("hammer", "spade", "drill"),
    "vehicle": ("car", "bike", "boat"),
    "garment": ("coat", "hat", "scarf"),
}

# Sets of verbs with one meaning; past and participle are the same.
VERBS = (
    ("bought", "purchased"),
    ("found", "discovered"),
    ("washed", "cleaned"),
    ("fixed", "repaired"),
    ("lost", "misplaced"),
    ("sent", "mailed"),
)

# Sets of adjectives with one meaning.
ADJECTIVES = (
    ("big", "large"),
    ("small", "little"),
    ("costly", "expensive"),
    ("old", "ancient"),
    ("new", "modern"),
    ("red",),
    ("blue",),
    ("black",),
    ("white",),
)
PLACES = "garden kitchen market library station harbour".split()
TIMES = "monday tuesday wednesday thursday friday sunday".split()

# --- how two sentences hang together (pretraining text only) -------------------------------------

SAME = ("namely", "again")
WEAKER = ("so", "thus")
OTHER = ("but", "yet")

# How a second sentence says of each fact whether it is as in the first: (as before, not as before).
NOUN_TAGS = ("same", "other")
VERB_TAGS = ("also", "instead")
ADJECTIVE_TAGS = ("equally", "newly")
