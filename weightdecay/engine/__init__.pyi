# The public names of the room: read by the lazy loader in __init__.py and by type checkers.
from . import executors

__all__ = ["executors"]
