"""A result as a study of Optuna, for optuna-dashboard and `optuna.visualization`."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.statistics import mean_and_error
from weightdecay.results import dataset as datasets
from weightdecay.search import member as member_json

_LOGARITHMIC = 10  # a range of numbers above 0 whose ends have at least this ratio is logarithmic


def study(result: Any, storage: Any, *, name: str, metric: str) -> Any:
    """Make a study with one trial per candidate; see `weightdecay.GridResult.to_optuna`.

    Args:
      result: A `weightdecay.GridResult`.
      storage: Where the study is kept: None = in memory, a URL such as ``"sqlite:///studies.db"``, or a storage of
        Optuna.
      name: Name of the study.
      metric: The validation metric.

    Returns:
      The study, an `optuna.study.Study`.

    Raises:
      ArgumentTypeError: ``name`` is not a string.
      ArgumentError: The storage has a study of this name, an unknown metric, or Optuna is not installed.
    """
    if not isinstance(name, str):
        raise ArgumentTypeError("name", f"name is {name!r}; give a string.")
    candidates = result.candidates(metric)
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError as error:
        raise ArgumentError("storage", "to_optuna needs Optuna: pip install 'weightdecay[optuna]'.") from error
    members = result.members
    parameters = _parameters(members, [candidate.members[0] for candidate in candidates])
    distributions = {
        key: _distribution(optuna, [row[key] for row in parameters if key in row])
        for key in dict.fromkeys(key for row in parameters for key in row)
    }
    dropped = result.dataset["dropped_at"].values if "dropped_at" in result.dataset else np.full(len(result), -1)
    steps = [int(step) for step in result.dataset["step"].values]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        made = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if result.lower_is_better(metric) else "maximize",
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise ArgumentError("name", f"name is {name!r}, and the storage has a study of this name; give another.") from (
            error
        )
    finally:
        optuna.logging.set_verbosity(verbosity)
    made.set_user_attr("weightdecay", {"metric": metric, "num_steps": steps[-1]})
    trials = []
    for candidate, own in zip(candidates, parameters, strict=True):
        indices = list(candidate.members)
        if (dropped[indices] == 0).all():
            continue
        folds = [replicate.fold for replicate in candidate.values]
        curve = [mean_and_error(column, folds)[0] for column in result.dataset[metric].values[indices].T]
        state = optuna.trial.TrialState.COMPLETE if np.isfinite(candidate.mean) else optuna.trial.TrialState.FAIL
        if (dropped[indices] >= 0).any():
            state = optuna.trial.TrialState.PRUNED
        trials.append(
            optuna.trial.create_trial(
                state=state,
                value=candidate.mean if state is optuna.trial.TrialState.COMPLETE else None,
                params=own,
                distributions={key: distributions[key] for key in own},
                intermediate_values={step: value for step, value in zip(steps, curve, strict=True) if value == value},
                user_attrs={
                    "candidate": candidate.number,
                    "rule": str(candidate.decay),
                    "replicates": len(indices),
                    "standard error": candidate.standard_error if np.isfinite(candidate.standard_error) else None,
                },
            )
        )
    made.add_trials(trials)
    return made


def _parameters(members: Sequence[Mapping[str, Any]], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Return the parameters of some members: the rule, its coefficients by the name of the rule, and all others."""
    labels = datasets.coordinates(members)
    rows = []
    for index in indices:
        row: dict[str, Any] = {}
        for name, values in labels.items():
            value = values[index].item()
            if name == "candidate" or name in member_json.REPLICATES or value != value or value == "":
                continue
            is_coefficient = name != "decay" and name.removesuffix("_schedule") not in members[index]
            row[f"{name} of {members[index]['decay'].name}" if is_coefficient else name] = value
        rows.append(row)
    return rows


def _distribution(optuna: Any, values: Sequence[Any]) -> Any:
    """Return the distribution of a parameter: a range of numbers, or a choice."""
    if any(isinstance(value, bool | str) for value in values):
        return optuna.distributions.CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    is_logarithmic = low > 0 and high / low >= _LOGARITHMIC
    if all(isinstance(value, int) for value in values):
        return optuna.distributions.IntDistribution(low, high, log=is_logarithmic)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=is_logarithmic)
