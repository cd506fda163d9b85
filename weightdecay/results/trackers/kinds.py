"""Trackers by name."""

from dataclasses import fields
from typing import Any

from weightdecay.core import checks, text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.results.trackers.base import Tracker
from weightdecay.results.trackers.mlflow import MLflow
from weightdecay.results.trackers.tensorboard import TensorBoard
from weightdecay.results.trackers.wandb import WandB

KINDS: dict[str, type[Tracker]] = {"mlflow": MLflow, "wandb": WandB, "tensorboard": TensorBoard}
"""Classes of trackers by the name that `weightdecay.fit_grid` and ``result.log`` take."""


def checked(tracker: Any, argument: str, settings: dict[str, Any]) -> Tracker:
    """Return a tracker whose settings are valid and whose library is installed.

    Args:
      tracker: What the user passed: a name, or a tracker.
      argument: Name of the argument, for the message.
      settings: Settings by name, of a tracker that was passed by its name.

    Returns:
      The tracker.

    Raises:
      ArgumentTypeError: Neither a name nor a tracker, or an unknown setting.
      ArgumentError: An unknown name, a wrong setting, settings of a tracker that has its own, or no library.
    """
    if isinstance(tracker, str):
        kind = KINDS[checks.one_of(tracker, argument, KINDS)]
        try:
            tracker = kind(**settings)
        except TypeError as error:
            allowed = ", ".join(field.name for field in fields(kind))
            message = f"{argument} is {tracker!r}, with the settings {allowed}: {error}."
            raise ArgumentTypeError(argument, message) from error
    elif not isinstance(tracker, Tracker):
        allowed = ", ".join(map(repr, KINDS))
        raise ArgumentTypeError(
            argument,
            f"{argument} is {text.shortened(tracker)}; give one of {allowed}, or a tracker such as "
            "wd.trackers.TensorBoard('runs').",
        )
    elif settings:
        raise ArgumentError(
            argument, f"{argument} is {tracker!r}, which has its settings; leave out {', '.join(settings)}."
        )
    tracker.check()
    return tracker
