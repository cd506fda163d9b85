"""Estimators of scikit-learn that choose the decay, and train with it: `DecayClassifierCV` and `DecayRegressorCV`.

Their arguments are those of scikit-learn's cross-validated estimators, and all candidates train as one grid.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d
from typing_extensions import override

from weightdecay.apps.base_estimator import DecaySearch
from weightdecay.apps.cross_validation import Examples
from weightdecay.apps.forward_pass import log_probabilities
from weightdecay.core.checks import ArgumentError
from weightdecay.decay import masks, optimizers
from weightdecay.search.strategy import Strategy


class DecayClassifierCV(ClassifierMixin, DecaySearch):
    """Classifier whose weight decay and learning rate are chosen by cross-validation: a network of `fit_grid`.

    The loss is the softmax cross-entropy of two or more classes. Inputs are not standardized, as in
    `sklearn.neural_network.MLPClassifier`: put a `sklearn.preprocessing.StandardScaler` before it. Sparse inputs are
    made dense. Where each step takes all examples of a model of `weightdecay.models`, splits and data of similar size
    share a compiled program: they are filled up with rows of weight 0, which change the rounding alone.

    Args:
      model: The network: anything that `weightdecay.fit_grid` takes, which receives floats; or the widths of the hidden
        layers of a `weightdecay.models.MLP`, such as ``(64, 64)``. None: two hidden layers, whose width is 32, 64, 128
        or 256, by the number of examples.
      decay: Rules to choose among: a rule such as ``wd.L2(0.01)``; a class or name of rules, ``wd.L2`` or ``"L2"``, for
        no decay and seven coefficients over its usual range; a number, the coefficient of `weightdecay.Decoupled` (0 =
        no decay); or a list of these. ``"auto"`` is ``wd.Decoupled``. With ``n_iter`` a rule may hold a distribution.
      learning_rate: One or several, > 0, or schedules.
      axes: Values of further axes of the grid by name, such as ``{"dropout_rate": [0.0, 0.2]}``.
      optimizer: As in `weightdecay.fit_grid`.
      mask: Which weights decay; see `weightdecay.masks`.
      max_epochs: How often a network takes each of its training examples. ``"auto"``: 200 times, but 500 steps at least
        and 10,000 at most.
      num_steps: Training steps of each network; None = by ``max_epochs``.
      batch_size: Examples a step; all of them where they are fewer. ``"auto"`` is 200.
      class_weight: Weights of the classes, by class, or ``"balanced"``; they multiply the weights of the examples.
      cv: Number of folds, a splitter, or pairs of indices, as in `sklearn.model_selection.GridSearchCV`. None: 5 folds,
        fewer where the rarest class has fewer examples. As in scikit-learn, a number of folds does not shuffle.
      scoring: A scorer of scikit-learn: its name, or ``scorer(estimator, X, y)``. The candidate with the highest mean
        over the splits is chosen. None: by the loss, the mean negative logarithm of the probability of the class.
      criterion: ``"best_mean"`` or another criterion of ``result.best``, such as ``"one_standard_error"``.
      n_iter: Number of candidates that are drawn at random from all combinations; None, or more than there are = all of
        them.
      budget: Fraction of the training steps of the whole grid that may be taken, as in `weightdecay.fit_grid`.
      strategy: Which network is trained next, as in `weightdecay.fit_grid`.
      num_seeds: Seeds of each candidate: its score is the mean over them, and the networks that are trained on all
        examples, one per seed, predict together.
      refit: Whether the chosen candidate is trained on all examples. If not, its networks of all splits and seeds
        predict together.
      precision: What inputs, losses and gradients are computed in: ``"float32"`` or ``"float64"``. Weights keep the
        dtype in which the model makes them; layers of flax make float32.
      random_state: Decides initial weights, batches and draws; as in scikit-learn.
      progress: Whether to show a bar with the time left.

    Attributes:
      classes_: The classes, sorted.
      decay_: The chosen rule.
      learning_rate_: The chosen learning rate.
      best_params_: All hyperparameters of the chosen candidate by name.
      best_score_: Its mean score over the splits, higher = better: that of ``scoring``, or the negative mean loss.
      cv_results_: All candidates, as `sklearn.model_selection.GridSearchCV` lists them: ``params``,
        ``split0_test_score`` and so on, ``mean_test_score``, ``std_test_score``, ``rank_test_score``.
      selected_: The chosen candidate with its standard error, and whether decay is worth it (``selected_.sentence``).
      result_: The `weightdecay.GridResult` of the cross-validation, with tables, curves and plots.
      n_splits_: Number of splits.
      n_features_in_: Number of features.
      feature_names_in_: Their names, where the inputs are a DataFrame whose columns have names.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> from sklearn.pipeline import make_pipeline
      >>> from sklearn.preprocessing import StandardScaler
      >>> classifier = DecayClassifierCV(decay=[0.0, 1.0], learning_rate=0.01, num_steps=50, cv=3, random_state=0)
      >>> pipeline = make_pipeline(StandardScaler(), classifier).fit(*load_iris(return_X_y=True))
      >>> pipeline.predict([[5.1, 3.5, 1.4, 0.2]]), pipeline[-1].n_splits_
      (array([0]), 3)
    """

    def __init__(
        self,
        model: Any = None,
        *,
        decay: Any = "auto",
        learning_rate: Any = (1e-3, 1e-2),
        axes: Mapping[str, Any] | None = None,
        optimizer: Any = optimizers.adam,
        mask: Any = masks.kernels,
        max_epochs: Any = "auto",
        num_steps: Any = None,
        batch_size: Any = "auto",
        class_weight: Any = None,
        cv: Any = None,
        scoring: Any = None,
        criterion: str = "best_mean",
        n_iter: Any = None,
        budget: Any = None,
        strategy: Strategy | None = None,
        num_seeds: Any = 1,
        refit: bool = True,
        precision: str = "float32",
        random_state: Any = None,
        progress: bool = False,
    ) -> None:
        """Take the arguments; nothing is checked before `fit`."""
        super().__init__(
            model,
            decay=decay,
            learning_rate=learning_rate,
            axes=axes,
            optimizer=optimizer,
            mask=mask,
            max_epochs=max_epochs,
            num_steps=num_steps,
            batch_size=batch_size,
            cv=cv,
            scoring=scoring,
            criterion=criterion,
            n_iter=n_iter,
            budget=budget,
            strategy=strategy,
            num_seeds=num_seeds,
            refit=refit,
            precision=precision,
            random_state=random_state,
            progress=progress,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "DecayClassifierCV":
        """Choose a candidate by cross-validation, and train it on all examples.

        Args:
          X: Inputs, an array, a sparse matrix or a DataFrame, shape ``(examples, features)``.
          y: Classes: numbers, strings or truth values, shape ``(examples,)``.
          sample_weight: Factors of the losses, >= 0, shape ``(examples,)``. They also count in the score of a split,
            where ``scoring`` takes them. None = all equal.
          groups: Groups of the examples for ``cv``, shape ``(examples,)``.

        Returns:
          The estimator.

        Raises:
          ValueError: An argument has a wrong value; or every candidate diverged.
          TypeError: An argument has a wrong type.
        """
        inputs, y = self._inputs(X, y=y)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ArgumentError("y", f"y has 1 class, {self.classes_[0]!r}; give at least two classes.")
        weights = None
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, inputs, dtype=np.float64, ensure_non_negative=True)
            weights = sample_weight
        if self.class_weight is not None:
            of_classes = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=sample_weight
            )
            weights = of_classes[targets] if weights is None else weights * of_classes[targets]
        examples = Examples(inputs, targets.astype(np.int32), weights, len(self.classes_))
        self._fit(examples, y, sample_weight, groups)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the log-odds of the second of two classes, or the logarithm of the probability of each of more.

        Args:
          X: Inputs, shape ``(rows, features)``.

        Returns:
          float64, shape ``(rows,)`` for two classes, ``(rows, classes)`` for more.
        """
        logs = self._log_probabilities(X)
        return logs[:, 1] - logs[:, 0] if len(self.classes_) == 2 else logs

    def predict_proba(self, X: Any) -> np.ndarray:
        """Compute the probability of each class.

        Args:
          X: Inputs, shape ``(rows, features)``.

        Returns:
          float64, shape ``(rows, classes)``, in the order of ``classes_``.
        """
        return np.exp(self._log_probabilities(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Compute the logarithm of the probability of each class.

        Args:
          X: Inputs, shape ``(rows, features)``.

        Returns:
          float64, shape ``(rows, classes)``, in the order of ``classes_``.
        """
        return self._log_probabilities(X)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class.

        Args:
          X: Inputs, shape ``(rows, features)``.

        Returns:
          Classes, shape ``(rows,)``.
        """
        most_probable = self._log_probabilities(X).argmax(axis=1)
        return self.classes_[most_probable]

    @override
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, or the score of ``scoring`` if it was given.

        Args:
          X: Inputs, shape ``(rows, features)``.
          y: Classes, shape ``(rows,)``.
          sample_weight: Weights of the rows, shape ``(rows,)``; None = all equal.

        Returns:
          The score, higher = better.
        """
        return _score(self, X, y, sample_weight, super().score)

    def _log_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        inputs = self._inputs(X, reset=False)
        with self._in_precision():
            return log_probabilities(self._networks, inputs)


class DecayRegressorCV(RegressorMixin, DecaySearch):
    """Regressor whose weight decay and learning rate are chosen by cross-validation: a network of `fit_grid`.

    The loss is the squared error, of one or several targets. Targets of any scale may be given: they are standardized
    by the training examples of each split, and predictions are in their unit. Inputs are not standardized, as in
    `sklearn.neural_network.MLPRegressor`: put a `sklearn.preprocessing.StandardScaler` before it. Sparse inputs are
    made dense, and rows are filled up as in `DecayClassifierCV`.

    Args:
      model: The network: anything that `weightdecay.fit_grid` takes, which receives floats; or the widths of the hidden
        layers of a `weightdecay.models.MLP`, such as ``(64, 64)``. None: two hidden layers, whose width is 32, 64, 128
        or 256, by the number of examples.
      decay: Rules to choose among: a rule such as ``wd.L2(0.01)``; a class or name of rules, ``wd.L2`` or ``"L2"``, for
        no decay and seven coefficients over its usual range; a number, the coefficient of `weightdecay.Decoupled` (0 =
        no decay); or a list of these. ``"auto"`` is ``wd.Decoupled``. With ``n_iter`` a rule may hold a distribution.
      learning_rate: One or several, > 0, or schedules.
      axes: Values of further axes of the grid by name, such as ``{"dropout_rate": [0.0, 0.2]}``.
      optimizer: As in `weightdecay.fit_grid`.
      mask: Which weights decay; see `weightdecay.masks`.
      max_epochs: How often a network takes each of its training examples. ``"auto"``: 200 times, but 500 steps at least
        and 10,000 at most.
      num_steps: Training steps of each network; None = by ``max_epochs``.
      batch_size: Examples a step; all of them where they are fewer. ``"auto"`` is 200.
      cv: Number of folds, a splitter, or pairs of indices, as in `sklearn.model_selection.GridSearchCV`. None: 5 folds,
        fewer where the rarest class has fewer examples. As in scikit-learn, a number of folds does not shuffle.
      scoring: A scorer of scikit-learn: its name, or ``scorer(estimator, X, y)``. The candidate with the highest mean
        over the splits is chosen. None: by the squared error in units of the variance of the training targets.
      criterion: ``"best_mean"`` or another criterion of ``result.best``, such as ``"one_standard_error"``.
      n_iter: Number of candidates that are drawn at random from all combinations; None, or more than there are = all of
        them.
      budget: Fraction of the training steps of the whole grid that may be taken, as in `weightdecay.fit_grid`.
      strategy: Which network is trained next, as in `weightdecay.fit_grid`.
      num_seeds: Seeds of each candidate: its score is the mean over them, and the networks that are trained on all
        examples, one per seed, predict together.
      refit: Whether the chosen candidate is trained on all examples. If not, its networks of all splits and seeds
        predict together.
      precision: What inputs, losses and gradients are computed in: ``"float32"`` or ``"float64"``. Weights keep the
        dtype in which the model makes them; layers of flax make float32.
      random_state: Decides initial weights, batches and draws; as in scikit-learn.
      progress: Whether to show a bar with the time left.

    Attributes:
      decay_: The chosen rule.
      learning_rate_: The chosen learning rate.
      best_params_: All hyperparameters of the chosen candidate by name.
      best_score_: Its mean score over the splits, higher = better: that of ``scoring``, or the negative mean squared
        error in units of that variance.
      cv_results_: All candidates, as `sklearn.model_selection.GridSearchCV` lists them: ``params``,
        ``split0_test_score`` and so on, ``mean_test_score``, ``std_test_score``, ``rank_test_score``.
      selected_: The chosen candidate with its standard error, and whether decay is worth it (``selected_.sentence``).
      result_: The `weightdecay.GridResult` of the cross-validation, with tables, curves and plots.
      n_splits_: Number of splits.
      n_features_in_: Number of features.
      feature_names_in_: Their names, where the inputs are a DataFrame whose columns have names.

    Examples:
      >>> from sklearn.datasets import load_diabetes
      >>> from sklearn.pipeline import make_pipeline
      >>> from sklearn.preprocessing import StandardScaler
      >>> regressor = DecayRegressorCV(decay=[0.0, 1.0], learning_rate=0.01, num_steps=50, cv=3, random_state=0)
      >>> inputs, targets = load_diabetes(return_X_y=True)
      >>> pipeline = make_pipeline(StandardScaler(), regressor).fit(inputs[:60], targets[:60])
      >>> pipeline.predict(inputs[60:62]).shape
      (2,)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "DecayRegressorCV":
        """Choose a candidate by cross-validation, and train it on all examples.

        Args:
          X: Inputs, an array, a sparse matrix or a DataFrame, shape ``(examples, features)``.
          y: Real numbers, shape ``(examples,)`` or ``(examples, targets)``.
          sample_weight: Factors of the losses, >= 0, shape ``(examples,)``. They also count in the score of a split,
            where ``scoring`` takes them. None = all equal.
          groups: Groups of the examples for ``cv``, shape ``(examples,)``.

        Returns:
          The estimator.

        Raises:
          ValueError: An argument has a wrong value; or every candidate diverged.
          TypeError: An argument has a wrong type.
        """
        inputs, y = self._inputs(X, y=y, multi_output=True, y_numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, inputs, dtype=np.float64, ensure_non_negative=True)
        examples = Examples(inputs, y.astype(np.float64), sample_weight, None)
        self._fit(examples, y, sample_weight, groups)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the targets.

        Args:
          X: Inputs, shape ``(rows, features)``.

        Returns:
          float64 in the unit of the targets, shape ``(rows,)`` or ``(rows, targets)``.
        """
        check_is_fitted(self)
        inputs = self._inputs(X, reset=False)
        with self._in_precision():
            return np.mean([network.outputs(inputs) for network in self._networks], axis=0)

    @override
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², or the score of ``scoring`` if it was given.

        Args:
          X: Inputs, shape ``(rows, features)``.
          y: Targets, shape ``(rows,)`` or ``(rows, targets)``.
          sample_weight: Weights of the rows, shape ``(rows,)``; None = all equal.

        Returns:
          The score, higher = better.
        """
        return _score(self, X, y, sample_weight, super().score)

    @override
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _score(estimator: Any, X: Any, y: Any, sample_weight: Any, default: Any) -> float:
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    if estimator.scoring is None:
        return float(default(X, y, **weights))
    scorer: Any = metrics.check_scoring(estimator, scoring=estimator.scoring)
    return float(scorer(estimator, X, y, **weights))
