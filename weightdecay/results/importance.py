"""How much each hyperparameter of a grid matters for a metric, by a random forest and its permutation importance."""

import numpy as np
import pandas as pd

from weightdecay.core.checks import ArgumentError
from weightdecay.plots import table_lines, value_axis

_MIN_CANDIDATES = 12
_FOLDS, _TREES, _PERMUTATIONS = 5, 100, 10


def importance(table: pd.DataFrame, metric: str = "validation_loss") -> pd.DataFrame:
    """Estimate how much each hyperparameter that varies matters, over the whole range that the grid covers.

    A random forest learns the metric from the hyperparameters on four fifths of the candidates. On the others, values
    of one hyperparameter are exchanged between candidates at random. Half of the increase of the squared error, divided
    by the variance of the metric, estimates the fraction of the variance that the hyperparameter takes part in, alone
    and together with others (the total index of Sobol), if the forest is good and hyperparameters are drawn
    independently. The fractions add to more than 1 where hyperparameters interact.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter. Values far outside (1.5 interquartile ranges above
        the third or below the first quartile) are moved to these ends, so that one bad candidate does not decide.
        Candidates that are not finite are left out.

    Returns:
      Index ``axis``, the most important first; ``importance`` and its ``standard_error`` over the five fifths.
      ``attrs["explained"]`` is the fraction of the variance of unseen candidates that the forest explains, with
      ``attrs["explained_standard_error"]``; below about 0.3 the importances say little.

    Raises:
      ArgumentError: Fewer than 12 finite candidates, or nothing that varies.

    References:
      Breiman, Random forests, 2001. Hutter, Hoos & Leyton-Brown, An efficient approach for assessing hyperparameter
      importance, 2014. Sobol, Global sensitivity indices, 2001.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    values = table[metric].to_numpy(float)
    finite = np.isfinite(values)
    if finite.sum() < _MIN_CANDIDATES:
        raise ArgumentError(
            "metric",
            f"metric is {metric!r}, which is finite for {finite.sum()} candidates; importance needs at least "
            f"{_MIN_CANDIDATES}.",
        )
    table, values = table_lines.rows_where(table, finite), values[finite]
    names = value_axis.varying(table)
    if not names:
        raise ArgumentError("metric", "no hyperparameter has two values among the finite candidates; add an axis.")
    features = np.column_stack([_feature(table, name) for name in names])
    first, third = np.quantile(values, [0.25, 0.75])
    values = np.clip(values, first - 1.5 * (third - first), third + 1.5 * (third - first))
    variance = values.var()
    scores, fractions = [], []
    for train, test in KFold(_FOLDS, shuffle=True, random_state=0).split(features):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(features[train], values[train])
        drop = permutation_importance(
            forest,
            features[test],
            values[test],
            scoring="neg_mean_squared_error",
            n_repeats=_PERMUTATIONS,
            random_state=0,
        )
        error = np.mean((forest.predict(features[test]) - values[test]) ** 2)
        scores.append(1 - error / variance if variance > 0 else 0.0)
        fractions.append(drop["importances_mean"] / (2 * variance) if variance > 0 else np.zeros(len(names)))
    by_fold = np.array(fractions)
    made = pd.DataFrame(
        {"importance": by_fold.mean(axis=0), "standard_error": by_fold.std(axis=0, ddof=1) / np.sqrt(_FOLDS)},
        index=pd.Index(names, name="axis"),
    ).sort_values("importance", ascending=False, kind="stable")
    made.attrs["explained"] = float(np.mean(scores))
    made.attrs["explained_standard_error"] = float(np.std(scores, ddof=1) / np.sqrt(_FOLDS))
    return made


def _feature(table: pd.DataFrame, name: str) -> np.ndarray:
    """Return the positions on an axis as a feature of a tree; no value is below all others."""
    fraction = value_axis.of(table, name).fraction()
    return np.where(np.isnan(fraction), -1.0, fraction)
