"""The columns of the Toss-like log in their published order, and what the numeric ones hold."""

import numpy as np
from numpy.typing import NDArray

from lib.data.world.clicks import Floats
from lib.data.world.rng import hash_pairs

__all__ = ["COLUMNS", "CONSTANT", "STRINGS", "TWINS", "fill_numbers"]

STRINGS = ("gender", "age_group", "inventory_id", "day_of_week", "hour", "seq")
GROUPS = {
    "l_feat": 27,
    "feat_e": 10,
    "feat_d": 6,
    "feat_c": 8,
    "feat_b": 6,
    "feat_a": 18,
    "history_a": 7,
    "history_b": 30,
}
COLUMNS = (
    *STRINGS,
    *(f"{group}_{i}" for group, count in GROUPS.items() for i in range(1, count + 1)),
    "clicked",
)
CONSTANT = {"l_feat_20": 1.0, "l_feat_23": 0.0}
TWINS = {"l_feat_17": "l_feat_9", "l_feat_3": "l_feat_16"}  # near-duplicates
BLUR = 0.1  # of what columns say about a visitor's taste
LOOKED_AT = 40  # things a visitor looked at lately, in the mean
TWIN_NOISE = 0.002  # share of rows in which a twin differs


def fill_numbers(
    users: NDArray[np.int64],
    ads: NDArray[np.int64],
    items: NDArray[np.int64],
    kinds: NDArray[np.int64],
    departments: NDArray[np.int64],
    liking: Floats,
    wanted: Floats,
    wants: Floats,
    styles: Floats,
    lengths: NDArray[np.int64],
    rng: np.random.Generator,
) -> dict[str, Floats]:
    """Every numeric column, float32.  B rows -> 112 columns of [B]"""
    n = len(users)

    def normal() -> Floats:
        return rng.standard_normal(n, dtype=np.float32)

    def trait(owner: NDArray[np.int64], salt: int, size: int) -> Floats:
        return np.asarray(hash_pairs(owner, salt, 61) % np.uint64(size), dtype=np.float32)

    found: dict[str, Floats] = {}
    for i in range(1, GROUPS["l_feat"] + 1):  # attributes of user, ad or creative, as codes
        found[f"l_feat_{i}"] = trait(users if i % 2 else items, i, 2 + i)
    found["l_feat_14"] = ads.astype(np.float32) + 1  # the ad set
    found["l_feat_16"] = departments.astype(np.float32) + 1
    found["l_feat_9"] = kinds.astype(np.float32) + 1
    for twin, original in TWINS.items():
        other = rng.random(n) < TWIN_NOISE
        found[twin] = np.where(other, found[original] + 1, found[original]).astype(np.float32)
    for name, value in CONSTANT.items():
        found[name] = np.full(n, value, dtype=np.float32)
    activity = np.log1p(lengths).astype(np.float32)
    for i in range(1, GROUPS["feat_e"] + 1):
        found[f"feat_e_{i}"] = (trait(users, 100 + i, 50) + (i % 3) * activity).astype(np.float32)
    found["feat_e_2"] = np.round(np.exp(activity + normal()), 2)
    for i in range(1, GROUPS["feat_d"] + 1):  # few values behind a little noise
        found[f"feat_d_{i}"] = trait(users, 200 + i, 5 + i) / np.float32(1000)
    for i in range(1, GROUPS["feat_c"] + 1):  # what styles the user leans to, blurred
        style = styles[:, i % styles.shape[1]]
        found[f"feat_c_{i}"] = style + np.float32(BLUR) * normal()
    found["feat_c_2"] = normal()
    for i in range(1, GROUPS["feat_b"] + 1):
        blur = np.float32(BLUR * i / 3) * normal()  # how often visits went to the ad's department
        found[f"feat_b_{i}"] = np.sqrt(wanted) + blur
    for i in range(1, GROUPS["feat_a"] + 1):  # counts of what was looked at, almost whole numbers
        mean = LOOKED_AT * wants[:, i % wants.shape[1]]
        count = np.floor(mean + rng.random(n, dtype=np.float32))
        found[f"feat_a_{i}"] = count + np.float32(1e-3) * normal()
    for i in range(1, GROUPS["history_a"] + 1):  # how this user met ads like this one, blurred
        found[f"history_a_{i}"] = liking + np.float32(BLUR * i) * normal()
    seen = np.floor(np.exp(activity * np.float32(0.7) + np.float32(0.5) * normal()))
    found["history_b_1"] = seen
    found["history_b_2"] = np.floor(seen * rng.random(n, dtype=np.float32))
    for i in range(3, GROUPS["history_b"] + 1):  # one count over windows that hardly differ
        found[f"history_b_{i}"] = seen * np.float32(1 + i / 100) + np.float32(0.05) * normal()
    return {name: np.asarray(column, dtype=np.float32) for name, column in found.items()}
