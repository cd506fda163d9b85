"""The traps of weight decay: what goes wrong elsewhere without a word, shown there, and what happens here."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import datasets, linear_model, neural_network

import weightdecay as wd
from weightdecay import decay

WEIGHTS = np.array([1.0, -2.0, 3.0])


def _step(transform: Any, gradient: Any, weights: Any) -> Any:
    """The first update."""
    return transform.update(gradient, transform.init(weights), weights)[0]


def _path(transform, num_steps, start=1.0):
    """One weight after each step without a gradient, from ``start``."""

    def step(carry, _):
        weight, state = carry
        updates, state = transform.update(jnp.zeros_like(weight), state, weight)
        weight = optax.apply_updates(weight, updates)
        return (weight, state), weight

    weight = jnp.full((1,), start)
    run = jax.jit(lambda: jax.lax.scan(step, (weight, transform.init(weight)), length=num_steps)[1])
    return np.append(start, run())


# One number means different penalties.


@pytest.mark.filterwarnings("ignore")
def test_convert_knows_that_l2_of_keras_has_no_half(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    theirs = float(keras.regularizers.L2(0.3)(keras.ops.array(WEIGHTS)))
    penalty = float(wd.penalties.l2(jnp.asarray(WEIGHTS)))
    np.testing.assert_allclose(wd.convert(0.3, "keras.L2", "L2") * penalty, theirs, rtol=1e-6)  # float32
    assert 0.3 * penalty == pytest.approx(theirs / 2)


def _squares(inputs, targets, weights):
    return jnp.mean((inputs @ weights - targets) ** 2) / 2


def _log_loss(inputs, targets, weights):
    return jnp.mean(jnp.logaddexp(0, inputs @ weights) - targets * (inputs @ weights))


LINEAR = {"fit_intercept": False, "tol": 1e-12}
LBFGS = {"solver": "lbfgs", "max_iter": 5000, "tol": 1e-12}
SCIKIT_LEARN = {  # a model with its number, that number, its convention, and ours
    "Ridge": (linear_model.Ridge(alpha=50.0, **LINEAR), 50.0, "sklearn.Ridge", wd.L2),
    "Lasso": (linear_model.Lasso(alpha=0.5, **LINEAR), 0.5, "sklearn.Lasso", wd.L1),
    "ElasticNet": (
        linear_model.ElasticNet(alpha=0.8, l1_ratio=0.25, **LINEAR),
        (0.8, 0.25),
        "sklearn.ElasticNet",
        wd.ElasticNet,
    ),
    "LogisticRegression": (
        linear_model.LogisticRegression(C=0.02, solver="newton-cholesky", **LINEAR),
        0.02,
        "sklearn.LogisticRegression",
        wd.L2,
    ),
    "MLPRegressor": (
        neural_network.MLPRegressor(hidden_layer_sizes=(), alpha=50.0, **LBFGS),
        50.0,
        "sklearn.MLPRegressor",
        wd.L2,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCIKIT_LEARN)
@pytest.mark.usefixtures("float64")
def test_converted_coefficient_has_the_minimizer_of_scikit_learn(name):
    model, number, convention, kind = SCIKIT_LEARN[name]
    is_binary = name == "LogisticRegression"
    load: Any = datasets.load_breast_cancer if is_binary else datasets.load_diabetes
    inputs, targets = load(return_X_y=True)
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    targets = targets if is_binary else targets - targets.mean()
    model.fit(inputs, targets)
    weights = model.coefs_[0][:, 0] if name == "MLPRegressor" else np.ravel(model.coef_)

    def slope(coefficients):
        """Largest slope of mean loss and penalty where a weight is not held at zero."""
        rule = kind(*coefficients) if isinstance(coefficients, tuple) else kind(coefficients)
        loss = _log_loss if is_binary else _squares
        objective = lambda w: loss(inputs, targets, w) + wd.decay.penalty(rule, w)  # noqa: E731
        return np.max(np.abs(jax.grad(objective)(jnp.asarray(weights))[weights != 0]))

    converted = slope(wd.convert(number, convention, kind.__name__, num_examples=len(targets)))
    assert converted < 1e-2 if name == "MLPRegressor" else converted < 1e-5  # of slopes up to 45: where each one stops
    if name != "Lasso":  # the one that means the same number
        assert slope(number) > 0.01


# L2 and decoupled decay.


@pytest.mark.usefixtures("float64")
def test_l2_beside_momentum_decays_at_the_slow_rate_and_decoupled_does_not():
    eta, c, momentum = 0.01, 0.1, 0.9
    coupled, decoupled = (_path(wd.sgd(eta, rule, momentum), 300) for rule in (wd.L2(c), wd.Decoupled(c)))
    # w_{t+1} = (1 + momentum - eta c) w_t - momentum w_{t-1}: the larger root is what is left in the end
    slow = max(np.roots([1, -(1 + momentum - eta * c), momentum]))
    np.testing.assert_allclose(coupled[-1] / coupled[-2], slow, rtol=1e-9)  # the other root, to the power of 300
    np.testing.assert_allclose(
        1 - slow, eta * c / (1 - momentum), rtol=0.15
    )  # to first order in eta c / (1 - momentum)
    np.testing.assert_allclose(decoupled[-1] / decoupled[-2], 1 - eta * c, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_adam_with_l2_and_adamw_are_two_methods():
    torch = pytest.importorskip("torch")

    def theirs(name):
        weights = torch.tensor(WEIGHTS, requires_grad=True)
        optimizer = getattr(torch.optim, name)([weights], lr=0.1, weight_decay=0.1)
        for step in range(20):
            weights.grad = torch.sin(3 * weights.detach() + step)
            optimizer.step()
        return weights.detach().numpy()

    @jax.jit
    def ours(rule):
        transform, weights = wd.adam(0.1, rule), jnp.asarray(WEIGHTS)

        def step(carry, count):
            weights, state = carry
            updates, state = transform.update(jnp.sin(3 * weights + count), state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, transform.init(weights)), jnp.arange(20))[0][0]

    np.testing.assert_allclose(ours(wd.L2(0.1)), theirs("Adam"), rtol=1e-12)  # twenty roundings
    np.testing.assert_allclose(ours(wd.Decoupled(0.1)), theirs("AdamW"), rtol=1e-12)
    assert np.max(np.abs(theirs("Adam") - theirs("AdamW"))) > 0.01
    for source, target in (("torch.Adam", "torch.AdamW"), ("torch.AdamW", "torch.Adam")):
        with pytest.raises(ValueError, match=r"no conversion exists\. They are different methods"):
            wd.convert(0.1, source, target, learning_rate=0.1)


# What a step takes off.

_TRUST_RATIO = 0.001
TAKEN = {  # without a gradient, as a share of the weights
    "optax.adamw": (lambda eta, c: optax.adamw(eta, weight_decay=c), lambda eta, c: eta * c),
    "optax.adafactor": (lambda eta, c: optax.adafactor(eta, weight_decay_rate=c), lambda eta, c: c),
    "optax.lars": (lambda eta, c: optax.lars(eta, c, momentum=0.0), lambda eta, c: eta * _TRUST_RATIO),
    "optax.lamb": (lambda eta, c: optax.lamb(eta, weight_decay=c), lambda eta, c: eta),
    "Decoupled": (lambda eta, c: wd.adam(eta, wd.Decoupled(c)), lambda eta, c: eta * c),
    "Independent": (lambda eta, c: wd.adam(eta, wd.Independent(c)), lambda eta, c: c),
    "Decoupled in lars": (
        lambda eta, c: wd.optimizer(
            optax.scale_by_trust_ratio(trust_coefficient=_TRUST_RATIO), eta, wd.Decoupled(c), wd.masks.everything
        ),
        lambda eta, c: eta * c,
    ),
    "Decoupled in lamb": (lambda eta, c: wd.lamb(eta, wd.Decoupled(c)), lambda eta, c: eta * c),
    "Independent in lamb": (lambda eta, c: wd.lamb(eta, wd.Independent(c)), lambda eta, c: c),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize(("eta", "c"), [(0.1, 0.02), (0.01, 0.02), (0.1, 0.3)])
def test_share_of_a_step_depends_on_the_learning_rate_as_the_name_says(name, eta, c):
    make, share = TAKEN[name]
    weights = jnp.asarray(WEIGHTS)
    taken = -_step(make(eta, c), jnp.zeros(3), weights)
    np.testing.assert_allclose(taken, share(eta, c) * WEIGHTS, rtol=1e-5)  # float32, and an eps of 1e-6 in lamb


def test_conversion_names_the_learning_rate_between_adamw_and_adafactor():
    assert wd.convert(0.2, "optax.adamw", "optax.adafactor", learning_rate=0.1) == pytest.approx(0.02)
    with pytest.raises(ValueError, match=r"learning_rate is missing"):
        wd.convert(0.2, "optax.adamw", "optax.adafactor")


def test_lars_has_three_trust_ratios():
    weights, gradient, eta, c = np.array([3.0, 4.0]), np.array([4.0, -3.0]), 0.1, 0.5
    norm = np.linalg.norm
    pull = gradient + c * weights
    ratios = {
        "of the sum": _TRUST_RATIO * norm(weights) / norm(pull),
        "of the norms": _TRUST_RATIO * norm(weights) / (norm(gradient) + c * norm(weights)),
        "of the gradient": _TRUST_RATIO * norm(weights) / norm(gradient),
    }
    assert min(np.diff(sorted(ratios.values()))) > 1e-4
    base = optax.scale_by_trust_ratio(trust_coefficient=_TRUST_RATIO)
    w, g = jnp.asarray(weights), jnp.asarray(gradient)
    float32 = 1e-5  # and its roundings in the norms
    theirs = -eta * ratios["of the sum"] * pull
    np.testing.assert_allclose(_step(optax.lars(eta, c, momentum=0.0), g, w), theirs, rtol=float32)
    np.testing.assert_allclose(_step(wd.optimizer(base, eta, wd.L2(c)), g, w), theirs, rtol=float32)
    beside = -eta * (ratios["of the gradient"] * gradient + c * weights)
    np.testing.assert_allclose(_step(wd.optimizer(base, eta, wd.Decoupled(c)), g, w), beside, rtol=float32)


# Names that two methods share.


@pytest.mark.slow
def test_stable_takes_the_mean_over_weights_that_do_not_decay_too():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    gradients = {"kernel": jnp.full((2, 2), 0.5), "bias": jnp.full(2, 4.0)}
    with_decay, without = (_step(wd.adam(0.1, rule), gradients, params) for rule in (wd.Stable(0.3), wd.NoDecay()))
    mean = (4 * 0.5**2 + 2 * 4.0**2) / 6  # of v_hat, which is the square of the gradient at the first step
    taken = without["kernel"] - with_decay["kernel"]
    np.testing.assert_allclose(taken, np.full((2, 2), 0.1 * 0.3 / np.sqrt(mean)), rtol=1e-5)  # a float32 difference
    np.testing.assert_array_equal(with_decay["bias"], without["bias"])


def test_cautious_decay_masks_the_decay_and_the_cautious_optimizer_the_update():
    weights, eta, c = jnp.array([-2.0, 2.0]), 0.1, 0.3
    one, gradient = jnp.array([1.0, 1.0]), jnp.array([-0.1, -0.1])  # the second one disagrees with the momentum
    base: Any = optax.scale_by_adam()
    transform: Any = wd.adam(eta, wd.Cautious(c))
    direction, _ = base.update(gradient, base.update(one, base.init(weights))[1])
    updates, _ = transform.update(gradient, transform.update(one, transform.init(weights), weights)[1], weights)
    assert np.all(direction > 0)
    cautious_optimizer = -eta * direction * (direction * gradient > 0)
    np.testing.assert_array_equal(cautious_optimizer, np.zeros(2))
    assert updates[0] == -eta * direction[0]  # away from zero: the whole update, and no decay
    np.testing.assert_allclose(updates[1], -eta * (direction[1] + c * weights[1]), rtol=1e-6)  # float32


# Precision of a coefficient.


def test_coefficient_in_inject_hyperparams_is_rounded_to_bfloat16_and_ours_is_not():
    weights = jnp.linspace(1, 2, 128).astype(jnp.bfloat16)
    exact = (np.float32(0.1) * np.asarray(weights, np.float32)).astype(jnp.bfloat16)
    theirs: Any = optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=0.1)
    injected = theirs.init(weights).hyperparams["weight_decay"]
    assert injected.dtype == jnp.bfloat16
    assert float(injected) == 0.10009765625
    assert np.any(_step(theirs, jnp.zeros_like(weights), weights) != exact)
    for rule in (wd.L2(0.1), wd.Decoupled(0.1), wd.Independent(0.1)):
        np.testing.assert_array_equal(-_step(wd.sgd(1.0, rule), jnp.zeros_like(weights), weights), exact)


# Many members in one program.


def _primitives(jaxpr):
    """Names of all primitives, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)


