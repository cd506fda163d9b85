"""Conventions: each number against the program that it belongs to, the laws of conversion, and what is refused."""

import itertools
import json
import math
import pickle
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge
from sklearn.neural_network import MLPRegressor

from weightdecay.core.checks import ArgumentError
from weightdecay.decay import conventions
from weightdecay.decay.conventions import describe
from weightdecay.decay.convert import Conversion, convert
from weightdecay.decay.decoupled import Decoupled
from weightdecay.decay.optimizers import adam as wd_adam

TABLE = {convention.name: convention for convention in conventions.TABLE}
CONTEXT = {"learning_rate": 0.05, "batch_size": 20, "num_examples": 300, "num_steps": 1200, "width": 512}
WEIGHTS = np.array([3.0, -4.0, 0.5], np.float32)
ROUNDING = 1e-15 * 4  # a few roundings of float64


def standardized(load):
    inputs, targets = load(return_X_y=True)
    return (inputs - inputs.mean(0)) / inputs.std(0), targets


@pytest.fixture(scope="module")
def diabetes():
    inputs, targets = standardized(load_diabetes)
    return inputs, targets - targets.mean()


def exists(source, target):
    """Within a family; and between L2 and decoupled decay under plain SGD alone."""
    families = {"l2": 0, "l1": 1, "elastic_net": 2, "decoupled": 3, "independent": 3}
    kinds = {families[source.kind], families[target.kind]}
    return len(kinds) == 1 or (kinds == {0, 3} and {source.optimizer, target.optimizer} - {None} == {"sgd"})


def examples(kind):
    return (0.3, 0.4) if kind == "elastic_net" else 0.3


@pytest.mark.parametrize(
    ("value", "source", "target", "context", "expected"),
    [
        (0.01, "keras.L2", "torch.SGD", {}, 0.02),
        (0.02, "L2", "keras.L2", {}, 0.01),
        (0.5, "L2", "sklearn.Ridge", {"num_examples": 442}, 221.0),
        (0.5, "L1", "sklearn.Lasso", {}, 0.5),
        (0.5, "keras.L1", "ProximalL1", {}, 0.5),
        (4.0, "sklearn.LogisticRegression", "keras.L2", {"num_examples": 500}, 1 / 4000),
        (0.1, "sklearn.LogisticRegression.l1", "L1", {"num_examples": 100}, 0.1),
        (0.32, "sklearn.MLPClassifier", "L2", {"batch_size": 64, "num_examples": 1000}, 0.005),
        (0.32, "sklearn.MLP", "L2", {"num_examples": 64}, 0.005),
        ((0.5, 1.5), "ElasticNet", "sklearn.ElasticNet", {}, (2.0, 0.25)),
        ((2.0, 0.25), "sklearn.ElasticNet", "keras.L1L2", {}, (0.5, 0.75)),
        ((0.1, 0.25), "sklearn.LogisticRegression.elasticnet", "ElasticNet", {"num_examples": 50}, (0.05, 0.15)),
        (0.1, "torch.AdamW", "optax.adamw", {}, 0.1),
        (0.1, "torch.AdamW", "keras.Adam", {}, 0.1),
        (0.1, "Decoupled", "Corrected", {}, 0.1),
        (0.1, "torch.AdamW", "Independent", {"learning_rate": 0.02}, 0.002),
        (0.002, "loshchilov_hutter", "torch.AdamW", {"learning_rate": 0.02}, 0.1),
        (0.002, "Independent", "optax.adafactor", {}, 0.002),
        (0.1, "torch.AdamW", "time_scale.steps", {"learning_rate": 0.02}, 500.0),
        (500.0, "time_scale.steps", "Independent", {}, 0.002),
        (0.002, "Independent", "time_scale.epochs", {"batch_size": 20, "num_examples": 1000}, 10.0),
        (0.1, "torch.SGD", "Decoupled", {}, 0.1),
        (0.1, "torch.SGD", "time_scale.steps", {"learning_rate": 0.02}, 500.0),
        (0.01, "keras.L2", "keras.SGD", {}, 0.02),
        (0.1, "torch.AdamW", "timm.adamc", {}, 0.1),
        (1e-5, "composer.DecoupledAdamW", "torch.AdamW", {"learning_rate": 1e-3}, 0.01),
        (1e-5, "optimi.decouple_lr", "Independent", {}, 1e-5),
        (0.1, "torch.AdamW", "big_vision", {"learning_rate": 1e-3}, 1e-4),
        (1e-4, "emerging_optimizers.independent", "torch.AdamW", {"learning_rate": 1e-3}, 0.1),
        (1.0, "emerging_optimizers.palm", "Decoupled", {"learning_rate": 0.01}, 0.01),
        (1.0, "emerging_optimizers.palm", "Independent", {"learning_rate": 0.01}, 1e-4),
        (1e-4, "pytorch_optimizer.fixed_decay", "torch.AdamW", {"learning_rate": 1e-3}, 0.1),
        (0.2, "nanochat", "Decoupled", {"width": 1536}, 0.05),
        (0.1, "Decoupled", "nanochat", {"width": 768}, 0.1),
    ],
)
def test_convert_is_the_closed_form(value, source, target, context, expected):
    result = convert(value, source, target, **context)
    np.testing.assert_allclose(result, expected, rtol=ROUNDING)
    assert all(isinstance(number, Conversion) for number in (result if isinstance(result, tuple) else (result,)))


