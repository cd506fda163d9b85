"""Every rule and every base optimizer written again in numpy, and small trainings, for the tests of the rules.

`EXAMPLES` has a rule's formula, its coefficients for a test and the coefficients at which it does nothing; `BASES` an
optimizer of the library next to the same one in optax and in numpy.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import weightdecay as wd
from weightdecay import decay
from weightdecay.decay.elementwise import ElementwiseRule


def _soft(z, t):
    """Soft threshold."""
    return np.sign(z) * np.maximum(np.abs(z) - t, 0)


def unit_columns(w):
    """Weights into each output unit, as the columns of a matrix; an array of one dimension has one number per unit."""
    return w.reshape(-1, w.shape[-1])


def _group_lasso(z, c, step_size):
    """Minimizer of each column, from the root of the equation of its length: |D z / (D r + t)| = 1."""
    columns, threshold = unit_columns(z), c * np.sqrt(z.size / z.shape[-1])
    diagonals = 1 / np.broadcast_to(unit_columns(np.broadcast_to(step_size, z.shape)), columns.shape)
    moved = np.zeros_like(columns)
    for j, (column, d) in enumerate(zip(columns.T, diagonals.T, strict=True)):

        def excess(length, column=column, d=d):
            return np.linalg.norm(d * column / (d * length + threshold)) - 1

        if excess(0) > 0:
            length = optimize.brentq(excess, 0, np.linalg.norm(column) + 1, xtol=1e-15)
            moved[:, j] = d * column * length / (d * length + threshold)
    return moved.reshape(z.shape)


def _orthogonal(w):
    """WᵀW - I of a kernel as a matrix."""
    return unit_columns(w).T @ unit_columns(w) - np.eye(w.shape[-1])


def _top(w):
    """σ1 u1 v1ᵀ of a kernel as a matrix."""
    u, s, v = np.linalg.svd(unit_columns(w))
    return s[0] * np.outer(u[:, 0], v[0]).reshape(w.shape)


def max_norm(z, bound):
    """Each unit's incoming weights, scaled to a norm of at most the bound."""
    lengths = np.linalg.norm(unit_columns(z), axis=0)
    return z * np.minimum(1, bound / lengths)


def _adaptive(at, c):
    """What `Adaptive` removes."""
    at.memory["strength"] = 0.1 * at.memory.get("strength", 0) + 0.9 * c * at.gradient_norm / at.weight_norm
    return at.eta * at.memory["strength"] * at.w


def _constrained(z, at, bound, update_rate):
    """Where `Constrained` moves the weights."""
    at.memory["multiplier"] = max(0, at.memory.get("multiplier", 0) + update_rate * (np.sum(z**2) - bound))
    return z - at.memory["multiplier"] * 2 * z


def _selective_projection(z, at, c):
    """Where `SelectiveProjection` moves the weights."""
    before, after = np.linalg.norm(at.w - at.w0), np.linalg.norm(z - at.w0)
    share = np.clip((after - before) / after, 0, 1)
    return z - c * share * (z - at.w0) if np.sum(at.g * (at.w - at.w0)) > 0 else z


def _toward_average(at, c, decay):
    """What `TowardAverage` removes."""
    at.memory["average"] = decay * at.memory.get("average", at.w0) + (1 - decay) * at.w
    return at.eta * c * (at.w - at.memory["average"])


def _hyperball(z, at):
    """Where `Hyperball` moves a matrix; a vector stays where it is."""
    if z.ndim < 2:
        return z
    radius = np.linalg.norm(at.w0)
    target = at.w - at.eta * radius * at.u / np.linalg.norm(at.u)
    return radius * target / np.linalg.norm(target)


def _radial_brake(z, at, c):
    """Where `RadialBrake` moves the weights."""
    before, after = np.linalg.norm(at.w), np.linalg.norm(z)
    return z / after * (before + (c if after > before else 1) * (after - before))


def _huber_map(z, t, delta):
    """Minimizer of (y - z)²/2 + t huber(y)."""
    return np.where(np.abs(z) <= delta * (1 + t), z / (1 + t), z - t * delta * np.sign(z))


def mcp_map(z, t, c, gamma):
    """Minimizer of (y - z)²/2 + t mcp(y): the best of 0, of z, and of the point between them where the slope is 0."""
    between = np.sign(z) * np.clip((np.abs(z) - t * c) / np.where(t < gamma, 1 - t / gamma, np.inf), 0, gamma * c)
    choices = np.stack([np.zeros_like(z), between, z])
    penalty = np.where(np.abs(choices) < gamma * c, c * np.abs(choices) - choices**2 / (2 * gamma), gamma * c**2 / 2)
    best = np.argmin((choices - z) ** 2 / 2 + t * penalty, axis=0)
    return np.take_along_axis(choices, best[None], 0)[0]


def mcp(w, c, gamma):
    """Minimax concave penalty, as the integral of its slope max(c - |w| / gamma, 0)."""
    return np.sum(np.where(np.abs(w) <= gamma * c, c * np.abs(w) - w**2 / (2 * gamma), gamma * c**2 / 2))


