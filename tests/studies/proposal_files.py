"""Small files of the kinds that people have; each is a few hundred rows with something to learn."""

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["click_rows", "german_csv", "plain_csv", "purchases", "write_lines"]


def write_lines(path: Path, lines: list[str], *, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def click_rows(n: int, seed: int = 1) -> list[dict[str, object]]:
    """A log over twenty days; clicks depend on colour, price and the hour."""
    rng = random.Random(seed)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    rows = []
    for number in range(n):
        moment = start + timedelta(days=20 * number / n, minutes=rng.randrange(60))
        colour = rng.choice(["rot", "grün", "blau", "weiß"])
        price = round(rng.uniform(1, 2000), 2)
        logit = (colour == "rot") * 2.0 - price / 1000 + math.sin(moment.hour / 4) - 0.3
        clicked = int(rng.random() < 1 / (1 + math.exp(-logit)))
        rows.append({"moment": moment, "user": f"u{rng.randrange(60)}", "colour": colour,
                     "price": price, "clicked": clicked, "number": number})  # fmt: skip
    return rows


def plain_csv(path: Path, n: int = 600) -> Path:
    """A CSV with a header, as pandas writes one, with its unnamed index."""
    lines = [",user_id,colour,price,market,clicked,created_at"]
    for row in click_rows(n):
        price = "" if row["number"] == 7 else row["price"]
        lines.append(f"{row['number']},{row['user']},{row['colour']},{price},DE,{row['clicked']},"
                     f"{row['moment']:%Y-%m-%d %H:%M:%S}")  # fmt: skip
    return write_lines(path, lines)


def german_csv(path: Path, n: int = 600) -> Path:
    """What a spreadsheet in Germany saves: semicolons, decimal commas, umlauts in cp1252."""
    lines = ["Kunde;Größe;Preis;geklickt;Datum"]
    for row in click_rows(n):
        price = f"{row['price']:,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")
        answer = "ja" if row["clicked"] else "nein"
        lines.append(
            f"{row['user']};{row['colour']};{price};{answer};{row['moment']:%d.%m.%Y %H:%M}"
        )
    return write_lines(path, lines, encoding="cp1252")


def purchases(n_users: int = 80, n_items: int = 60, seed: int = 1) -> list[tuple[str, str, int]]:
    """user, item, seconds: everybody walks along the catalogue from somewhere, with a few leaps."""
    rng = random.Random(seed)
    rows = []
    for user in range(n_users):
        item, moment = rng.randrange(n_items), 1_600_000_000 + rng.randrange(10**7)
        for _ in range(rng.randrange(7, 14)):
            rows.append((f"u{user}", f"i{item}", moment))
            item = (item + 1) % n_items if rng.random() < 0.8 else rng.randrange(n_items)
            moment += rng.randrange(60, 10**6)
    return sorted(rows, key=lambda row: row[2])
