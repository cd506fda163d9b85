"""The laws of every decay rule under every base, each rule against its formula in numpy, and exact identities."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import base
from weightdecay.decay import coupled, decoupled, masks, placement, projected
from weightdecay.decay.elementwise import ElementwiseRule, Terms


def _soft(z, t):
    return np.sign(z) * np.maximum(np.abs(z) - t, 0)


def _units(w):
    """Weights into each output unit, as the columns of a matrix; an array of one dimension has a number a unit."""
    return w.reshape(-1, w.shape[-1])


def _group_lasso(z, c, step_size):
    """Minimizer a column, from the root of its own length: |D z / (D r + t)| = 1."""
    columns, threshold = _units(z), c * np.sqrt(z.size / z.shape[-1])
    metrics = 1 / np.broadcast_to(_units(np.broadcast_to(step_size, z.shape)), columns.shape)
    moved = np.zeros_like(columns)
    for j, (column, metric) in enumerate(zip(columns.T, metrics.T, strict=True)):
        excess = lambda r, column=column, metric=metric: np.linalg.norm(metric * column / (metric * r + threshold)) - 1  # noqa: E731
        if excess(0) > 0:
            length = optimize.brentq(excess, 0, np.linalg.norm(column) + 1, xtol=1e-15)
            moved[:, j] = metric * column * length / (metric * length + threshold)
    return moved.reshape(z.shape)


def _orthogonal(w):
    return _units(w).T @ _units(w) - np.eye(w.shape[-1])


def _top(w):
    u, s, v = np.linalg.svd(_units(w))
    return s[0] * np.outer(u[:, 0], v[0]).reshape(w.shape)


def _max_norm(z, bound):
    lengths = np.linalg.norm(_units(z), axis=0)
    return z * np.minimum(1, bound / lengths)


def _adaptive(at, c):
    at.memory["strength"] = 0.1 * at.memory.get("strength", 0) + 0.9 * c * at.gradient_norm / at.weight_norm
    return at.eta * at.memory["strength"] * at.w


def _constrained(z, at, bound, update_rate):
    at.memory["multiplier"] = max(0, at.memory.get("multiplier", 0) + update_rate * (np.sum(z**2) - bound))
    return z - at.memory["multiplier"] * 2 * z


def _selective_projection(z, at, c):
    before, after = np.linalg.norm(at.w - at.w0), np.linalg.norm(z - at.w0)
    share = np.clip((after - before) / after, 0, 1)
    return z - c * share * (z - at.w0) if np.sum(at.g * (at.w - at.w0)) > 0 else z


class Example(NamedTuple):
    """A rule written again in numpy, with coefficients to run it at."""

    coefficients: tuple[float, ...]
    neutral: tuple[float, ...] = (0.0,)  # where it does nothing
    static: tuple = ()  # further arguments
    penalty: Callable = lambda w, *c: 0
    pull: Callable = lambda w, w0, *c: 0  # what is added to the gradient
    shrink: Callable = lambda at, *c: 0  # what is taken off beside the step
    move: Callable = lambda z, at, *c: z  # where the stepped weights are moved


EXAMPLES = {
    "NoDecay": Example((), ()),
    "L2": Example((0.3,), penalty=lambda w, c: c / 2 * np.sum(w**2), pull=lambda w, w0, c: c * w),
    "L1": Example((0.3,), penalty=lambda w, c: c * np.sum(np.abs(w)), pull=lambda w, w0, c: c * np.sign(w)),
    "ElasticNet": Example(
        (0.2, 0.3),
        (0.0, 0.0),
        penalty=lambda w, c1, c2: c1 * np.sum(np.abs(w)) + c2 / 2 * np.sum(w**2),
        pull=lambda w, w0, c1, c2: c1 * np.sign(w) + c2 * w,
    ),
    "Huber": Example(
        (0.3, 0.5),
        (0.0, 0.5),
        penalty=lambda w, c, d: c * np.sum(np.where(np.abs(w) < d, w**2 / 2, d * (np.abs(w) - d / 2))),
        pull=lambda w, w0, c, d: c * np.clip(w, -d, d),
    ),
    "Elimination": Example(
        (0.3, 0.7),
        (0.0, 0.7),
        penalty=lambda w, c, s: c * np.sum((w / s) ** 2 / (1 + (w / s) ** 2)),
        pull=lambda w, w0, c, s: c * (2 * w / s**2) / (1 + w**2 / s**2) ** 2,
    ),
    "Orthogonal": Example(
        (0.03,),
        penalty=lambda w, c: c * np.sum(_orthogonal(w) ** 2) if w.ndim > 1 else 0,
        pull=lambda w, w0, c: 4 * c * (_units(w) @ _orthogonal(w)).reshape(w.shape) if w.ndim > 1 else 0,
    ),
    "Spectral": Example(
        (0.3,),
        static=(200,),  # iterations: as good as exact
        penalty=lambda w, c: c / 2 * np.linalg.norm(_units(w), 2) ** 2 if w.ndim > 1 else 0,
        pull=lambda w, w0, c: c * _top(w) if w.ndim > 1 else 0,
    ),
    "TowardAnchor": Example((0.3,), pull=lambda w, w0, c: c * (w - w0)),
    "Decoupled": Example((0.3,), shrink=lambda at, c: at.eta * c * at.w),
    "Independent": Example((0.05,), shrink=lambda at, c: at.scale * c * at.w),
    "Corrected": Example((0.3,), shrink=lambda at, c: at.eta**2 * c / 0.1 * at.w),
    "Cautious": Example((0.3,), shrink=lambda at, c: at.eta * c * (at.u * at.w >= 0) * at.w),
    "Stable": Example((0.3,), shrink=lambda at, c: at.eta * c / np.sqrt(at.mean_second_moment) * at.w),
    "Adaptive": Example((0.3,), shrink=_adaptive),
    "ProximalL1": Example(
        (0.3,),
        penalty=lambda w, c: c * np.sum(np.abs(w)),
        move=lambda z, at, c: _soft(z, at.eta * c / at.metric),
    ),
    "ProximalL2": Example(
        (0.3,), penalty=lambda w, c: c / 2 * np.sum(w**2), move=lambda z, at, c: z / (1 + at.eta * c / at.metric)
    ),
    "ProximalElasticNet": Example(
        (0.2, 0.3),
        (0.0, 0.0),
        penalty=lambda w, c1, c2: c1 * np.sum(np.abs(w)) + c2 / 2 * np.sum(w**2),
        move=lambda z, at, c1, c2: _soft(z, at.eta * c1 / at.metric) / (1 + at.eta * c2 / at.metric),
    ),
    "ProximalGroupLasso": Example(
        (0.3,),
        penalty=lambda w, c: c * np.sqrt(w.size / w.shape[-1]) * np.sum(np.linalg.norm(_units(w), axis=0)),
        move=lambda z, at, c: _group_lasso(z, c, at.eta / at.metric),
    ),
    "Lp": Example(
        (0.3, 1.5),
        (0.0, 1.5),
        move=lambda z, at, c, p: z / (1 + at.eta * p * c * np.abs(at.w) ** (p - 2)),
    ),
    "MaxNorm": Example((0.6,), (1e6,), move=lambda z, at, c: _max_norm(z, c)),
    "NormControl": Example(
        (0.2, 0.7),
        (0.0, 0.7),
        move=lambda z, at, k, r: z - k * (1 - r * np.linalg.norm(at.w0) / np.linalg.norm(z)) * z,
    ),
    "Constrained": Example((0.6, 0.02), (1e6, 0.02), move=_constrained),
    "SelectiveProjection": Example((0.8,), move=_selective_projection),
}
PLAIN = [name for name, kind in decay.KINDS.items() if issubclass(kind, ElementwiseRule)]


# The bases in numpy: what a gradient becomes, the diagonal D, and the second moment.


def _sgd(memory, g, w, t):
    memory["m"] = 0.9 * memory.get("m", 0) + g
    return memory["m"], 1 - 0.9, None


def _adam(memory, g, w, t, eps=1e-8):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    second = memory["v"] / (1 - 0.999 ** (t + 1))
    metric = np.sqrt(second) + eps
    return memory["m"] / (1 - 0.9 ** (t + 1)) / metric, metric, second


def _lion(memory, g, w, t):
    m = memory.get("m", 0)
    memory["m"] = 0.99 * m + 0.01 * g
    return np.sign(0.9 * m + 0.1 * g), None, None


def _rmsprop(memory, g, w, t):
    memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g**2
    metric = np.sqrt(memory["v"]) + 1e-8
    memory["m"] = 0.9 * memory.get("m", 0) + g / metric
    return memory["m"], (1 - 0.9) * metric, memory["v"]


def _lamb(memory, g, w, t):
    u, metric, second = _adam(memory, g, w, t, eps=1e-6)
    ratio = np.linalg.norm(w) / np.linalg.norm(u)
    return ratio * u, metric / ratio, second


def _muon(memory, g, w, t):
    if w.ndim < 2:
        return _adam(memory, g, w, t)
    memory["m"] = 0.95 * memory.get("m", 0) + g
    x = g + 0.95 * memory["m"]
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return np.sqrt(max(1, w.shape[1] / w.shape[0])) * x, None, None


class Base(NamedTuple):
    """An optimizer of the library, the same in optax without decay, and in numpy."""

    make: Callable
    plain: optax.GradientTransformation
    numpy: Callable


BASES = {
    "sgd": Base(
        lambda rule, rate=0.1, **rest: wd.sgd(rate, rule, **{"momentum": 0.9, **rest}), optax.sgd(0.1, 0.9), _sgd
    ),
    "adam": Base(lambda rule, rate=0.1, **rest: wd.adam(rate, rule, **rest), optax.adam(0.1), _adam),
    "lion": Base(lambda rule, rate=0.1, **rest: wd.lion(rate, rule, **rest), optax.lion(0.1, weight_decay=0.0), _lion),
    "rmsprop": Base(
        lambda rule, rate=0.1, **rest: wd.rmsprop(rate, rule, **{"momentum": 0.9, **rest}),
        optax.chain(optax.scale_by_rms(0.99, eps_in_sqrt=False), optax.trace(0.9), optax.scale_by_learning_rate(0.1)),
        _rmsprop,
    ),
    "lamb": Base(lambda rule, rate=0.1, **rest: wd.lamb(rate, rule, **rest), optax.lamb(0.1), _lamb),
    "muon": Base(lambda rule, rate=0.1, **rest: wd.muon(rate, rule, **rest), None, _muon),
}
SENSELESS = {
    (base, name)
    for base in ("lion", "muon")
    for name in ("ProximalL1", "ProximalL2", "ProximalElasticNet", "ProximalGroupLasso")
} | {("sgd", "Stable"), ("lion", "Stable")}
PAIRS = [(base, name) for base in BASES for name in decay.KINDS if (base, name) not in SENSELESS]
every_rule = pytest.mark.parametrize("name", decay.KINDS)
every_pair = pytest.mark.parametrize(("base", "name"), PAIRS)
# What hardly depends on the base is run under two that differ, or under one where it is compiled.
two_bases = pytest.mark.parametrize("base", ["sgd", "adam"])
few_pairs = pytest.mark.parametrize(("base", "name"), [pair for pair in PAIRS if pair[0] in ("sgd", "adam")])

RANDOM = np.random.default_rng(0)
PARAMS = {
    "Dense_0": {"kernel": RANDOM.normal(size=(3, 4)), "bias": RANDOM.normal(size=4)},
    "Dense_1": {"kernel": RANDOM.normal(size=(4, 1)), "bias": RANDOM.normal(size=1)},
}
KERNEL = PARAMS["Dense_0"]["kernel"].tolist()  # JAX may keep an array's float64 copy beyond the test that asked for it
NUM_STEPS = 6


# Fused, a product and the sum behind it are rounded once, here and there; bits can be compared where nothing is fused.
AS_WRITTEN = {"xla_disable_hlo_passes": "fusion,algsimp"}
QUICK = {"xla_backend_optimization_level": 0}  # to compile


def _rule(name, coefficients=None):
    example = EXAMPLES[name]
    return decay.KINDS[name](*(example.coefficients if coefficients is None else coefficients), *example.static)


def _neutral(name):
    return _rule(name, EXAMPLES[name].neutral)


def _weaker(name, scale):
    """The rule with its first coefficients times a scale; a shape parameter (delta, p, ratio ...) stays."""
    coefficients = EXAMPLES[name].coefficients
    both = name.endswith("ElasticNet")
    return _rule(name, tuple(scale * c if i == 0 or both else c for i, c in enumerate(coefficients)))


def _params(dtype=None):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype or jnp.result_type(float)), PARAMS)


def _loss(params):
    return sum(jnp.sum(1 - jnp.cos(2 * leaf + 0.5)) / 2 for leaf in jax.tree.leaves(params))


def _gradient(params):
    """Gradient of `_loss`: elementwise, so each array runs on its own."""
    return jax.tree.map(lambda leaf: jnp.sin(2 * leaf + 0.5), params)


def _train(transform, params=None, num_steps=NUM_STEPS, gradient_fn=_gradient):
    """Weights after some steps, one operation at a time: nothing is fused, so that bits can be compared."""
    params = _params() if params is None else params
    state = transform.init(params)
    for _ in range(num_steps):
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def _scan(transform):
    """The same as one scan, to be compiled; of a kernel alone, which is quick."""
    params = jnp.asarray(KERNEL)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(_gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, transform.init(params)), length=NUM_STEPS)[0][0]


_scan_as_written = functools.cache(lambda transform: jax.jit(lambda: _scan(transform), compiler_options=AS_WRITTEN)())


def _largest_difference(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.max(np.abs(a - b)), one, other)))


# The laws, over every rule and base.


def test_kinds_holds_every_rule_of_its_modules():
    classes = {
        name: kind
        for module in (coupled, decoupled, projected)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, decay.Rule) and kind.__module__ == module.__name__
    }
    assert {"NoDecay": wd.NoDecay, **classes} == decay.KINDS
    assert set(EXAMPLES) == set(decay.KINDS)
    assert all(getattr(wd, name) is kind and name in wd.__all__ for name, kind in decay.KINDS.items())


@every_rule
def test_rule_is_a_frozen_dataclass(name):
    one, numbers = _rule(name), EXAMPLES[name].coefficients
    assert dataclasses.is_dataclass(one)
    assert one == _rule(name)
    assert hash(one) == hash(_rule(name))
    assert dataclasses.replace(one) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.coefficient = 1.0
    assert tuple(one.coefficients().values())[: len(numbers)] == numbers
    assert str(one) == f"{name}({', '.join(map(str, [*numbers, *EXAMPLES[name].static]))})"
    assert one.name == name


def test_rules_differ_in_structure():
    """Else `jax.jit` may run the program that it has of another rule."""
    structures = {name: jax.tree.structure(_rule(name)) for name in decay.KINDS}
    equal = [(a, b) for a, b in itertools.combinations(structures, 2) if structures[a] == structures[b]]
    assert not equal


@every_rule
def test_rule_is_a_pytree_of_its_coefficients(name):
    one = _rule(name)
    leaves, structure = jax.tree.flatten(one)
    assert tuple(leaves) == EXAMPLES[name].coefficients
    assert structure.unflatten(leaves) == one
    placeholder = object()  # what JAX itself puts in
    assert jax.tree.leaves(structure.unflatten([placeholder] * len(leaves))) == [placeholder] * len(leaves)

    def checked(traced):
        assert type(traced) is type(one)
        assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(traced))
        decay.check(traced, argument="decay")
        return traced

    assert jax.tree.structure(jax.eval_shape(checked, one)) == structure


@every_pair
@pytest.mark.usefixtures("float64")
def test_rule_is_its_formula(base, name):
    example, rate = EXAMPLES[name], optax.cosine_decay_schedule(0.1, 8)
    peaks = {"peak_learning_rate": 0.1}
    trained = _train(BASES[base].make(_rule(name), rate, mask=masks.everything, **peaks), num_steps=3)
    weights, structure = jax.tree.flatten(PARAMS)
    start, memories = weights, [({}, {}) for _ in weights]
    for count in range(3):
        eta = float(rate(count))
        gradients = [np.sin(2 * w + 0.5) for w in weights]
        joined = [
            g + example.pull(w, w0, *example.coefficients) for g, w, w0 in zip(gradients, weights, start, strict=True)
        ]
        steps = [
            BASES[base].numpy(memory, g, w, count) for (memory, _), g, w in zip(memories, joined, weights, strict=True)
        ]
        norms = [np.sqrt(sum(np.sum(array**2) for array in arrays)) for arrays in (gradients, weights)]
        seconds = [np.ravel(second) for *_, second in steps if second is not None]
        after = []
        for w, w0, g, (u, metric, _), (_, memory) in zip(weights, start, gradients, steps, memories, strict=True):
            at = SimpleNamespace(w=w, w0=w0, g=g, u=u, metric=metric, eta=eta, scale=eta / 0.1, memory=memory)
            at.gradient_norm, at.weight_norm = norms
            at.mean_second_moment = np.mean(np.concatenate(seconds)) if seconds else None
            stepped = w - eta * u - example.shrink(at, *example.coefficients)
            after.append(example.move(stepped, at, *example.coefficients))
        weights = after
    # 1 - b2^t cancels three digits of sixteen; the rest is rounding, which Newton-Schulz spreads.
    compare.close(trained, structure.unflatten(weights), rtol=1e-11, atol=1e-10 if base == "muon" else 1e-12)


@pytest.mark.parametrize("base", BASES)
def test_no_decay_is_the_base_optimizer_bit_for_bit(base):
    if BASES[base].plain is not None:
        compare.same_bits(_train(BASES[base].make(wd.NoDecay())), _train(BASES[base].plain))


@functools.cache
def _undecayed(base):
    return _train(BASES[base].make(wd.NoDecay()), num_steps=2)


@every_pair
def test_coefficient_zero_is_no_decay_bit_for_bit(base, name):
    compare.same_bits(_train(BASES[base].make(_neutral(name)), num_steps=2), _undecayed(base))


@two_bases
@pytest.mark.parametrize("name", ["ElasticNet", "Decoupled", "ProximalElasticNet", "Huber", "Cautious", "Lp"])
def test_coefficient_zero_compiled_as_written_is_the_base_optimizer_bit_for_bit(base, name):
    compiled = jax.jit(lambda one: _scan(BASES[base].make(one)), compiler_options=AS_WRITTEN)(_neutral(name))
    compare.same_bits(compiled, _scan_as_written(BASES[base].plain))


EVERY_TERM = frozenset(Terms().coefficients())


@two_bases
@pytest.mark.parametrize("name", ["ElasticNet", "Decoupled", "ProximalElasticNet"])
def test_coefficient_zero_and_filled_terms_agree_to_rounding_where_the_compiler_fuses(base, name):
    scan = jax.jit(lambda one: _scan(BASES[base].make(one)))
    bits = {"rtol": 1e-6, "atol": 1e-7}  # one or two of float32, over a few steps
    compare.close(scan(_neutral(name)), scan(wd.NoDecay()), **bits)
    compare.close(scan(_rule(name).terms().filled(EVERY_TERM)), scan(_rule(name)), **bits)


@pytest.mark.parametrize("name", PLAIN)
@two_bases
def test_filled_terms_are_the_rule_bit_for_bit(base, name):
    terms = _rule(name).terms()
    filled = terms.filled(EVERY_TERM)
    assert not any(value is None for value in filled.coefficients().values())
    assert filled.terms() == filled
    assert terms.filled(terms.present) == terms
    compare.same_bits(_train(BASES[base].make(filled)), _train(BASES[base].make(_rule(name))))


def test_filled_terms_of_all_plain_rules_share_one_program():
    traces = []

    @jax.jit
    def run(terms):
        traces.append(terms)
        return _scan(wd.adam(0.1, terms))

    for name in PLAIN:
        run.eval_shape(_rule(name).terms().filled(EVERY_TERM))
    assert len(traces) == 1


@every_pair
def test_rule_leaves_biases_alone_by_default(base, name):
    with_rule, without = _train(BASES[base].make(_rule(name)), num_steps=2), _undecayed(base)
    for layer in PARAMS:
        compare.same_bits(with_rule[layer]["bias"], without[layer]["bias"])
        # Lion's and Muon's first steps hardly know the size of a pull; a projection waits for a step away.
        if base not in ("lion", "muon") and name not in ("NoDecay", "SelectiveProjection"):
            assert _largest_difference(with_rule[layer]["kernel"], without[layer]["kernel"]) > 1e-4


@every_pair
def test_rule_keeps_the_dtype_and_the_state_its_form(base, name):
    dtype = jnp.bfloat16
    transform, params = BASES[base].make(_rule(name)), _params(dtype)
    start = transform.init(params)
    updates, state = jax.eval_shape(transform.update, _gradient(params), start, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shapes(state) == shapes(start)


@every_rule
@pytest.mark.parametrize(
    ("dtype", "expected"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)]
)
def test_leafwise_keeps_coefficients_in_float32_at_least(name, dtype, expected):
    with jax.enable_x64(dtype == jnp.float64):
        one = jax.tree.map(lambda _: 1e-3, _rule(name))
        for here in placement.leafwise(one, _params(dtype), [True] * 4):
            numbers = jax.tree.leaves(here)
            assert len(numbers) == len(EXAMPLES[name].coefficients)
            assert all(number.dtype == expected and number == expected(1e-3) for number in numbers)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_coefficient_acts_unrounded_on_weights_of_low_precision(dtype):
    weights, coefficient = jnp.arange(1, 129, dtype=dtype), 1e-3
    assert float(dtype(coefficient)) != coefficient
    zeros = jnp.zeros_like(weights)
    expected = (np.float32(coefficient) * weights.astype(jnp.float32)).astype(dtype)
    for one in (wd.L2(coefficient), wd.Decoupled(coefficient), wd.Huber(coefficient, 1e3)):
        transform = wd.sgd(1.0, one)
        updates, _ = transform.update(zeros, transform.init(weights), weights)
        np.testing.assert_array_equal(-updates, expected)


def test_leafwise_is_nothing_where_nothing_decays():
    here = placement.leafwise(wd.L2(0.1), _params(), [False, True, False, True])
    assert [one is None for one in here] == [True, False, True, False]


SCALES = [0.1, 0.5, 1.0]


@every_rule
def test_rule_under_vmap_is_a_loop_over_coefficients(name):
    base = "adam"
    run = jax.vmap(lambda scale: _scan(BASES[base].make(_weaker(name, scale))))
    batched = jax.jit(run, compiler_options=QUICK)(jnp.array(SCALES))
    for index, scale in enumerate(SCALES):
        by_hand = _train(BASES[base].make(_weaker(name, scale)), jnp.array(KERNEL))
        np.testing.assert_allclose(batched[index], by_hand, rtol=1e-4, atol=1e-5)  # float32, fused and not


@few_pairs
def test_rule_with_traced_coefficients_traces_once(base, name):
    traces = []

    @jax.jit
    def run(one):
        traces.append(one)
        return _scan(BASES[base].make(one))

    for scale in SCALES:
        run.eval_shape(_weaker(name, scale))
    assert len(traces) == 1


@every_rule
@pytest.mark.usefixtures("float64")
def test_rule_has_a_finite_gradient_in_its_coefficient(name):
    base = "adam"
    final_loss = lambda scale: _loss(_scan(BASES[base].make(_weaker(name, scale))))  # noqa: E731
    both = jax.jit(
        lambda scale: (jax.grad(final_loss)(scale), *jax.jvp(final_loss, (scale,), (1.0,))), compiler_options=QUICK
    )
    slope, _, tangent = both(0.9)
    np.testing.assert_allclose(slope, tangent, rtol=1e-9, atol=1e-13)  # one sum in two orders
    # Its error is about step² = 1e-10, beside slopes of .001 to 1.
    difference = (both(0.9 + 1e-5)[1] - both(0.9 - 1e-5)[1]) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-9)
    assert name in ("NoDecay", "SelectiveProjection") or abs(slope) > 1e-5  # no step goes away against advice here
    if name not in ("MaxNorm", "Constrained"):  # bounds lie above 0
        assert np.isfinite(both(0.0)[0])


@few_pairs
def test_rule_is_finite_and_differentiable_where_everything_is_zero(base, name):
    zeros = jnp.zeros((3, 4))

    def after(params, scale):
        transform = BASES[base].make(_weaker(name, scale))
        state = transform.init(params)
        for _ in range(2):
            updates, state = transform.update(jax.tree.map(jnp.zeros_like, params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    trained, slope = jax.jvp(after, (zeros, 1.0), (jnp.ones_like(zeros), 1.0))
    assert not trained.any()
    assert np.isfinite(slope).all()


@every_rule
def test_rule_is_finite_with_a_huge_coefficient(name):
    base = "adam"
    transform = BASES[base].make(_weaker(name, 1e30), mask=masks.everything)
    params = _params()
    updates, _ = transform.update(_gradient(params), transform.init(params), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@few_pairs
def test_coefficient_a_layer_is_each_layers_own(base, name):
    scales = {"Dense_0": 1.0, "Dense_1": 0.5}
    by_layer = [
        {layer: c for layer, c in zip(scales, pair, strict=True)}
        for pair in zip(*(jax.tree.leaves(_weaker(name, scale)) for scale in scales.values()), strict=True)
    ]
    layers = _rule(name, tuple(by_layer))
    patterns = _rule(name, tuple(wd.PerLayer({"Dense_0": c["Dense_0"], ".*": c["Dense_1"]}) for c in by_layer))
    decay.check(layers, argument="decay")
    decay.check(patterns, argument="decay")
    num_steps = 1 if name in ("Stable", "Adaptive") else 2  # these look at all layers together
    together = _train(BASES[base].make(layers), num_steps=num_steps)
    compare.same_bits(_train(BASES[base].make(patterns), num_steps=num_steps), together)
    for layer, scale in scales.items():
        alone = _train(BASES[base].make(_weaker(name, scale)), num_steps=num_steps)
        compare.same_bits(together[layer], alone[layer])


def test_coefficient_tree_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"coefficient of L2\(.*Dense_9.*does not fit.*Dense_0/bias"):
        wd.sgd(0.1, wd.L2({"Dense_9": 0.1})).init(_params())


@pytest.mark.parametrize(
    ("coefficient", "message"),
    [
        (
            wd.PerLayer({"Dense_9": 0.1}),
            r"coefficient of L2.*'Dense_9' matches no weight that decays; these are: Dense_0/ker",
        ),
        (wd.PerLayer({"Dense_0": 0.1}), r"no pattern matches Dense_1/kernel; add a pattern, or give default=0\.0"),
        (wd.PerLayer({".*": 0.1, "Dense_0": 0.2}), r"'Dense_0' is never used, because '\.\*' comes before it"),
        (wd.PerLayer({".*/kernel": 0.1, "bias": 0.2}), r"'bias' matches no weight that decays"),
        (wd.PerLayer({"(": 0.1}), r"'\(' is not a regular expression"),
    ],
)
def test_per_layer_is_refused_where_it_misses(coefficient, message):
    with pytest.raises(ValueError, match=message):
        wd.sgd(0.1, wd.L2(coefficient)).init(_params())


def test_per_layer_gives_the_rest_its_default_and_may_be_traced():
    by_layer = wd.PerLayer({"Dense_0": 0.3}, default=0.0)
    assert str(by_layer) == "{Dense_0: 0.3, else: 0}"
    assert by_layer == wd.PerLayer({"Dense_0": 0.3}, default=0.0)
    assert hash(by_layer) == hash(wd.PerLayer({"Dense_0": 0.3}, default=0.0))
    assert wd.PerLayer({"a": 1, "b": 2}) != wd.PerLayer({"b": 2, "a": 1})  # the first match wins
    trained = jax.jit(lambda one: _train(wd.sgd(0.1, wd.L2(one))))(by_layer)
    expected = _train(wd.sgd(0.1, wd.L2({"Dense_0": 0.3, "Dense_1": 0.0})))
    compare.close(trained, expected, rtol=1e-5, atol=1e-6)  # float32, fused and not


SCHEDULES = [
    lambda c: lambda count: c / (1 + count),
    lambda c: wd.schedules.LogTime(c, 1.0),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@every_rule
def test_coefficient_schedule_is_its_number_at_each_step(name, schedule):
    base = "adam"
    scheduled = _rule(name, tuple(schedule(c) for c in EXAMPLES[name].coefficients))
    decay.check(scheduled, argument="decay")
    params = _params()
    state = BASES[base].make(_rule(name)).init(params)
    for count in range(3):
        one = _rule(name, tuple(c / (1 + count) for c in EXAMPLES[name].coefficients))
        np.testing.assert_allclose(jax.tree.leaves(decay.at_step(scheduled, count)), jax.tree.leaves(one), rtol=1e-6)
        updates, state = BASES[base].make(one).update(_gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    # The schedule divides in float32, the loop in float64.
    compare.close(_train(BASES[base].make(scheduled), num_steps=3), params, rtol=1e-5, atol=1e-6)


def test_schedules_of_coefficient_and_learning_rate_run_compiled():
    transform = wd.adam(
        optax.linear_schedule(0.1, 0.0, 9), wd.ProximalElasticNet(optax.linear_schedule(0.3, 0.0, 9), 0.1)
    )
    compare.close(
        jax.jit(lambda: _scan(transform))(), _train(transform, jnp.array(KERNEL)), rtol=1e-5, atol=1e-6
    )  # fused and not


@every_rule
def test_penalty_is_its_formula(name):
    example, params = EXAMPLES[name], _params()
    if name == "TowardAnchor":
        return  # below
    expected = sum(example.penalty(layer["kernel"], *example.coefficients) for layer in PARAMS.values())
    # A few float32 roundings in sums of positive terms.
    np.testing.assert_allclose(decay.penalty(_rule(name), params), expected, rtol=1e-5)
    if name != "NoDecay":
        with pytest.raises(ValueError, match="selects no weight"):
            decay.penalty(_rule(name), params, False)


def test_penalty_toward_an_anchor_is_half_the_squared_distance():
    params, anchor = _params(), jax.tree.map(lambda leaf: leaf + 0.5, _params())
    sizes = sum(layer["kernel"].size for layer in PARAMS.values())
    expected = 0.3 / 2 * 0.25 * sizes
    transform = wd.sgd(0.1, wd.TowardAnchor(0.3))
    state = transform.init(anchor)
    np.testing.assert_allclose(decay.penalty(wd.TowardAnchor(0.3), params, state=state.decay), expected, rtol=1e-6)
    np.testing.assert_allclose(decay.penalty(wd.TowardAnchor(0.3, anchor), params), expected, rtol=1e-6)
    assert np.isnan(decay.penalty(wd.TowardAnchor(0.3), params))  # the start is not known
    assert decay.penalty(wd.TowardAnchor(0.3, anchor, decoupled=True), params) == 0


COUPLED = ["L2", "L1", "ElasticNet", "Huber", "Elimination", "Orthogonal", "Spectral"]


@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.usefixtures("float64")
def test_coupled_rule_is_the_gradient_of_its_penalty(name):
    params = _params()
    slopes = jax.grad(lambda params: decay.penalty(_rule(name), params))(params)
    transform = wd.sgd(1.0, _rule(name))
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    compare.close(jax.tree.map(jnp.negative, updates), slopes, rtol=1e-9, atol=1e-12)  # roundings, and the iteration's


# Several rules together.


@pytest.mark.parametrize("base", BASES)
def test_rules_together_act_each_in_its_place(base):
    rules = (wd.MaxNorm(0.6), wd.L2(0.3), wd.Cautious(0.1), wd.Decoupled(0.2))
    params, train = _params(), lambda *rules: _train(BASES[base].make(rules), num_steps=1)
    joined = train(wd.L2(0.3))
    expected = jax.tree.map(
        lambda joined, cautious, w: joined + (cautious - joined) - 0.1 * 0.2 * w,
        joined,
        train(wd.L2(0.3), wd.Cautious(0.1)),
        {layer: {"kernel": leaves["kernel"], "bias": 0} for layer, leaves in params.items()},
    )
    for leaves in expected.values():
        leaves["kernel"] = _max_norm(np.asarray(leaves["kernel"]), 0.6)
    compare.close(train(*rules), expected, rtol=1e-5, atol=1e-6)  # a few float32 roundings
    compare.same_bits(_train(BASES[base].make(list(rules))), _train(BASES[base].make(decay.combined(rules))))


@two_bases
def test_proximal_rules_together_are_the_elastic_net_in_any_order(base):
    expected = _train(BASES[base].make(wd.ProximalElasticNet(0.2, 0.3)))
    for both in ((wd.ProximalL1(0.2), wd.ProximalL2(0.3)), (wd.ProximalL2(0.3), wd.ProximalL1(0.2))):
        compare.same_bits(_train(BASES[base].make(both)), expected)


@two_bases
def test_rules_together_may_act_on_weights_of_their_own(base):
    both = (wd.L2(0.3), wd.Masked(wd.ProximalL1(0.5), masks.first))
    trained = _train(BASES[base].make(both))
    compare.same_bits(trained["Dense_1"], _train(BASES[base].make(wd.L2(0.3)))["Dense_1"])
    compare.same_bits(trained["Dense_0"], _train(BASES[base].make((wd.L2(0.3), wd.ProximalL1(0.5))))["Dense_0"])
    everywhere = _train(BASES[base].make(wd.Masked(wd.L2(0.3), masks.everything)))
    compare.same_bits(everywhere, _train(BASES[base].make(wd.L2(0.3), mask=masks.everything)))


def test_rules_together_say_themselves():
    both = decay.combined((wd.L2(0.1), wd.Masked(wd.ProximalL1(0.2), masks.first)))
    assert str(both) == "L2(0.1) + Masked(ProximalL1(0.2), first)"
    assert both.name == "L2 + ProximalL1 on first"
    assert both.coefficients() == {"L2.coefficient": 0.1, "ProximalL1 on first.coefficient": 0.2}
    twice = decay.combined((wd.L2(0.1), wd.L2({"Dense_0": 0.2, "Dense_1": 0.3})))
    assert list(twice.coefficients()) == ["L2 (1).coefficient", "L2 (2).coefficient"]
    assert decay.penalty(twice, _params()) > decay.penalty(wd.L2(0.1), _params())
    assert decay.combined(wd.L2(0.1)) == wd.L2(0.1)
    assert decay.penalty(both, _params()) == decay.penalty((wd.L2(0.1), wd.Masked(wd.L1(0.2), masks.first)), _params())


# Exact identities between rules.

WEIGHTS = np.array([1.0, -3.0, 0.0])


def _decay_alone(transform, num_steps, weights=WEIGHTS):
    return _train(transform, jnp.array(weights), num_steps, jnp.zeros_like)


@pytest.mark.parametrize("base", [base for base in BASES if base != "muon"])
@pytest.mark.parametrize("kind", [wd.Decoupled, wd.Corrected, wd.Cautious])
def test_decoupled_with_zero_gradients_shrinks_by_exactly_one_minus_rate_times_coefficient(base, kind):
    decayed = _decay_alone(BASES[base].make(kind(0.25), 0.5), 7)
    np.testing.assert_array_equal(decayed, WEIGHTS * 0.875**7)  # each product has a float32: no rounding at all


@two_bases
@pytest.mark.usefixtures("float64")
def test_independent_with_zero_gradients_shrinks_by_the_schedule_alone(base):
    shape = optax.cosine_decay_schedule(1.0, 50)
    expected = WEIGHTS * np.prod([1 - 0.2 * float(shape(step)) for step in range(50)])
    for peak in (1e-3, 10.0):
        rate = lambda count, peak=peak: peak * shape(count)  # noqa: E731
        decayed = _decay_alone(BASES[base].make(wd.Independent(0.2), rate, peak_learning_rate=peak), 50)
        np.testing.assert_allclose(decayed, expected, rtol=1e-13)  # 50 products of a few roundings each
    constant = _decay_alone(BASES[base].make(wd.Independent(0.25), 3.0), 7)
    np.testing.assert_array_equal(constant, WEIGHTS * 0.75**7)


@two_bases
@pytest.mark.usefixtures("float64")
def test_independent_is_decoupled_times_the_peak_rate(base):
    rate = optax.cosine_decay_schedule(0.1, 8)
    independent = _train(BASES[base].make(wd.Independent(0.03), rate, peak_learning_rate=0.1))
    compare.close(independent, _train(BASES[base].make(wd.Decoupled(0.3), rate)), rtol=1e-12)  # a few roundings


def test_independent_gives_the_table_of_a_fifth_an_epoch():
    epochs = [_decay_alone(wd.sgd(0.1, wd.Independent(0.2)), epoch, 0.875) for epoch in (1, 2, 3, 4)]
    np.testing.assert_allclose(epochs, [0.7, 0.56, 0.448, 0.3584], rtol=1e-6)  # float32 rounding


@pytest.mark.usefixtures("float64")
def test_l2_is_decoupled_in_plain_sgd_and_not_beside_momentum():
    plain, coupled = (_train(wd.sgd(0.1, rule(0.3))) for rule in (wd.L2, wd.Decoupled))
    compare.close(plain, coupled, rtol=1e-12, atol=1e-14)  # a few roundings
    assert (
        _largest_difference(_train(BASES["sgd"].make(wd.L2(0.3))), _train(BASES["sgd"].make(wd.Decoupled(0.3)))) > 1e-2
    )


@pytest.mark.usefixtures("float64")
def test_l2_beside_momentum_decays_at_the_slow_rate():
    # Zero gradients: m <- mu m + c w, w <- w - eta m; its slow root is 1 - eta c / (1 - mu) to first order.
    momentum, rate, c = 0.9, 1e-3, 0.1
    roots = np.roots([1, -(1 + momentum - rate * c), momentum])
    np.testing.assert_allclose(1 - roots.max(), rate * c / (1 - momentum), rtol=2e-2)  # the next order
    before, after = (_decay_alone(wd.sgd(rate, wd.L2(c), momentum), steps, 1.0) for steps in (400, 401))
    np.testing.assert_allclose(after / before, roots.max(), rtol=1e-10)  # the fast root is gone: .9 ** 400


@pytest.mark.usefixtures("float64")
def test_l2_is_not_decoupled_in_adam():
    assert (
        _largest_difference(_train(BASES["adam"].make(wd.L2(0.3))), _train(BASES["adam"].make(wd.Decoupled(0.3))))
        > 1e-2
    )


@two_bases
@pytest.mark.parametrize(
    ("both", "alone"),
    [
        (wd.ProximalElasticNet(0.0, 0.3), wd.ProximalL2(0.3)),
        (wd.ProximalElasticNet(0.3, 0.0), wd.ProximalL1(0.3)),
        (wd.ElasticNet(0.0, 0.3), wd.L2(0.3)),
        (wd.ElasticNet(0.3, 0.0), wd.L1(0.3)),
        (wd.TowardAnchor(0.3, {}), wd.L2(0.3)),
        (wd.TowardAnchor(0.3, {}, decoupled=True), wd.Decoupled(0.3)),
        (wd.Huber(0.3, 1e6), wd.L2(0.3)),
        (wd.NormControl(0.0, 0.5), wd.NoDecay()),
        (wd.Corrected(0.3), wd.Decoupled(0.3)),
    ],
)
def test_rule_at_its_limit_is_the_simpler_rule_bit_for_bit(base, both, alone):
    compare.same_bits(_train(BASES[base].make(both)), _train(BASES[base].make(alone)))


@pytest.mark.usefixtures("float64")
def test_lp_of_two_is_the_implicit_step_of_twice_the_coefficient():
    plain = lambda one: _train(wd.sgd(0.1, one))  # noqa: E731
    compare.close(plain(wd.Lp(0.3, 2.0)), plain(wd.ProximalL2(0.6)), rtol=1e-13, atol=1e-15)  # a rounding or two


@pytest.mark.usefixtures("float64")
def test_corrected_beside_a_schedule_is_decoupled_scaled_by_it():
    rate = optax.cosine_decay_schedule(0.1, 8)
    corrected = _train(wd.adam(rate, wd.Corrected(0.3), peak_learning_rate=0.1))
    scheduled = wd.Decoupled(lambda count: 0.3 * rate(count) / 0.1)
    compare.close(corrected, _train(wd.adam(rate, scheduled)), rtol=1e-13, atol=1e-15)  # roundings
    assert _largest_difference(corrected, _train(wd.adam(rate, wd.Decoupled(0.3)))) > 1e-3


@pytest.mark.parametrize("base", BASES)
@pytest.mark.usefixtures("float64")
def test_norm_control_holds_the_norm_and_decays_at_ratio_zero(base):
    held = _train(BASES[base].make(wd.NormControl(1.0)))
    for layer in PARAMS:
        start = np.linalg.norm(PARAMS[layer]["kernel"])
        np.testing.assert_allclose(np.linalg.norm(held[layer]["kernel"]), start, rtol=1e-13)  # a few roundings
    if base != "muon":
        decayed = _decay_alone(BASES[base].make(wd.NormControl(0.25, 0.0)), 7)
        np.testing.assert_allclose(decayed, WEIGHTS * 0.75**7, rtol=1e-13)


@pytest.mark.parametrize("base", BASES)
def test_max_norm_bounds_every_unit_and_leaves_it_there(base):
    trained = _train(BASES[base].make(wd.MaxNorm(0.6)))
    kernel = trained["Dense_0"]["kernel"]
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.6 * (1 + 1e-6))  # float32
    again = _train(wd.sgd(0.1, wd.MaxNorm(0.6)), trained, 1, lambda params: jax.tree.map(jnp.zeros_like, params))
    compare.close(again, trained, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_constrained_reads_its_bound_after_the_warm_start_and_holds_it():
    away = lambda params: jax.tree.map(lambda w: -w, params)  # noqa: E731 - grows without end
    square = lambda params: np.sum(np.square(params))  # noqa: E731
    start = jnp.array(KERNEL)

    def train(one, num_steps):
        transform = wd.sgd(0.1, one)

        def step(_, carry):
            updates, state = transform.update(away(carry[0]), carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return jax.jit(lambda: jax.lax.fori_loop(0, num_steps, step, (start, transform.init(start)))[0])()

    for warm_start in (0, 3):
        held = train(wd.Constrained(1.5, 0.01, warm_start=warm_start), 4000)
        bound = 1.5 * square(start) * 1.1 ** (2 * warm_start)  # each step without decay makes the weights longer by .1
        np.testing.assert_allclose(square(held), bound, rtol=0.3)  # the multiplier swings about it; free: 1.1 ** 8000
    free = [_train(wd.sgd(0.1, wd.NoDecay()), start, steps, away) for steps in (3, 5)]
    waiting = _train(wd.sgd(0.1, wd.Constrained(1.5, 0.01, warm_start=3)), start, 3, away)
    compare.same_bits(waiting, free[0])
    within = _train(wd.sgd(0.1, wd.Constrained(1e3, 0.01)), start, 5, away)
    compare.same_bits(within, free[1])  # an array within its bound does not decay


def test_anchor_is_matched_by_names_and_a_new_head_decays_to_zero():
    anchor = {"Dense_0": {"kernel": PARAMS["Dense_0"]["kernel"] + 1}}
    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    for one in (wd.TowardAnchor(1.0, anchor), wd.TowardAnchor(1.0, anchor, decoupled=True)):
        trained = _train(wd.sgd(0.5, one), _params(), 60, zeros)
        np.testing.assert_allclose(trained["Dense_0"]["kernel"], anchor["Dense_0"]["kernel"], atol=1e-5)
        np.testing.assert_allclose(trained["Dense_1"]["kernel"], 0, atol=1e-5)
    step = wd.sgd(0.5, wd.TowardAnchor(1.0, anchor))
    program = jax.make_jaxpr(step.update)(_params(), step.init(_params()), _params())
    assert not any(np.ndim(constant) for constant in program.consts)  # the anchor is carried, not compiled in
    kept = _train(wd.sgd(0.5, wd.TowardAnchor(1.0)), _params(), 10, zeros)
    compare.same_bits(kept, _params())


@pytest.mark.parametrize("kind", [wd.TowardAnchor, wd.SelectiveProjection])
def test_anchor_that_does_not_fit_is_refused(kind):
    head = {"Dense_1": {"kernel": np.zeros((4, 7))}}
    with pytest.raises(ValueError, match=r"anchor of .*Dense_1/kernel has shape \(4, 7\).*leave a new head out"):
        wd.sgd(0.1, kind(0.1, head)).init(_params())
    with pytest.raises(ValueError, match=r"anchor of .* has Dense_7/kernel, which the weights do not have; they are"):
        wd.sgd(0.1, kind(0.1, {"Dense_7": head["Dense_1"]})).init(_params())


@pytest.mark.usefixtures("float64")
def test_selective_projection_undoes_what_goes_on_away_against_advice():
    start, gradient = jnp.array([[1.0, 2.0]]), lambda sign: lambda params: sign * jnp.ones_like(params)
    transform = wd.sgd(0.1, wd.SelectiveProjection(1.0, jnp.zeros((1, 2))))
    # <g, w - a> > 0: the step itself goes back toward the anchor, so nothing was added to the distance.
    np.testing.assert_allclose(_train(transform, start, 1, gradient(1)), start - 0.1)
    # <g, w - a> < 0: the gradient asks to go on; it may.
    np.testing.assert_allclose(_train(transform, start, 1, gradient(-1)), start + 0.1)
    # Momentum goes on although the gradient has turned: with c = 1 the distance stays what it was.
    transform = wd.sgd(0.1, wd.SelectiveProjection(1.0, jnp.zeros((1, 2))), 0.9)
    moving = transform.init(start)._replace(base=optax.TraceState(-10.0 * jnp.ones((1, 2))))
    updates, _ = transform.update(jnp.ones((1, 2)), moving, start)
    np.testing.assert_allclose(np.linalg.norm(start + updates), np.linalg.norm(start), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_spectral_finds_the_largest_singular_value_along_training():
    transform = wd.sgd(0.0, wd.Spectral(1.0))
    params = jnp.array(KERNEL)
    state = transform.init(params)
    for _ in range(200):
        _, state = transform.update(jnp.zeros_like(params), state, params)
    np.testing.assert_allclose(np.abs(state.decay[0]), np.abs(np.linalg.svd(params)[2][0]), rtol=1e-9)  # (σ2/σ1)^400


@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
def test_proximal_l1_makes_exact_zeros_that_l1_does_not(make):
    proximal, coupled = (_train(make(0.1, rule(0.6)), num_steps=100) for rule in (wd.ProximalL1, wd.L1))
    assert np.sum(proximal["Dense_0"]["kernel"] == 0) > 3
    assert np.all(coupled["Dense_0"]["kernel"] != 0)


# What is refused.


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (wd.L2, TypeError, r"decay is the class L2 without a coefficient; write wd\.L2\(0\.01\)"),
        (wd.ElasticNet, TypeError, r"decay is the class ElasticNet .*; write wd\.ElasticNet\(0\.01, 0\.01\)"),
        (wd.NoDecay, TypeError, r"decay is the class NoDecay .*; write wd\.NoDecay\(\)"),
        (0.01, TypeError, r"decay is 0\.01, of type float.*give one of: NoDecay, L2, .* for example wd\.L2\(0\.01\)"),
        ("L2", TypeError, r"decay is 'L2', of type str.*give one of: NoDecay"),
        (None, TypeError, r"decay is None, of type NoneType.*give one of: NoDecay"),
        (wd.L2("0.1"), TypeError, r"decay = L2\(0\.1\): coefficient is '0\.1', of type str; give a number >= 0"),
        (wd.L2(None), TypeError, r"decay = L2\(None\): coefficient is None, of type NoneType; give a number >= 0"),
        (wd.L2({}), TypeError, r"coefficient is {}, of type dict; give a number >= 0"),
        (wd.L2(1j), TypeError, r"coefficient is 1j, of type complex; give a number >= 0"),
        (decay.Rule, TypeError, r"which is not a decay rule; give one of: NoDecay, L2"),
        (decay.Rule(), TypeError, r"which is not a decay rule; give one of: NoDecay, L2"),
        (wd.L2(True), TypeError, r"coefficient is True, of type bool; give a number >= 0"),
        (wd.L2(np.True_), TypeError, r"coefficient is np\.True_, of type bool; give a number >= 0"),
        (wd.L2(-0.1), ValueError, r"decay = L2\(-0\.1\): coefficient is -0\.1; a coefficient is a finite number >= 0"),
        (wd.L2(np.nan), ValueError, r"coefficient is nan; a coefficient is a finite number >= 0"),
        (wd.L1(np.inf), ValueError, r"decay = L1\(inf\): coefficient is inf; a coefficient is a finite number >= 0"),
        (wd.Decoupled(np.ones(2)), ValueError, r"coefficient is an array of shape \(2,\); give one number, or a tree"),
        (
            wd.Decoupled(jnp.ones(1)),
            ValueError,
            r"coefficient is an array of shape \(1,\); .* candidates .*wd\.logspace",
        ),
        (wd.Decoupled(jnp.array(-1.0)), ValueError, r"coefficient is -1\.0; a coefficient is a finite number >= 0"),
        (
            wd.ElasticNet(0.1, -1),
            ValueError,
            r"ElasticNet\(0\.1, -1\): l2_coefficient is -1; a coefficient is a finite",
        ),
        (wd.L2({"a": 0.1, "b": {"c": -1.0}}), ValueError, r"coefficient\[b/c\] is -1\.0; a coefficient is a finite"),
    ],
)
def test_check_says_what_came_and_what_to_do(rule, error, message):
    with pytest.raises(error, match=message):
        decay.check(rule, argument="decay")


@pytest.mark.parametrize(
    "coefficient",
    [0, 0.0, 3, 0.1, np.float32(0.1), np.int64(2), jnp.array(0.1), {"a": 0.1}, optax.linear_schedule(0.1, 0, 5)],
)
def test_check_passes_every_number_tree_and_schedule(coefficient):
    decay.check(wd.L2(coefficient), argument="decay")
    decay.check(wd.ElasticNet(coefficient, coefficient), argument="decay")


def test_check_names_the_argument():
    with pytest.raises(TypeError, match=r"grid\[3\] is 1, of type int"):
        decay.check(1, argument="grid[3]")
