"""Facts that were computed elsewhere, reproduced by training: ridge, lasso, elastic net, logistic regression, AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import datasets, linear_model

import weightdecay as wd

pytestmark = pytest.mark.usefixtures("float64")
NUM_STEPS = 20_000


def _standardized(load):
    inputs, targets = load(return_X_y=True)
    return (inputs - inputs.mean(0)) / inputs.std(0), targets


@pytest.fixture
def diabetes():
    """Standardized inputs and centred targets: 442 examples, 10 features, no intercept."""
    inputs, targets = _standardized(datasets.load_diabetes)
    return inputs, targets - targets.mean()


@pytest.fixture
def breast_cancer():
    """Standardized inputs and targets of 0 and 1: 569 examples, 30 features, no intercept."""
    return _standardized(datasets.load_breast_cancer)


def _minimize(transform, gradient_fn, num_features, num_steps=NUM_STEPS):
    """Weights after full-batch training from zero; one compiled loop."""

    def step(_, carry):
        weights, state = carry
        updates, state = transform.update(gradient_fn(weights), state, weights)
        return optax.apply_updates(weights, updates), state

    start = jnp.zeros(num_features)
    return np.asarray(jax.jit(lambda: jax.lax.fori_loop(0, num_steps, step, (start, transform.init(start))))()[0])


def _least_squares(data, transform, num_steps=NUM_STEPS):
    """Minimizer of 1/2 mean (y - X w)² under a decay rule."""
    inputs, targets = data
    gram, moment = inputs.T @ inputs / len(targets), inputs.T @ targets / len(targets)
    return _minimize(transform, lambda weights: gram @ weights - moment, 10, num_steps)


def _to_zero(peak):
    return optax.cosine_decay_schedule(peak, NUM_STEPS)


def sgd(rule):
    return wd.sgd(0.2, rule)  # the largest curvature is 4.02 + c


def sgd_with_momentum(rule):
    return wd.sgd(0.1, rule, 0.9)


def adam(rule):
    return wd.adam(_to_zero(1.0), rule)


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
    trained = _least_squares(diabetes, base(wd.L2(c)))
    np.testing.assert_allclose(trained, theirs, rtol=1e-8)  # converged to rounding; weights of 0.5 to 25


@pytest.mark.parametrize("c", [0.1, 1.0])
def test_decoupled_in_adam_does_not_reach_ridge(diabetes, c):
    trained = _least_squares(diabetes, adam(wd.Decoupled(c)))
    assert np.max(np.abs(trained - _ridge(diabetes, c))) > 1


@pytest.mark.parametrize("c", [0.1, 1.0])
@every_base
def test_proximal_l2_reaches_ridge(diabetes, base, c):
    np.testing.assert_allclose(_least_squares(diabetes, base(wd.ProximalL2(c))), _ridge(diabetes, c), rtol=1e-8)


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
    trained = _least_squares(diabetes, base(wd.ProximalL1(1.0)))
    np.testing.assert_allclose(trained, LASSO, **DIGITS)
    np.testing.assert_array_equal(trained != 0, np.array(LASSO) != 0)
    objective = np.mean((targets - inputs @ trained) ** 2) / 2 + np.sum(np.abs(trained))
    np.testing.assert_allclose(objective, LASSO_OBJECTIVE, rtol=1e-13)  # fourteen digits are given


@pytest.mark.parametrize("base", BOTH)
def test_proximal_l1_makes_all_zeros_from_the_smallest_such_coefficient_on(diabetes, base):
    above, below = (_least_squares(diabetes, base(wd.ProximalL1(SMALLEST_ALL_ZERO + shift))) for shift in (1e-6, -1e-6))
    assert not np.any(above)
    assert np.count_nonzero(below) == 1
    # One weight: its minimizer is the distance to the threshold, over a curvature of 1.
    np.testing.assert_allclose(np.max(np.abs(below)), 1e-6, rtol=1e-3)  # the threshold is given to 1e-9


@every_base
def test_l1_has_no_exact_zero(diabetes, base):
    trained = _least_squares(diabetes, base(wd.L1(1.0)))
    assert np.all(trained != 0)
    np.testing.assert_allclose(trained, LASSO, atol=10)  # around the minimizer all the same, by the size of a step


@every_base
def test_proximal_elastic_net_reaches_the_elastic_net(diabetes, base):
    trained = _least_squares(diabetes, base(wd.ProximalElasticNet(0.5, 0.5)))
    np.testing.assert_allclose(trained, ELASTIC_NET, **DIGITS)


def _log_loss(inputs, targets, weights):
    return np.mean(np.logaddexp(0, inputs @ weights) - targets * (inputs @ weights))


def _logistic(data, transform, num_steps):
    inputs, targets = map(jnp.asarray, data)
    gradient = lambda weights: inputs.T @ (jax.nn.sigmoid(inputs @ weights) - targets) / len(targets)  # noqa: E731
    return _minimize(transform, gradient, 30, num_steps)  # largest curvature: 13.3 / 4


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
    theirs = linear_model.LogisticRegression(C=0.1, l1_ratio=1.0, solver="liblinear", fit_intercept=False, tol=1e-10)
    theirs = theirs.fit(inputs, targets).coef_[0]
    for weights in (theirs, trained):
        assert np.count_nonzero(weights) == 9
        objective = _log_loss(inputs, targets, weights) + c * np.sum(np.abs(weights))
        np.testing.assert_allclose(objective, 0.2148115866, rtol=0, atol=1e-10)  # decimals given
    np.testing.assert_allclose(trained, theirs, atol=1e-6)  # where scikit-learn stops


def test_adamw_is_an_average_of_its_own_steps():
    # w_T = rho^T w_0 + sum of eta c rho^(T - k) (-u_k / c), rho = 1 - eta c
    eta, c, num_steps = 0.05, 0.4, 50
    start = jnp.linspace(-2, 3, 6)
    gradient_fn = lambda weights, step: jnp.sin(3 * weights + step)  # noqa: E731
    transform, base = wd.adam(eta, wd.Decoupled(c)), optax.scale_by_adam()

    weights, state, base_state = start, transform.init(start), base.init(start)
    directions = []
    for step in range(num_steps):
        gradient = gradient_fn(weights, step)
        direction, base_state = base.update(gradient, base_state)
        directions.append(direction)
        updates, state = transform.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)

    rho = 1 - eta * c
    average = rho**num_steps * start
    average += sum(eta * c * rho ** (num_steps - k) * (-u / c) for k, u in enumerate(directions, start=1))
    np.testing.assert_allclose(weights, average, rtol=1e-12, atol=1e-13)  # fifty roundings
