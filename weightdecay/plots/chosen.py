"""The chosen candidate as a plot knows it."""

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Chosen(Protocol):
    """What a plot needs to know of a chosen candidate to mark it.

    Attributes:
      number: Its row in the table.
      decay: Its rule.
    """

    @property
    def number(self) -> int:
        """Its row in the table."""
        ...

    @property
    def decay(self) -> Any:
        """Its rule."""
        ...
