"""Values as text for people: hidden characters made visible, units."""

import re
from datetime import UTC, datetime

__all__ = ["cut", "duration", "moment", "short", "size", "tidy"]

# Control characters, direction marks and overrides, zero-width characters, lone surrogates:
# they could reorder or hide what a page says. (A zero-width joiner stays: emoji need it.)
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def tidy(text: str) -> str:
    """Show each hidden character by its number.

    >>> tidy("abc\u202exe.txt")
    'abc⟨U+202E⟩xe.txt'
    """
    return HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def cut(value: object, length: int) -> str:
    """The first ``length`` characters, saying how many there were.

    >>> cut("abcdef", 3)
    'abc… (6 characters)'
    """
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"


def short(value: object) -> str:
    """A value as text; a sha256 keeps the 12 digits that people compare."""
    return str(value)[:12] if SHA256.match(str(value)) else cut(value, 400)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.42), duration(185), duration(3720)
    ('0.4 s', '3 min 05 s', '1 h 02 min')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(value: object) -> str:
    """A start time to the minute, from ISO text.

    >>> moment("2026-11-20T10:15:42+00:00")
    '2026-11-20 10:15 UTC'
    """
    try:
        when = datetime.fromisoformat(str(value))
        return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return cut(value or "", 40)


def size(amount: float | None) -> str:
    """Bytes for people.

    >>> size(2_500_000), size(350_000_000), size(None)
    ('2.5 MB', '350 MB', '')
    """
    if amount is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.1f} {unit}"
