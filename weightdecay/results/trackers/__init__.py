"""Trackers of experiments, under the name ``wd.trackers``: results in MLflow, Weights & Biases, TensorBoard and Optuna.

``result.log("tensorboard")`` logs a result, ``fit_grid(..., log_to="tensorboard")`` logs a run while it trains, and
``result.to_optuna()`` makes a study. Instead of the name, a tracker with settings may be given, such as
``wd.trackers.MLflow("runs", each="member")``.

- Every candidate (or every member) is a run with its hyperparameters and its curves. All runs of a grid are in one
  group, which has the settings, the decision and the report.
- A tracker's library is imported when the tracker is used. A fault of a tracker is reported once, in a warning, and
  changes nothing in the training or the result.

A new tracker is one file here, with a `base.Tracker` and a `base.Session`, and one entry of `kinds.KINDS`.
"""

from weightdecay.results.trackers.mlflow import MLflow as MLflow
from weightdecay.results.trackers.tensorboard import TensorBoard as TensorBoard
from weightdecay.results.trackers.wandb import WandB as WandB
