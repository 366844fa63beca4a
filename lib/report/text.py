"""Text that may come from data: hidden characters made visible, private paths removed."""

import re
from collections.abc import Callable
from pathlib import Path

__all__ = ["make_scrub", "tidy"]

# Control characters, direction marks and overrides, zero-width characters, lone surrogates:
# they could reorder or hide what a page says. (A zero-width joiner stays: emoji need it.)
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
USER_FOLDER = re.compile(r"(?<![\w.~])/(?:home|Users)/[^/\s'\"]+|(?<![\w.~])/root(?=/)")


def tidy(text: str) -> str:
    """Show each hidden character by its number.

    >>> tidy("abc\u202exe.txt")
    'abc⟨U+202E⟩xe.txt'
    """
    return HIDDEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def make_scrub(home: Path) -> Callable[[str], str]:
    """A function that makes paths relative to the project and hides user folders."""
    prefixes = {str(home), str(home.resolve())} - {"/", "."}

    def scrub(text: str) -> str:
        for prefix in sorted(prefixes, key=len, reverse=True):
            text = text.replace(prefix + "/", "").replace(prefix, ".")
        return USER_FOLDER.sub("~", text)

    return scrub
