"""Optimizers inside what people wrap around them: optax, flax, orbax and JAX's own transformations."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import masks

BASES = {
    "sgd": functools.partial(wd.sgd, momentum=0.9),
    "adam": wd.adam,
    "lion": wd.lion,
    "rmsprop": functools.partial(wd.rmsprop, momentum=0.9),
    "lamb": wd.lamb,
    "muon": wd.muon,
}
RULES = {
    "NoDecay": lambda c: wd.NoDecay(),
    "L2": wd.L2,
    "L1": wd.L1,
    "ElasticNet": lambda c: wd.ElasticNet(c, c),
    "Huber": lambda c: wd.Huber(c, 0.5),
    "Elimination": lambda c: wd.Elimination(c, 0.5),
    "Orthogonal": wd.Orthogonal,
    "Spectral": lambda c: wd.Spectral(c, 2),
    "TowardAnchor": wd.TowardAnchor,
    "Decoupled": wd.Decoupled,
    "Independent": wd.Independent,
    "Corrected": wd.Corrected,
    "Cautious": wd.Cautious,
    "Stable": wd.Stable,
    "Adaptive": wd.Adaptive,
    "TowardAverage": lambda c: wd.TowardAverage(c, 0.8),
    "SODA": lambda c: wd.SODA(c, fade=3),
    "RelativeStep": lambda c: wd.RelativeStep(100 * c),
    "ProximalHuber": lambda c: wd.ProximalHuber(c, 0.5),
    "ProximalMCP": wd.ProximalMCP,
    "Hyperball": lambda c: wd.Hyperball(),
    "RadialBrake": wd.RadialBrake,
    "ProximalL1": wd.ProximalL1,
    "ProximalL2": wd.ProximalL2,
    "ProximalElasticNet": lambda c: wd.ProximalElasticNet(c, c),
    "ProximalGroupLasso": wd.ProximalGroupLasso,
    "Lp": lambda c: wd.Lp(c, 1.5),
    "MaxNorm": lambda c: wd.MaxNorm(10 * c),
    "NormControl": lambda c: wd.NormControl(c, 0.5),
    "Constrained": lambda c: wd.Constrained(0.5, c, 1),
    "SelectiveProjection": wd.SelectiveProjection,
}
TOGETHER = {
    "several": lambda c: (
        wd.L2(c),
        wd.Masked(wd.TowardAnchor(2 * c), masks.everything),
        wd.Masked(wd.NormControl(c), masks.matching("kernel")),
        wd.Constrained(0.5, c),
    ),
    "several plain": lambda c: (wd.L2(c), wd.ProximalL1(c)),
}
NO_METRIC = {name for name in RULES if name.startswith("Proximal")}
SENSELESS = {
    *(("sgd", "Stable"), ("lion", "Stable")),
    *((base, name) for base in ("lion", "muon") for name in NO_METRIC),
}
EVERY_PAIR = [(base, name) for name in RULES for base in BASES if (base, name) not in SENSELESS]
PAIRS = [
    ("adam", "TowardAnchor"),
    ("sgd", "Constrained"),
    ("lion", "Adaptive"),
    ("adam", "Spectral"),
    ("muon", "NormControl"),
    ("lamb", "SelectiveProjection"),
    ("sgd", "L2"),
    ("muon", "Decoupled"),
    ("rmsprop", "ProximalL1"),
    ("lamb", "several"),
    ("lion", "TowardAnchor"),
    ("rmsprop", "Constrained"),
    ("adam", "several plain"),
    ("muon", "Hyperball"),
    ("lion", "SODA"),
    ("adam", "TowardAverage"),
]
COMPILED = [PAIRS[place] for place in (0, 1, 3, 9)]  # where each pair is compiled, which takes longer
every_pair = pytest.mark.parametrize(("base", "name"), PAIRS)
some_pairs = pytest.mark.parametrize(("base", "name"), COMPILED)
QUICK = {"xla_backend_optimization_level": 0}  # to compile

RANDOM = np.random.default_rng(0)
SHAPES = {"kernel": (5, 2), "bias": (2,)}
PARAMS = {name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
GRADIENTS = [{name: RANDOM.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in range(4)]
KERNEL = {"kernel": PARAMS["kernel"]}


def _make(base, name, coefficient=0.1, rate=0.05, **rest):
    return BASES[base](rate, {**RULES, **TOGETHER}[name](coefficient), **rest)


def _arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def _run(transform, params=PARAMS, gradients=GRADIENTS, state=None):
    """Weights and state after a step a gradient, one operation at a time, so that bits can be compared."""
    params = _arrays(params)
    state = transform.init(params) if state is None else state
    for gradient in gradients:
        updates, state = transform.update(_arrays(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@functools.cache
def _alone(base, name):
    """The optimizer with nothing around it."""
    return _run(_make(base, name))


def _compiled_step(transform, **options):
    def step(params, state, gradient):
        updates, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, compiler_options=QUICK, **options)


FUSED = {"rtol": 2e-5, "atol": 2e-6}  # a few steps in float32, rounded here and there in other places


def _only(gradients, name):
    return [{name: gradient[name]} for gradient in gradients]


def test_rules_are_all_here():
    assert set(RULES) == set(decay.KINDS)


# optax.


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name", "named"), [*((*pair, False) for pair in PAIRS), (*PAIRS[0], True)])
def test_optimizer_works_inside_chain(base, name, named):
    first, second = ("clip", optax.clip(0.3)), ("decay", _make(base, name))
    transform = optax.named_chain(first, second) if named else optax.chain(first[1], second[1])
    clipped = [jax.tree.map(lambda leaf: np.clip(leaf, -0.3, 0.3), gradient) for gradient in GRADIENTS]
    compare.same_bits(_run(transform)[0], _run(_make(base, name), gradients=clipped)[0])


def test_optimizer_works_inside_chain_as_adamw_does():
    ours = optax.chain(optax.clip_by_global_norm(0.1), wd.adam(0.1, wd.Decoupled(0.3)))
    theirs = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1, weight_decay=0.3, mask=wd.masks.kernels))
    compare.close(_run(ours)[0], _run(theirs)[0], rtol=1e-6)  # a few float32 roundings


@pytest.mark.slow
@every_pair
def test_optimizer_works_inside_masked(base, name):
    transform = optax.masked(_make(base, name), {"kernel": True, "bias": False})
    params, _ = _run(transform)
    compare.same_bits(params["kernel"], _run(_make(base, name), KERNEL, _only(GRADIENTS, "kernel"))[0]["kernel"])
    # What is masked passes through as it came.
    passed = functools.reduce(np.add, [gradient["bias"] for gradient in GRADIENTS], PARAMS["bias"])
    np.testing.assert_array_equal(params["bias"], passed)


@pytest.mark.slow
@every_pair
def test_optimizer_works_inside_partition(base, name):
    transform = optax.partition(
        {"decayed": _make(base, name), "plain": optax.adam(0.1)}, {"kernel": "decayed", "bias": "plain"}
    )
    params, _ = _run(transform)
    compare.same_bits(params["kernel"], _run(_make(base, name), KERNEL, _only(GRADIENTS, "kernel"))[0]["kernel"])
    plain = _run(optax.adam(0.1), {"bias": PARAMS["bias"]}, _only(GRADIENTS, "bias"))[0]
    compare.same_bits(params["bias"], plain["bias"])


@pytest.mark.slow
@some_pairs
def test_optimizer_works_inside_multi_steps(base, name):
    transform = optax.MultiSteps(_make(base, name), 2).gradient_transformation()
    step, params, state = _compiled_step(transform), _arrays(PARAMS), transform.init(_arrays(PARAMS))
    for gradient in GRADIENTS:
        params, state = step(params, state, gradient)
    means = [
        jax.tree.map(lambda one, other: (one + other) / 2, *pair)
        for pair in zip(GRADIENTS[::2], GRADIENTS[1::2], strict=True)
    ]
    compare.close(params, _run(_make(base, name), gradients=means)[0], **FUSED)


@pytest.mark.slow
@some_pairs
def test_optimizer_works_inside_apply_if_finite(base, name):
    transform = optax.apply_if_finite(_make(base, name), max_consecutive_errors=5)
    step, params, state = _compiled_step(transform), _arrays(PARAMS), transform.init(_arrays(PARAMS))
    for gradient in GRADIENTS:
        before, inner = params, state.inner_state
        params, state = step(params, state, jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), gradient))
        compare.same_bits((params, state.inner_state), (before, inner))  # neither weights nor memory moved
        params, state = step(params, state, gradient)
    compare.close(params, _alone(base, name)[0], **FUSED)


@pytest.mark.slow
@every_pair
def test_optimizer_works_inside_inject_hyperparams(base, name):
    make = lambda learning_rate, coefficient: _make(base, name, coefficient, learning_rate)  # noqa: E731
    transform = optax.inject_hyperparams(make)(learning_rate=0.05, coefficient=0.1)
    params, state = _run(transform)
    compare.close(params, _alone(base, name)[0], rtol=1e-5, atol=1e-6)  # float32 numbers in place of Python's
    state.hyperparams["learning_rate"] = jnp.asarray(0.0)
    state.hyperparams["coefficient"] = jnp.asarray(0.0)
    stays, _ = _run(transform, params, GRADIENTS[:1], state)
    if "Constrained" not in name and name != "several":  # its multiplier acts on at any learning rate
        compare.close(stays, params, rtol=1e-6)  # a rounding of the map


@pytest.mark.parametrize("make", [wd.sgd, wd.adam, wd.lion, wd.rmsprop, wd.lamb])
def test_optimizer_itself_goes_into_inject_hyperparams_where_the_mask_is_static(make):
    injected = optax.inject_hyperparams(make, static_args="mask")
    transform = injected(learning_rate=0.05, decay=wd.Decoupled(0.5))
    params, state = _run(transform)
    assert "learning_rate" in state.hyperparams
    compare.close(params, _run(make(0.05, wd.Decoupled(0.5)))[0], rtol=1e-5, atol=1e-6)  # float32 numbers


# flax.


@pytest.mark.slow
@some_pairs
def test_optimizer_works_inside_train_state(base, name):
    module = nn.Dense(2)
    state = TrainState.create(apply_fn=module.apply, params=_arrays(PARAMS), tx=_make(base, name))
    apply = jax.jit(lambda state, gradient: state.apply_gradients(grads=gradient), compiler_options=QUICK)
    for gradient in GRADIENTS:
        state = apply(state, gradient)
    assert state.step == len(GRADIENTS)
    compare.close(state.params, _alone(base, name)[0], **FUSED)


class Network(nnx.Module):
    """One of each: a table, a kernel with its bias, a scale."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.table = nnx.Embed(4, 5, rngs=rngs)
        self.norm = nnx.LayerNorm(5, rngs=rngs)
        self.head = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.norm(self.table(tokens)))


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_optimizer_works_inside_nnx_optimizer_and_leaves_embeddings_and_biases(base):
    model = Network()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, _make(base, "Decoupled", 0.5, 0.5), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    compare.close(after["head"]["kernel"], 0.75 * before["head"]["kernel"], rtol=1e-6)  # one rounding
    before["head"]["kernel"] = after["head"]["kernel"] = None
    compare.same_bits(_arrays(after), _arrays(before))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), [PAIRS[0], PAIRS[1], PAIRS[3], PAIRS[9]])
