"""What the notebooks import: ``lib.start`` opens a run, the packages below do the work."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib.run import Run, start

__all__ = ["Run", "start"]


def __getattr__(name: str) -> object:
    """Load ``lib.run`` when a notebook asks for it, so that importing a part loads only that."""
    if name in __all__:
        from lib import run

        return getattr(run, name)
    raise AttributeError(f"module 'lib' has no attribute {name!r}")
