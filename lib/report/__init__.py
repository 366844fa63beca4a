"""Pages from what the notebooks left behind; plots they share are in ``lib.report.figures``.

The names below load when they are asked for: a notebook that imports ``lib.report.figures`` must
not depend, through its key, on how pages are rendered.
"""

from importlib import import_module

__all__ = ["compare", "describe", "frame", "read_results", "render_all"]

_HOMES = {"compare": "changes", "describe": "changes", "frame": "metrics",
          "read_results": "leaderboard", "render_all": "render"}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'lib.report' has no {name!r}; it has {', '.join(__all__)}")
    value: object = getattr(import_module(f"lib.report.{_HOMES[name]}"), name)
    return value
