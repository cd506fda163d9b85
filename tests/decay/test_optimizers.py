"""Optimizers against torch and optax step for step, and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay import decay as rules
from weightdecay.decay import preconditioners

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(32, 5))
TARGETS = RANDOM.normal(size=(32, 2))
PARAMS = {"kernel": RANDOM.normal(size=(5, 2)), "bias": RANDOM.normal(size=2)}
EVERYTHING = {"mask": wd.masks.everything}
QUICK = {"xla_backend_optimization_level": 0}  # to compile


def _params(dtype=None):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), PARAMS)


def _gradient(params, inputs=INPUTS, targets=TARGETS):
    """Gradient of the mean squared error of a linear network, halved."""
    inputs, targets = (array.astype(params["kernel"].dtype) for array in (inputs, targets))
    errors = (inputs @ params["kernel"] + params["bias"] - targets) / len(inputs)
    return {"kernel": inputs.T @ errors, "bias": errors.sum(0)}


def _scan(transform, params, num_steps, gradient_fn=_gradient):
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.lax.scan(step, (params, transform.init(params)), length=num_steps)[1]


def _train(transform, params=None, num_steps=60, gradient_fn=_gradient):
    """Weights after every step."""
    run = jax.jit(lambda params: _scan(transform, params, num_steps, gradient_fn), compiler_options=QUICK)
    return run(_params() if params is None else params)


def _train_one_by_one(transform, params, num_steps, gradient_fn=_gradient):
    """Weights after some steps, one operation at a time: nothing is fused, so that bits can be compared."""
    state = transform.init(params)
    for _ in range(num_steps):
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


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
    "rmsprop": ("RMSprop", {}, lambda rate, c: wd.rmsprop(rate, wd.L2(c), **EVERYTHING)),
    "rmsprop with momentum and its own numbers": (
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.9},
        lambda rate, c: wd.rmsprop(rate, wd.L2(c), 0.9, 1e-3, 0.9, **EVERYTHING),
    ),
}


@functools.cache
def _torch_twin(name, dtype):
    """Weights after every step as a function of the coefficient, compiled once."""
    make = TORCH[name][2]
    return jax.jit(lambda c, params: _scan(make(0.001, c), params, 60), compiler_options=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [0.0, 10.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TORCH)
def test_optimizer_is_torchs_step_for_step(name, dtype, coefficient):
    torch = pytest.importorskip("torch")
    kind, options, _ = TORCH[name]
    with jax.enable_x64(dtype == "float64"):
        path = jax.tree.map(np.asarray, _torch_twin(name, dtype)(coefficient, _params(dtype)))

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


MATRICES = {
    "tall": {"kernel": RANDOM.normal(size=(5, 2))},
    "wide": {"kernel": RANDOM.normal(size=(2, 5))},
    "head": {"kernel": RANDOM.normal(size=(5, 2)), "bias": RANDOM.normal(size=2)},
}


def _large_gradient(params):
    """A gradient so large that the epsilons of the iterations have no part in their result."""
    sine = np.sin if isinstance(jax.tree.leaves(params)[0], np.ndarray) else jnp.sin
    return jax.tree.map(lambda leaf: 1e6 * sine(2 * leaf + 0.5), params)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.usefixtures("float64")
def test_muon_is_torchs_step_for_step(nesterov, monkeypatch):
    torch = pytest.importorskip("torch")
    # torch iterates in bfloat16, with two digits, and divides the copy that it makes for that in place.
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    transform = wd.muon(
        0.01,
        wd.Decoupled(0.3),
        0.9,
        nesterov,
        matrices=wd.masks.matching("tall", "wide"),
        adam_learning_rate=0.02,
        adam_decay=wd.Decoupled(0.7),
        b1=0.8,
        b2=0.95,
        eps=1e-3,
        **EVERYTHING,
    )
    params = jax.tree.map(jnp.asarray, MATRICES)
    path = jax.tree.map(np.asarray, _train(transform, params, 20, _large_gradient))

    # torch has the outputs first. It takes one learning rate an optimizer, and has no Adam in its Muon.
    weights = jax.tree.map(lambda leaf: torch.tensor(leaf.T.copy()), MATRICES)
    matrices = [weights["tall"]["kernel"], weights["wide"]["kernel"]]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.3, momentum=0.9, nesterov=nesterov),
        torch.optim.AdamW(weights["head"].values(), lr=0.02, weight_decay=0.7, betas=(0.8, 0.95), eps=1e-3),
    ]
    for step in range(20):
        gradient = _large_gradient(jax.tree.map(lambda leaf: leaf.numpy(), weights))
        for value, g in zip(jax.tree.leaves(weights), jax.tree.leaves(gradient), strict=True):
            value.grad = torch.from_numpy(g)
        for optimizer in optimizers:
            optimizer.step()
        actual = jax.tree.map(lambda leaf, s=step: leaf[s].T, path)
        # The iteration multiplies the roundings along a small singular value by 3.4 five times; epsilon over the
        # gradient is 1e-13 in torch and 1e-14 here.
        _assert_close(actual, jax.tree.map(lambda leaf: leaf.numpy(), weights), rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_muon_takes_a_convolution_as_the_matrix_of_inputs_and_outputs():
    kernel = RANDOM.normal(size=(3, 3, 2, 5))
    convolution = _train(wd.muon(0.1, wd.NoDecay()), {"kernel": jnp.asarray(kernel)}, 3, _large_gradient)
    matrix = _train(wd.muon(0.1, wd.NoDecay()), {"kernel": jnp.asarray(kernel.reshape(18, 5))}, 3, _large_gradient)
    _assert_close(convolution["kernel"].reshape(3, 18, 5), matrix["kernel"], rtol=1e-12, atol=1e-12)  # roundings


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (2, 2, 3, 4)])
@pytest.mark.usefixtures("float64")
def test_orthogonalize_keeps_the_singular_vectors(shape):
    matrix = RANDOM.normal(size=shape).reshape(-1, shape[-1])
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    actual = np.asarray(preconditioners.orthogonalize(jnp.asarray(matrix.reshape(shape)))).reshape(matrix.shape)
    inside = left.T @ actual @ right.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-10)  # the iteration's roundings, times 3.4^5
    np.testing.assert_allclose(left @ inside @ right, actual, atol=1e-10)
    # The five steps bring every singular value above .03 of the norm to between .68 and 1.13 times the scale.
    scaled = np.diag(inside) / np.sqrt(max(1, matrix.shape[1] / matrix.shape[0]))
    assert np.all((scaled > 0.65) & (scaled < 1.25))


def test_orthogonalize_is_compiled_once_outside_of_a_compiled_step():
    matrix = jnp.ones((7, 2))
    preconditioners.orthogonalize({"kernel": matrix})
    size = preconditioners._orthogonal._cache_size()
    preconditioners.orthogonalize({"kernel": 2 * matrix})
    assert preconditioners._orthogonal._cache_size() == size


# optax.


@pytest.mark.slow
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
        (wd.lion(0.01, wd.Decoupled(0.3), 0.8, 0.95, **EVERYTHING), optax.lion(0.01, 0.8, 0.95, weight_decay=0.3)),
        (
            wd.lion(0.01, wd.L2(0.3)),
            optax.chain(optax.add_decayed_weights(0.3, wd.masks.kernels), optax.lion(0.01, weight_decay=0.0)),
        ),
        (
            wd.rmsprop(0.01, wd.L2(0.3), **EVERYTHING),
            optax.chain(optax.add_decayed_weights(0.3), optax.rmsprop(0.01, decay=0.99, eps=1e-8, eps_in_sqrt=False)),
        ),
        (
            wd.rmsprop(0.01, wd.L2(0.3), 0.9, 1e-3, 0.8, **EVERYTHING),
            optax.chain(
                optax.add_decayed_weights(0.3),
                optax.rmsprop(0.01, decay=0.9, eps=1e-3, momentum=0.8, eps_in_sqrt=False),
            ),
        ),
        (wd.lamb(0.01, wd.NoDecay()), optax.lamb(0.01, weight_decay=0.0)),
        (
            wd.lamb(0.01, wd.L2(0.3), 0.8, 0.95, 1e-3),
            optax.chain(
                optax.add_decayed_weights(0.3, mask=wd.masks.kernels),
                optax.lamb(0.01, 0.8, 0.95, 1e-3, weight_decay=0.0),
            ),
        ),
        (
            wd.lamb(0.01, wd.Decoupled(0.3), **EVERYTHING),
            optax.chain(
                optax.scale_by_adam(eps=1e-6),
                optax.scale_by_trust_ratio(),
                optax.add_decayed_weights(0.3),
                optax.scale_by_learning_rate(0.01),
            ),
        ),
    ],
)
def test_optimizer_is_optaxs(ours, theirs):
    with jax.enable_x64(True):
        _assert_close(_train(ours), _train(theirs), rtol=1e-12, atol=1e-13)  # a few roundings, added in other orders


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_muon_moves_what_is_no_matrix_as_adamw():
    path = _train(wd.muon(0.1, wd.Decoupled(0.3), **EVERYTHING))
    # What is no matrix sees nothing of Muon, but for its gradient: so the kernel is given to optax as it went.
    kernels = jnp.concatenate([_params()["kernel"][None], path["kernel"]])
    bias, adamw = _params()["bias"], optax.adamw(0.1, weight_decay=0.3)
    state = adamw.init(bias)
    for step in range(20):
        updates, state = adamw.update(_gradient({"kernel": kernels[step], "bias": bias})["bias"], state, bias)
        bias = optax.apply_updates(bias, updates)
        np.testing.assert_allclose(path["bias"][step], bias, rtol=1e-12, atol=1e-13)  # a few roundings


# The base optimizer itself, bit for bit.

BARE = {
    "sgd": (wd.sgd(0.1, wd.NoDecay()), optax.sgd(0.1)),
    "sgd with momentum": (wd.sgd(0.1, wd.NoDecay(), 0.9), optax.sgd(0.1, 0.9)),
    "sgd with nesterov": (wd.sgd(0.1, wd.NoDecay(), 0.9, True), optax.sgd(0.1, 0.9, nesterov=True)),
    "adam": (wd.adam(0.1, wd.NoDecay()), optax.adam(0.1)),
    "lion": (wd.lion(0.1, wd.NoDecay()), optax.lion(0.1, weight_decay=0.0)),
    "rmsprop": (
        wd.rmsprop(0.1, wd.NoDecay(), momentum=0.9),
        optax.chain(optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False), optax.trace(0.9), optax.scale(-0.1)),
    ),
    "lamb": (wd.lamb(0.1, wd.NoDecay()), optax.lamb(0.1, weight_decay=0.0)),
    "muon": (
        wd.muon(0.1, wd.NoDecay()),
        optax.partition(
            {
                "muon": optax.chain(
                    optax.trace(0.95, nesterov=True),
                    optax.stateless(lambda updates, _: jax.tree.map(preconditioners.orthogonalize, updates)),
                    optax.scale(-0.1),
                ),
                "adam": optax.adam(0.1),
            },
            {"kernel": "muon", "bias": "adam"},
        ),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BARE)
def test_no_decay_is_the_base_optimizer_bit_for_bit(name):
    ours, theirs = (_train_one_by_one(transform, _params(), 8) for transform in BARE[name])
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


# A coefficient a layer.


@pytest.mark.slow
@pytest.mark.parametrize("base", [wd.sgd, wd.adam, wd.lion, wd.rmsprop, wd.lamb, wd.muon])
def test_per_layer_coefficients_act_each_in_its_layer(base):
    params = jax.tree.map(jnp.asarray, MATRICES)
    zeros = jax.tree.map(jnp.zeros_like, params)
    shares = {"tall": 0.25, "wide": 0.5, "head": 0.0}
    rule = wd.Decoupled(wd.PerLayer({"tall": 0.5, "wide": 1.0}, default=0.0))
    transform = base(0.5, rule, **EVERYTHING)
    updates, _ = transform.update(zeros, transform.init(params), params)
    for layer, share in shares.items():
        expected = jax.tree.map(lambda leaf, s=share: -s * leaf, params[layer])
        _assert_close(updates[layer], expected, rtol=1e-7)  # powers of two: one rounding at most


@pytest.mark.usefixtures("float64")
def test_optimizer_takes_traced_numbers():
    params = _params()

    def sgd(rate, momentum, coefficient):
        return _scan(wd.sgd(rate, wd.L2(coefficient), momentum), params, 5)

    _assert_close(
        jax.jit(sgd)(0.1, 0.9, 0.3), _train(wd.sgd(0.1, wd.L2(0.3), 0.9), num_steps=5), rtol=1e-11
    )  # roundings

    def adam(rate, b1, b2, eps, coefficient):
        return _scan(wd.adam(rate, wd.ProximalL1(coefficient), b1, b2, eps), params, 5)

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


def test_independent_with_a_schedule_needs_its_peak():
    rate = optax.linear_schedule(0.1, 0.0, 10)
    for make in (wd.sgd, wd.adam):
        with pytest.raises(
            ValueError, match=r"Independent\(0\.1\) together with a schedule .* pass peak_learning_rate"
        ):
            make(rate, wd.Independent(0.1))
        make(rate, wd.Independent(0.1), peak_learning_rate=0.1)
        make(rate, wd.Decoupled(0.1))
        make(0.1, wd.Independent(0.1))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_independent_decays_by_the_schedule_over_its_peak():
    shape = optax.linear_schedule(1.0, 0.0, 4)
    params, zeros = _params(), jax.tree.map(jnp.zeros_like, _params())
    transform = wd.adam(lambda step: 0.02 * shape(step), wd.Independent(0.5), peak_learning_rate=0.02, **EVERYTHING)
    state = transform.init(params)
    for scale in (1.0, 0.75, 0.5, 0.25, 0.0):
        updates, state = transform.update(zeros, state, params)
        _assert_close(updates, jax.tree.map(lambda leaf, s=scale: -0.5 * s * leaf, params), rtol=1e-14)  # roundings


# Proximal steps need the diagonal of the preconditioner.

WITH_MEMORY = [
    optax.trace(0.9),
    optax.scale_by_lion(),
    optax.scale_by_rms(),
    optax.scale_by_adam(),
    optax.chain(optax.clip(1.0), optax.scale_by_adam()),
]


@pytest.mark.parametrize("base", WITH_MEMORY)
@pytest.mark.parametrize(
    "rule",
    [wd.ProximalL1(0.1), wd.ProximalL2(0.1), wd.ProximalElasticNet(0.1, 0.1), wd.ProximalGroupLasso(0.1)],
)
def test_optimizer_refuses_a_proximal_rule_with_a_memory_without_its_diagonal(base, rule):
    with pytest.raises(ValueError, match=r"Proximal.*has a memory.*wd\.adam, or pass preconditioner_diagonal"):
        wd.optimizer(base, 0.1, rule).init(_params())
    wd.optimizer(base, 0.1, rule, preconditioner_diagonal=lambda state: _params()).init(_params())


@pytest.mark.parametrize("base", [optax.identity(), optax.clip(1.0)])
def test_optimizer_takes_a_proximal_rule_on_a_base_without_memory(base):
    wd.optimizer(base, 0.1, wd.ProximalL1(0.1)).init(_params())


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_preconditioner_diagonal_scales_the_proximal_step():
    diagonal = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.5, _params())
    transform = wd.optimizer(
        optax.identity(), 0.1, wd.ProximalL1(2.0), preconditioner_diagonal=lambda state: diagonal, **EVERYTHING
    )
    params, zeros = _params(), jax.tree.map(jnp.zeros_like, _params())
    updates, _ = transform.update(zeros, transform.init(params), params)
    soft = lambda w, d: np.sign(w) * np.maximum(np.abs(w) - 0.1 * 2.0 / d, 0)  # noqa: E731
    expected = jax.tree.map(soft, params, diagonal)
    _assert_close(optax.apply_updates(params, updates), expected, rtol=1e-14, atol=1e-15)  # a few roundings


@pytest.mark.usefixtures("float64")
def test_adam_scales_the_proximal_step_by_its_diagonal():
    # After one step m_hat = g and D = |g| + eps, whatever b1 and b2.
    params, gradient = _params(), _gradient(_params())
    transform = wd.adam(0.1, wd.ProximalL1(0.05), eps=1e-3, **EVERYTHING)
    updates, _ = transform.update(gradient, transform.init(params), params)
    for leaf, w in PARAMS.items():
        diagonal = np.abs(gradient[leaf]) + 1e-3
        stepped = w - 0.1 * gradient[leaf] / diagonal
        expected = np.sign(stepped) * np.maximum(np.abs(stepped) - 0.1 * 0.05 / diagonal, 0)
        # The bias correction 1 - b2 cancels three digits of sixteen.
        np.testing.assert_allclose(params[leaf] + updates[leaf], expected, rtol=1e-12, atol=1e-13)


# Pairs that make no sense.

EXAMPLES = {
    "NoDecay": (),
    "ElasticNet": (0.1, 0.1),
    "ProximalElasticNet": (0.1, 0.1),
    "Huber": (0.1, 0.5),
    "Elimination": (0.1, 0.5),
    "Lp": (0.1, 1.5),
    "Hyperball": (),
    "ProximalHuber": (0.1, 0.5),
    "ProximalMCP": (0.1, 30.0),
    "TowardAverage": (0.1, 0.9),
}
PROXIMAL = {
    "ProximalL1",
    "ProximalL2",
    "ProximalElasticNet",
    "ProximalGroupLasso",
    "ProximalHuber",
    "ProximalMCP",
}
REFUSED = {
    "sgd": {"Stable": r"Stable\(0\.1\) does not work here: SGD does not keep second moments.*wd\.Decoupled"},
    "adam": {},
    "lion": {
        "Stable": r"Stable\(0\.1\) does not work here: Lion does not keep second moments.*wd\.Decoupled",
        **dict.fromkeys(PROXIMAL, r"Proximal.*does not work here: the step of Lion is a sign.*Use wd\.sgd"),
    },
    "rmsprop": {},
    "lamb": {},
    "muon": dict.fromkeys(PROXIMAL, r"Proximal.*no diagonal D for kernel; use another rule there, in wd\.Masked"),
}


def _example(name):
    return rules.KINDS[name](*EXAMPLES.get(name, (0.1,)))


@pytest.mark.slow
@pytest.mark.parametrize("base", REFUSED)
@pytest.mark.parametrize("name", rules.KINDS)
def test_optimizer_refuses_exactly_the_rules_that_a_base_cannot_apply(name, base):
    make = lambda: getattr(wd, base)(0.1, _example(name)).init(_params())  # noqa: E731
    if name not in REFUSED[base]:
        make()
        return
    with pytest.raises(ValueError, match=REFUSED[base][name]):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("base", REFUSED)
@pytest.mark.parametrize("name", rules.KINDS)
def test_optimizer_refuses_exactly_the_rules_that_need_the_peak_of_a_schedule(name, base):
    rate = optax.linear_schedule(0.1, 0.0, 10)
    if name in REFUSED[base]:
        return
    if name not in {"Independent", "Corrected"}:
        getattr(wd, base)(rate, _example(name))
        return
    with pytest.raises(ValueError, match=rf"{name}\(0\.1\) together with a schedule .* pass peak_learning_rate"):
        getattr(wd, base)(rate, _example(name))
    getattr(wd, base)(rate, _example(name), peak_learning_rate=0.1)


def test_stable_with_muon_needs_weights_that_adam_trains():
    with pytest.raises(ValueError, match=r"Stable needs the second moments.*does not keep them for any of the weights"):
        wd.muon(0.1, wd.Stable(0.1)).init({"kernel": jnp.ones((3, 2))})
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    transform = wd.muon(0.1, wd.Stable(0.5))
    gradient = {"kernel": jnp.zeros((3, 2)), "bias": jnp.full(2, 4.0)}
    updates, _ = transform.update(gradient, transform.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 / 4, rtol=1e-3)  # 1 - b2 has four digits in float32


def test_optimizer_of_muon_takes_a_proximal_rule_where_adam_moves_the_weights():
    wd.muon(0.1, wd.L2(0.1), adam_decay=wd.ProximalL1(0.1), mask=wd.masks.everything).init(_params())
    wd.muon(0.1, (wd.L2(0.1), wd.Masked(wd.ProximalL1(0.1), wd.masks.matching("bias")))).init(_params())


def test_muon_refuses_matrices_of_one_dimension():
    with pytest.raises(
        ValueError, match=r"matrices selects an array of shape \(2,\); Muon trains arrays of at least two"
    ):
        wd.muon(0.1, wd.L2(0.1), matrices=wd.masks.everything).init(_params())


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
    with pytest.raises(TypeError, match=r"decay is the class L2 without a coefficient; write wd\.L2\(0\.01\)"):
        make(0.1, wd.L2)
    with pytest.raises(TypeError, match=r"decay is 0\.01, of type float, which is not a decay rule"):
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
