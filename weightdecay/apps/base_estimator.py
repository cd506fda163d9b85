"""What the two estimators of `weightdecay.apps.estimators` share: their arguments, and the cross-validation."""

import contextlib
import copy
import inspect
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from sklearn import metrics
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from typing_extensions import override

from weightdecay.apps import cross_validation
from weightdecay.apps.cross_validation import Examples, Trained, Training
from weightdecay.apps.forward_pass import TrainedNetwork
from weightdecay.core import checks
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.warn import warn
from weightdecay.decay import Decoupled, NoDecay, Rule, masks, optimizers, registry
from weightdecay.models import zoo
from weightdecay.search.grid import logspace
from weightdecay.search.strategy import Strategy

_AUTO_EPOCHS, _AUTO_STEPS = 200, (500, 10_000)
_AUTO_RULES = 7
_PRECISIONS = ("float32", "float64")
_WIDTHS = ((300, 32), (3000, 64), (30_000, 128), (math.inf, 256))


class DecaySearch(BaseEstimator):
    """What both estimators share."""

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
        self.model = model
        self.decay = decay
        self.learning_rate = learning_rate
        self.axes = axes
        self.optimizer = optimizer
        self.mask = mask
        self.max_epochs = max_epochs
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.cv = cv
        self.scoring = scoring
        self.criterion = criterion
        self.n_iter = n_iter
        self.budget = budget
        self.strategy = strategy
        self.num_seeds = num_seeds
        self.refit = refit
        self.precision = precision
        self.random_state = random_state
        self.progress = progress

    def _fit(self, examples: Examples, y: np.ndarray, sample_weight: Any, groups: Any) -> None:
        """Choose a candidate by cross-validation, and train it."""
        training = self._training(examples)
        splitter = self._splitter(examples)
        splits = [
            (np.asarray(rows), np.asarray(held_out)) for rows, held_out in splitter.split(examples.inputs, y, groups)
        ]
        for name, part in (("training", 0), ("validation", 1)):
            if not all(len(split[part]) for split in splits):
                raise ArgumentError("cv", f"cv has a split without {name} examples; give another splitter.")
        num_outputs = examples.num_classes or (1 if y.ndim == 1 else y.shape[1])
        with self._in_precision():
            trained = cross_validation.train(training, examples, splits)

            def network(member: int) -> TrainedNetwork:
                scaling = trained.scalings[trained.split_of(member)]
                return TrainedNetwork.of_member(training.model, num_outputs, trained.result, member, scaling)

            scores = None
            if self.scoring is not None:
                scores = self._scores(trained, network, examples.inputs, y, sample_weight)
            selected, table = cross_validation.choose(trained, scores, self.criterion)
            chosen = cross_validation.without_replicates(selected.hyperparameters)
            self._networks = [network(member) for member in selected.members]
            if self.refit:
                self._networks = self._refitted(training, examples, chosen, num_outputs)
        self.result_ = trained.result
        self.cv_results_ = table
        self.n_splits_ = len(splits)
        self.selected_ = selected
        self.best_params_ = chosen
        self.best_score_ = float(selected.mean if scores is not None else -selected.mean)
        self.decay_ = chosen["decay"]
        self.learning_rate_ = chosen["learning_rate"]

    def _refitted(
        self, training: Training, examples: Examples, chosen: Mapping[str, Any], num_outputs: int
    ) -> list[TrainedNetwork]:
        result = cross_validation.refit(training, examples, chosen)
        kept = np.flatnonzero(result.dataset["diverged_at"].values < 0)
        if not len(kept):
            warn(
                "the chosen candidate diverged when it was trained on all examples, and predicts by its last finite "
                "weights; give lower learning rates."
            )
            kept = np.arange(len(result))
        scaling = examples.target_scaling()
        return [TrainedNetwork.of_member(training.model, num_outputs, result, int(member), scaling) for member in kept]

    def _training(self, examples: Examples) -> Training:
        """Check the arguments, and return how members are trained."""
        checks.one_of(self.precision, "precision", _PRECISIONS)
        if self.batch_size != "auto":
            checks.integer(self.batch_size, "batch_size", at_least=1, allowed="an integer of at least 1, or 'auto'")
        if self.num_steps is not None:
            checks.integer(self.num_steps, "num_steps", at_least=1)
        if self.max_epochs != "auto":
            checks.number(self.max_epochs, "max_epochs", above=0, allowed="a number above 0, or 'auto'")
        if self.n_iter is not None:
            checks.integer(self.n_iter, "n_iter", at_least=1)
        num_seeds = checks.integer(self.num_seeds, "num_seeds", at_least=1)
        random = check_random_state(self.random_state)
        draw_seed, *seeds = random.randint(2**31 - 1, size=num_seeds + 1).tolist()
        model = self.model
        if model is None:
            width = next(width for most, width in _WIDTHS if len(examples.targets) < most)
            model = zoo.MLP((width, width))
        if isinstance(model, tuple | list):
            model = zoo.MLP(tuple(model))
        return Training(
            model,
            {"decay": _rules(self.decay), "learning_rate": _rates(self.learning_rate), **(self.axes or {})},
            list(dict.fromkeys(seeds)),
            None if self.n_iter is None else int(self.n_iter),
            draw_seed,
            self.batch_size,
            self._steps,
            {
                "optimizer": self.optimizer,
                "mask": self.mask,
                "loss": "squared_error" if examples.num_classes is None else "softmax_cross_entropy",
                "budget": self.budget,
                "strategy": self.strategy,
                "progress": self.progress,
            },
        )

    def _steps(self, num_examples: int, batch_size: int) -> int:
        """Number of training steps of a member."""
        if self.num_steps is not None:
            return int(self.num_steps)
        epochs = _AUTO_EPOCHS if self.max_epochs == "auto" else self.max_epochs
        steps = max(1, round(float(epochs) * num_examples / batch_size))
        return steps if self.max_epochs != "auto" else min(max(steps, _AUTO_STEPS[0]), _AUTO_STEPS[1])

    def _splitter(self, examples: Examples) -> Any:
        """Return the splitter of the cross-validation."""
        is_classifier = examples.num_classes is not None
        cv = self.cv
        if cv is None:
            rarest = np.bincount(examples.targets).min() if is_classifier else len(examples.targets)
            cv = int(min(5, max(2, rarest)))
        return check_cv(cv, examples.targets, classifier=is_classifier)

    def _scores(self, trained: Trained, network: Any, inputs: Any, y: Any, sample_weight: Any) -> np.ndarray:
        """Score each member on the validation examples of its split; nan where it has not been trained to the end."""
        scorer: Any = metrics.check_scoring(self, scoring=self.scoring)
        last = trained.result.dataset.isel(step=-1)
        is_complete = np.isfinite(last["validation_loss"].values) & (last["diverged_at"].values < 0)
        scores = np.full(len(trained.result), np.nan)
        for member in np.flatnonzero(is_complete):
            _, rows = trained.splits[trained.split_of(int(member))]
            fitted = copy.copy(self)
            fitted._networks = [network(int(member))]
            weights = {}
            if sample_weight is not None and _takes_weights(scorer):
                weights = {"sample_weight": sample_weight[rows]}
            scores[member] = scorer(fitted, inputs[rows], y[rows], **weights)
        return scores

    def _inputs(self, X: Any, **settings: Any) -> Any:
        """Check inputs, or inputs and targets, and return them as dense arrays of the precision."""
        checked: Any = validate_data(
            self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), allow_nd=True, **settings
        )
        inputs: Any = checked[0] if isinstance(checked, tuple) else checked
        inputs = inputs if isinstance(inputs, np.ndarray) else inputs.toarray()
        if self.precision == "float64":
            inputs = inputs.astype(np.float64, copy=False)
        return (inputs, *checked[1:]) if isinstance(checked, tuple) else inputs

    def _in_precision(self) -> Any:
        return jax.enable_x64(True) if self.precision == "float64" else contextlib.nullcontext()

    @override
    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _rules(decay: Any) -> list[Any]:
    """Values of the axis ``decay``."""
    allowed = "'auto', a rule such as wd.L2(0.01), its class or name, a coefficient of wd.Decoupled, or a list of these"
    if isinstance(decay, str) and decay == "auto":
        return _rules(Decoupled)
    kind = registry.KINDS.get(decay) if isinstance(decay, str) else decay
    if isinstance(kind, type) and issubclass(kind, Rule):
        if kind.search_range is None:
            return [kind()]
        return [NoDecay(), *logspace(kind, *kind.search_range, _AUTO_RULES)]
    if isinstance(decay, Rule):
        return [decay]
    if isinstance(decay, numbers.Real):
        return [Decoupled(decay) if decay else NoDecay()]
    if isinstance(decay, str) or not isinstance(decay, Sequence | np.ndarray):
        raise ArgumentTypeError("decay", f"decay is {decay!r}; give {allowed}.")
    if not len(decay):
        raise ArgumentError("decay", f"decay is empty; give {allowed}.")
    return [rule for part in decay for rule in ([part] if isinstance(part, tuple) else _rules(part))]


def _rates(learning_rate: Any) -> Any:
    """Values of the axis ``learning_rate``."""
    return list(learning_rate) if isinstance(learning_rate, tuple | np.ndarray) else learning_rate


def _takes_weights(scorer: Any) -> bool:
    """Whether a scorer takes the weights of examples."""
    function = getattr(scorer, "_score_func", scorer)
    return "sample_weight" in inspect.signature(function).parameters
