"""Size and laws of the marketplace: plain values, checked, in one record."""

from dataclasses import asdict, dataclass, fields

__all__ = ["WorldConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    """All that the world depends on; the same record gives the same bytes.

    >>> WorldConfig(seed=1, n_users=10, n_items=100).n_types
    48
    """

    seed: int
    n_users: int
    n_items: int
    mean_events: float = 13.0  # purchases per user, heavy-tailed
    text_share: float = 0.75  # share of an item's affinity variance that its title tells
    whim_share: float = 0.08  # share of choices from a private list nobody else's data explains
    new_item_share: float = 0.4  # items that arrive after the first day
    affinity: float = 2.2  # how strongly styles tell items of one type apart
    n_avazu: int = 0  # impressions of the Avazu-like log; 0 writes none
    n_toss: int = 0  # training rows of the Toss-like log; its test week day has a seventh of them
    toss_tokens: float = 40.0  # mean length of `seq`
    remainder: float = 0.5  # spread of the part of a click's logit that nothing observable explains
    avazu_ctr: float = 0.17
    toss_ctr: float = 0.019
    x2_min_count: int = 20  # rarer values of Avazu x2 are one value, as published
    duplicate_share: float = 0.002  # reviews logged twice, never among a user's last three

    n_types: int = 48
    n_styles: int = 12

    def __post_init__(self) -> None:
        """Refuse sizes and shares that no world can have."""
        for name, low in (("n_users", 2), ("n_items", 2 * self.n_types), ("seed", 0)):
            if getattr(self, name) < low:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected at least {low}; enlarge it"
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith(("_share", "_ctr")) and not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}, expected 0..1, a share; change it")
            if field.name.startswith("n_") and value < 0:
                raise ValueError(f"{field.name} is {value}, expected 0 or more rows; change it")
        if self.mean_events < 4 or self.toss_tokens < 1 or self.remainder < 0:
            raise ValueError(
                f"mean_events {self.mean_events} (expected >= 4), toss_tokens {self.toss_tokens} "
                f"(>= 1), remainder {self.remainder} (>= 0): change the one out of range"
            )

    def record(self) -> dict[str, int | float]:
        """The fields by name, for the truth's own file and for reports."""
        return asdict(self)
