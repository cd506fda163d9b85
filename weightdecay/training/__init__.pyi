# The public names of the room: read by the lazy loader in __init__.py and by type checkers.
from . import metrics

__all__ = ["metrics"]