def test_optimizer_with_state_works_inside_nnx_optimizer(base, name):
    model, tokens = Network(), jnp.arange(4)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    loss_fn = lambda model: jnp.sum(model(tokens) ** 2)  # noqa: E731
    optimizer = nnx.Optimizer(model, _make(base, name), wrt=nnx.Param)
    gradients = []
    for _ in range(2):
        gradient = nnx.grad(loss_fn)(model)
        gradients.append(nnx.to_pure_dict(gradient))
        optimizer.update(model, gradient)
    expected, _ = _run(_make(base, name), params, gradients)
    compare.same_bits(_arrays(nnx.to_pure_dict(nnx.state(model, nnx.Param))), expected)
    assert optimizer.step.get_value() == 2


# JAX's own transformations.


def _scan(transform, params):
    def step(carry, gradient):
        params, state = carry
        updates, state = transform.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *GRADIENTS)
    return jax.lax.scan(step, (params, transform.init(params)), stacked)[0][0]


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), [*COMPILED, *PAIRS[4:9]])
def test_optimizer_works_in_a_compiled_scan_under_vmap(base, name):
    train = lambda coefficient: _scan(_make(base, name, coefficient), _arrays(PARAMS))  # noqa: E731
    members = jax.jit(jax.vmap(train), compiler_options=QUICK)(jnp.array([0.1, 0.02]))
    for place, expected in enumerate([_alone(base, name)[0], _run(_make(base, name, 0.02))[0]]):
        compare.close(jax.tree.map(lambda leaf, p=place: leaf[p], members), expected, **FUSED)


