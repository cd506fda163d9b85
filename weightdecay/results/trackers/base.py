"""What every tracker has: its settings, and the session in which it writes the runs of one grid."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from typing_extensions import override

from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError

Points: TypeAlias = Sequence[tuple[int, Mapping[str, float]]]
"""Finite metrics by name, at training steps."""

Hyperparameters: TypeAlias = Mapping[str, bool | int | float | str]
"""Hyperparameters of a run, or settings of a grid, by name."""

EACH = ("candidate", "member")
"""What is one run: a candidate, with the means over its seeds and folds, or a member."""


class Run(NamedTuple):
    """A candidate or a member, as a tracker knows it."""

    number: int
    """Of the candidate or of the member, from 0."""
    title: str
    """Such as ``"candidate 3: L2(0.01)"``."""
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class Tracker(ABC):
    """Settings of a tracker.

    Args:
      to: Where it writes; each tracker says what this may be.
      group: Name of the group of all runs; None = date and time of the first entry.
      each: ``"candidate"``: one run per candidate, whose curves are means over its seeds and folds; or ``"member"``.
      layers: Whether curves of single layers are logged too, as ``rotation/<layer>``.
      timeout: Seconds that the end of a run waits for the tracker, > 0.
    """

    to: str | os.PathLike[str] | None = None
    group: str | None = None
    each: str = "candidate"
    layers: bool = False
    timeout: float = 60.0

    extra: ClassVar[str] = ""
    """Name of the extra that installs its library."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs."""

    def check(self) -> None:
        """Validate the settings, and import the library.

        Raises:
          ArgumentTypeError: A setting has a wrong type.
          ArgumentError: A setting has a wrong value, or the library is not installed.
        """
        if not isinstance(self.to, str | os.PathLike | None):
            raise ArgumentTypeError("to", f"to is {self.to!r}; give a path, or None.")
        if not isinstance(self.group, str | None) or self.group == "":
            raise ArgumentError("group", f"group is {self.group!r}; give a name, or None for the date and time.")
        checks.one_of(self.each, "each", EACH)
        checks.number(self.timeout, "timeout", above=0, allowed="seconds, a finite number above 0")
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise ArgumentError(
                    "log_to",
                    f"{type(self).__name__} needs {module}, which cannot be imported ({error}); pip install "
                    f"'weightdecay[{self.extra}]'.",
                ) from error

    def group_name(self) -> str:
        """Return the name of the group; if none is given, it is the date and time."""
        return self.group or datetime.now().strftime("%Y-%m-%d %H.%M.%S")

    @abstractmethod
    def session(self, group: str) -> "Session":
        """Return a session for one grid; nothing is written before its first entry.

        Args:
          group: Name of the group.
        """


class Session(ABC):
    """The runs of one grid in a tracker. Its methods are called one at a time, though maybe not in one thread."""

    @abstractmethod
    def points(self, run: Run, points: Points) -> None:
        """Add points to the curves of a run; its first points start it.

        Args:
          run: The run.
          points: Its new points, of any steps.
        """

    @abstractmethod
    def end(self, run: Run, last: Mapping[str, float]) -> None:
        """End a run.

        Args:
          run: The run, which may have had no points.
          last: Its finite metrics at the last step by name.
        """

    @abstractmethod
    def close(self, settings: Hyperparameters, decision: str, report: Path | None) -> None:
        """Write what concerns the group, after the last run has ended.

        Args:
          settings: Settings of the grid.
          decision: Which candidate to take, as text.
          report: The report, an HTML file that is removed afterwards; None = there is none.
        """

    @abstractmethod
    def abort(self) -> None:
        """End all runs that have not ended, of a grid that was not trained to its end."""

    @abstractmethod
    def places(self) -> list[str]:
        """Return where the runs are, in the order in which they ended: names by which the tracker finds them."""


class OneByOne(Session):
    """A session of a tracker whose runs are objects that are opened and closed."""

    def __init__(self) -> None:
        """Begin without runs."""
        self.opened: dict[int, Any] = {}
        self._places: list[str] = []

    @abstractmethod
    def start(self, run: Run) -> Any:
        """Start a run, and return what stands for it."""

    @abstractmethod
    def write(self, opened: Any, points: Points) -> None:
        """Add points to a run."""

    @abstractmethod
    def finish(self, opened: Any, run: Run | None, last: Mapping[str, float]) -> str:
        """End a run, and return where it is; without ``run`` it was not trained to its end."""

    @override
    def points(self, run: Run, points: Points) -> None:
        if run.number not in self.opened:
            self.opened[run.number] = self.start(run)
        self.write(self.opened[run.number], points)

    @override
    def end(self, run: Run, last: Mapping[str, float]) -> None:
        opened = self.opened.pop(run.number, None)
        self._places.append(self.finish(self.start(run) if opened is None else opened, run, last))

    @override
    def abort(self) -> None:
        while self.opened:
            self._places.append(self.finish(self.opened.popitem()[1], None, {}))

    @override
    def places(self) -> list[str]:
        return list(self._places)