def test_convert_doubles_the_coefficient_of_keras_exactly():
    assert convert(0.01, source="keras.L2", target="torch.SGD") == 0.02


def test_convert_normalized_is_the_formula_of_the_paper():
    batch_size, num_examples, num_epochs = 128, 50_000, 100
    expected = 0.05 * math.sqrt(batch_size / (num_examples * num_epochs))
    num_steps = num_examples * num_epochs / batch_size
    for target, value in {"loshchilov_hutter": expected, "Decoupled": expected / 0.001}.items():
        made = convert(0.05, "loshchilov_hutter.normalized", target, num_steps=num_steps, learning_rate=0.001)
        np.testing.assert_allclose(made, value, rtol=ROUNDING)


def test_convert_gives_ridge_the_closed_form(diabetes):
    inputs, targets = diabetes
    num, width = inputs.shape
    for coefficient in (0.01, 1.0):
        alpha = convert(coefficient, "L2", "sklearn.Ridge", num_examples=num)
        expected = np.linalg.solve(inputs.T @ inputs / num + coefficient * np.eye(width), inputs.T @ targets / num)
        found = Ridge(alpha=alpha, fit_intercept=False).fit(inputs, targets).coef_
        np.testing.assert_allclose(found, expected, rtol=1e-9)  # two exact solvers
        full = MLPRegressor(hidden_layer_sizes=(), solver="lbfgs", alpha=alpha, tol=1e-12, max_iter=2000).fit(
            inputs, targets
        )
        assert convert(alpha, "sklearn.MLP", "L2", num_examples=num) == pytest.approx(coefficient, rel=ROUNDING)
        np.testing.assert_allclose(full.coefs_[0][:, 0], expected, rtol=1e-3, atol=1e-3)  # how far lbfgs goes


def optimality(gradient, weights, l1, l2):
    """Largest breach of 0 in gradient + l1 sign(w) + l2 w, the set [-l1, l1] at w = 0."""
    slope = gradient + l2 * weights
    breach = np.where(weights == 0, np.maximum(np.abs(slope) - l1, 0), slope + l1 * np.sign(weights))
    return np.abs(breach).max()


@pytest.mark.parametrize(("c1", "c2"), [(1.0, 0.0), (0.5, 0.5), (2.0, 0.1)])
def test_convert_gives_lasso_and_elastic_net_the_same_minimum(diabetes, c1, c2):
    inputs, targets = diabetes
    if c2 == 0:
        model = Lasso(alpha=convert(c1, "L1", "sklearn.Lasso"), fit_intercept=False, tol=1e-12)
    else:
        alpha, l1_ratio = convert((c1, c2), "ElasticNet", "sklearn.ElasticNet")
        model = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-12)
    weights = model.fit(inputs, targets).coef_
    gradient = inputs.T @ (inputs @ weights - targets) / len(inputs)
    # 1e-6 of gradients about 45: how far coordinate descent goes
    assert optimality(gradient, weights, c1, c2) < 1e-6 * 45


@pytest.mark.parametrize(
    ("name", "coefficient", "solver"),
    [
        ("sklearn.LogisticRegression", 0.002, {"solver": "newton-cholesky", "l1_ratio": 0.0}),
        ("sklearn.LogisticRegression.l1", 0.02, {"solver": "liblinear", "l1_ratio": 1.0}),
        ("sklearn.LogisticRegression.elasticnet", (0.02, 0.03), {"solver": "saga"}),
    ],
)
def test_convert_gives_logistic_regression_the_same_minimum(name, coefficient, solver):
    inputs, targets = standardized(load_breast_cancer)
    num = len(inputs)
    kind = TABLE[name].kind
    made = convert(coefficient, {"l2": "L2", "l1": "L1"}.get(kind, "ElasticNet"), name, num_examples=num)
    options = {"C": made} if kind != "elastic_net" else {"C": made[0], "l1_ratio": made[1]}
    model = LogisticRegression(**solver, **options, fit_intercept=False, tol=1e-7, max_iter=5000, random_state=0)
    weights = model.fit(inputs, targets).coef_[0]
    gradient = inputs.T @ (1 / (1 + np.exp(-inputs @ weights)) - targets) / num
    l1, l2 = {"l2": (0, coefficient), "l1": (coefficient, 0)}.get(kind, coefficient)
    assert optimality(gradient, weights, l1, l2) < 1e-4 * 0.02  # liblinear's own tolerance on the sum is the loosest