DEAD = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [2.0, 0.0], [1.0, 0.0]])  # the second unit has no gradient at all


def _outcome(base, name, dead, wrap, coefficient, params):
    """Squared norm of the weights after some steps, as a function of coefficient and first weights."""
    transform = _make(base, name, coefficient, mask=masks.everything)

    def gradient(params):
        kernel = jnp.sin(2 * params["kernel"] + 0.5) * (DEAD if dead else 1.0)
        return {"kernel": kernel, "bias": jnp.zeros(2) if dead else jnp.cos(params["bias"])}

    @wrap
    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    last = jax.lax.scan(step, (params, transform.init(params)), length=3)[0][0]
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(last))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "name", "dead"),
    [
        ("sgd", "Decoupled", True),
        ("adam", "several", True),
        ("rmsprop", "Decoupled", True),
        ("lamb", "Adaptive", True),
        ("lion", "Decoupled", False),
        ("muon", "Decoupled", False),
    ],
)
@pytest.mark.usefixtures("float64")
def test_optimizer_is_differentiable(base, name, dead):
    outcome = functools.partial(_outcome, base, name, dead, lambda step: step)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), PARAMS)
    along = (1.0, jax.tree.map(lambda leaf: jnp.cos(3 * leaf), params))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def at(distance):
        point = jax.tree.map(lambda leaf, way: leaf + distance * way, (0.1, params), along)
        return jax.value_and_grad(outcome, argnums=(0, 1))(*point)

    _, gradient = at(0.0)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    reverse = sum(jnp.sum(g * way) for g, way in zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True))
    central = (at(1e-6)[0] - at(-1e-6)[0]) / 2e-6
    # The difference's own error: of a sum near 10, eps / 1e-6 is some 1e-9.
    np.testing.assert_allclose(reverse, central, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_optimizer_works_under_checkpoint_and_jvp():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), PARAMS)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def gradients(coefficient, params):
        kept, plain = (
            functools.partial(_outcome, "sgd", "several", False, wrap) for wrap in (jax.checkpoint, lambda step: step)
        )
        return (
            *(jax.grad(outcome, argnums=(0, 1))(coefficient, params) for outcome in (kept, plain)),
            jax.jvp(plain, (coefficient, params), (1.0, params))[1],
        )

    recomputed, expected, forward = gradients(0.1, params)
    compare.close(recomputed, expected, rtol=1e-10)  # roundings
    along = expected[0] + sum(jnp.sum(params[name] * expected[1][name]) for name in params)
    np.testing.assert_allclose(forward, along, rtol=1e-10)  # roundings


