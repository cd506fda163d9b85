"""Optimizers step for step beside torch and optax, inside what people wrap around them, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training.train_state import TrainState

import weightdecay as wd

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(32, 5))
TARGETS = RANDOM.normal(size=(32, 2))
PARAMS = {"kernel": RANDOM.normal(size=(5, 2)), "bias": RANDOM.normal(size=2)}
EVERYTHING = {"mask": wd.masks.everything}


def _params(dtype=None):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)


def _gradient(params, inputs=INPUTS, targets=TARGETS):
    """Gradient of the mean squared error of a linear network, halved."""
    inputs, targets = (array.astype(params["kernel"].dtype) for array in (inputs, targets))
    errors = (inputs @ params["kernel"] + params["bias"] - targets) / len(inputs)
    return {"kernel": inputs.T @ errors, "bias": errors.sum(0)}


@functools.partial(jax.jit, static_argnames=("transform", "num_steps"))
def _scan(transform, params, num_steps):
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(_gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, transform.init(params)), length=num_steps)[1]


def _train(transform, params=None, num_steps=60):
    """Weights after every step."""
    return _scan(transform, _params() if params is None else params, num_steps)


def _last(path):
    return jax.tree.map(lambda leaf: leaf[-1], path)


def _assert_close(actual, expected, **tolerance):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **tolerance), actual, expected)


# torch, step for step.

TORCH = {
    "sgd": ("SGD", {}, lambda rate, c: wd.sgd(rate, wd.L2(c), **EVERYTHING)),
    "sgd with momentum": ("SGD", {"momentum": 0.9}, lambda rate, c: wd.sgd(rate, wd.L2(c), 0.9, **EVERYTHING)),
    "sgd with nesterov": (
        "SGD",
        {"momentum": 0.9, "nesterov": True},
        lambda rate, c: wd.sgd(rate, wd.L2(c), 0.9, nesterov=True, **EVERYTHING),
    ),
    "adam": ("Adam", {}, lambda rate, c: wd.adam(rate, wd.L2(c), **EVERYTHING)),
    "adam with its own numbers": (
        "Adam",
        {"betas": (0.8, 0.95), "eps": 1e-3},
        lambda rate, c: wd.adam(rate, wd.L2(c), 0.8, 0.95, 1e-3, **EVERYTHING),
    ),
    "adamw": ("AdamW", {}, lambda rate, c: wd.adam(rate, wd.Decoupled(c), **EVERYTHING)),
}


@pytest.mark.parametrize("coefficient", [0.0, 10.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TORCH)
def test_optimizer_is_torchs_step_for_step(name, dtype, coefficient):
    torch = pytest.importorskip("torch")
    kind, options, make = TORCH[name]
    with jax.enable_x64(dtype == "float64"):
        path = jax.tree.map(np.asarray, _train(make(0.001, coefficient), _params(dtype)))

    weights = {leaf: torch.tensor(value, dtype=getattr(torch, dtype)) for leaf, value in PARAMS.items()}
    optimizer = getattr(torch.optim, kind)(weights.values(), lr=0.001, weight_decay=coefficient, **options)
    for step in range(60):
        gradient = _gradient({leaf: value.numpy() for leaf, value in weights.items()})
        for leaf, value in weights.items():
            value.grad = torch.from_numpy(gradient[leaf])
        optimizer.step()
        for leaf, value in weights.items():
            # Relative to the weights' scale, 1. In float32 optax's 1 - 0.999^t, which torch takes in float64, has four
            # digits at the first steps: at a learning rate of .001 that is some 1e-7 of a weight.
            tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
            np.testing.assert_allclose(path[leaf][step], value.numpy(), rtol=tolerance, atol=tolerance)


# optax, and what people wrap around.


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (wd.adam(0.1, wd.Decoupled(0.3), **EVERYTHING), optax.adamw(0.1, weight_decay=0.3)),
        (wd.adam(0.1, wd.Decoupled(0.3)), optax.adamw(0.1, weight_decay=0.3, mask=wd.masks.kernels)),
        (
            wd.sgd(0.1, wd.L2(0.3), 0.9, **EVERYTHING),
            optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1, momentum=0.9)),
        ),
        (
            wd.sgd(0.1, wd.L2(0.3), 0.9, nesterov=True),
            optax.chain(
                optax.add_decayed_weights(0.3, mask=wd.masks.kernels), optax.sgd(0.1, momentum=0.9, nesterov=True)
            ),
        ),
        (
            wd.optimizer(optax.scale_by_lion(), 0.1, wd.Decoupled(0.3), **EVERYTHING),
            optax.lion(0.1, weight_decay=0.3),
        ),
        (
            wd.optimizer(optax.scale_by_rms(), 0.01, wd.Decoupled(0.3), **EVERYTHING),
            optax.chain(optax.scale_by_rms(), optax.add_decayed_weights(0.3), optax.scale_by_learning_rate(0.01)),
        ),
        (
            wd.optimizer(optax.identity(), 0.1, wd.L2(0.3), **EVERYTHING),
            optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1)),
        ),
        (
            wd.adam(optax.cosine_decay_schedule(0.1, 50), wd.Decoupled(0.3), **EVERYTHING),
            optax.adamw(optax.cosine_decay_schedule(0.1, 50), weight_decay=0.3),
        ),
    ],
)
def test_optimizer_is_optaxs(ours, theirs):
    with jax.enable_x64(True):
        _assert_close(_train(ours), _train(theirs), rtol=1e-12, atol=1e-13)  # a few roundings, added in other orders


@pytest.mark.usefixtures("float64")
def test_optimizer_works_inside_chain():
    ours = optax.chain(optax.clip_by_global_norm(0.1), wd.adam(0.1, wd.Decoupled(0.3)))
    theirs = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1, weight_decay=0.3, mask=wd.masks.kernels))
    _assert_close(_train(ours), _train(theirs), rtol=1e-12, atol=1e-13)  # a few roundings


@pytest.mark.usefixtures("float64")
def test_optimizer_works_inside_multi_steps():
    every_other = _train(optax.MultiSteps(wd.adam(0.1, wd.Decoupled(0.3)), 2).gradient_transformation())
    # The weights stand still in between, so two equal gradients are averaged into one.
    alone = _train(wd.adam(0.1, wd.Decoupled(0.3)), num_steps=30)
    _assert_close(jax.tree.map(lambda leaf: leaf[1::2], every_other), alone, rtol=1e-5)  # it averages in float32


def test_optimizer_works_inside_masked():
    transform = optax.masked(wd.sgd(0.1, wd.L2(0.3), **EVERYTHING), {"kernel": True, "bias": False})
    params, gradient = _params(), _gradient(_params())
    updates, _ = transform.update(gradient, transform.init(params), params)
    np.testing.assert_array_equal(updates["bias"], gradient["bias"])  # passes through as it came
    expected = -0.1 * (gradient["kernel"] + 0.3 * params["kernel"])
    np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)  # a few float32 roundings


@pytest.mark.usefixtures("float64")
def test_optimizer_works_inside_partition():
    labels = {"kernel": "decayed", "bias": "plain"}
    parts = {"decayed": wd.adam(0.1, wd.Decoupled(0.3)), "plain": optax.adam(0.1)}
    together = _train(optax.partition(parts, labels))
    _assert_close(together, _train(wd.adam(0.1, wd.Decoupled(0.3))), rtol=1e-12, atol=1e-13)  # a few roundings


def test_optimizer_works_inside_apply_if_finite():
    transform = optax.apply_if_finite(wd.adam(0.1, wd.Decoupled(0.3)), max_consecutive_errors=5)
    params = _params()
    state = transform.init(params)
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    updates, state = transform.update(bad, state, params)
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0), updates)
    updates, _ = transform.update(_gradient(params), state, params)
    alone = wd.adam(0.1, wd.Decoupled(0.3))
    _assert_close(updates, alone.update(_gradient(params), alone.init(params), params)[0], rtol=1e-5)  # fused and not


def test_optimizer_works_inside_train_state():
    module = nn.Dense(2)
    variables = module.init(jax.random.key(0), INPUTS)
    state = TrainState.create(apply_fn=module.apply, params=variables["params"], tx=wd.adam(0.1, wd.Decoupled(0.3)))
    for _ in range(3):
        state = jax.jit(lambda state: state.apply_gradients(grads=_gradient(state.params)))(state)
    path = _train(wd.adam(0.1, wd.Decoupled(0.3)), variables["params"], num_steps=3)
    assert state.step == 3
    _assert_close(state.params, _last(path), rtol=1e-5, atol=1e-6)  # float32, fused in two ways


@pytest.mark.usefixtures("float64")
def test_optimizer_takes_traced_numbers():
    params = _params()

    def sgd(rate, momentum, coefficient):
        return _scan.__wrapped__(wd.sgd(rate, wd.L2(coefficient), momentum), params, 5)

    _assert_close(
        jax.jit(sgd)(0.1, 0.9, 0.3), _train(wd.sgd(0.1, wd.L2(0.3), 0.9), num_steps=5), rtol=1e-11
    )  # roundings

    def adam(rate, b1, b2, eps, coefficient):
        return _scan.__wrapped__(wd.adam(rate, wd.ProximalL1(coefficient), b1, b2, eps), params, 5)

    alone = _train(wd.adam(0.1, wd.ProximalL1(0.3), 0.8, 0.95, 1e-4), num_steps=5)
    _assert_close(jax.jit(adam)(0.1, 0.8, 0.95, 1e-4, 0.3), alone, rtol=1e-10)  # 1 - b2 cancels some digits


# Schedules of the learning rate.


@pytest.mark.usefixtures("float64")
def test_optimizer_reads_a_schedule_once_a_step():
    rate = optax.piecewise_constant_schedule(0.5, {3: 0.5})
    zeros = jax.tree.map(jnp.zeros_like, _params())
    transform, params = wd.sgd(rate, wd.Decoupled(0.25), **EVERYTHING), _params()
    state = transform.init(params)
    for step in range(6):
        updates, state = transform.update(zeros, state, params)
        assert state.step == step + 1
        expected = jax.tree.map(lambda leaf, s=step: -leaf * (0.125 if s < 3 else 0.0625), params)
        _assert_close(updates, expected, rtol=1e-15)  # powers of two: one rounding at most
        params = optax.apply_updates(params, updates)


def test_independent_beside_a_schedule_needs_its_peak():
    rate = optax.linear_schedule(0.1, 0.0, 10)
    for make in (wd.sgd, wd.adam):
        with pytest.raises(ValueError, match=r"Independent\(0\.1\) beside a schedule .* pass peak_learning_rate"):
            make(rate, wd.Independent(0.1))
        make(rate, wd.Independent(0.1), peak_learning_rate=0.1)
        make(rate, wd.Decoupled(0.1))
        make(0.1, wd.Independent(0.1))


@pytest.mark.usefixtures("float64")
def test_independent_decays_by_the_schedule_over_its_peak():
    shape = optax.linear_schedule(1.0, 0.0, 4)
    params, zeros = _params(), jax.tree.map(jnp.zeros_like, _params())
    transform = wd.adam(lambda step: 0.02 * shape(step), wd.Independent(0.5), peak_learning_rate=0.02, **EVERYTHING)
    state = transform.init(params)
    for scale in (1.0, 0.75, 0.5, 0.25, 0.0):
        updates, state = transform.update(zeros, state, params)
        _assert_close(updates, jax.tree.map(lambda leaf, s=scale: -0.5 * s * leaf, params), rtol=1e-14)  # roundings


# Proximal steps need the metric of what they stand behind.

WITH_MEMORY = [
    optax.trace(0.9),
    optax.scale_by_lion(),
    optax.scale_by_rms(),
    optax.scale_by_adam(),
    optax.chain(optax.clip(1.0), optax.scale_by_adam()),
]


@pytest.mark.parametrize("base", WITH_MEMORY)
@pytest.mark.parametrize("rule", [wd.ProximalL1(0.1), wd.ProximalL2(0.1), wd.ProximalElasticNet(0.1, 0.1)])
def test_optimizer_refuses_a_proximal_rule_beside_a_memory_without_metric(base, rule):
    with pytest.raises(ValueError, match=r"Proximal.*has a memory.*wd\.adam, or pass metric"):
        wd.optimizer(base, 0.1, rule).init(_params())
    wd.optimizer(base, 0.1, rule, metric=lambda state: _params()).init(_params())


@pytest.mark.parametrize("base", [optax.identity(), optax.clip(1.0)])
def test_optimizer_takes_a_proximal_rule_beside_a_base_without_memory(base):
    wd.optimizer(base, 0.1, wd.ProximalL1(0.1)).init(_params())


@pytest.mark.usefixtures("float64")
def test_metric_scales_the_proximal_step():
    diagonal = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, _params())
    transform = wd.optimizer(optax.identity(), 0.1, wd.ProximalL1(2.0), metric=lambda state: diagonal, **EVERYTHING)
    params, zeros = _params(), jax.tree.map(jnp.zeros_like, _params())
    updates, _ = transform.update(zeros, transform.init(params), params)
    soft = lambda w, d: np.sign(w) * np.maximum(np.abs(w) - 0.1 * 2.0 / d, 0)  # noqa: E731
    expected = jax.tree.map(soft, params, diagonal)
    _assert_close(optax.apply_updates(params, updates), expected, rtol=1e-14, atol=1e-15)  # a few roundings


@pytest.mark.usefixtures("float64")
def test_adam_takes_the_proximal_step_in_its_metric():
    # After one step m_hat = g and D = |g| + eps, whatever b1 and b2.
    params, gradient = _params(), _gradient(_params())
    transform = wd.adam(0.1, wd.ProximalL1(0.05), eps=1e-3, **EVERYTHING)
    updates, _ = transform.update(gradient, transform.init(params), params)
    for leaf, w in PARAMS.items():
        metric = np.abs(gradient[leaf]) + 1e-3
        stepped = w - 0.1 * gradient[leaf] / metric
        expected = np.sign(stepped) * np.maximum(np.abs(stepped) - 0.1 * 0.05 / metric, 0)
        # The bias correction 1 - b2 cancels three digits of sixteen.
        np.testing.assert_allclose(params[leaf] + updates[leaf], expected, rtol=1e-12, atol=1e-13)


# What is refused.


@pytest.fixture
def no_type_checks():
    """The package as users have it: its own messages rather than beartype's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("make", [wd.sgd, wd.adam, functools.partial(wd.optimizer, optax.identity())])
