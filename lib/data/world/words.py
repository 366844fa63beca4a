"""The vocabulary of the marketplace: departments, types, what follows what, brands, properties."""

from typing import NamedTuple

__all__ = [
    "AUDIENCES",
    "BRANDS",
    "BRANDS_EVERYWHERE",
    "BRANDS_PER_DEPARTMENT",
    "COLOURS",
    "DEPARTMENTS",
    "EMOJI",
    "FEATURES",
    "FOREIGN",
    "MATERIALS",
    "SERIES",
    "SIZES",
    "SIZES_OF_DURABLES",
    "STUFFING",
    "TYPES",
    "VARIETIES",
    "Type",
    "type_index",
]


class Type(NamedTuple):
    """A kind of thing: what it is called, where it stands, whether it is used up, its price."""

    noun: str
    department: int
    consumable: bool
    price: float
    follows: tuple[str, ...]  # what its buyer needs next


DEPARTMENTS = (
    "Kitchen & Dining",
    "Patio, Lawn & Garden",
    "Video Games",
    "Musical Instruments",
    "Beauty & Personal Care",
    "Sports & Outdoors",
    "Pet Supplies",
    "Office Products",
)


def _types() -> tuple[Type, ...]:
    rows: tuple[tuple[int, str, int, float, str], ...] = (
        (0, "electric kettle", 0, 39.0, "kettle descaler,tea sampler"),
        (0, "kettle descaler", 1, 9.0, "tea sampler"),
        (0, "tea sampler", 1, 14.0, "electric kettle"),
        (0, "coffee grinder", 0, 49.0, "coffee beans,french press"),
        (0, "coffee beans", 1, 16.0, "french press"),
        (0, "french press", 0, 29.0, "coffee beans"),
        (1, "seed kit", 1, 12.0, "potting soil,plant labels"),
        (1, "potting soil", 1, 18.0, "plant food"),
        (1, "plant food", 1, 11.0, "seed kit"),
        (1, "plant labels", 1, 7.0, "seed kit"),
        (1, "garden hose", 0, 35.0, "hose nozzle"),
        (1, "hose nozzle", 0, 13.0, "plant food"),
        (2, "game console", 0, 299.0, "racing game,game controller"),
        (2, "game controller", 0, 45.0, "controller charger"),
        (2, "controller charger", 0, 19.0, "puzzle game"),
        (2, "racing game", 0, 40.0, "steering wheel"),
        (2, "steering wheel", 0, 120.0, "racing game"),
        (2, "puzzle game", 0, 25.0, "game controller"),
        (3, "acoustic guitar", 0, 150.0, "guitar strings,guitar tuner"),
        (3, "guitar strings", 1, 9.0, "guitar picks"),
        (3, "guitar tuner", 0, 17.0, "songbook"),
        (3, "guitar picks", 1, 6.0, "songbook"),
        (3, "songbook", 0, 20.0, "music stand"),
        (3, "music stand", 0, 32.0, "guitar strings"),
        (4, "face cleanser", 1, 12.0, "face moisturizer"),
        (4, "face moisturizer", 1, 18.0, "face sunscreen"),
        (4, "face sunscreen", 1, 15.0, "face cleanser"),
        (4, "hair dryer", 0, 42.0, "hair brush"),
        (4, "hair brush", 0, 11.0, "hair oil"),
        (4, "hair oil", 1, 13.0, "hair brush"),
        (5, "yoga mat", 0, 28.0, "yoga block,water bottle"),
        (5, "yoga block", 0, 12.0, "foam roller"),
        (5, "foam roller", 0, 22.0, "yoga mat"),
        (5, "water bottle", 0, 19.0, "protein powder"),
        (5, "protein powder", 1, 31.0, "water bottle"),
        (5, "running belt", 0, 16.0, "water bottle"),
        (6, "litter box", 0, 34.0, "cat litter,litter scoop"),
        (6, "cat litter", 1, 17.0, "litter scoop"),
        (6, "litter scoop", 0, 8.0, "cat treats"),
        (6, "cat treats", 1, 6.0, "cat litter"),
        (6, "dog leash", 0, 15.0, "dog treats"),
        (6, "dog treats", 1, 9.0, "dog leash"),
        (7, "fountain pen", 0, 27.0, "ink bottle,paper notebook"),
        (7, "ink bottle", 1, 12.0, "paper notebook"),
        (7, "paper notebook", 1, 10.0, "fountain pen"),
        (7, "photo printer", 0, 110.0, "ink cartridge,photo paper"),
        (7, "ink cartridge", 1, 29.0, "photo paper"),
        (7, "photo paper", 1, 14.0, "ink cartridge"),
    )
    return tuple(
        Type(noun, department, bool(used_up), price, tuple(follows.split(",")))
        for department, noun, used_up, price, follows in rows
    )