@pytest.mark.slow
@some_pairs
def test_optimizer_works_with_donated_buffers(base, name):
    transform = _make(base, name)
    step = _compiled_step(transform, donate_argnums=(0, 1))
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), PARAMS)
    state = transform.init(params)
    for gradient in GRADIENTS:
        given = params
        params, state = step(params, state, gradient)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    compare.close(params, _alone(base, name)[0], **FUSED)


@pytest.mark.parametrize("rule", [wd.TowardAnchor, wd.SelectiveProjection])
def test_optimizer_keeps_a_given_anchor_from_being_donated(rule):
    anchor = {"kernel": jnp.ones((5, 2))}
    transform = wd.sgd(0.05, rule(0.1, anchor))
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), PARAMS)
    _compiled_step(transform, donate_argnums=(0, 1))(params, transform.init(params), GRADIENTS[0])
    np.testing.assert_array_equal(anchor["kernel"], 1)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), [PAIRS[0], PAIRS[9]])
def test_optimizer_keeps_weights_and_state_sharded(base, name):
    mesh = Mesh(np.array(jax.devices()).reshape(-1), ("devices",))
    placing = {
        "kernel": NamedSharding(mesh, PartitionSpec("devices", None)),
        "bias": NamedSharding(mesh, PartitionSpec()),
    }
    rows = len(jax.devices())
    whole = {"kernel": RANDOM.normal(size=(rows, 2)).astype(np.float32), "bias": PARAMS["bias"]}
    gradients = [{"kernel": np.cos(k * whole["kernel"]), "bias": GRADIENTS[k]["bias"]} for k in range(2)]
    params = jax.device_put(whole, placing)
    transform = _make(base, name)
    state, step = transform.init(params), _compiled_step(transform)
    assert rows > 1
    for gradient in gradients:
        params, state = step(params, state, jax.device_put(gradient, placing))
        for leaf in jax.tree.leaves((params, state)):
            wanted = placing["kernel" if leaf.shape == (rows, 2) else "bias"]
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim) or leaf.ndim == 0
    assert sum(leaf.shape == (rows, 2) for leaf in jax.tree.leaves((params, state))) > 1  # the weights are not alone
    compare.close(jax.device_get(params), _run(transform, whole, gradients)[0], **FUSED)


