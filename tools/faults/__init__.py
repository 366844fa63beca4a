"""Bad days: a matrix of faults × notebooks. ``python -m tools.faults --help``."""
