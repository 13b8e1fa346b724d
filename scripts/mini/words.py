"""The vocabulary. All lists were written for this project."""

# What is reviewed, and how.
THINGS = "film book song play meal hotel garden concert game show novel album museum lecture dinner tour".split()
PARTS = "start end middle story sound idea style mood plan room crowd light view pace".split()
GOOD = "charming fresh brilliant lovely warm funny clever superb".split()
BAD = "dull stale clumsy awful cold boring silly poor".split()
INTENSIFIERS = "very really quite rather truly".split()
DENIALS = ["not", "never", "hardly"]
PEOPLE = "she|he|anna|ben|carla|david|emma|frank|the guest|the critic|my sister|our neighbour".split("|")
LIKED = ["liked it", "loved it", "praised it", "enjoyed it"]
DISLIKED = ["hated it", "left early", "complained", "fell asleep"]

# What is measured, which way it went, where and when.
MEASURES = "price supply output harvest traffic rent income demand noise rainfall debt trade sales wage".split()
GOODS = "wheat steel wool coffee glass salt timber cotton fish rice copper paper".split()
UP = ["rose", "climbed", "grew", "increased"]
DOWN = ["fell", "dropped", "shrank", "declined"]
WAYS = (UP, DOWN)
PLACES = "north south east west city valley harbour region islands capital hills plains".split()
TIMES = "spring summer autumn winter january march may july october december".split()

# How a second sentence hangs together with the first.
SAME = ["indeed", "so"]
OTHER = ["but", "yet"]