# Interrupted, and gone on.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # orbax's own, of what it calls itself
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")  # one device restores what one saved
@pytest.mark.parametrize(("base", "name"), [PAIRS[0], PAIRS[3], PAIRS[9]])
def test_optimizer_goes_on_from_an_orbax_checkpoint_bit_for_bit(base, name, tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    transform = _make(base, name)
    params, state = _run(transform, gradients=GRADIENTS[:2])
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", {"params": params, "state": state})
        checkpointer.wait_until_finished()
        fresh = jax.eval_shape(lambda params: {"params": params, "state": _make(base, name).init(params)}, PARAMS)
        restored = checkpointer.restore(tmp_path / "run", fresh)
    compare.same_bits(restored["state"], state)
    compare.same_bits(_run(transform, restored["params"], GRADIENTS[2:], restored["state"]), _alone(base, name))


# Types and shapes.


def _types(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name, getattr(leaf, "weak_type", False)), tree)


MIXED = {
    "first": {"kernel": jax.ShapeDtypeStruct((5, 2), jnp.float32), "bias": jax.ShapeDtypeStruct((2,), jnp.float32)},
    "second": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "bias": jax.ShapeDtypeStruct((3,), jnp.float16)},
}


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), [*EVERY_PAIR, *((base, "several") for base in BASES)])
def test_optimizer_keeps_structure_and_types_of_state_and_weights(base, name):
    transform = _make(base, name, mask=masks.everything if name != "several" else masks.kernels)
    state = jax.eval_shape(transform.init, MIXED)
    updates, after = jax.eval_shape(transform.update, MIXED, state, MIXED)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert _types(after) == _types(state)
    assert _types(updates) == _types(MIXED)