class Example(NamedTuple):
    """A rule written again in numpy, with coefficients to run it at."""

    coefficients: tuple[float, ...]
    neutral: tuple[float, ...] | None = (0.0,)  # where it does nothing; None = nowhere
    static: tuple = ()  # further arguments
    penalty: Callable = lambda w, *c: 0
    pull: Callable = lambda w, w0, *c: 0  # what is added to the gradient
    shrink: Callable = lambda at, *c: 0  # what is subtracted in addition to the step
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
        pull=lambda w, w0, c: 4 * c * (unit_columns(w) @ _orthogonal(w)).reshape(w.shape) if w.ndim > 1 else 0,
    ),
    "Spectral": Example(
        (0.3,),
        static=(200,),  # iterations: as good as exact
        penalty=lambda w, c: c / 2 * np.linalg.norm(unit_columns(w), 2) ** 2 if w.ndim > 1 else 0,
        pull=lambda w, w0, c: c * _top(w) if w.ndim > 1 else 0,
    ),
    "TowardAnchor": Example((0.3,), pull=lambda w, w0, c: c * (w - w0)),
    "Decoupled": Example((0.3,), shrink=lambda at, c: at.eta * c * at.w),
    "Independent": Example((0.05,), shrink=lambda at, c: at.scale * c * at.w),
    "Corrected": Example((0.3,), shrink=lambda at, c: at.eta**2 * c / 0.1 * at.w),
    "Cautious": Example((0.3,), shrink=lambda at, c: at.eta * c * (at.u * at.w >= 0) * at.w),
    "Stable": Example((0.3,), shrink=lambda at, c: at.eta * c / np.sqrt(at.mean_second_moment) * at.w),
    "Adaptive": Example((0.3,), shrink=_adaptive),
    "TowardAverage": Example((0.3, 0.8), (0.0, 0.8), shrink=_toward_average),
    "SODA": Example((0.7, 5), (0.0, 5), shrink=lambda at, c, fade: (at.k < fade) * c * (at.w - at.w0) / (at.k + 2)),
    "RelativeStep": Example(
        (4.5,),
        shrink=lambda at, c: at.eta * at.u * (max(1, c * np.linalg.norm(at.w) / np.linalg.norm(at.u)) - 1),
    ),
    "ProximalL1": Example(
        (0.3,),
        penalty=lambda w, c: c * np.sum(np.abs(w)),
        move=lambda z, at, c: _soft(z, at.eta * c / at.diagonal),
    ),
    "ProximalL2": Example(
        (0.3,), penalty=lambda w, c: c / 2 * np.sum(w**2), move=lambda z, at, c: z / (1 + at.eta * c / at.diagonal)
    ),
    "ProximalElasticNet": Example(
        (0.2, 0.3),
        (0.0, 0.0),
        penalty=lambda w, c1, c2: c1 * np.sum(np.abs(w)) + c2 / 2 * np.sum(w**2),
        move=lambda z, at, c1, c2: _soft(z, at.eta * c1 / at.diagonal) / (1 + at.eta * c2 / at.diagonal),
    ),
    "ProximalGroupLasso": Example(
        (0.3,),
        penalty=lambda w, c: c * np.sqrt(w.size / w.shape[-1]) * np.sum(np.linalg.norm(unit_columns(w), axis=0)),
        move=lambda z, at, c: _group_lasso(z, c, at.eta / at.diagonal),
    ),
    "ProximalHuber": Example(
        (0.3, 0.5),
        (0.0, 0.5),
        penalty=lambda w, c, d: c * np.sum(np.where(np.abs(w) < d, w**2 / 2, d * (np.abs(w) - d / 2))),
        move=lambda z, at, c, d: _huber_map(z, at.eta * c / at.diagonal, d),
    ),
    "ProximalMCP": Example(
        (0.3, 6.5),
        (0.0, 6.5),
        penalty=mcp,
        move=lambda z, at, c, gamma: mcp_map(z, at.eta / at.diagonal, c, gamma),
    ),
    "Lp": Example(
        (0.3, 1.5),
        (0.0, 1.5),
        move=lambda z, at, c, p: z / (1 + at.eta * p * c * np.abs(at.w) ** (p - 2)),
    ),
    "MaxNorm": Example((0.6,), (1e6,), move=lambda z, at, c: max_norm(z, c)),
    "NormControl": Example(
        (0.2, 0.7),
        (0.0, 0.7),
        move=lambda z, at, k, r: z - k * (1 - r * np.linalg.norm(at.w0) / np.linalg.norm(z)) * z,
    ),
    "Constrained": Example((0.6, 0.02), (1e6, 0.02), move=_constrained),
    "SelectiveProjection": Example((0.8,), move=_selective_projection),
    "Hyperball": Example((), None, move=_hyperball),
    "RadialBrake": Example((0.4,), (1.0,), move=_radial_brake),
}