@pytest.mark.parametrize("batch_size", [10, 25])
def test_convert_of_mlp_is_by_the_batch_and_not_by_the_data(batch_size):
    # Without a hidden layer and with inputs of 0 the weights feel nothing but the penalty.
    fit = lambda rate: (  # noqa: E731
        MLPRegressor(
            hidden_layer_sizes=(),
            solver="sgd",
            momentum=0.0,
            alpha=7.0,
            batch_size=batch_size,
            learning_rate_init=rate,
            random_state=0,
        )
        .partial_fit(np.zeros((50, 3)), np.zeros(50))
        .coefs_[0]
    )
    before, after = fit(1e-30), fit(0.1)
    coefficient = convert(7.0, "sklearn.MLP", "L2", batch_size=batch_size, num_examples=50)
    np.testing.assert_allclose(after, before * (1 - 0.1 * coefficient) ** (50 // batch_size), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("torch.")])
def test_convert_is_the_step_of_torch(name):
    torch = pytest.importorskip("torch")
    is_coupled = TABLE[name].kind == "l2"

    def stepped(weight_decay, gradient):
        weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
        step = getattr(torch.optim, name.split(".")[1])([weights], lr=0.1, weight_decay=weight_decay)
        weights.grad = torch.as_tensor(gradient, dtype=torch.float64)
        step.step()
        return weights.detach().numpy()

    coefficient = convert(0.15, "keras.L2" if is_coupled else "Decoupled", name)
    gradient = np.array([1.0, 2.0, -3.0])
    if is_coupled:
        penalized = gradient + 2 * 0.15 * WEIGHTS.astype(float)  # of 0.15 |w|²
        np.testing.assert_allclose(stepped(coefficient, gradient), stepped(0.0, penalized), rtol=1e-12)
    else:
        moved = stepped(0.0, gradient) - 0.1 * 0.15 * WEIGHTS.astype(float)
        np.testing.assert_allclose(stepped(coefficient, gradient), moved, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("optax.")])
@pytest.mark.parametrize("learning_rate", [0.1, 0.01])
def test_convert_is_the_step_of_optax(name, learning_rate):
    made = convert(0.002, "Independent", "optax.adafactor" if name == "optax.adafactor" else "optax.adamw",
                   learning_rate=learning_rate)  # fmt: skip
    if name == "optax.adafactor":
        step = optax.adafactor(learning_rate, weight_decay_rate=made)
    elif name == "optax.add_decayed_weights":
        made = convert(made, "keras.SGD", name)
        step = optax.chain(optax.add_decayed_weights(made), optax.sgd(learning_rate))
    else:
        step = getattr(optax, name.split(".")[1])(learning_rate, weight_decay=convert(made, "optax.adamw", name))
    updates, _ = step.update(jnp.zeros(3), step.init(jnp.asarray(WEIGHTS)), jnp.asarray(WEIGHTS))
    np.testing.assert_allclose(updates, -0.002 * WEIGHTS, rtol=1e-6)  # float32


SHRINKING = {  # a package, an optimizer of it, its settings, and how its decay follows s = rate / peak
    "optimi.decouple_lr": ("optimi", "AdamW", {"decouple_lr": True}, lambda s: s),
    "pytorch_optimizer.fixed_decay": (
        *("pytorch_optimizer", "AdamP", {"fixed_decay": True, "weight_decouple": True}),
        lambda s: 1.0,
    ),
    "timm.adamc": ("timm.optim", "NAdamW", {"corrected_weight_decay": True}, lambda s: s**2),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SHRINKING)
def test_convert_is_the_step_of_other_programs_for_torch(name):
    torch = pytest.importorskip("torch")
    package, optimizer, settings, follows = SHRINKING[name]
    peak, rate, coefficient = 0.1, 0.025, 0.002
    made = convert(coefficient, "Independent", name, learning_rate=peak)
    parameter = torch.nn.Parameter(torch.tensor(WEIGHTS))
    step = getattr(pytest.importorskip(package), optimizer)([parameter], lr=peak, weight_decay=made, **settings)
    step.param_groups[0]["lr"] = rate
    parameter.grad = torch.zeros_like(parameter)
    step.step()
    expected = (1 - follows(rate / peak) * coefficient) * WEIGHTS
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)  # float32


