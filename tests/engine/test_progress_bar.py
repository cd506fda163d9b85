"""The progress bar: it shows compilation as such, estimates from the time of training, and fits on a terminal."""

import io
import re

import pytest

from weightdecay.engine import progress_bar


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_bar.time, "monotonic", clock.monotonic)
    return clock


def displayed(bar):
    return bar.format_meter(**bar.format_dict)


def opened(monkeypatch, columns="100", total=1000, done=0):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    return progress_bar.progress_bar(total, "member-steps", shown=True, done=done)


def test_bar_shows_compilation_until_the_first_update(monkeypatch, clock):
    with opened(monkeypatch) as bar:
        assert displayed(bar).startswith("compiling   0% |")
        assert displayed(bar).endswith("? left")
        bar.update(10)
        assert displayed(bar).startswith("training   1% |")


def test_bar_estimates_from_the_time_of_training_alone(monkeypatch, clock):
    with opened(monkeypatch, done=100) as bar:
        clock.now = 60.0  # a minute of compilation
        bar.update(10)
        clock.now = 61.0
        bar.update(10)
        assert displayed(bar).endswith(" ? left")  # a second of training is too little to tell
        clock.now = 64.0
        bar.update(30)
        # 40 units in 4 seconds of training; 850 of 1000 are left.
        assert displayed(bar).endswith(" 01:25 left")
        bar.update(850)
        assert displayed(bar).endswith(" 00:00 left")


@pytest.mark.parametrize("columns", [30, 40, 60, 77, 79, 80, 100, 200])
def test_bar_fits_and_keeps_the_time_left(monkeypatch, clock, columns):
    with opened(monkeypatch, str(columns), total=987_654_321) as bar:
        bar.update(1000)
        clock.now = 5000.0
        bar.update(1_000_000)
        text = displayed(bar)
        assert len(text) < columns
        assert re.search(r" [\d:]+ left$", text)
        assert ("member-steps" in text) == (columns >= 79)


def test_bar_that_is_not_shown_writes_nothing(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar.progress_bar(10, "members", shown=False) as bar:
        bar.update(10)
    assert stream.getvalue() == ""
