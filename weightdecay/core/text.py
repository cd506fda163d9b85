"""Numbers and counts as text: one way to write each, wherever a table, a plot or a message shows it."""

import difflib
import inspect
import math
from collections.abc import Iterable
from typing import Any

NOTHING = "–"  # noqa: RUF001 (an en dash is meant)
"""Shown where there is no number."""


def number(value: float | int, how: str = ".4g") -> str:
    """A number with four significant digits; a dash where it is not finite.

    Args:
      value: The number.
      how: Another format.

    Examples:
      >>> number(0.123456), number(float("nan"))
      ('0.1235', '–')
    """
    return f"{value:{how}}" if math.isfinite(value) else NOTHING


def short(value: Any) -> str:
    """A value as a user would write it in a call: a number with four digits, a function by its name.

    Args:
      value: A number, a function, or anything else.

    Returns:
      The text.

    Examples:
      >>> short(0.1 + 0.2), short(True), short(max)
      ('0.3', 'True', 'max')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return getattr(value, "__name__", None) or str(value) if inspect.isroutine(value) else str(value)
    return f"{value:.4g}" if isinstance(value, float) or abs(value) < 1e300 else "a huge number"


def shortened(value: Any, length: int = 60) -> str:
    """The repr of a value for a message, cut in the middle if it is long, as that of a model is.

    Args:
      value: Any value.
      length: Maximum number of characters.

    Returns:
      The text.

    Examples:
      >>> shortened([1, 2]), shortened("a" * 50, 20)
      ('[1, 2]', "'aaaaaaaaaaa...aaaa'")
    """
    whole = " ".join(repr(value).split())
    return whole if len(whole) <= length else f"{whole[: length - 8]}...{whole[-5:]}"


def estimate(mean: float, error: float) -> str:
    """A mean with its standard error, both to the second digit of the error, or to integers.

    Args:
      mean: The mean.
      error: Its standard error; nan or 0 = the mean alone, to four digits.

    Returns:
      Such as ``"0.1206 ± 0.0031"``.
    """
    if not (math.isfinite(mean) and math.isfinite(error)) or error == 0:
        return f"{mean:.4g}"
    digits = max(1 - math.floor(math.log10(error)), 0)
    if digits > 8:
        return f"{mean:.4g} ± {error:.2g}"
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def percent(fraction: float) -> str:
    """A fraction in percent, to one digit.

    Examples:
      >>> percent(0.578)
      '57.8 %'
    """
    return f"{number(100 * fraction, '.1f')}{' %' if math.isfinite(fraction) else ''}"


def size(num_bytes: float | int) -> str:
    """A number of bytes in a readable unit.

    Examples:
      >>> size(2048), size(3 * 2**30)
      ('2.0 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" or num_bytes >= 10 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"


def duration(seconds: float | int) -> str:
    """A time in a readable unit.

    Examples:
      >>> duration(12), duration(600), duration(9000)
      ('12.0 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A count with its noun.

    Examples:
      >>> counted(1, "seed"), counted(3, "seed")
      ('1 seed', '3 seeds')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


_SYNONYMS = {
    "lr": "learning_rate",
    "eta": "learning_rate",
    "step_size": "learning_rate",
    "wd": "decay",
    "weight_decay": "decay",
    "rule": "decay",
    "seeds": "seed",
    "random_state": "seed",
    "dropout": "dropout_rate",
    "epochs": "num_steps",
    "num_epochs": "num_steps",
    "n_epochs": "num_steps",
    "steps": "num_steps",
    "max_steps": "num_steps",
    "iterations": "num_steps",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "minibatch_size": "batch_size",
    "criterion": "loss",
    "loss_fn": "loss",
    "early_stopping": "patience",
    "verbose": "progress",
}
"""Names of arguments and axes in other libraries, with the name here."""

_EPOCHS = ("epochs", "num_epochs", "n_epochs")
_EPOCHS_TO_STEPS = " It counts updates: epochs * training examples / batch_size."


def suggestion(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that a user meant, as the end of a message.

    Args:
      name: What the user wrote.
      known: The names that exist.

    Returns:
      Such as ``" Did you mean 'dropout_rate'?"``; empty if nothing is close.

    Examples:
      >>> suggestion("droput_rate", ["dropout_rate", "clip_norm"])
      " Did you mean 'dropout_rate'?"
      >>> suggestion("lr", ["learning_rate"])
      " Did you mean 'learning_rate'?"
    """
    known = list(known)
    synonym = _SYNONYMS.get(name.lower())
    closest = [synonym] if synonym in known else difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not closest:
        # A name that differs only in upper and lower case, or in underscores.
        closest = [one for one in known if plain_name(one) == plain_name(name)]
    if not closest:
        return ""
    remark = _EPOCHS_TO_STEPS if name.lower() in _EPOCHS and closest[0] == "num_steps" else ""
    return f" Did you mean {closest[0]!r}?{remark}"


def plain_name(name: str) -> str:
    """Return a name in lower case and without underscores.

    Examples:
      >>> plain_name("Learning_Rate")
      'learningrate'
    """
    return name.lower().replace("_", "")
