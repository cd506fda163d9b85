"""The methods of `weightdecay.GridResult` that take a result to the tools of others: trackers and Optuna."""

from typing import Any

from weightdecay.core import text
from weightdecay.core.checks import ArgumentError
from weightdecay.core.warn import warn
from weightdecay.results.trackers import kinds, study
from weightdecay.results.trackers.base import Tracker
from weightdecay.results.trackers.log import Log


class TrackerMethods:
    """Methods that log a result to a tracker, and make a study of it."""

    def log(self: Any, tracker: str | Tracker, *, metric: str = "validation_loss", **settings: Any) -> list[str]:
        """Log the result to a tracker: one run for each candidate, or for each member, all in one group.

        A run has its hyperparameters, the curves of all metrics, and of a candidate the standard errors at the last
        step. Curves of a candidate are means over its seeds and folds; a number that is not finite is left out. The
        group has the settings, the decision, and the report as an artifact. A fault of the tracker is a warning.

        Args:
          tracker: ``"mlflow"``, ``"wandb"``, ``"tensorboard"``, or a tracker with settings, such as
            ``wd.trackers.MLflow("runs")``.
          metric: The metric of the decision, as in `best`.
          **settings: Settings of a tracker that is given by its name: ``to``, ``group``, ``each`` (``"candidate"`` or
            ``"member"``), ``layers``, and ``project``; see `weightdecay.results.trackers`.

        Returns:
          Where the runs are, the group first (of Weights & Biases last): run ids, or folders of TensorBoard.

        Raises:
          ArgumentTypeError: An unknown setting, or something else than a tracker.
          ArgumentError: An unknown name, a wrong setting, or the library of the tracker is not installed.
        """
        checked = kinds.checked(tracker, "tracker", settings)
        log = Log(checked, self.members)
        decision, report = described(self, metric)
        try:
            return log.finish(self, decision, report)
        except Exception as error:  # whatever the library of the tracker raises
            warn(failed(checked, error))
            return log.places()

    def to_optuna(self: Any, storage: Any = None, *, name: str = "weightdecay", metric: str = "validation_loss") -> Any:
        """Make a study of Optuna, which optuna-dashboard and the plots of `optuna.visualization` show.

        A candidate is a trial. Its value is the mean of the metric over seeds and folds, its intermediate values are
        the curve, and its parameters are ``decay``, ``coefficient of <rule>``, and the other hyperparameters. A range
        whose ends differ by a factor of at least 10 is logarithmic. A trial has failed if a replicate diverged, and is
        pruned if a search dropped it; what a search never trained is left out.

        Args:
          storage: None = in memory; a URL such as ``"sqlite:///studies.db"``; or a storage of Optuna.
          name: Name of the study in the storage.
          metric: The validation metric; its direction is that of the study.

        Returns:
          The study, an `optuna.study.Study`.

        Raises:
          ArgumentTypeError: ``name`` is not a string.
          ArgumentError: The storage has a study of this name, an unknown metric, or Optuna is not installed.
        """
        return study.study(self, storage, name=name, metric=metric)


def described(result: Any, metric: str = "validation_loss") -> tuple[str, str]:
    """Return the decision and the report of a result.

    Args:
      result: A `weightdecay.GridResult`.
      metric: The metric of the decision.

    Returns:
      Which candidate to take, as text, and the report as HTML.
    """
    from weightdecay.results.report import page

    try:
        decision = result.best(metric=metric).summary
    except ArgumentError:
        raise
    except ValueError as error:  # every member diverged, or none has a finite metric
        decision = f"No choice: {error}"
    return decision, page.page(result, metric=metric, test=result._test)


def failed(tracker: Tracker, error: BaseException) -> str:
    """Return the message that a tracker has failed.

    Args:
      tracker: The tracker.
      error: What its library has raised.
    """
    name = type(tracker).__name__
    return (
        f"{name} failed, so that the run is not in it, or not all of it; the result is complete "
        f"({text.shortened(error, 300)}). Log it again with result.log(...)."
    )