@pytest.mark.parametrize(
    ("learning_rate", "error", "message"),
    [
        ("0.1", TypeError, r"learning_rate is '0\.1'; give one number >= 0, or a schedule"),
        (True, TypeError, "learning_rate is True; give one number >= 0, or a schedule"),
        (np.array([0.1, 0.2]), TypeError, r"learning_rate is array\(\[0\.1, 0\.2\]\); give one number >= 0"),
        (-0.1, ValueError, r"learning_rate is -0\.1; give a finite number >= 0"),
        (np.nan, ValueError, "learning_rate is nan; give a finite number >= 0"),
        (np.float32(np.inf), ValueError, "learning_rate is inf; give a finite number >= 0"),
        (jnp.array(-1.0), ValueError, r"learning_rate is -1\.0; give a finite number >= 0"),
    ],
)
@pytest.mark.usefixtures("no_type_checks")
def test_optimizer_refuses_a_learning_rate(make, learning_rate, error, message):
    with pytest.raises(error, match=message):
        make(learning_rate, wd.L2(0.1))


@pytest.mark.parametrize("make", [wd.sgd, wd.adam, functools.partial(wd.optimizer, optax.identity())])
@pytest.mark.usefixtures("no_type_checks")
def test_optimizer_refuses_what_is_no_rule_and_a_bad_coefficient(make):
    with pytest.raises(TypeError, match=r"decay is the kind L2 without its coefficient; write wd\.L2\(0\.01\)"):
        make(0.1, wd.L2)
    with pytest.raises(TypeError, match=r"decay is 0\.01, of type float, which is no decay rule"):
        make(0.1, 0.01)
    with pytest.raises(ValueError, match=r"decay = L2\(-1\): coefficient is -1\.0; a coefficient is a finite number"):
        make(0.1, wd.L2(-1.0))


@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
def test_optimizer_refuses_a_mask_that_selects_nothing_and_one_that_does_not_fit(make):
    biases = {"bias": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"mask 'kernels' selects no weight.*bias \(2,\).*masks\.everything"):
        make(0.1, wd.L2(0.1)).init(biases)
    with pytest.raises(ValueError, match=r"mask is a tree that does not fit"):
        make(0.1, wd.L2(0.1), mask={"other": True}).init(biases)
    with pytest.raises(TypeError, match=r"mask has a leaf 1 of type int"):
        make(0.1, wd.L2(0.1), mask=1).init(biases)
    make(0.1, wd.NoDecay()).init(biases)  # nothing to select


def test_optimizer_refuses_an_update_without_weights():
    transform = wd.sgd(0.1, wd.L2(0.1))
    with pytest.raises(ValueError, match=r"params is None; .*call update\(gradients, state, params\)"):
        transform.update(_params(), transform.init(_params()))