def _example(kind):
    """The rule with some number for each coefficient that it asks for."""
    asked = [field for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    return kind(*(0.3 for _ in asked))


RULES = [_example(kind) for kind in decay.KINDS.values() if kind is not wd.Constrained]
RULES.append(wd.Constrained(0.3, update_rate=0.01))  # at the 1 that it has by default these weights would diverge
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
KERNEL = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


def test_switch_under_vmap_runs_every_branch():
    branches = [jnp.sin, jnp.cos]
    one = lambda choice: jax.lax.switch(choice, branches, 1.0)  # noqa: E731
    assert "cond" in set(_primitives(jax.make_jaxpr(one)(0).jaxpr))
    many = set(_primitives(jax.make_jaxpr(jax.vmap(one))(jnp.arange(2)).jaxpr))
    assert {"sin", "cos"} <= many
    assert "cond" not in many


@pytest.mark.slow
@every_rule
def test_update_holds_no_switch(rule):
    bases = [wd.adam, wd.lamb, wd.rmsprop]
    if not rule.needs & {"preconditioner_diagonal"}:
        bases += [wd.muon] + ([] if rule.needs else [wd.lion])
    params = {"kernel": jnp.asarray(KERNEL), "bias": jnp.ones(4)}
    for base in bases + ([] if "second_moments" in rule.needs else [wd.sgd]):
        transform = base(0.1, rule)
        assert "cond" not in set(
            _primitives(jax.make_jaxpr(transform.update)(params, transform.init(params), params).jaxpr)
        )


@pytest.mark.slow
@every_rule
def test_member_that_goes_to_nan_leaves_its_neighbours_as_they_were(rule):
    leaves, structure = jax.tree.flatten(rule)

    def run(scale, poison):
        transform = wd.adam(0.1, structure.unflatten([scale * leaf for leaf in leaves]))
        weights = jnp.asarray(KERNEL)
        state = transform.init(weights)
        for sick in (0, poison, poison):
            updates, state = transform.update(jnp.cos(weights) + sick, state, weights)
            weights = optax.apply_updates(weights, updates)
        return weights

    run = jax.jit(jax.vmap(run), compiler_options={"xla_backend_optimization_level": 0})  # quick to compile
    scales = jnp.array([0.5, 1.0, 1.5])
    healthy, poisoned = (np.asarray(run(scales, jnp.array([0, sick, 0]))) for sick in (0, jnp.nan))
    assert np.all(np.isnan(poisoned[1]))
    assert np.all(np.isfinite(healthy))
    assert poisoned[::2].tobytes() == healthy[::2].tobytes()


@pytest.mark.slow
def test_apply_if_finite_gives_up_and_accepts_the_bad_update():
    transform = optax.apply_if_finite(wd.adam(0.1, wd.Decoupled(0.3)), max_consecutive_errors=2)
    weights: Any = jnp.asarray(WEIGHTS)
    state = transform.init(weights)
    seen = []
    for _ in range(3):
        updates, state = transform.update(jnp.full(3, jnp.nan), state, weights)
        weights = optax.apply_updates(weights, updates)
        seen.append(bool(np.all(np.isfinite(weights))))
    assert seen == [True, True, False]


# Masks by names.

OLD = {"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "head": {"kernel": jnp.ones((3, 1))}}
RENAMED = {"fc1": OLD["Dense_0"], "classifier": OLD["head"]}
ZEROS = {name: jax.tree.map(jnp.zeros_like, layer) for name, layer in RENAMED.items()}


def _dense_layers(params):
    return {name: name.startswith(("Dense", "head")) for name in params}


def test_mask_by_names_fails_silently_in_optax():
    updates = _step(optax.add_decayed_weights(0.1, mask=_dense_layers), ZEROS, RENAMED)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": _dense_layers}, r"mask '_dense_layers' selects no weight"),
        ({"mask": wd.masks.matching("Dense_0")}, r"'Dense_0'.* no.*fc1/kernel"),
        ({"decay": wd.Masked(wd.L2(0.1), wd.masks.matching("head"))}, r"'head'.* no.*classifier/kernel"),
        ({"decay": wd.L2(wd.PerLayer({"Dense_0": 0.1}, default=0.0))}, r"'Dense_0'.* no.*fc1/kernel"),
    ],
    ids=["function", "matching", "Masked", "PerLayer"],
)
def test_mask_by_names_that_matches_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        wd.adam(0.1, **{"decay": wd.L2(0.1), **options}).init(RENAMED)


