# The public names of this room, said once: read by the lazy loader in __init__.py and by type checkers.
from . import strategies

__all__ = ["strategies"]
