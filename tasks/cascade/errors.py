"""What the service cannot do just now."""


class Overloaded(Exception):
    """Too many questions wait already; the same one may be asked again in a moment."""


class OverBudget(Exception):
    """The teacher may be asked no more today."""
