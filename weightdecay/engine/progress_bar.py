"""The progress bar of a run, with the time that is left."""

import os
import sys
import threading
import time
from typing import Any

_WIDEST = 100  # columns
_WITH_COUNTS = 78  # fewest columns with room for the counts and for all times
_WITH_BAR = 39  # fewest columns with room for a bar
_FIRST_ESTIMATE = 2.0  # seconds of training before the time left is shown


def progress_bar(total: int, unit: str, *, shown: bool, done: int = 0) -> Any:
    """Return the progress bar of a run, for a terminal or a notebook.

    Until the first call of ``update`` the bar shows that the run is compiling. The time left follows from the rate of
    the calls after the first one, so that compilation does not count, and is shown after two seconds of training.

    Args:
      total: Number of units of work in all.
      unit: Name of the unit, such as ``"member-steps"``.
      shown: Whether the bar is displayed.
      done: Number of units that earlier calls have completed.

    Returns:
      A tqdm bar; ``with`` closes it.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        started: tuple[float, float] | None = None  # time and units at the end of the first update

        def __init__(self, **settings: Any) -> None:
            self.closed = threading.Event()
            super().__init__(**settings)
            if not self.disable and sys.stderr.isatty():
                threading.Thread(target=self.keep_current, daemon=True).start()

        def keep_current(self) -> None:
            """Display the elapsed time while no update comes."""
            while not self.closed.wait(1.0):
                self.refresh()

        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "left": self.left()}

        def left(self) -> str:
            """Return the time left, or a question mark where it is not known yet."""
            if self.total == self.n:
                return self.format_interval(0)
            if self.started is None or self.n <= self.started[1]:
                return "?"
            seconds = time.monotonic() - self.started[0]
            if seconds < _FIRST_ESTIMATE:
                return "?"
            return self.format_interval(seconds * (self.total - self.n) / (self.n - self.started[1]))

        def update(self, n: Any = 1) -> Any:
            if self.started is None and not self.disable:
                self.set_description_str("training", refresh=False)
                self.started = time.monotonic(), self.n + (n or 0)
            return super().update(n)

        def close(self) -> None:
            self.closed.set()
            super().close()

    columns = min(_columns(), _WIDEST)
    counts = f"{{n_fmt}}/{{total_fmt}} {unit}, {{elapsed}} elapsed, " if columns >= _WITH_COUNTS else ""
    shape = f"{{desc}} {{percentage:3.0f}}% |{{bar}}| {counts}{{left}} left"
    return Bar(
        total=total,
        initial=done,
        disable=not shown,
        desc="compiling",
        unit_scale=True,
        ncols=columns,
        mininterval=0.1 if sys.stderr.isatty() else 1.0,
        bar_format=shape if columns >= _WITH_BAR else "{percentage:3.0f}%, {left} left",
    )


def _columns() -> int:
    """Number of columns of the terminal that the bar is displayed in; the widest bar where there is no terminal.

    The variable COLUMNS takes precedence over the size that the terminal reports. The last column stays empty, since
    some terminals break the line after it.
    """
    if os.environ.get("COLUMNS", "").isdecimal() and int(os.environ["COLUMNS"]) > 0:
        return int(os.environ["COLUMNS"]) - 1
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or _WIDEST + 1) - 1
    except (OSError, ValueError):
        return _WIDEST