def test_convert_is_the_step_of_big_vision():
    """The chain of its optimizers: step, learning rate, decay, schedule of at most 1, sign."""
    made, rate = convert(0.3, "Decoupled", "big_vision", learning_rate=0.1), optax.cosine_decay_schedule(1.0, 8)
    theirs = optax.chain(
        optax.scale_by_adam(), optax.scale(0.1), optax.add_decayed_weights(made), optax.scale_by_schedule(rate),
        optax.scale(-1.0),
    )  # fmt: skip
    ours = wd_adam(lambda count: 0.1 * rate(count), Decoupled(0.3), mask=True)
    params = states = None
    for transform in (theirs, ours):
        weights, state = jnp.asarray(WEIGHTS), transform.init(jnp.asarray(WEIGHTS))
        for _ in range(4):
            updates, state = transform.update(jnp.cos(weights), state, weights)
            weights = optax.apply_updates(weights, updates)
        params, states = weights if params is None else params, weights
    np.testing.assert_allclose(states, params, rtol=1e-6)  # float32


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [f"keras.{name}" for name in conventions.KERAS_OPTIMIZERS])
def test_convert_is_the_step_of_keras(name, keras):
    made = convert(0.002, "Independent", name, learning_rate=0.1)
    optimizer = getattr(keras.optimizers, name.split(".")[1])(learning_rate=0.1, weight_decay=made)
    weights = keras.Variable(WEIGHTS)
    optimizer.apply([keras.ops.zeros(3)], [weights])
    np.testing.assert_allclose(np.asarray(weights), (1 - 0.002) * WEIGHTS, rtol=1e-6)  # float32


@pytest.mark.filterwarnings("ignore")
def test_convert_is_the_penalty_of_keras(keras):
    ones, squares = np.abs(WEIGHTS).sum(), (WEIGHTS**2).sum() / 2
    l1, l2 = convert((0.3, 0.4), "ElasticNet", "keras.L1L2")
    for penalty, expected in (
        (keras.regularizers.L2(convert(0.4, "L2", "keras.L2")), 0.4 * squares),
        (keras.regularizers.L1(convert(0.3, "L1", "keras.L1")), 0.3 * ones),
        (keras.regularizers.L1L2(l1, l2), 0.3 * ones + 0.4 * squares),
    ):
        np.testing.assert_allclose(float(penalty(keras.ops.array(WEIGHTS))), expected, rtol=1e-6)  # float32