TYPES = _types()


def type_index(noun: str) -> int:
    """The position of a type by its noun.

    >>> TYPES[type_index("kettle descaler")].consumable
    True
    """
    return [kind.noun for kind in TYPES].index(noun)


# The first eight brands sell everywhere; then three for each department, in order.
BRANDS_EVERYWHERE = 8
BRANDS_PER_DEPARTMENT = 3
BRANDS = tuple(
    [
        "Norvik",
        "Tallow",
        "Brightwell",
        "Oakham",
        "Zenora",
        "Marlo",
        "Pinecrest",
        "Halden",
        "Kettleby",
        "Stoneware",
        "Brewhaus",
        "Greenrow",
        "Sprout",
        "Loamy",
        "Pixelforge",
        "Arcadia",
        "Nightfox",
        "Stradella",
        "Fretwell",
        "Cadenza",
        "Lumina",
        "Dewdrop",
        "Velvetine",
        "Summit",
        "Fleetfoot",
        "Corefit",
        "Pawsley",
        "Whisker",
        "Rover",
        "Inkwell",
        "Papyra",
        "Quillon",
    ]
)
COLOURS = tuple(
    ["black", "white", "red", "navy", "green", "silver", "pink", "yellow", "teal", "grey"]
)
MATERIALS = tuple(
    ["steel", "bamboo", "cotton", "ceramic", "leather", "glass", "silicone", "wooden", "recycled"]
)
AUDIENCES = (
    "beginners",
    "kids",
    "travel",
    "professionals",
    "seniors",
    "students",
    "small spaces",
    "gifts",
)
FEATURES = (
    "quiet",
    "foldable",
    "modern",
    "heavy duty",
    "lightweight",
    "waterproof",
    "portable",
    "extra large",
    "easy clean",
    "compact",
    "non-slip",
    "premium",
)
SERIES = tuple(
    ["Classic", "Pro", "Lite", "Aura", "Nova", "Origin", "Prime", "Terra", "Echo", "Vista"]
)
VARIETIES = (
    "natural",
    "organic",
    "extra strength",
    "sensitive",
    "concentrated",
    "traditional",
    "fine",
    "bold",
    "mild",
    "eco",
)
SIZES = ("6 inch", "15 inch", "2 piece", "size M", "pack of 2", "pack of 6", "12 oz", "32 oz")
SIZES_OF_DURABLES = 4  # the first ones; the others are of things that are used up

EMOJI = ("☕", "🌱", "🎮", "🎸", "✨", "💪", "🐾", "🖊️")  # by department
FOREIGN = (  # by department: the department's name in another script
    "キッチン用品",
    "Садовые товары",
    "ビデオゲーム",
    "Музыкальные инструменты",
    "美容与个人护理",
    "أدوات رياضية",
    "애완동물 용품",
    "사무용품",
)
STUFFING = (
    "best gift idea for men women birthday christmas anniversary home office outdoor indoor "
    "new version upgraded set kit bundle value deal free shipping high quality durable"
)
