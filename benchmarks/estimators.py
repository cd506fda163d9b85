"""How do the estimators compare with those that users of scikit-learn would take otherwise?

Six regression sets of UCI and four classification sets of scikit-learn (iris, wine, breast cancer, digits), each in a
few divisions into training and test rows. On each, with standardized inputs:

- `wd.DecayClassifierCV` or `wd.DecayRegressorCV` with its defaults but for what ``--candidates`` and ``--cv`` say: no
  decay and coefficients of `wd.Decoupled`, at two learning rates;
- `GridSearchCV` over `alpha` (0 and log-spaced) and the same learning rates of `MLPClassifier` or `MLPRegressor`, with
  the same widths, batch size, epochs, folds and number of candidates, on all cores; targets are standardized;
- `LogisticRegressionCV`, or `RidgeCV` over log-spaced coefficients.

The networks of both sides take the same number of epochs, and none stops early: ``--epochs``, by default those of the
estimators. The score is the accuracy or R² on the test rows; ± is one standard error over the divisions. Seconds are
those of `fit`, with compilation in the first division; the median of the later ones is shown too, if there are any.

PATH holds `uci`, as in `real_data.py`.

    python benchmarks/estimators.py PATH
    python benchmarks/estimators.py PATH --sets iris,yacht --splits 2 --candidates 4 --epochs 20
"""

import argparse
import gzip
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import sklearn
from peers import CORES, processor
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import weightdecay as wd

UCI = ("concrete", "energy", "yacht", "wine", "airfoil", "protein")
CLASSES = {
    "iris": datasets.load_iris,
    "wines": datasets.load_wine,
    "cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
}
RATES = (1e-3, 1e-2)
HIDDEN = (64, 64)
_ALPHAS = (1e-4, 1e2)  # divided by the examples of a batch in the objective of scikit-learn
_DECOUPLED = (1e-3, 1e1)
_BATCH, _EPOCHS, _STEPS = 200, 200, (500, 10_000)  # as the estimators have them


class Split(NamedTuple):
    """One division of a set: training inputs and targets, test inputs and targets."""

    inputs: np.ndarray
    targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray


class Outcome(NamedTuple):
    """Score on the test rows, seconds of the fit, and what was chosen."""

    score: float
    seconds: float
    chosen: str