FEW_DIGITS = {"kernel": jnp.bfloat16, "bias": jnp.float16}
# 1e-8, as optax adds it, is 0 in float16: at a gradient of 0 no step of Adam, RMSprop and Muon is defined there.
SHARES = [
    *((base, wd.Decoupled, "bfloat16") for base in BASES),
    *((base, wd.Decoupled, "float16") for base in ("sgd", "lion")),
    *(("sgd", rule, "bfloat16") for rule in (wd.L2, wd.Independent, wd.Corrected, wd.Cautious)),
    ("sgd", lambda c: wd.TowardAnchor(c, {"kernel": np.zeros(64)}), "bfloat16"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("base", "rule", "dtype"), SHARES)
def test_coefficient_acts_unrounded_on_weights_of_few_digits(base, rule, dtype):
    rounded = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    weight = (1 + np.arange(64) / 64).astype(rounded)
    coefficient = np.float32(1e-3)
    expected = (-coefficient * weight.astype(np.float32)).astype(rounded)
    coarse = (-coefficient.astype(rounded).astype(np.float32) * weight.astype(np.float32)).astype(rounded)
    assert np.any(expected != coarse)

    params = {"kernel": jnp.asarray(weight)}
    # Muon's matrices are those of a mask; here it has none, and Adam moves the weights at the same rate.
    rest = {"matrices": lambda params: {"kernel": False, "other": True}} if base == "muon" else {}
    params = {**params, "other": jnp.ones((2, 2), dtype)} if base == "muon" else params
    transform = BASES[base](1.0, rule(1e-3), mask=masks.everything, **rest)
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    assert updates["kernel"].dtype == dtype
    np.testing.assert_array_equal(np.asarray(updates["kernel"]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sgd", "adam", "muon"])
def test_optimizer_steps_finitely_on_weights_of_few_digits(base):
    few = lambda tree: {name: jnp.asarray(tree[name], dtype) for name, dtype in FEW_DIGITS.items()}  # noqa: E731
    transform = _make(base, "NormControl", mask=masks.everything)
    params, _ = _run(transform, few(PARAMS), [few(gradient) for gradient in GRADIENTS])
    expected, _ = _run(transform)
    for name, leaf in params.items():
        assert leaf.dtype == FEW_DIGITS[name]
        # Beside the same four steps in float32: each rounds numbers near 1 a few times, and bfloat16 has 1/256 there.
        tolerance = {"kernel": 0.05, "bias": 0.01}[name]
        np.testing.assert_allclose(np.asarray(leaf, np.float32), expected[name], atol=tolerance)


class Pair(NamedTuple):
    one: Any
    other: Any


def _leaves(dtypes):
    shape = st.sampled_from([(), (3,), (2, 3), (0, 3), (1, 2, 2)])
    return st.builds(jax.ShapeDtypeStruct, shape, st.sampled_from(dtypes)) | st.none()


def _trees(dtypes):
    return st.recursive(
        _leaves(dtypes),
        lambda inner: (
            st.dictionaries(st.sampled_from(["kernel", "bias", "layer"]), inner, max_size=3)
            | st.lists(inner, max_size=2)
            | st.tuples(inner, inner)
            | st.builds(Pair, inner, inner)
        ),
        max_leaves=5,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data())
def test_optimizer_keeps_any_tree(name, data):
    params = {"weights": data.draw(_trees(["float32", "bfloat16", "float64"]))}
    base = data.draw(st.sampled_from(["adam"] if name == "Stable" else ["sgd", "adam"]))
    transform = _make(base, name, mask=masks.everything)
    with jax.enable_x64(True):
        state = jax.eval_shape(transform.init, params)
        updates, after = jax.eval_shape(transform.update, params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert _types(updates) == _types(params)
    assert _types(after) == _types(state)


ODD = {
    "scalar": np.float32(0.5),
    "none": None,
    "nested": [(np.ones((5, 2), np.float32),), Pair(np.zeros((5, 2), np.float32), np.ones(2, np.float32))],
}


@pytest.mark.slow
@pytest.mark.parametrize(("base", "name"), [pair for pair in EVERY_PAIR if pair[0] in {"sgd", "adam"}])
def test_optimizer_steps_finitely_on_odd_trees(base, name):
    gradient = {**ODD, "nested": jax.tree.map(np.zeros_like, ODD["nested"])}  # 0 beside weights of 0 too
    transform, start = _make(base, name, mask=masks.everything), ODD
    if name == "Hyperball":
        with pytest.raises(ValueError, match="nested/1/one has norm 0 at the start"):
            _run(transform, ODD, [gradient])
        start = jax.tree.map(lambda leaf: leaf + np.float32(1), ODD)
    params, state = _run(transform, start, [gradient])
    assert _types(params) == _types(_arrays(ODD))
    for leaf in jax.tree.leaves((params, state)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float64)))


def test_muon_leaves_an_empty_matrix():
    params = {"kernel": jax.ShapeDtypeStruct((0, 3), jnp.float32), "bias": jax.ShapeDtypeStruct((3,), jnp.float32)}
    transform = wd.muon(0.1, wd.Decoupled(0.1), mask=masks.everything)
    updates, _ = jax.eval_shape(transform.update, params, jax.eval_shape(transform.init, params), params)
    assert _types(updates) == _types(params)