def test_mask_by_structure_does_not_care_for_names():
    expected = {"fc1": {"kernel": True, "bias": False}, "classifier": {"kernel": True}}
    assert wd.masks.kernels(RENAMED) == expected
    updates = _step(wd.sgd(1.0, wd.Decoupled(0.5)), ZEROS, RENAMED)
    decayed = jax.tree.map(lambda leaf: bool(np.all(leaf == -0.5)), updates)
    assert decayed == expected
    assert "9 of 12 weights decay (75.0 %)" in wd.masks.describe(RENAMED)


# The time scale.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("transform", "name", "coefficient"),
    [
        (wd.adam(0.01, wd.Decoupled(0.2)), "Decoupled", 0.2),
        (wd.adam(0.01, wd.Independent(0.002)), "Independent", 0.002),
        (wd.sgd(0.01, wd.L2(0.2)), "torch.SGD", 0.2),
    ],
)
def test_weights_without_gradient_live_for_the_time_scale(transform, name, coefficient):
    tau = wd.convert(coefficient, name, "time_scale.steps", learning_rate=0.01)
    assert tau == pytest.approx(500)
    steps = np.arange(1001)
    np.testing.assert_allclose(_path(transform, 1000), np.exp(-steps / tau), rtol=1000 / 500**2)  # (1 - x)^n by e^-nx


