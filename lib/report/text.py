"""Text that may come from data: hidden characters made visible, private paths removed."""

import re
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup, escape

__all__ = ["make_scrub", "plain_tex", "tidy"]

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


SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η",
    "theta": "θ", "lambda": "λ", "mu": "μ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ",
    "phi": "φ", "psi": "ψ", "omega": "ω", "Delta": "Δ", "Theta": "Θ", "Sigma": "Σ", "Omega": "Ω",
    "sum": "Σ", "prod": "∏", "int": "∫", "partial": "∂", "nabla": "∇", "infty": "∞", "cdot": "·",
    "times": "×", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠",
    "approx": "≈", "sim": "∼", "in": "∈", "notin": "∉", "to": "→", "rightarrow": "→",
    "leftarrow": "←", "mid": "|", "sqrt": "√", "odot": "⊙", "circ": "∘", "oplus": "⊕", "cup": "∪",
    "cap": "∩", "ldots": "…", "dots": "…", "top": "ᵀ", "ell": "ℓ",
    "left": "", "right": "", "quad": "\u2003", "log": "log\u2009", "exp": "exp\u2009",
    "max": "max\u2009", "min": "min\u2009",
}  # fmt: skip
GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"


def plain_tex(source: str) -> Markup:
    r"""Simple TeX as text with sub- and superscripts; what is not known stays as it was written.

    >>> plain_tex(r"\sum_{i=1}^n \frac{x_i}{2}")
    Markup('Σ<sub>i=1</sub><sup>n</sup> (x<sub>i</sub>)/(2)')
    """
    text = str(escape(source.strip()))
    for _ in range(4):  # from the inside out
        text = re.sub(rf"\\frac\s*{GROUP}\s*{GROUP}", r"(\1)/(\2)", text)
        text = re.sub(rf"\\(?:math\w+|text\w*|operatorname|hat|bar|tilde){GROUP}", r"\1", text)
    text = re.sub(r"\\([A-Za-z]+)\s?", lambda m: SYMBOLS.get(m[1], m[0]), text)
    text = re.sub(r"\\([,;:! ])", "\u2009", text)
    text = re.sub(r"\\([{}|_])", r"\1", text)
    for _ in range(3):
        for sign, tag in (("_", "sub"), (r"\^", "sup")):
            text = re.sub(rf"{sign}{GROUP}", rf"<{tag}>\1</{tag}>", text)
            text = re.sub(rf"{sign}(&\w+;|[^\s{{}}<&])", rf"<{tag}>\1</{tag}>", text)
    return Markup(text)