ELEMENTWISE = [name for name, kind in decay.KINDS.items() if issubclass(kind, ElementwiseRule)]


def _sgd(memory, g, w, t):
    """Direction, diagonal D and second moment of SGD."""
    memory["m"] = 0.9 * memory.get("m", 0) + g
    return memory["m"], 1 - 0.9, None


def _adam(memory, g, w, t, eps=1e-8):
    """Direction, diagonal D and second moment of Adam."""
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    second = memory["v"] / (1 - 0.999 ** (t + 1))
    diagonal = np.sqrt(second) + eps
    return memory["m"] / (1 - 0.9 ** (t + 1)) / diagonal, diagonal, second


def _lion(memory, g, w, t):
    """Direction of Lion."""
    m = memory.get("m", 0)
    memory["m"] = 0.99 * m + 0.01 * g
    return np.sign(0.9 * m + 0.1 * g), None, None


def _rmsprop(memory, g, w, t):
    """Direction, diagonal D and second moment of RMSprop."""
    memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g**2
    diagonal = np.sqrt(memory["v"]) + 1e-8
    memory["m"] = 0.9 * memory.get("m", 0) + g / diagonal
    return memory["m"], (1 - 0.9) * diagonal, memory["v"]


def _lamb(memory, g, w, t):
    """Direction, diagonal D and second moment of LAMB."""
    u, diagonal, second = _adam(memory, g, w, t, eps=1e-6)
    ratio = np.linalg.norm(w) / np.linalg.norm(u)
    return ratio * u, diagonal / ratio, second


def _muon(memory, g, w, t):
    """Direction of Muon; of Adam for an array of one dimension."""
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


REFUSED = {(base, name) for base in ("lion", "muon") for name in decay.KINDS if name.startswith("Proximal")} | {
    ("sgd", "Stable"),
    ("lion", "Stable"),
}


PAIRS = [(base, name) for base in BASES for name in decay.KINDS if (base, name) not in REFUSED]


every_rule = pytest.mark.parametrize("name", decay.KINDS)


every_pair = pytest.mark.parametrize(("base", "name"), PAIRS)


LATER = ("RadialBrake",)  # rules that have nothing to do in the first steps of `gradient`


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


# A fused product and sum are rounded once; bits can be compared where nothing is fused.
AS_WRITTEN = {"xla_disable_hlo_passes": "fusion,algsimp"}


QUICK = {"xla_backend_optimization_level": 0}  # to compile


def rule(name, coefficients=None):
    """The rule with the coefficients of its example, or others."""
    example = EXAMPLES[name]
    return decay.KINDS[name](*(example.coefficients if coefficients is None else coefficients), *example.static)


def neutral_rule(name):
    """The rule with coefficients at which it does nothing."""
    return rule(name, EXAMPLES[name].neutral)


def weaker_rule(name, scale):
    """The rule with its first coefficients times a scale; a shape parameter (delta, p, ratio ...) stays."""
    coefficients = EXAMPLES[name].coefficients
    both = name.endswith("ElasticNet")
    return rule(name, tuple(scale * c if i == 0 or both else c for i, c in enumerate(coefficients)))


def optimizer(base, rule, rate=0.1, **others):
    """An optimizer of the library with momentum where it takes one, by the name of its base."""
    return BASES[base].make(rule, rate, **others)


def params_of(dtype=None):
    """Fresh weights."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype or jnp.result_type(float)), PARAMS)


def loss(params):
    """A loss that is a sum over all weights, with minima away from 0."""
    return sum(jnp.sum(1 - jnp.cos(2 * leaf + 0.5)) / 2 for leaf in jax.tree.leaves(params))


def gradient(params):
    """Gradient of `loss`; elementwise, so that each array trains by itself."""
    return jax.tree.map(lambda leaf: jnp.sin(2 * leaf + 0.5), params)


def train(transform, params=None, num_steps=NUM_STEPS, gradient_fn=gradient):
    """Weights after some steps, one operation at a time: nothing is fused, and bits can be compared."""
    params = params_of() if params is None else params
    state = transform.init(params)
    for _ in range(num_steps):
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def scan(transform):
    """Weights of a single kernel after some steps, as one scan that can be compiled."""
    params = jnp.asarray(KERNEL)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, transform.init(params)), length=NUM_STEPS)[0][0]


scan_as_written = functools.cache(lambda transform: jax.jit(lambda: scan(transform), compiler_options=AS_WRITTEN)())


def largest_difference(one, other):
    """Largest difference between two trees of weights."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.max(np.abs(a - b)), one, other)))


@functools.cache
def undecayed(base):
    """Weights after two steps without decay."""
    return train(BASES[base].make(wd.NoDecay()), num_steps=2)


SCALES = [0.1, 0.5, 1.0]


WEIGHTS = np.array([1.0, -3.0, 0.0])


def decay_alone(transform, num_steps, weights=WEIGHTS):
    """Weights after some steps with zero gradients."""
    return train(transform, jnp.array(weights), num_steps, jnp.zeros_like)