@pytest.mark.slow
def test_convert_time_scale_is_the_steps_to_one_part_in_e():
    torch = pytest.importorskip("torch")
    weights = torch.ones(1, dtype=torch.float64, requires_grad=True)
    made = convert(4.0, "time_scale.epochs", "torch.AdamW", learning_rate=0.01, batch_size=20, num_examples=1000)
    step = torch.optim.AdamW([weights], lr=0.01, weight_decay=made)
    weights.grad = torch.zeros_like(weights)
    for _ in range(200):  # 4 epochs of 50 steps
        step.step()
    np.testing.assert_allclose(weights.item(), (1 - 1 / 200) ** 200, rtol=1e-12)
    np.testing.assert_allclose(weights.item(), 1 / math.e, rtol=1 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("source", TABLE)
def test_convert_there_and_back_is_the_identity(source):
    for target in TABLE:
        if not exists(TABLE[source], TABLE[target]):
            with pytest.raises(
                ValueError, match=rf"^{re.escape(source)} to {re.escape(target)}: no conversion exists\. "
            ):
                convert(examples(TABLE[source].kind), source, target, **CONTEXT)
            continue
        value = examples(TABLE[source].kind)
        there = convert(value, source, target, **CONTEXT)
        np.testing.assert_allclose(convert(there, target, source, **CONTEXT), value, rtol=ROUNDING)
        assert convert(there, target, target) == there


@pytest.mark.parametrize(
    ("source", "target", "options", "why"),
    [
        ("torch.Adam", "torch.AdamW", {}, r"different methods.*torch\.Adam.*divides it by sqrt\(v\) \+ eps"),
        ("torch.AdamW", "torch.Adam", {}, r"different methods"),
        ("keras.L2", "keras.Adam", {}, r"different methods"),
        ("torch.RMSprop", "Decoupled", {}, r"different methods"),
        ("torch.Adam", "time_scale.steps", {"learning_rate": 0.1}, r"different methods"),
        ("torch.SGD", "torch.AdamW", {}, r"optimizers differ.*use 'Decoupled'"),
        ("L2", "Decoupled", {}, r"plain SGD only.*use 'torch\.SGD'"),
        ("L1", "L2", {}, r"same force"),
        ("sklearn.Lasso", "Decoupled", {}, r"same force"),
        ("L2", "ElasticNet", {}, r"give it as a pair"),
        (
            "torch.SGD",
            "Decoupled",
            {"momentum": 0.9},
            r"momentum 0\.9 the penalty.*c / \(1 - momentum\)",
        ),
        ("Independent", "torch.SGD", {"momentum": 0.9, "learning_rate": 0.1}, r"momentum"),
    ],
)
def test_convert_that_does_not_exist_says_what_differs(source, target, options, why):
    with pytest.raises(ValueError, match=rf"^{re.escape(source)} to {re.escape(target)}: no conversion exists.*{why}"):
        convert(0.1, source, target, **options)


def test_convert_refuses_momentum_for_a_reason():
    torch = pytest.importorskip("torch")

    def shrunk(momentum, weight_decay, num_steps):
        weights = torch.ones(1, dtype=torch.float64, requires_grad=True)
        step = torch.optim.SGD([weights], lr=0.001, momentum=momentum, weight_decay=weight_decay)
        weights.grad = torch.zeros_like(weights)
        for _ in range(num_steps):
            step.step()
        return weights.item()

    plain = convert(0.1, "Decoupled", "torch.SGD", momentum=0.0)
    np.testing.assert_allclose(shrunk(0.0, plain, 100), (1 - 0.0001) ** 100, rtol=1e-12)
    # From one long run to another the start does not matter; learning_rate * c / (1 - momentum)² = 1 % is left out.
    rate = -math.log(shrunk(0.9, 0.1, 600) / shrunk(0.9, 0.1, 300)) / 300
    assert rate == pytest.approx(0.001 * 0.1 / (1 - 0.9), rel=0.02)


@pytest.mark.parametrize(
    ("moves", "factor", "reference"),
    [
        ({"new_learning_rate": 0.5}, 1 / 10, "Wang & Aitchison 2024"),
        ({"new_batch_size": 80}, 4, "Wang & Aitchison 2024"),
        ({"new_num_examples": 900}, 1 / 3, "Wang & Aitchison 2024"),
        ({"new_batch_size": 80, "new_learning_rate": 0.2}, 1, "Wang & Aitchison 2024"),
        ({"new_num_steps": 4800}, 1 / 4, "Bergsma et al. 2025"),
        ({"new_num_steps": 4800, "new_learning_rate": 0.1}, 1 / 8, "Bergsma et al. 2025"),
    ],
)
@pytest.mark.parametrize("name", ["torch.AdamW", "torch.SGD"])
def test_convert_moves_by_the_rules_of_the_literature(name, moves, factor, reference):
    moved = convert(0.3, name, name, **CONTEXT, **moves, momentum=0.9)
    np.testing.assert_allclose(moved, 0.3 * factor, rtol=ROUNDING)
    assert reference in moved.reference
    assert "time scale" in moved.keeps


@pytest.mark.slow
@settings(max_examples=30, deadline=None, derandomize=True)
@given(numbers=st.lists(st.floats(1, 1e6), min_size=6, max_size=6), coefficient=st.floats(1e-6, 1e3))
def test_convert_moves_at_constant_time_scale(numbers, coefficient):
    rate, batch_size, num_examples, new_rate, new_batch_size, new_num_examples = numbers
    old = {"learning_rate": rate * 1e-6, "batch_size": batch_size, "num_examples": num_examples}
    new = {"learning_rate": new_rate * 1e-6, "batch_size": new_batch_size, "num_examples": new_num_examples}
    moves = {f"new_{name}": number for name, number in new.items()}
    epochs = batch_size / (old["learning_rate"] * coefficient * num_examples)
    for target in ("Decoupled", "Independent", "time_scale.steps", "time_scale.epochs"):
        moved = convert(coefficient, "torch.AdamW", target, **old, **moves)
        np.testing.assert_allclose(convert(moved, target, "time_scale.epochs", **new), epochs, rtol=1e-13)
    there = convert(coefficient, "Decoupled", "Decoupled", **old, **moves)
    back = convert(there, "Decoupled", "Decoupled", **new, **{f"new_{name}": number for name, number in old.items()})
    np.testing.assert_allclose(back, coefficient, rtol=1e-13)


def test_convert_independent_does_not_know_the_learning_rate():
    assert convert(0.01, "Independent", "Independent", new_learning_rate=0.5) == 0.01
    made = convert(0.01, "Independent", "Decoupled", new_learning_rate=0.5)
    np.testing.assert_allclose(made, 0.02, rtol=ROUNDING)


def test_convert_by_the_normalized_coefficient_scales_with_the_root():
    normalized = convert(0.01, "Independent", "loshchilov_hutter.normalized", num_steps=100)
    back = convert(normalized, "loshchilov_hutter.normalized", "Independent", num_steps=400)
    np.testing.assert_allclose(back, 0.01 / 2, rtol=ROUNDING)
    share = convert(0.01, "Independent", "Independent", num_steps=100, new_num_steps=400)
    np.testing.assert_allclose(share, 0.01 / 4, rtol=ROUNDING)


@pytest.mark.parametrize(
    ("name", "moves", "message"),
    [
        ("L2", {"new_batch_size": 3}, r"new_batch_size: L2 to L2 has no time scale.*use 'torch\.SGD'"),
        ("torch.Adam", {"new_learning_rate": 3}, r"new_learning_rate: torch\.Adam to torch\.Adam has no time scale"),
        ("sklearn.Lasso", {"new_num_examples": 3}, r"new_num_examples: .*no time scale"),
        ("Decoupled", {"new_num_steps": 3, "new_batch_size": 3}, r"new_batch_size, new_num_steps: .*two rules"),
    ],
)
def test_convert_refuses_to_move_what_has_no_time_scale(name, moves, message):
    with pytest.raises(ValueError, match=rf"^{message}"):
        convert(0.1, name, name, **CONTEXT, **moves)


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("L2", "sklearn.Ridge", {}, r"num_examples is missing: sklearn\.Ridge has alpha = c \* num_examples\. Give"),
        ("sklearn.MLP", "L2", {}, r"batch_size is missing: sklearn\.MLP.*Give batch_size or num_examples"),
        (
            "torch.AdamW",
            "Independent",
            {},
            r"learning_rate is missing: torch\.AdamW decays in proportion to",
        ),
        ("Independent", "time_scale.epochs", {"num_examples": 9}, r"batch_size is missing: time_scale\.epochs has"),
        ("loshchilov_hutter.normalized", "Independent", {}, r"num_steps is missing"),
        ("Decoupled", "Decoupled", {"new_batch_size": 9}, r"batch_size is missing: new_batch_size changes it"),
        ("Decoupled", "Decoupled", {"new_learning_rate": 9}, r"learning_rate is missing"),
    ],
)
def test_convert_says_which_number_is_missing_and_why(source, target, options, message):
    with pytest.raises(ValueError, match=message):
        convert(0.1, source, target, **options)


