"""Opens the truth of a simulated marketplace. Only evaluation may: a test checks who imports this.

truth = Truth.open(run.input("truth"))
users, positions = truth.locate(item_keys, times)          # which choice each event was
p = truth.next_item(users, positions, truth.columns(histories.item_keys))
expected = truth.clicks("avazu_x4", "test").expected       # row by row as in the raw file
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib.data.files import open_manifest, read_json
from lib.data.world.catalogue import Catalogue
from lib.data.world.choice import Floats, Known, Law, item_probabilities, make_law, state_at
from lib.data.world.config import WorldConfig
from lib.data.world.people import People
from lib.data.world.write_truth import KIND

__all__ = ["EVERYTHING", "OBSERVABLE", "Clicks", "Truth"]

EVERYTHING: frozenset[Known] = frozenset({"title", "behaviour", "whims"})
OBSERVABLE: frozenset[Known] = frozenset({"title", "behaviour"})  # all that other users' data tell
CELLS = 50_000_000  # probabilities computed at a time
Record = TypeVar("Record", Catalogue, People)


@dataclass(frozen=True, slots=True)
class Clicks:
    """True of each row of one raw click file, in the order of the file."""

    probabilities: Floats  # what the label was drawn from
    expected: Floats  # mean over the remainder nobody sees: the best a model can state
    labels: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Truth:
    """The world as it was drawn; users and items in its own order, see ``locate``, ``columns``."""

    folder: Path
    config: WorldConfig
    catalogue: Catalogue
    people: People
    items: NDArray[np.int32]  # [E] what was bought, in the order of ``people.times``
    item_keys: NDArray[np.str_]  # [V] parent_asin of each item

    @classmethod
    def open(cls, folder: Path) -> "Truth":
        """Open a truth that was written whole."""
        open_manifest(folder, KIND)
        record = cast(dict[str, int | float], read_json(folder / "config.json"))
        config = WorldConfig(**record)  # type: ignore[arg-type]
        return cls(
            folder=folder,
            config=config,
            catalogue=_load_record(Catalogue, folder / "catalogue"),
            people=_load_record(People, folder / "people"),
            items=_load(folder / "purchases.npy"),
            item_keys=_load(folder / "item_keys.npy").astype(str),
        )

    def law(self, known: frozenset[Known] = EVERYTHING) -> Law:
        """The law of the next item as seen by someone who knows these parts of it."""
        return make_law(self.config, self.catalogue, self.people, known)

    def lengths(self) -> NDArray[np.int64]:
        """Purchases of each user.  -> [U]"""
        return np.diff(self.people.offsets)

    def targets(self, users: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int32]:
        """The item each user chose at a position, as an index of the catalogue.  -> [B]"""
        return cast(NDArray[np.int32], self.items[self.people.offsets[users] + positions])

    def columns(self, item_keys: Sequence[str]) -> NDArray[np.int64]:
        """The catalogue index of each key, -1 for the empty key of padding."""
        order = np.argsort(self.item_keys)
        keys = np.asarray(item_keys, dtype=str)
        place = np.searchsorted(self.item_keys[order], keys)
        found = order[np.minimum(place, len(order) - 1)]
        unknown = (self.item_keys[found] != keys) & (keys != "")
        if unknown.any():
            raise ValueError(
                f"{unknown.sum()} keys such as {str(keys[unknown][0])!r} are not of this world, "
                "expected a parent_asin of it; histories and truth come from different runs"
            )
        return np.where(keys == "", -1, found)

    def locate(
        self, item_keys: Sequence[str], times: ArrayLike
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which user's which choice each event was, by item and time in ms.  -> users, positions

        A row that was logged twice is found at the one choice behind both.
        """
        wanted = self.columns(item_keys).astype(np.int64)
        moments = np.asarray(times, dtype=np.int64)
        every = np.lexsort((self.items, self.people.times))
        known = self.people.times[every] * self.catalogue.n_items + self.items[every]
        asked = moments * self.catalogue.n_items + wanted
        place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        wrong = known[place] != asked
        if wrong.any():
            raise ValueError(
                f"{int(wrong.sum())} of {len(asked)} events were never drawn, the first at "
                f"{moments[wrong][0]}: expected times in ms and keys of this very world"
            )
        events = every[place]
        users = np.searchsorted(self.people.offsets, events, side="right") - 1
        return users, events - self.people.offsets[users]

    def next_item(
        self,
        users: NDArray[np.int64],
        positions: NDArray[np.int64],
        columns: NDArray[np.int64] | None = None,
        *,
        known: frozenset[Known] = EVERYTHING,
    ) -> Floats:
        """p(next item | all before) at positions of users' histories.  -> [B, V or columns]

        With ``columns`` the result has those of the catalogue, zero where a column is -1; rows then
        sum to the share of the kept items.
        """
        law = self.law(known)
        width = self.catalogue.n_items if columns is None else len(columns)
        found = np.empty((len(users), width), dtype=np.float32)
        step = max(1, CELLS // self.catalogue.n_items)
        for low in range(0, len(users), step):
            part = slice(low, low + step)
            state = state_at(
                self.people.offsets, self.items, self.people.times, users[part], positions[part]
            )
            block = item_probabilities(law, state)
            found[part] = block if columns is None else block[:, columns] * (columns >= 0)
        return found

    def clicks(self, log: str, split: str) -> Clicks:
        """What is true of each row of a raw click file, such as ``clicks("avazu_x4", "test")``."""
        path = self.folder / "clicks" / f"{log}-{split}.npy"
        if not path.is_file():
            known = sorted(found.stem for found in (self.folder / "clicks").glob("*.npy"))
            raise ValueError(f"no clicks of {log!r} {split!r}, expected one of {known}; check both")
        probabilities, expected, labels = _load(path)
        return Clicks(probabilities, expected, labels.astype(np.int8))

    def click_probabilities(self, log: str, split: str) -> Floats:
        """The best statement about each row of a raw click file.  -> [N]"""
        return self.clicks(log, split).expected


def _load(path: Path) -> NDArray[Any]:
    return cast(NDArray[Any], np.load(path, allow_pickle=False))


def _load_record(kind: type[Record], folder: Path) -> Record:
    values: dict[str, object] = {}
    for field in fields(kind):
        slots = sorted(folder.glob(f"{field.name}-*.npy"))
        if slots:
            values[field.name] = {path.stem.partition("-")[2]: _load(path) for path in slots}
        else:
            values[field.name] = _load(folder / f"{field.name}.npy")
    return kind(**values)  # type: ignore[arg-type]
