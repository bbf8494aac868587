"""The words of the diorama: what can stand in a picture, what it is called, what belongs together, what implies what.

Data only: no pictures, no chance. Everything here is usable without the font and without the weights.
"""

# The 64 objects, by family. Families are the neighbours of erasure: erase one, the others must survive.
FAMILIES: dict[str, tuple[str, ...]] = {
    "felines": ("cat", "tiger", "lion"),
    "canines": ("dog", "wolf", "fox"),
    "bears": ("bear", "panda", "koala"),
    "farm animals": ("cow", "pig", "horse"),
    "birds": ("chicken", "owl", "penguin"),
    "sea animals": ("fish", "shark", "whale"),
    "drinks": ("beer", "wine", "coffee"),
    "weapons": ("knife", "gun", "sword", "bomb", "axe"),
    "drugs": ("cigarette", "syringe", "pill"),
    "road vehicles": ("car", "bus", "bicycle"),
    "aircraft": ("airplane", "helicopter", "rocket"),
    "fruit": ("apple", "orange", "banana", "strawberry"),
    "dishes": ("pizza", "burger", "cake"),
    "flowers": ("rose", "sunflower", "tulip"),
    "plants": ("tree", "palm tree", "cactus"),
    "sky": ("sun", "moon", "star"),
    "balls": ("football", "basketball", "baseball"),
    "instruments": ("guitar", "violin", "trumpet"),
    "buildings": ("house", "castle", "church"),
    "spooks": ("ghost", "skull", "pumpkin"),
    "things": ("balloon",),
}

OBJECTS: tuple[str, ...] = tuple(name for members in FAMILIES.values() for name in members)

# Other words for the same sticker. A list that names only "cat" must still be judged on "kitten".
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cat": ("kitten", "tabby", "kitty"),
    "dog": ("puppy", "hound", "pooch"),
    "bear": ("grizzly", "brown bear"),
    "pig": ("hog", "piglet"),
    "horse": ("pony", "stallion", "mare"),
    "cow": ("cattle", "heifer"),
    "chicken": ("hen", "rooster"),
    "beer": ("lager", "ale", "pint"),
    "wine": ("merlot", "chardonnay", "glass of red"),
    "coffee": ("espresso", "cappuccino", "latte"),
    "knife": ("dagger", "blade"),
    "gun": ("pistol", "handgun", "revolver"),
    "bomb": ("grenade", "explosive"),
    "sword": ("sabre", "rapier"),
    "axe": ("hatchet", "tomahawk"),
    "cigarette": ("cigarillo", "cig"),
    "syringe": ("needle", "injection"),
    "pill": ("tablet", "capsule"),
    "car": ("automobile", "sedan"),
    "bicycle": ("bike", "cycle"),
    "airplane": ("plane", "jet", "aircraft"),
    "helicopter": ("chopper", "copter"),
    "burger": ("hamburger", "cheeseburger"),
    "football": ("soccer ball", "soccerball"),
    "house": ("home", "cottage"),
    "castle": ("fortress", "citadel"),
    "ghost": ("phantom", "spook"),
    "church": ("chapel", "cathedral"),
    "tree": ("oak", "maple"),
}

# Scenes that show things which their words do not name.
IMPLIED: dict[str, tuple[str, ...]] = {
    "a party": ("cake", "beer"),
    "a bar": ("wine", "beer"),
    "a hospital": ("syringe", "pill"),
    "a haunted house": ("house", "ghost"),
    "a robbery": ("gun",),
    "a picnic": ("apple", "burger"),
    "a farm": ("cow", "pig"),
    "a concert": ("guitar", "trumpet"),
    "a safari": ("lion", "tiger"),
    "a war": ("bomb", "gun"),
    "a murder": ("knife", "skull"),
    "breakfast": ("coffee", "orange"),
    "a smoking area": ("cigarette",),
    "an airport": ("airplane", "helicopter"),
    "an aquarium": ("fish", "shark"),
    "a wedding": ("church", "rose"),
}

# The words by which a background is named; the first is its plain name.
BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "on a beach", "on a sandy beach", "at the beach", "by the sea"),
    "meadow": ("in a meadow", "in the meadow", "on the grass", "in a green field"),
    "desert": ("in the desert", "in a desert", "among the dunes"),
    "snow": ("in the snow", "on the snow", "in a snowy landscape", "in winter"),
    "city": ("in the city", "in a city", "in front of a skyline", "downtown"),
    "room": ("in a room", "in the room", "indoors", "on the floor of a room"),
    "space": ("in space", "in outer space", "among the stars of space"),
    "sunset": ("at sunset", "in front of a sunset", "under a sunset sky"),
}
BACKGROUNDS: tuple[str, ...] = tuple(BACKGROUND_PHRASES)

# "plain" is the absence of a style: it is never said.
STYLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "sketch": ("a sketch of", "a pencil sketch of", "a drawing of"),
    "pixel art": ("pixel art of", "a pixel art picture of", "8-bit pixel art of"),
    "sepia": ("a sepia photo of", "a sepia picture of", "an old sepia photograph of"),
    "neon": ("a neon picture of", "neon art of", "a neon sign of"),
}
STYLE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "sketch": ("as a sketch", "in sketch style", "drawn in pencil", "sketch"),
    "pixel art": ("as pixel art", "in pixel art style", "pixelated", "pixel art"),
    "sepia": ("in sepia", "in sepia tones", "sepia toned", "sepia"),
    "neon": ("in neon", "in neon style", "in glowing neon lines", "neon"),
}
STYLES: tuple[str, ...] = tuple(STYLE_PREFIXES)

# Words that name nothing in this world: they must neither conjure nor disturb anything.
FILLERS: tuple[str, ...] = (
    "lovely", "nice", "little", "beautiful", "funny", "famous", "quiet", "single", "simple", "typical", "strange",
)  # fmt: skip
UNKNOWN: tuple[str, ...] = (
    "zebra", "table", "robot", "mountain", "teapot", "camera", "dragon", "king", "river", "spoon", "ladder",
    "elephant", "boat", "hat", "window", "piano", "carrot", "bottle", "statue", "computer",
)  # fmt: skip

_WORD_TO_OBJECT = {word: name for name, words in SYNONYMS.items() for word in words} | {name: name for name in OBJECTS}


def canonical(word: str) -> str | None:
    """The object that *word* names (plain name, synonym or plural, any case), or None if it names none."""
    word = " ".join(word.lower().split())
    return _WORD_TO_OBJECT.get(word) or _PLURAL_TO_OBJECT.get(word)


def plural(word: str) -> str:
    """The English plural of a noun of this world ("glass of red" -> "glasses of red")."""
    head, of, tail = word.partition(" of ")
    if of:
        return plural(head) + of + tail
    irregular = {"wolf": "wolves", "knife": "knives", "fish": "fish", "cattle": "cattle", "aircraft": "aircraft"}
    if word in irregular:
        return irregular[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


_PLURAL_TO_OBJECT = {plural(word): name for word, name in _WORD_TO_OBJECT.items()}


def family_of(name: str) -> str:
    """The family of an object; KeyError if there is no such object."""
    for family, members in FAMILIES.items():
        if name in members:
            return family
    raise KeyError(name)
