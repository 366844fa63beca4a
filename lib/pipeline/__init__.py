"""Nodes, keys, store and processes: runs notebooks so that their results can be trusted."""

__all__ = ["Blocked", "NotebookFailed", "RunnerError", "WrongUse"]


class RunnerError(Exception):
    """What the command line reports in one message and an exit code."""

    exit_code = 1


class NotebookFailed(RunnerError):
    """A notebook that did not end in a complete result."""


class WrongUse(RunnerError):
    """A profile, parameter or argument that the person has to correct."""

    exit_code = 2


class Blocked(RunnerError):
    """A node that cannot start: something it needs is not there."""

    exit_code = 3
