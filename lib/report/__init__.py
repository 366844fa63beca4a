"""Pages from what the notebooks left behind.

The names below load when they are asked for: who reads a frame of metrics must not depend, through
the key of its notebook, on how pages are rendered.
"""

from importlib import import_module

__all__ = ["compare", "describe", "read_results", "render_all"]

_HOMES = {"compare": "changes", "describe": "changes", "read_results": "leaderboard",
          "render_all": "render"}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lib.report' has no {name!r}; it has {', '.join(__all__)}")
    value: object = getattr(import_module(f"lib.report.{_HOMES[name]}"), name)
    return value