def main() -> None:
    """Compare the estimators on every set, and print one row per set and side."""
    options = _options()
    settings = f"{options.candidates} candidates, {options.cv} folds, {options.splits} splits"
    print(f"{processor()}, {CORES} cores; scikit-learn {sklearn.__version__}, jax {jax.__version__}; {settings}\n")
    print("| set | estimator | score | seconds of the first fit | of a later fit | chosen last |")
    print("|---|---|---|---|---|---|")
    for name in options.sets.split(","):
        outcomes: dict[str, list[Outcome]] = {}
        for split in _splits(name, options):
            for side, estimator in _estimators(name, split, options).items():
                outcomes.setdefault(side, []).append(_outcome(estimator, split))
        for side, of_side in outcomes.items():
            print(_row(name, side, of_side), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("path", type=Path, help="folder with uci")
    parser.add_argument("--sets", default=",".join((*CLASSES, *UCI)), help="names, comma-separated")
    parser.add_argument("--splits", type=int, default=5, help="divisions into training and test rows")
    parser.add_argument("--candidates", type=int, default=16, help="candidates of each search, an even number")
    parser.add_argument("--cv", type=int, default=5, help="folds")
    parser.add_argument("--rows", type=int, default=5000, help="training rows at most")
    parser.add_argument("--epochs", type=int, default=None, help="epochs of the networks of both sides")
    return parser.parse_args()


def _splits(name: str, options: argparse.Namespace) -> Iterator[Split]:
    if name in CLASSES:
        inputs, targets = CLASSES[name](return_X_y=True)
        divisions = StratifiedShuffleSplit(options.splits, test_size=0.25, random_state=0).split(inputs, targets)
        for train, test in divisions:
            yield Split(inputs[train], targets[train], inputs[test], targets[test])
        return
    with gzip.open(options.path / "uci" / f"{name}-data.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    with gzip.open(options.path / "uci" / f"{name}-test_mask.csv.gz", "rt") as file:
        masks = np.loadtxt(file, delimiter=",", ndmin=2).astype(bool)
    for number in range(min(options.splits, masks.shape[1])):
        test = masks[:, number]
        rows = np.random.default_rng(number).permutation(np.flatnonzero(~test))[: options.rows]
        yield Split(table[rows, :-1], table[rows, -1], table[test, :-1], table[test, -1])


def _estimators(name: str, split: Split, options: argparse.Namespace) -> dict[str, Any]:
    """The estimators of one division, unfitted, by their name."""
    num_rows = len(split.targets)
    batch = min(_BATCH, num_rows)
    steps = min(max(_EPOCHS * num_rows // batch, _STEPS[0]), _STEPS[1])
    epochs = options.epochs or max(1, round(steps * batch / num_rows))
    num = options.candidates // len(RATES)
    ours: dict[str, Any] = {
        "model": HIDDEN,
        "decay": [wd.NoDecay(), *wd.logspace(wd.Decoupled, *_DECOUPLED, num - 1)],
        "learning_rate": RATES,
        "max_epochs": epochs,
        "cv": options.cv,
        "random_state": 0,
    }
    theirs: dict[str, Any] = {
        "hidden_layer_sizes": HIDDEN,
        "batch_size": "auto",  # the same
        "max_iter": epochs,
        "tol": 0.0,
        "n_iter_no_change": epochs,  # never stop before the last epoch
        "random_state": 0,
    }
    grid = {"alpha": [0.0, *np.geomspace(*_ALPHAS, num - 1)], "learning_rate_init": list(RATES)}
    if name in CLASSES:
        search = GridSearchCV(MLPClassifier(**theirs), grid, cv=options.cv, scoring="neg_log_loss", n_jobs=CORES)
        linear: Any = LogisticRegressionCV(Cs=10, cv=options.cv, max_iter=2000, n_jobs=CORES)
        decayed: Any = wd.DecayClassifierCV(**ours)
    else:
        network = TransformedTargetRegressor(MLPRegressor(**theirs), transformer=StandardScaler())
        grid = {f"regressor__{key}": values for key, values in grid.items()}
        search = GridSearchCV(network, grid, cv=options.cv, scoring="neg_mean_squared_error", n_jobs=CORES)
        linear = RidgeCV(np.geomspace(1e-3, 1e3, 13))
        decayed = wd.DecayRegressorCV(**ours)
    linear_name = type(linear).__name__
    named = {type(decayed).__name__: decayed, "GridSearchCV of MLP": search, linear_name: linear}
    return {side: make_pipeline(StandardScaler(), estimator) for side, estimator in named.items()}


def _outcome(pipeline: Any, split: Split) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        begin = time.perf_counter()
        pipeline.fit(split.inputs, split.targets)
        seconds = time.perf_counter() - begin
    predicted, truth = pipeline.predict(split.test_inputs), split.test_targets
    if np.issubdtype(truth.dtype, np.integer):
        score = float(np.mean(predicted == truth))
    else:
        score = float(1 - np.mean((predicted - truth) ** 2) / truth.var())
    estimator = pipeline[-1]
    chosen = getattr(estimator, "best_params_", {})
    return Outcome(score, seconds, ", ".join(f"{key.split('__')[-1]} {value}" for key, value in chosen.items()))


def _row(name: str, side: str, outcomes: Sequence[Outcome]) -> str:
    scores = [outcome.score for outcome in outcomes]
    error = f" ± {statistics.stdev(scores) / len(scores) ** 0.5:.4f}" if len(scores) > 1 else ""
    first, *later = [outcome.seconds for outcome in outcomes]
    median = f"{statistics.median(later):.1f}" if later else ""
    return (
        f"| {name} | {side} | {statistics.mean(scores):.4f}{error} | {first:.1f} | {median} | {outcomes[-1].chosen} |"
    )


if __name__ == "__main__":
    main()
