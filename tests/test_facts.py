"""Facts that were computed elsewhere, reproduced by training: linear models, averages, symmetries, equilibria."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from sklearn import datasets, linear_model

import weightdecay as wd

pytestmark = pytest.mark.usefixtures("float64")
NUM_STEPS = 20_000


def _standardized(load: Callable):
    inputs, targets = load(return_X_y=True)
    return (inputs - inputs.mean(0)) / inputs.std(0), targets


@pytest.fixture(scope="module")
def diabetes():
    """Standardized inputs and centred targets: 442 examples, 10 features, no intercept."""
    inputs, targets = _standardized(datasets.load_diabetes)
    return inputs, targets - targets.mean()


@pytest.fixture(scope="module")
def breast_cancer():
    """Standardized inputs and targets of 0 and 1: 569 examples, 30 features, no intercept."""
    return _standardized(datasets.load_breast_cancer)


def _minimize(transform, gradient_fn, start, num_steps=NUM_STEPS):
    """Weights after full-batch training; one loop, to be compiled."""

    def step(_, carry):
        weights, state = carry
        updates, state = transform.update(gradient_fn(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    return jax.lax.fori_loop(0, num_steps, step, (start, transform.init(start)))[0]


@functools.partial(jax.jit, static_argnames="base")
def _quadratic(gram, moment, base, rule):
    return _minimize(base(rule), lambda weights: weights @ gram - moment, jnp.zeros(moment.shape))


def _least_squares(data, base, rule):
    """Minimizer of 1/2 mean |y - X w|² under a decay rule; compiled once a base and kind of rule."""
    inputs, targets = data
    return np.asarray(_quadratic(inputs.T @ inputs / len(targets), targets.T @ inputs / len(targets), base, rule))


def _to_zero(peak):
    return optax.cosine_decay_schedule(peak, NUM_STEPS)


def sgd(rule):
    return wd.sgd(0.2, rule)  # the largest curvature is 4.02 + c


def sgd_with_momentum(rule):
    return wd.sgd(0.1, rule, 0.9)


def adam(rule):
    return wd.adam(_to_zero(1.0), rule)


def rmsprop(rule):
    return wd.rmsprop(_to_zero(1.0), rule, momentum=0.9)


def lamb(rule):
    return wd.lamb(_to_zero(0.1), rule)


def lion(rule):
    return wd.lion(_to_zero(0.5), rule)


every_base = pytest.mark.parametrize("base", [sgd, sgd_with_momentum, adam])
BOTH = [sgd, adam]


def _ridge(data, c):
    inputs, targets = data
    gram = inputs.T @ inputs / len(targets)
    return np.linalg.solve(gram + c * np.eye(10), inputs.T @ targets / len(targets))


@pytest.mark.parametrize("c", [0.1, 1.0])
@every_base
def test_l2_reaches_the_closed_form_of_ridge(diabetes, base, c):
    inputs, targets = diabetes
    theirs = linear_model.Ridge(alpha=len(targets) * c, fit_intercept=False).fit(inputs, targets).coef_
    np.testing.assert_allclose(_ridge(diabetes, c), theirs, rtol=1e-10)  # two solvers of one linear system
    trained = _least_squares(diabetes, base, wd.L2(c))
    np.testing.assert_allclose(trained, theirs, rtol=1e-8)  # converged to rounding; weights of 0.5 to 25


@pytest.mark.parametrize(
    ("base", "tolerance"),
    [(rmsprop, 1e-8), (lamb, 1e-5), (lion, 1e-5)],  # the last two take steps of fixed length, as short as the last rate
)
def test_l2_reaches_ridge_beside_other_bases(diabetes, base, tolerance):
    np.testing.assert_allclose(_least_squares(diabetes, base, wd.L2(1.0)), _ridge(diabetes, 1.0), rtol=tolerance)


@pytest.mark.parametrize("base", [rmsprop, lamb])
def test_proximal_rules_reach_their_minimizer_beside_other_bases(diabetes, base):
    trained = _least_squares(diabetes, base, wd.ProximalElasticNet(0.5, 0.5))
    np.testing.assert_allclose(trained, ELASTIC_NET, **DIGITS)
    trained = _least_squares(diabetes, base, wd.ProximalElasticNet(1.0, 0.0))
    np.testing.assert_allclose(trained, LASSO, **DIGITS)
    np.testing.assert_array_equal(trained != 0, np.array(LASSO) != 0)
    trained = _least_squares(diabetes, base, wd.ProximalElasticNet(0.0, 1.0))
    np.testing.assert_allclose(trained, _ridge(diabetes, 1.0), rtol=1e-8)  # converged to rounding


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_decoupled_in_adam_does_not_reach_ridge(diabetes, c):
    trained = _least_squares(diabetes, adam, wd.Decoupled(c))
    assert np.max(np.abs(trained - _ridge(diabetes, c))) > 1


@pytest.mark.parametrize("c", [0.1, 1.0])
@every_base
def test_proximal_l2_reaches_ridge(diabetes, base, c):
    np.testing.assert_allclose(_least_squares(diabetes, base, wd.ProximalL2(c)), _ridge(diabetes, c), rtol=1e-8)


SMALLEST_ALL_ZERO = 45.160030020
LASSO_OBJECTIVE = 1533.7687169626
LASSO = [0, -9.31933, 24.831504, 14.088986, -4.838946, 0, -10.622756, 0, 24.420933, 2.561876]
ELASTIC_NET = [
    0.637825,
    -5.691797,
    18.097527,
    11.405596,
    -0.240975,
    -2.366427,
    -8.221762,
    5.297135,
    15.448213,
    5.057307,
]
DIGITS = {"rtol": 0, "atol": 1e-6}  # the vectors have six decimals


def test_lasso_is_scikit_learns(diabetes):
    inputs, targets = diabetes
    lasso = linear_model.Lasso(alpha=1.0, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(inputs, targets).coef_
    np.testing.assert_allclose(lasso, LASSO, **DIGITS)
    objective = np.mean((targets - inputs @ lasso) ** 2) / 2 + np.sum(np.abs(lasso))
    np.testing.assert_allclose(objective, LASSO_OBJECTIVE, rtol=1e-13)  # fourteen digits are given
    both = linear_model.ElasticNet(alpha=1.0, l1_ratio=0.5, fit_intercept=False, tol=1e-12, max_iter=100_000)
    np.testing.assert_allclose(both.fit(inputs, targets).coef_, ELASTIC_NET, **DIGITS)
    np.testing.assert_allclose(
        np.max(np.abs(inputs.T @ targets)) / len(targets), SMALLEST_ALL_ZERO, atol=5e-10, rtol=0
    )  # decimals given


@every_base
def test_proximal_l1_reaches_the_lasso(diabetes, base):
    inputs, targets = diabetes
    trained = _least_squares(diabetes, base, wd.ProximalL1(1.0))
    np.testing.assert_allclose(trained, LASSO, **DIGITS)
    np.testing.assert_array_equal(trained != 0, np.array(LASSO) != 0)
    objective = np.mean((targets - inputs @ trained) ** 2) / 2 + np.sum(np.abs(trained))
    np.testing.assert_allclose(objective, LASSO_OBJECTIVE, rtol=1e-13)  # fourteen digits are given


def _adam_without_its_diagonal(rule):
    return wd.optimizer(
        optax.scale_by_adam(), _to_zero(1.0), rule, preconditioner_diagonal=lambda state: jnp.ones_like(state.nu)
    )


def test_proximal_l1_in_adam_without_its_diagonal_is_all_zeros(diabetes):
    assert not np.any(_least_squares(diabetes, _adam_without_its_diagonal, wd.ProximalL1(1.0)))


@pytest.mark.parametrize("base", BOTH)
def test_proximal_l1_makes_all_zeros_from_the_smallest_such_coefficient_on(diabetes, base):
    above, below = (_least_squares(diabetes, base, wd.ProximalL1(SMALLEST_ALL_ZERO + shift)) for shift in (1e-6, -1e-6))
    assert not np.any(above)
    assert np.count_nonzero(below) == 1
    # One weight: its minimizer is the distance to the threshold, over a curvature of 1.
    np.testing.assert_allclose(np.max(np.abs(below)), 1e-6, rtol=1e-3)  # the threshold is given to 1e-9


@every_base
def test_l1_has_no_exact_zero(diabetes, base):
    trained = _least_squares(diabetes, base, wd.L1(1.0))
    assert np.all(trained != 0)
    np.testing.assert_allclose(trained, LASSO, atol=10)  # around the minimizer all the same, by the size of a step


@every_base
def test_proximal_elastic_net_reaches_the_elastic_net(diabetes, base):
    trained = _least_squares(diabetes, base, wd.ProximalElasticNet(0.5, 0.5))
    np.testing.assert_allclose(trained, ELASTIC_NET, **DIGITS)


@pytest.mark.slow
@every_base
def test_proximal_group_lasso_reaches_the_multi_task_lasso(diabetes, base):
    features, _ = diabetes
    inputs, targets = features[:, :6], features[:, 6:]  # six features tell of the other four
    alpha = 0.3
    theirs = linear_model.MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000)
    theirs = theirs.fit(inputs, targets).coef_  # (tasks, features); a group is what leaves one feature
    assert 0 < np.count_nonzero(theirs.any(0)) < 6
    trained = _least_squares((inputs, targets), base, wd.ProximalGroupLasso(alpha / np.sqrt(4)))  # c sqrt(group size)
    np.testing.assert_allclose(trained, theirs, atol=1e-6)  # where scikit-learn stops
    np.testing.assert_array_equal(trained.any(0), theirs.any(0))


ANCHOR = np.linspace(-20, 30, 10)
PENALTIES = {  # a rule; its penalty, first and second derivative
    "huber": (
        wd.Huber(0.5, 4.0),
        lambda w: 0.5 * np.sum(np.where(np.abs(w) < 4, w**2 / 2, 4 * (np.abs(w) - 2))),
        lambda w: 0.5 * np.where(np.abs(w) < 4, w, 4 * np.sign(w)),
        lambda w: 0.5 * (np.abs(w) < 4),
    ),
    "elimination": (  # weak enough to leave the objective convex, with one minimizer
        wd.Elimination(0.4, 5.0),
        lambda w: 0.4 * np.sum(w**2 / (25 + w**2)),
        lambda w: 0.4 * 50 * w / (25 + w**2) ** 2,
        lambda w: 0.4 * 50 * (25 - 3 * w**2) / (25 + w**2) ** 3,
    ),
    "toward_anchor": (
        wd.TowardAnchor(0.5, anchor=ANCHOR),
        lambda w: 0.25 * np.sum((w - ANCHOR) ** 2),
        lambda w: 0.5 * (w - ANCHOR),
        lambda w: np.full(10, 0.5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("base", BOTH)
def test_penalty_rule_reaches_the_minimizer_of_scipy(diabetes, name, base):
    rule, penalty, slope, curvature = PENALTIES[name]
    inputs, targets = diabetes
    gram, moment = inputs.T @ inputs / len(targets), inputs.T @ targets / len(targets)
    minimum = scipy.optimize.minimize(
        lambda w: w @ gram @ w / 2 - moment @ w + penalty(w),
        np.zeros(10),
        jac=lambda w: gram @ w - moment + slope(w),
        hess=lambda w: gram + np.diag(curvature(w)),
        method="trust-exact",
        options={"gtol": 1e-8},
    )
    assert np.max(np.abs(minimum.jac)) < 1e-6
    trained = _least_squares(diabetes, base, rule)
    np.testing.assert_allclose(trained, minimum.x, rtol=1e-4)  # scipy's slope, over the smallest curvature of .0086
    unpenalized = np.linalg.solve(gram, moment)
    assert np.max(np.abs(minimum.x - unpenalized)) > 0.5


def _log_loss(inputs, targets, weights):
    return np.mean(np.logaddexp(0, inputs @ weights) - targets * (inputs @ weights))


def _logistic(data, transform, num_steps):
    inputs, targets = map(jnp.asarray, data)
    gradient = lambda weights: inputs.T @ (jax.nn.sigmoid(inputs @ weights) - targets) / len(targets)  # noqa: E731
    run = jax.jit(lambda: _minimize(transform, gradient, jnp.zeros(30), num_steps))
    return np.asarray(run())  # largest curvature: 13.3 / 4


def test_l2_reaches_logistic_regression(breast_cancer):
    inputs, targets = breast_cancer
    theirs = linear_model.LogisticRegression(C=1.0, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs = theirs.fit(inputs, targets).coef_[0]
    trained = _logistic(breast_cancer, wd.sgd(0.1, wd.L2(1 / len(targets)), 0.9), 10_000)  # c = 1 / (n C)
    for weights, tolerance in ((theirs, 1e-6), (trained, 1e-9)):  # scikit-learn stops sooner
        np.testing.assert_allclose(np.linalg.norm(weights), 3.9280096643, rtol=tolerance)
        np.testing.assert_allclose(_log_loss(inputs, targets, weights), 0.0530107831, rtol=tolerance)


def test_proximal_l1_reaches_sparse_logistic_regression(breast_cancer):
    inputs, targets = breast_cancer
    c = 1 / (0.1 * len(targets))  # C = .1
    trained = _logistic(breast_cancer, wd.adam(_to_zero(0.1), wd.ProximalL1(c)), NUM_STEPS)
    theirs = linear_model.LogisticRegression(
        C=0.1, l1_ratio=1.0, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=10_000, random_state=0
    )
    theirs = theirs.fit(inputs, targets).coef_[0]
    for weights in (theirs, trained):
        assert np.count_nonzero(weights) == 9
        objective = _log_loss(inputs, targets, weights) + c * np.sum(np.abs(weights))
        np.testing.assert_allclose(objective, 0.2148115866, rtol=0, atol=1e-10)  # decimals given
    np.testing.assert_allclose(trained, theirs, atol=1e-6)  # where scikit-learn stops


# Cautious decay.

CURVATURES, MINIMUM = np.array([1, 3, 0.5, 2]), np.array([5, -4, 0.3, 1.5])


def _bowl(base, rule):
    """Weights that minimize 1/2 sum of a (w - b)² under a decay rule."""
    run = jax.jit(lambda one: _minimize(base(one), lambda w: CURVATURES * (w - MINIMUM), jnp.zeros(4)))
    return np.asarray(run(rule))


@pytest.mark.parametrize("base", [adam, sgd, lion])
def test_cautious_leaves_the_minimum_where_it_was_and_decoupled_does_not(base):
    np.testing.assert_allclose(_bowl(base, wd.Cautious(0.5)), MINIMUM, rtol=0, atol=1e-3)  # as the fact has it
    assert np.max(np.abs(_bowl(base, wd.Decoupled(0.5)) - MINIMUM)) > 0.5


# Decoupled decay as an average.

AVERAGES = {
    "adam": (wd.adam, optax.scale_by_adam()),
    "sgd": (functools.partial(wd.sgd, momentum=0.9), optax.trace(0.9)),
    "lion": (wd.lion, optax.scale_by_lion(0.9, 0.99)),
    "rmsprop": (wd.rmsprop, optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False)),
    "lamb": (wd.lamb, optax.chain(optax.scale_by_adam(eps=1e-6), optax.scale_by_trust_ratio())),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AVERAGES)
def test_decoupled_is_an_average_of_the_steps_and_l2_is_not(name):
    # w_T = rho^T w_0 + sum of eta c rho^(T - k) (-u_k / c), rho = 1 - eta c
    make, base = AVERAGES[name]
    eta, c, num_steps = 0.05, 0.4, 50
    start = jnp.linspace(-2, 3, 6)

    def directions_and_weights(rule):
        transform = make(eta, rule)

        def step(carry, count):
            weights, state, base_state = carry
            gradient = jnp.sin(3 * weights + count)
            direction, base_state = base.update(gradient, base_state, weights)
            updates, state = transform.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
            return (weights, state, base_state), (direction, weights)

        return jax.lax.scan(step, (start, transform.init(start), base.init(start)), jnp.arange(num_steps))[1]

    rho = 1 - eta * c
    for rule, is_average in ((wd.Decoupled(c), True), (wd.L2(c), False)):
        directions, weights = jax.jit(directions_and_weights)(rule)
        average = rho**num_steps * start
        average += sum(eta * c * rho ** (num_steps - k) * (-u / c) for k, u in enumerate(directions, start=1))
        error = np.max(np.abs(weights[-1] - average) / np.abs(average))
        assert error < 1e-12 if is_average else error > 1e-3  # fifty roundings


# Scale symmetry.

RANDOM = np.random.default_rng(0)
INPUTS, TARGETS, START = RANDOM.normal(size=(20, 5)), RANDOM.normal(size=20), RANDOM.normal(size=5)


@functools.partial(jax.jit, static_argnames="make")
def _scale_invariant_path(make, learning_rate, rule, start):
    """Direction of the weights after each step under a loss that knows nothing but the direction."""
    loss = lambda w: jnp.mean((INPUTS @ (w / jnp.linalg.norm(w)) - TARGETS) ** 2) / 2  # noqa: E731
    transform = make(learning_rate, rule)

    def step(carry, _):
        weights, state = carry
        updates, state = transform.update(jax.grad(loss)(weights), state, weights)
        weights = optax.apply_updates(weights, updates)
        return (weights, state), weights / jnp.linalg.norm(weights)

    return jax.lax.scan(step, (start, transform.init(start)), length=100)[1]


def adam_without_eps(learning_rate, rule):
    return wd.adam(learning_rate, rule, eps=0.0)


def heavy_ball(learning_rate, rule):
    return wd.sgd(learning_rate, rule, 0.9)


SYMMETRIES = [  # a base, its rule, and the powers of a that the learning rate and the coefficient take up
    (adam_without_eps, wd.Decoupled, 1, -1),
    (adam_without_eps, wd.Independent, 1, 0),
    (adam_without_eps, wd.L2, 1, -2),
    (wd.lion, wd.Decoupled, 1, -1),
    (heavy_ball, wd.L2, 2, -2),
    (wd.sgd, wd.L2, 2, -2),
    (wd.sgd, wd.Decoupled, 2, -2),
    (wd.sgd, wd.ProximalL2, 2, -2),
    (wd.sgd, wd.ProximalL1, 2, -1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "kind", "rate_power", "coefficient_power"), SYMMETRIES)
def test_scale_symmetry_keeps_every_direction(make, kind, rate_power, coefficient_power):
    eta, c = 0.05, 0.1
    path = lambda a, power: _scale_invariant_path(  # noqa: E731
        make, eta * a**rate_power, kind(c * a**power), a * START
    )
    plain = np.asarray(path(1.0, coefficient_power))
    assert np.max(np.abs(plain[-1] - plain[0])) > 0.01
    for power_of_two in (4.0, 0.125):
        np.testing.assert_array_equal(path(power_of_two, coefficient_power), plain)
    np.testing.assert_allclose(path(3.0, coefficient_power), plain, atol=1e-9)  # roundings, carried on for 100 steps
    assert np.max(np.abs(path(4.0, coefficient_power + 1) - plain)) > 1e-4  # the coefficient of another symmetry


# Equilibria.


def _angle_a_step(transform, scale_invariant):
    """Mean angle in radians by which 1,000 weights under normal noise turn in a step, once they have settled."""
    noise = np.random.default_rng(0).normal(size=(10_000, 1000))
    start = jnp.asarray(np.random.default_rng(1).normal(size=1000))

    def step(carry, gradient):
        weights, state = carry
        if scale_invariant:  # across the weights, and in inverse proportion to their norm
            square = weights @ weights
            gradient = (gradient - weights * (weights @ gradient) / square) / jnp.sqrt(square)
        updates, state = transform.update(gradient, state, weights)
        after = weights + updates
        cosine = weights @ after / jnp.sqrt((weights @ weights) * (after @ after))
        return (after, state), jnp.arccos(cosine)

    angles = jax.jit(lambda noise: jax.lax.scan(step, (start, transform.init(start)), noise)[1])(noise)
    return np.mean(angles[len(angles) // 2 :])


ETA, C, B1 = 0.01, 0.1, 0.9
ROTATIONS = {
    "adamw": (lambda: wd.adam(ETA, wd.Decoupled(C)), False, np.sqrt(2 * ETA * C * (1 - B1) / (1 + B1))),
    "sgd with l2": (lambda: wd.sgd(ETA, wd.L2(C), B1), True, np.sqrt(2 * ETA * C / (1 + B1))),
    "sgdw": (lambda: wd.sgd(ETA, wd.Decoupled(C), B1), True, np.sqrt(2 * ETA * C * (1 - B1) / (1 + B1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROTATIONS)
def test_weights_turn_by_the_angle_of_equilibrium(name):
    # Kosson et al. 2023, arXiv 2305.17212
    make, scale_invariant, expected = ROTATIONS[name]
    np.testing.assert_allclose(_angle_a_step(make(), scale_invariant), expected, rtol=0.02)  # as the fact has it


# The best decay of a linear student.

NOISE_VARIANCE, NUM_WEIGHTS, NUM_DRAWS = 0.25, 300, 40


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "expected"), [(0.5, 0.6404), (1.0, 0.3904)])
def test_best_l2_of_a_linear_student_is_the_variance_of_the_noise(ratio, expected):
    # Krogh & Hertz 1992: a penalty c |w|² beside a sum of squares
    num_examples = int(ratio * NUM_WEIGHTS)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(NUM_DRAWS, num_examples, NUM_WEIGHTS)) / np.sqrt(NUM_WEIGHTS)
    teachers = random.normal(size=(NUM_DRAWS, NUM_WEIGHTS))
    teachers *= np.sqrt(NUM_WEIGHTS) / np.linalg.norm(teachers, axis=1, keepdims=True)
    noise = np.sqrt(NOISE_VARIANCE) * random.normal(size=(NUM_DRAWS, num_examples))
    targets = (inputs @ teachers[..., None])[..., 0] + noise
    gram, moment = inputs.mT @ inputs, (inputs.mT @ targets[..., None])[..., 0]

    def train(c, gram, moment):
        rule = wd.L2(c / num_examples)  # beside half the mean of squares
        gradient_fn = lambda w: (gram @ w - moment) / num_examples  # noqa: E731
        return _minimize(wd.sgd(num_examples / 4, rule), gradient_fn, jnp.zeros(NUM_WEIGHTS), 200)

    candidates = NOISE_VARIANCE * np.array([0.5, 1, 2])
    students = np.asarray(jax.jit(jax.vmap(jax.vmap(train, (0, None, None)), (None, 0, 0)))(candidates, gram, moment))
    errors = np.mean((students - teachers[:, None]) ** 2, axis=(0, 2))
    assert np.argmin(errors) == 1
    np.testing.assert_allclose(errors[1], expected, rtol=0.02)  # as the fact has it: N and the draws are finite