@pytest.mark.parametrize(
    ("value", "name", "options", "error", "message"),
    [
        (-0.1, "L2", {}, ValueError, r"coefficient \(coefficient of L2\) is -0\.1; give a finite number >= 0"),
        (math.nan, "L2", {}, ValueError, r"coefficient .* is nan"),
        (math.inf, "L2", {}, ValueError, r"coefficient .* is inf; give a finite number"),
        (math.nan, "time_scale.steps", {}, ValueError, r"coefficient \(steps of time_scale\.steps\) is nan"),
        (0, "time_scale.steps", {}, ValueError, r"coefficient .* is 0; give a number above 0; 0 would be infinite"),
        (0, "sklearn.LogisticRegression", {}, ValueError, r"coefficient \(C of .* is 0"),
        ("0.1", "L2", {}, TypeError, r"coefficient .* is '0\.1', of type str; give a finite number >= 0"),
        (True, "L2", {}, TypeError, r"coefficient .* is True, of type bool"),
        (0.1, "ElasticNet", {}, ValueError, r"coefficient is 0\.1; ElasticNet takes a pair, \(l1_coefficient, l2"),
        ((0.1, 0.2), "L2", {}, ValueError, r"coefficient is \(0\.1, 0\.2\); L2 takes one number"),
        ((0.1,), "L2", {}, ValueError, r"L2 takes one number"),
        (
            (0.1, 1.2),
            "sklearn.ElasticNet",
            {},
            ValueError,
            r"coefficient \(l1_ratio of .*1\.2; give a fraction from 0 to 1",
        ),
        (0.1, "L2", {"learning_rate": 0}, ValueError, r"learning_rate is 0; give a finite number above 0"),
        (0.1, "L2", {"new_learning_rate": math.inf}, ValueError, r"new_learning_rate is inf"),
        (0.1, "L2", {"num_examples": 0.5}, ValueError, r"num_examples is 0\.5; give a finite number of at least 1"),
        (0.1, "L2", {"batch_size": "64"}, TypeError, r"batch_size is '64', of type str"),
        (0.1, "L2", {"momentum": 1.0}, ValueError, r"momentum is 1\.0; give a number from 0 to below 1"),
    ],
)
@pytest.mark.usefixtures("without_beartype")
def test_convert_refuses_bad_numbers(value, name, options, error, message):
    with pytest.raises(error, match=message):
        convert(value, name, name, **options)


