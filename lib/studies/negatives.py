"""Items a user has not met, drawn for many positions at once; no Python per row.

Training negatives avoid the user's *training* items only: to avoid later purchases as well would
tell the model which they are.
"""

import torch
from torch import Tensor

from lib.data.histories import Histories
from lib.studies.counting import training_part

__all__ = ["ItemSampler"]

ROUNDS = 8  # of drawing again; what is still taken then walks on to the next free item


class ItemSampler:
    """Draws items against the training part of ``histories``, on any device."""

    def __init__(self, histories: Histories, *, device: str = "cpu") -> None:
        offsets, items = training_part(histories)
        self.n_items = histories.n_items
        lengths = torch.from_numpy(offsets).diff()
        owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        self.bought = torch.from_numpy(items.astype("int64")).to(device)  # one entry a purchase
        keys = owners.to(device) * (self.n_items + 1) + self.bought
        self.keys = torch.unique(keys)  # ascending (user, item)
        owned = torch.bincount((self.keys // (self.n_items + 1)).cpu(), minlength=len(lengths))
        if len(owned) and int(owned.max()) >= self.n_items:
            user = int(owned.argmax())
            raise ValueError(f"user {user} has all {self.n_items} items in training, so nothing is "
                             "left to tell apart; leave the user out or BPR off")  # fmt: skip
        shares = torch.from_numpy(histories.counts.astype("float64")) / max(len(self.bought), 1)
        even = 1 / self.n_items
        self.chances = (0.5 * shares + 0.5 * even).float().to(device)  # of one draw of `pool`

    def owns(self, users: Tensor, ids: Tensor) -> Tensor:
        """Whether an item is among its user's training items; shapes broadcast."""
        wanted = users * (self.n_items + 1) + ids
        places = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return self.keys[places] == wanted

    def negatives(self, users: Tensor, n: int) -> Tensor:
        """n items per entry, uniform among those its user has not met.  (N,) -> (N, n)"""
        ids = torch.randint(1, self.n_items + 1, (len(users), n), device=users.device)
        owners = users[:, None].expand_as(ids)
        rows, columns = self.owns(owners, ids).nonzero(as_tuple=True)
        step = 0
        while len(rows):  # only what was taken is looked at again
            if step < ROUNDS:
                drawn = torch.randint(1, self.n_items + 1, (len(rows),), device=users.device)
            else:
                drawn = ids[rows, columns] % self.n_items + 1
            ids[rows, columns] = drawn
            still = self.owns(users[rows], drawn)
            rows, columns, step = rows[still], columns[still], step + 1
        return ids

    def pool(self, n: int) -> tuple[Tensor, Tensor]:
        """One sample for all positions of a batch, half uniform and half by popularity.

        -> ids (n,) with repetition, and how often each is expected among the n.
        """
        device = self.bought.device
        ids = torch.randint(1, self.n_items + 1, (n,), device=device)
        popular = torch.rand(n, device=device) < 0.5
        picks = torch.randint(0, len(self.bought), (n,), device=device)
        ids = torch.where(popular, self.bought[picks], ids)
        return ids, n * self.chances[ids]