MOVES = {  # where the other run stands: its numbers, and how many of its steps are one of the first run's 1,000
    "learning_rate": ({"learning_rate": 0.01, "new_learning_rate": 0.04}, 0.04, 1),
    "batch_size": ({"batch_size": 32, "new_batch_size": 128}, 0.01, 1 / 4),
    "num_examples": ({"num_examples": 1000, "new_num_examples": 2500}, 0.01, 2.5),
    "num_steps": ({"num_steps": 1000, "new_num_steps": 2000}, 0.01, 2),
}


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("move", MOVES)
def test_decay_moved_at_constant_time_scale_keeps_its_trajectory(move):
    numbers, new_rate, ratio = MOVES[move]
    moved = wd.convert(0.1, "Decoupled", "Decoupled", **numbers)
    here = _path(wd.adam(0.01, wd.Decoupled(0.1)), 1000)[::20]  # at the same epochs, or shares of the run
    there = _path(wd.adam(new_rate, wd.Decoupled(float(moved))), round(1000 * ratio))[:: round(20 * ratio)]
    # Equal to first order in the share a step, .001 here and .004 at most there: 1,000 of them make .004² / 2 a step.
    np.testing.assert_allclose(there, here, rtol=1e-12 if move == "learning_rate" else 1000 * 0.004**2 / 8)
    stayed = _path(wd.adam(new_rate, wd.Decoupled(0.1)), round(1000 * ratio))
    assert abs(stayed[-1] / here[-1] - 1) > 0.5