@pytest.mark.usefixtures("without_beartype")
def test_convert_refuses_unknown_names_and_lists_the_known():
    with pytest.raises(
        ValueError, match=r"source is 'torch\.SDG'.*Did you mean 'torch\.SGD'.*time_scale\.epochs\."
    ) as told:
        convert(0.1, "torch.SDG", "L2")
    assert all(name in str(told.value) for name in TABLE)
    with pytest.raises(ValueError, match=r"target is 'ridge', which is not .*Did you mean 'sklearn\.Ridge'\?"):
        convert(0.1, "L2", "ridge")
    with pytest.raises(ValueError, match=r"target is 'qqqq', which is not a known convention\. The conventions are"):
        convert(0.1, "L2", "qqqq")
    with pytest.raises(TypeError, match=r"target is 3, of type int; give the name of a convention, such as"):
        convert(0.1, "L2", 3)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("torch.optim.AdamW", "torch.AdamW"),
        ("pytorch.sgd", "torch.SGD"),
        ("sklearn.linear_model.Ridge", "sklearn.Ridge"),
        ("scikit-learn.ElasticNet", "sklearn.ElasticNet"),
        ("sklearn.neural_network.MLPRegressor", "sklearn.MLP"),
        ("sklearn.LogisticRegression.L1", "sklearn.LogisticRegression.l1"),
        ("keras.regularizers.L2", "keras.L2"),
        ("tf.keras.regularizers.l1_l2", "keras.L1L2"),
        ("tf.keras.optimizers.AdamW", "keras.AdamW"),
        ("wd.L2", "L2"),
        ("weightdecay.proximal_l1", "ProximalL1"),
        ("Loshchilov-Hutter.normalized", "loshchilov_hutter.normalized"),
        ("TIME_SCALE.STEPS", "time_scale.steps"),
    ],
)
def test_convert_knows_names_by_case_and_module(written, name):
    assert conventions.find(written, argument="source") is TABLE[name]


@pytest.mark.parametrize(
    ("written", "suggestions"),
    [
        ("tensorflow.L2", "'keras.L2'"),
        ("tf.L2", "'keras.L2'"),
        ("tf.regularizers.L2", "'keras.L2'"),
        ("regularizers.L2", "'keras.L2'"),
        ("optim.SGD", "'torch.SGD'"),
        ("jax.L2", "'L2' or 'keras.L2'"),
        ("wd.keras.L2", "'keras.L2'"),
        ("torch.L1", "'L1' or 'keras.L1' or 'sklearn.LogisticRegression.l1'"),
        ("weightdecay.optim.Decoupled", "'Decoupled'"),
        ("optim.L2", "'L2' or 'keras.L2'"),
        ("keras.optim.AdamW", "'keras.AdamW'"),
        ("linear_model.Ridge", "'sklearn.Ridge'"),
        ("torch.optim.regularizers.SGD", "'torch.SGD'"),
        (".L2", "'L2' or 'keras.L2'"),
    ],
)
def test_convert_refuses_a_prefix_that_it_does_not_know(written, suggestions):
    # Dropped, such a prefix would give the number of another convention: keras.L2 is twice L2.
    with pytest.raises(ArgumentError, match=rf"Did you mean {suggestions}\?") as raised:
        convert(0.01, written, "torch.SGD")
    assert raised.value.argument == "source"


def test_names_stay_apart_without_case_and_module():
    assert len({convention.name.lower() for convention in conventions.TABLE}) == len(conventions.TABLE) == len(TABLE)
    assert set(map(id, conventions._BY_SPELLING.values())) == set(map(id, conventions.TABLE))


def test_convert_zero_and_infinity_belong_together():
    pairs = [
        ("Independent", "time_scale.steps"),
        ("L2", "sklearn.LogisticRegression"),
        ("Decoupled", "time_scale.epochs"),
    ]
    for penalty, inverse in pairs:
        assert convert(0, penalty, inverse, **CONTEXT) == math.inf
        assert convert(math.inf, inverse, penalty, **CONTEXT) == 0
    assert convert((0.0, 0.0), "ElasticNet", "sklearn.ElasticNet") == (0.0, 0.0)
    assert convert((0, 0), "ElasticNet", "sklearn.LogisticRegression.elasticnet", num_examples=9) == (math.inf, 0.0)
    made = convert((math.inf, 0.5), "sklearn.LogisticRegression.elasticnet", "keras.L1L2", num_examples=9)
    assert made == (0.0, 0.0)
    assert convert(0.0, "keras.L2", "torch.SGD") == 0


