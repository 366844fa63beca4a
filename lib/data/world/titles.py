"""What a shop prints about an item: titles by grammar, their oddities, features, descriptions."""

import numpy as np
from numpy.typing import NDArray

from lib.data.world.catalogue import ODDITIES, PROPERTIES, Catalogue
from lib.data.world.rng import hash_pairs
from lib.data.world.words import DEPARTMENTS, EMOJI, FOREIGN, STUFFING, TYPES

__all__ = ["describe", "feature_lists", "make_titles", "words_of"]


def words_of(catalogue: Catalogue) -> list[dict[str, str]]:
    """The words each item's title shows, by slot, with its noun and department."""
    columns = {
        slot: np.array([*words, ""], dtype=object)[catalogue.properties[slot]].tolist()
        for slot, (words, _) in PROPERTIES.items()
    }
    columns["noun"] = [TYPES[kind].noun for kind in catalogue.types]
    columns["department"] = [DEPARTMENTS[TYPES[kind].department] for kind in catalogue.types]
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def make_titles(catalogue: Catalogue) -> list[str]:
    """A title for each item; see ``ODDITIES`` for those that are not plain.  -> V strings"""
    kinds = list(ODDITIES)
    style = _style(catalogue)
    rows = zip(words_of(catalogue), style.tolist(), catalogue.oddity.tolist(), strict=True)
    departments = [TYPES[kind].department for kind in catalogue.types]
    return [
        _distort(_plain(words, form), kinds[odd], words, department)
        for (words, form, odd), department in zip(rows, departments, strict=True)
    ]


def _style(catalogue: Catalogue) -> NDArray[np.int64]:
    """Which of the three grammars: a function of the words, so that copies stay copies."""
    key = catalogue.types.astype(np.int64)
    for slot in PROPERTIES:
        key = key * 43 + catalogue.properties[slot] + 1
    return np.asarray(hash_pairs(key, 0, 7) % np.uint64(3), dtype=np.int64)


def _plain(words: dict[str, str], form: int) -> str:
    noun = words["noun"].title()
    series = f" {words['series']}" if words["series"] else ""
    size = f", {words['size']}" if words["size"] else ""
    audience = f" for {words['audience'].title()}" if words["audience"] else ""
    feature = (words["feature"] or words["variety"]).title()
    colour = words["colour"].title()
    material = words["material"].title()
    if form == 0:
        lead = " ".join(part for part in (feature, material, noun) if part)
        return f"{words['brand']}{series} {lead}{audience}{size}" + (
            f" - {colour}" if colour else ""
        )
    if form == 1:
        tail = ", ".join(part for part in (material, feature, colour) if part)
        return f"{words['brand']} {noun}{series}{audience}" + (f", {tail}" if tail else "") + size
    lead = " ".join(part for part in (colour, material, noun) if part)
    extra = f", {feature}" if feature else ""
    return f"{lead} by {words['brand']}{series}{extra}{size}{audience}"


def _distort(title: str, kind: str, words: dict[str, str], department: int) -> str:
    match kind:
        case "overlong":
            return f"{title} {STUFFING} {words['noun']} {words['brand'].lower()}"
        case "empty":
            return ""
        case "broken":
            return '<span id="productTitle" class="a-size-large"></span>'
        case "entities":
            return f"&quot;{words['brand']}&quot; {title} &amp; Accessories"
        case "script":
            return f"{title} {FOREIGN[department]}"
        case "emoji":
            return f"{EMOJI[department]} {title} {EMOJI[department]}"
        case _:
            return title


def feature_lists(words: dict[str, str]) -> list[str]:
    """The bullet points under a title: what the title shows, in sentences."""
    lines = [f"A {words['noun']} from {words['brand']}"]
    if words["material"]:
        lines.append(f"Made of {words['material']}")
    if words["feature"]:
        lines.append(f"{words['feature'].capitalize()} design")
    if words["variety"]:
        lines.append(f"{words['variety'].capitalize()} formula")
    if words["audience"]:
        lines.append(f"Great for {words['audience']}")
    return lines


def describe(words: dict[str, str]) -> list[str]:
    """One paragraph, or none for items with neither feature nor variety."""
    trait = words["feature"] or words["variety"]
    if not trait:
        return []
    series = f"{words['series']} " if words["series"] else ""
    return [f"The {words['brand']} {series}{words['noun']} is {trait}."]