FORMS = {(convention.kind, id(convention.form)): name for name, convention in TABLE.items()}


@pytest.mark.slow
@pytest.mark.parametrize("source", FORMS.values())
def test_convert_of_a_traced_number_is_that_of_the_number(source):
    start = TABLE[source]
    values = np.array([0.1, 0.7] if start.form.is_reciprocal else [0.0, 0.1, 0.7], np.float32)

    def run(value):
        pair = (value, value) if start.kind == "elastic_net" else value
        targets = [target for target in FORMS.values() if exists(start, TABLE[target])]
        return [convert(pair, source, target, **CONTEXT) for target in targets]

    traced = jax.jit(jax.vmap(run))(values)
    for index, value in enumerate(values.tolist()):
        found = jax.tree.map(lambda part, index=index: part[index], traced)
        # a few roundings of float32
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6), found, run(value))


def test_convert_takes_a_traced_run_and_has_a_gradient():
    run = lambda rate: convert(0.1, "torch.AdamW", "time_scale.steps", learning_rate=rate)  # noqa: E731
    np.testing.assert_allclose(jax.vmap(run)(jnp.array([0.1, 0.01])), [100.0, 1000.0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(run)(0.1), -1 / (0.1 * 0.1**2), rtol=1e-5)  # float32
    steps = lambda n: convert(0.1, "Independent", "loshchilov_hutter.normalized", num_steps=n)  # noqa: E731
    np.testing.assert_allclose(jax.jit(steps)(400), 2.0, rtol=1e-6)


def test_conversion_is_a_float_with_words():
    result = convert(1, "sklearn.Ridge", "keras.L2", num_examples=np.int64(100))
    assert isinstance(result, float)
    assert (repr(result), f"{result:.4f}", json.dumps([result])) == ("0.005", "0.0050", "[0.005]")
    assert result.formula == "l2 = alpha / num_examples / 2"
    assert result.keeps.startswith("the penalty")
    assert result.reference == "Krogh & Hertz 1992"
    assert "half the mean squared error" in result.note
    assert result.explanation.splitlines()[0] == result.formula
    again = pickle.loads(pickle.dumps(result))
    assert (again, again.explanation) == (result, result.explanation)
    assert jax.jit(lambda c: 2 * c)(result) == jnp.float32(0.01)
    assert type(result * 2) is float


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        ("keras.L2", "keras.SGD", "every step of plain SGD"),
        ("torch.AdamW", "time_scale.steps", "Wang & Aitchison 2024"),
        ("keras.SGD", "Decoupled", "also of keras.SGD"),
        ("Corrected", "Decoupled", "where a schedule changes"),
        ("Independent", "optax.adafactor", "neither on the learning rate nor on its schedule"),
        ("L1", "ProximalL1", "same minimizer"),
        ("sklearn.MLP", "L2", "min(200, num_examples)"),
    ],
)
def test_conversion_says_what_a_user_has_to_know(source, target, word):
    assert word in convert(0.1, source, target, **CONTEXT).explanation


@pytest.mark.slow
@pytest.mark.parametrize("source", [name for name in TABLE if TABLE[name].kind != "elastic_net"])
def test_conversion_formula_computes_the_number(source):
    new = {"new_learning_rate": 0.1, "new_batch_size": 10, "new_num_examples": 500}
    for target, moves in itertools.product(TABLE, ({}, new)):
        decays = {"decoupled", "independent"}
        if target == source or not exists(TABLE[source], TABLE[target]) or (moves and TABLE[source].kind not in decays):
            continue
        made = convert(0.3, source, target, **CONTEXT, **moves)
        names = {**CONTEXT, **moves, "sqrt": math.sqrt, TABLE[source].parameter: 0.3}
        computed = eval(made.formula.removeprefix(f"{TABLE[target].parameter} = "), {"__builtins__": {}}, names)
        np.testing.assert_allclose(computed, made, rtol=ROUNDING)


def test_describe_lists_every_convention_with_its_formula():
    lines = describe().splitlines()
    for name, convention in TABLE.items():
        text = convention.form.forward_text.format(x=convention.parameter)
        assert any(text in line and name in line.replace(",", " ").split() for line in lines), name


def test_import_of_conventions_loads_no_array_library():
    code = "import weightdecay.decay.convert as c; c.convert(1, 'L2', 'keras.L2'); import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {"jax", "numpy"}
