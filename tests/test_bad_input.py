"""Bad input to many entry points: no crash without a clear message, and no wrong result without an error.

The tables list the answers of each entry point to bad input; the properties try valid and nearly valid input at random.
What the tests of a module cover already is not repeated here.
"""

import json
import math

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings

import weightdecay as wd
from weightdecay import decay, models
from weightdecay.decay import conventions, masks, penalties, proximal, schedules
from weightdecay.search import member as member_json

pytestmark = pytest.mark.usefixtures("without_beartype")
sweep = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAN, INF, HUGE = math.nan, math.inf, 10**400
PARAMS = {
    "Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)},
    "Dense_1": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)},
}
KERNEL = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}


def refuses(make, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        make()


def updated(transform, params=PARAMS, gradients=None):
    gradients = jax.tree.map(jnp.ones_like, params) if gradients is None else gradients
    return transform.update(gradients, transform.init(params), params)[0]


# Grids.


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"seed": "012"}, TypeError, r"seed\[0\] is '012', of type str; give a seed, an integer from 0 to"),
        ({"seed": True}, TypeError, r"seed\[0\] is True, of type bool"),
        ({"seed": None}, TypeError, r"seed\[0\] is None"),
        ({"seed": 2**31}, ValueError, r"seed\[0\] is 2147483648; give a seed, an integer from 0 to"),
        ({"seed": np.uint64(2**63)}, ValueError, "give a seed, an integer from 0 to"),
        ({"seed": jax.random.key(0)}, TypeError, r"seed\[0\] is Array.*; give a seed, an integer from 0 to"),
        ({"seed": np.zeros((2, 2), int)}, TypeError, r"seed\[0\] is array\(\[0, 0\]\), of type ndarray"),
        ({"seed": {0: 1}}, TypeError, "seed is of type dict; give its values in a list"),
        ({"seed": {0, 1}}, TypeError, "seed is of type set; give its values in a list, in their order"),
        ({"momentum": np.ma.array([0.1, 0.2], mask=[0, 1])}, TypeError, "momentum is of type MaskedArray"),
        ({"learning_rate": "0.1"}, TypeError, r"learning_rate\[0\] is '0.1', of type str; a learning rate is a number"),
        ({"learning_rate": True}, TypeError, r"learning_rate\[0\] is True, of type bool"),
        ({"learning_rate": None}, TypeError, r"learning_rate\[0\] is None"),
        ({"learning_rate": NAN}, ValueError, r"learning_rate\[0\] is nan; give a finite number"),
        ({"learning_rate": 1j}, TypeError, r"learning_rate\[0\] is 1j, of type complex"),
        ({"learning_rate": HUGE}, ValueError, r"learning_rate\[0\] is 10+; give a finite number"),
        ({"learning_rate": 1e39}, ValueError, "give a finite number"),  # infinite in float32
        ({"learning_rate": 1e-50}, ValueError, "a learning rate is a number above 0"),  # 0 in float32
        ({"learning_rate": schedules.Cosine}, TypeError, r"learning_rate\[0\] is .*Cosine.*, of type type; a learning"),
        ({"learning_rate": schedules.Cosine(NAN, 9)}, ValueError, r"learning_rate\[0\].*nan"),
        ({"learning_rate": schedules.Cosine(0.1, "9")}, TypeError, r"learning_rate\[0\].*'9'"),
        ({"learning_rate": [1, 1.0]}, ValueError, "learning_rate holds 1.0 twice"),
        ({"learning_rate": [0.1, np.float32(0.1)]}, ValueError, "twice, as JAX rounds numbers"),
        ({"momentum": [0.0, -0.0]}, ValueError, "momentum holds -0.0 twice"),
        ({"momentum": 1.0}, ValueError, r"momentum\[0\] is 1.0; give a number from 0 to below 1"),
        ({"momentum": "fast"}, TypeError, r"momentum\[0\] is 'fast', of type str; give a number from 0 to below 1"),
        ({"b1": -0.1}, ValueError, r"b1\[0\] is -0.1; give a number from 0"),
        ({"b2": 1}, ValueError, r"b2\[0\] is 1; give"),
        ({"b2": [[0.9]]}, TypeError, r"b2\[0\] is \[0.9\], of type list"),
        ({"eps": -1e-8}, ValueError, r"eps\[0\] is -1e-08; give a number >= 0"),
        ({"peak_learning_rate": -1.0}, ValueError, r"peak_learning_rate\[0\] is -1.0; give a number above 0"),
        ({"size": b"small"}, TypeError, r"size\[0\] is b'small', of type bytes"),
        ({"size": np.array([0.1, {}], object)}, TypeError, r"size\[1\] is {}, of type dict; give a number"),
        ({"decay": None}, TypeError, r"decay\[0\] is None, of type NoneType, which is not a decay rule"),
        ({"decay": 0.1}, TypeError, r"decay\[0\] is 0.1, of type float, which is not a decay rule"),
        ({"decay": wd.L2}, TypeError, r"decay\[0\] is the class L2 without a coefficient"),
        ({"decay": {"a": wd.L2(0.1)}}, TypeError, "decay is of type dict; give its values in a list"),
        ({"decay": [wd.NoDecay(), wd.logspace(wd.L2, 0.1, 1, 3)]}, TypeError, r"decay\[1\] is a list of 3 .*\*wd.log"),
        ({"decay": [(wd.L2(c) for c in (0.1, 0.2))]}, TypeError, r"decay\[0\] is <generator"),
        ({"decay": [wd.L2(1), wd.L2(1.0)]}, ValueError, r"decay holds L2\(1\) twice"),
        ({"decay": [wd.L2(0.1), wd.L2(np.float32(0.1))]}, ValueError, r"decay holds L2\(0.1\) twice"),
        ({"decay": wd.L2(HUGE)}, ValueError, r"decay\[0\] = L2\(a huge number\): coefficient is 10+; a coeff"),
        ({"decay": wd.L2(1e39)}, ValueError, r"coefficient is 1e\+39; a coefficient is a finite number"),
        ({"decay": wd.L2(schedules.Cosine)}, TypeError, r"coefficient is <class .*Cosine'>, of type type; give"),
        ({"decay": wd.Masked(wd.L2(0.1), 3)}, TypeError, r"has a mask that is a function .* is one of wd.masks"),
        ({"decay": wd.Masked(wd.L2(0.1), "Dense_0")}, TypeError, "has a mask that is a function of your own"),
        ({"decay": wd.Masked(wd.L2(0.1), None)}, TypeError, r"decay\[0\].mask is None; give a mask, or the rule alone"),
    ],
)  # fmt: skip
def test_grid_refuses(axes, error, message):
    refuses(lambda: wd.Grid(**axes), error, message)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((wd.L2, "a", 1.0, 3), TypeError, "start is 'a', of type str; give one number > 0"),
        ((wd.L2, 1e-3, None, 3), TypeError, "stop is None, of type NoneType"),
        ((wd.L2, 1j, 1.0, 3), TypeError, "start is 1j, of type complex"),
        ((wd.L2, True, 1.0, 3), TypeError, "start is True, of type bool"),
        ((wd.L2, np.ones(2), 1.0, 3), ValueError, r"start is an array of shape \(2,\); give one number"),
        ((wd.L2, NAN, 1.0, 3), ValueError, "start is nan; a logarithmic axis needs ends above 0"),
        ((wd.L2, 1e-3, 1.0, "3"), TypeError, "num is '3', of type str; give an integer"),
        ((wd.L2, 1e-3, 1.0, 3.0), TypeError, "num is 3.0, of type float"),
        ((wd.L2, 1e-3, 1.0, None), TypeError, "num is None"),
        ((wd.L2, 1e-3, 1.0, True), TypeError, "num is True, of type bool"),
        (("L2", 1e-3, 1.0, 3), TypeError, "rule is 'L2'; give a class such as wd.L2"),
        ((wd.NoDecay, 1e-3, 1.0, 3), TypeError, "rule is NoDecay, which does not take one coefficient"),
    ],
)
def test_logspace_refuses(arguments, error, message):
    refuses(lambda: wd.logspace(*arguments), error, message)


# Rules and optimizers.


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wd.PerLayer([0.1]), TypeError, r"coefficients are \[0.1\], of type list; give a dictionary"),
        (lambda: wd.PerLayer(0.1), TypeError, "coefficients are 0.1, of type float; give a dictionary"),
        (lambda: wd.PerLayer({1: 0.1}), TypeError, r"coefficients are \{1: 0.1\}"),
        (lambda: wd.L2(wd.PerLayer({"a": None, "b": 0.1})), TypeError, r"coefficient\[a\] is None, of type NoneType"),
        (lambda: wd.L2(wd.PerLayer({"a": {"b": 0.1}})), TypeError, r"coefficient\[a\] is \{'b': 0.1\}, of type dict"),
        (lambda: wd.L2(wd.PerLayer({"a": [0.1]})), TypeError, r"coefficient\[a\] is \[0.1\], of type list"),
        (lambda: wd.L2(wd.PerLayer({"a": 0.1}, NAN)), ValueError, r"coefficient\[default\] is nan"),
        (lambda: wd.L2(jax.random.key(0)), TypeError, "coefficient is Array.*give a number >= 0"),
        (lambda: wd.L2(np.ma.masked), TypeError, "coefficient is masked, of type MaskedConstant; give a number"),
        (lambda: wd.L2(HUGE), ValueError, "a coefficient is a finite number"),
        (lambda: wd.L2({"Dense_0": object()}), TypeError, r"coefficient\[Dense_0\] is <object.*give a number"),
        (lambda: wd.Elimination(0.1, 1e-50), ValueError, "scale is 1e-50; a coefficient is a finite number > 0"),
        (lambda: wd.MaxNorm(0), ValueError, "bound is 0; a coefficient is a finite number > 0"),
        (lambda: wd.Spectral(0.1, 2.0), ValueError, "num_iterations is 2.0, of type float; give an integer"),
        (lambda: wd.TowardAnchor(0.1, decoupled=1), TypeError, "decoupled is 1; give True or False"),
        (lambda: wd.Masked(wd.L2(0.1), None), TypeError, "decay.mask is None"),
        (lambda: wd.Masked(wd.masks.kernels, wd.L2(0.1)), TypeError, "decay.rule is <function kernels"),
        (lambda: wd.L2([0.1]), ValueError, r"coefficient of L2\(\[0.1\]\) is a tree that does not fit the weights"),
        (lambda: wd.L2({"Dense_0": None, "Dense_1": 0.1}), ValueError, "coefficient of L2.*does not fit the weights"),
        (lambda: wd.L2(lambda step: None), TypeError, "coefficient is the schedule <lambda>, whose value is None"),
        (lambda: wd.L2(lambda step: jnp.ones(3)), ValueError, r"whose value is an array of shape \(3,\); give"),
        (lambda: wd.L2(lambda step: -0.1), ValueError, "whose value is -0.1; give one number >= 0"),
        (lambda: wd.TowardAnchor(0.1, 3), ValueError, r"anchor of TowardAnchor has \(a bare array\), which"),
        (lambda: wd.Masked(wd.L2(0.1), "Dense_0"), TypeError, "mask has a leaf 'Dense_0' of type str"),
        (lambda: wd.Masked(wd.L2(0.1), lambda params: 3), TypeError, "mask has a leaf 3 of type int"),
        (lambda: wd.Masked(wd.L2(0.1), lambda params: None), ValueError, "mask is a tree that does not fit"),
    ],
)  # fmt: skip
def test_rule_is_refused(make, error, message):
    refuses(lambda: updated(wd.sgd(0.1, make())), error, message)


@pytest.mark.parametrize("make", [wd.sgd, wd.adam, wd.lion, wd.rmsprop, wd.lamb, wd.muon])
@pytest.mark.parametrize(
    ("learning_rate", "error", "message"),
    [
        (None, TypeError, "learning_rate is None; give one number >= 0, or a schedule"),
        (1j, TypeError, "learning_rate is 1j"),
        ([0.1], TypeError, r"learning_rate is \[0.1\]"),
        ({"a": 0.1}, TypeError, "learning_rate is {'a': 0.1}"),
        (np.True_, TypeError, "learning_rate is np.True_"),
        (schedules.Cosine, TypeError, "learning_rate is <class"),
        (HUGE, ValueError, "learning_rate is 10+; give a finite number"),
        (1e39, ValueError, r"learning_rate is 1e\+39; give a finite number"),
        (schedules.Cosine(-0.1, 10), ValueError, "learning_rate = Cosine.*start is -0.1; give a finite number >= 0"),
    ],
)
def test_learning_rate_is_refused(make, learning_rate, error, message):
    refuses(lambda: make(learning_rate, wd.L2(0.1)), error, message)


MOMENTA = {
    "sgd": ("momentum",),
    "adam": ("b1", "b2"),
    "lion": ("b1", "b2"),
    "rmsprop": ("b2", "momentum"),
    "lamb": ("b1", "b2"),
    "muon": ("momentum", "b1", "b2"),
}
WITH_EPS = ("adam", "rmsprop", "lamb", "muon")


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, arguments in MOMENTA.items() for argument in arguments]
)
def test_optimizer_refuses_a_momentum(name, argument):
    make = lambda value: getattr(wd, name)(0.1, wd.L2(0.1), **{argument: value})  # noqa: E731
    for value in (1.0, 1.5, -0.1, NAN, np.float32(1)):
        refuses(
            lambda value=value: make(value), ValueError, f"{argument} is {value}; give one number from 0 to below 1"
        )
    for value in ("0.9", None, True, 1j, [0.9]):
        refuses(
            lambda value=value: make(value), TypeError, rf"{argument} is .*, of type {type(value).__name__}; give one"
        )
    refuses(lambda: make(np.ones(2)), ValueError, rf"{argument} is an array of shape \(2,\)")
    jax.jit(lambda value: make(value).init(PARAMS))(0.5)  # a traced value passes


@pytest.mark.parametrize("name", WITH_EPS)
def test_optimizer_refuses_an_eps(name):
    for value in (-1e-8, NAN, INF):
        refuses(
            lambda value=value: getattr(wd, name)(0.1, wd.L2(0.1), eps=value), ValueError, f"eps is {value}; give one"
        )
    refuses(lambda: getattr(wd, name)(0.1, wd.L2(0.1), eps="small"), TypeError, "eps is 'small', of type str")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wd.sgd(0.1, wd.L2(0.1), 0.9, "no"), TypeError, "nesterov is 'no', of type str; give True or False"),
        (lambda: wd.muon(0.1, wd.L2(0.1), nesterov=1), TypeError, "nesterov is 1, of type int"),
        (
            lambda: wd.muon(0.1, wd.L2(0.1), adam_decay=3),
            TypeError,
            "adam_decay is 3, of type int, which is not a decay",
        ),
        (lambda: wd.optimizer(None, 0.1, wd.L2(0.1)), TypeError, "base is None, of type NoneType; give an optax"),
        (lambda: wd.optimizer(optax.scale_by_adam, 0.1, wd.L2(0.1)), TypeError, "base is <function.*not the function"),
        (lambda: wd.optimizer(optax.identity(), 0.1, wd.L2(0.1), metric=3), TypeError, "metric is 3, of type int"),
        (
            lambda: wd.optimizer(optax.identity(), 0.1, wd.L2(0.1), second_moments=3),
            TypeError,
            "second_moments is 3, of type int; give a function",
        ),
        (
            lambda: wd.optimizer(optax.scale_by_adam(), 0.1, wd.ProximalL1(0.1), metric=lambda state: 1.0),
            ValueError,
            "the tree that preconditioner_diagonal returns does not fit the weights",
        ),
        (
            lambda: wd.optimizer(optax.scale_by_adam(), 0.1, wd.Stable(0.1), second_moments=lambda state: 1.0),
            ValueError,
            "the tree that second_moments returns does not fit the weights",
        ),
        (
            lambda: wd.sgd(lambda step: "x", wd.L2(0.1)),
            TypeError,
            "learning_rate is the schedule <lambda>, whose value",
        ),
        (lambda: wd.sgd(lambda step: jnp.ones(3), wd.L2(0.1)), ValueError, r"whose value is an array of shape \(3,\)"),
        *(
            (
                lambda peak=peak: wd.sgd(schedules.Cosine(0.1, 9), wd.Independent(0.1), peak_learning_rate=peak),
                error,
                "peak_learning_rate is .*; give one number > 0",
            )
            for peak, error in [
                (0, ValueError),
                (-1.0, ValueError),
                (NAN, ValueError),
                (INF, ValueError),
                ("0.1", TypeError),
                (schedules.Cosine(0.1, 9), TypeError),
                (np.ones(2), ValueError),
            ]
        ),
        (lambda: wd.sgd(0.1, wd.L2(0.1), mask=None), ValueError, "mask is a tree that does not fit the weights"),
        (lambda: wd.sgd(0.1, wd.L2(0.1), mask="kernels"), TypeError, "mask has a leaf 'kernels' of type str"),
        (lambda: wd.sgd(0.1, wd.L2(0.1), mask=np.array([True])), TypeError, "mask has a leaf array.* of type ndarray"),
    ],
)
def test_optimizer_is_refused(make, error, message):
    refuses(lambda: updated(make()), error, message)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"gradients": {"a": 1}},
            ValueError,
            "gradients does not fit the weights: .*Give a tree in the structure of par",
        ),
        ({"gradients": None}, ValueError, "gradients does not fit the weights"),
        (
            {"gradients": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}},
            ValueError,
            r"gradients have shape \(3,\) for kernel of shape \(2, 3\)",
        ),
        ({"state": ()}, TypeError, "state is of type tuple; give what init"),
        ({"state": None}, TypeError, "state is of type NoneType; give what init"),
        ({"params": {"a": jnp.ones(2)}}, ValueError, "gradients does not fit the weights"),
    ],
)
def test_update_refuses(change, error, message):
    transform = wd.sgd(0.1, wd.L2(0.1))
    arguments = {"gradients": KERNEL, "state": transform.init(KERNEL), "params": KERNEL, **change}
    refuses(lambda: transform.update(arguments["gradients"], arguments["state"], arguments["params"]), error, message)


@pytest.mark.slow
@pytest.mark.parametrize("name", MOMENTA)
def test_optimizer_refuses_weights_that_are_not_floats_and_keeps_float16(name):
    transform = getattr(wd, name)(0.1, wd.Decoupled(0.1))
    for dtype in (jnp.int32, bool, complex):
        wrong = {"kernel": jnp.ones((2, 2), dtype)}
        refuses(lambda wrong=wrong: transform.init(wrong), TypeError, "params has .* of dtype .*; weights are floats")
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), PARAMS)
    assert all(
        leaf.dtype == jnp.float16 and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updated(transform, low))
    )


def test_independent_at_a_constant_rate_uses_the_peak_that_is_passed():
    # optax.inject_hyperparams turns a schedule into a number: then the fraction is c η / peak.
    zeros = jax.tree.map(jnp.zeros_like, KERNEL)
    updates = updated(wd.sgd(0.1, wd.Independent(0.5), peak_learning_rate=0.4), KERNEL, zeros)
    np.testing.assert_allclose(updates["kernel"], -0.5 * 0.1 / 0.4, rtol=1e-6)  # float32


# Penalties and proximal maps.


PENALTIES = {
    **{name: getattr(penalties, name) for name in ("l1", "l2", "elastic_net", "huber", "elimination")},
    **{name: getattr(penalties, name) for name in ("orthogonal", "spectral", "group_lasso")},
    "lp": lambda params, mask=None: penalties.lp(params, mask, p=0.5),
}
PROXIMAL = {
    "l1": lambda params, coefficient, step_size: proximal.l1(params, coefficient, step_size),
    "l2": lambda params, coefficient, step_size: proximal.l2(params, coefficient, step_size),
    "elastic_net": lambda params, coefficient, step_size: proximal.elastic_net(params, 0.1, coefficient, step_size),
    "huber": lambda params, coefficient, step_size: proximal.huber(params, coefficient, step_size),
    "group_lasso": lambda params, coefficient, step_size: proximal.group_lasso(params, coefficient, step_size),
}
NOT_WEIGHTS = ["x", np.array([None]), jax.random.key(0), jnp.ones((2, 2), complex), jnp.ones((2, 2), bool), True]


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_refuses_values_that_are_not_weights_or_masks(name):
    for wrong in NOT_WEIGHTS:
        refuses(
            lambda wrong=wrong: PENALTIES[name]({"kernel": wrong}), TypeError, "params has kernel of dtype .*convert it"
        )
        refuses(lambda wrong=wrong: PENALTIES[name](wrong), TypeError, "params has an array of dtype")
    for mask in (1, 0.5, NAN, "x", np.array(1), jnp.array([True, False, True]), {"kernel": 1, "bias": 0}):
        refuses(
            lambda mask=mask: PENALTIES[name](KERNEL, mask), TypeError, "mask has a leaf .*holds True .included. or F"
        )
    refuses(
        lambda: PENALTIES[name](KERNEL, masks.kernels), TypeError, r"call the function, as in mask=wd\.masks\.kernels\("
    )
    assert PENALTIES[name]({}) == PENALTIES[name](None) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_of_integers_and_of_low_precision_does_not_overflow(name):
    values = np.array([[100, 100], [0, 60]])
    expected = PENALTIES[name](values.astype(np.float32))
    assert np.isfinite(expected)
    for dtype in (np.int8, np.uint8, np.int32, np.float16):
        np.testing.assert_array_equal(PENALTIES[name](values.astype(dtype)), expected)
    large = jnp.full((8, 8), 6e4, jnp.float16)  # a square of it is infinite in float16
    np.testing.assert_array_equal(PENALTIES[name](large), PENALTIES[name](large.astype(jnp.float32)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: penalties.elimination(KERNEL, scale=0.0), ValueError, "scale is 0.0; give one number > 0"),
        (lambda: penalties.elimination(KERNEL, scale="x"), TypeError, "scale is 'x', of type str"),
        (lambda: penalties.huber(KERNEL, delta=-1.0), ValueError, "delta is -1.0; give one number >= 0"),
        (lambda: penalties.lp(KERNEL, p=0.0), ValueError, "p is 0.0; give one number > 0"),
        (lambda: penalties.lp(KERNEL, p=NAN), ValueError, "p is nan; give one number > 0"),
        (lambda: penalties.lp(KERNEL, p=jnp.ones(3)), ValueError, r"p is an array of shape \(3,\)"),
        (lambda: penalties.elastic_net(KERNEL, l1_coefficient="x"), TypeError, "l1_coefficient is 'x', of type str"),
        (lambda: wd.penalized(3, penalties.l2), TypeError, "loss_fn is 3, of type int; give a function"),
        (lambda: wd.penalized(len, wd.L2(0.1)), TypeError, "penalty_fn is L2.*, of type L2; give a function"),
        (lambda: wd.penalized(len, "l2"), TypeError, "penalty_fn is 'l2', of type str"),
        *(
            (
                lambda c=c: wd.penalized(lambda w, x: 1.0, penalties.l2)(KERNEL, None, c),
                error,
                "coefficient is .*; give",
            )
            for c, error in [(-1.0, ValueError), ("x", TypeError), (None, TypeError), (np.ones(2), ValueError)]
        ),
        (
            lambda: wd.penalized(lambda w, x: jnp.ones(4), penalties.l2)(KERNEL, None, 0.1),
            ValueError,
            r"loss_fn returns an array of shape \(4,\); it must return one number",
        ),
        (lambda: proximal.huber(KERNEL, 0.1, 0.1, delta=-1.0), ValueError, "delta is -1.0; give one number >= 0"),
        (lambda: proximal.huber(KERNEL, 0.1, 0.1, delta="x"), TypeError, "delta is 'x', of type str"),
        (lambda: proximal.elastic_net(KERNEL, -0.1, 0.1, 0.1), ValueError, "l1_coefficient is -0.1; give one"),
        (lambda: proximal.elastic_net(KERNEL, 0.1, None, 0.1), TypeError, "l2_coefficient is None, of type NoneType"),
        (lambda: proximal.max_norm(KERNEL, -1.0), ValueError, "bound is -1.0; give one number >= 0"),
        (lambda: proximal.max_norm(KERNEL, None), ValueError, "bound is a tree that does not fit"),
        (
            lambda: proximal.max_norm(KERNEL, jnp.ones(7)),
            ValueError,
            r"bound has shape \(7,\) for bias of shape \(3,\)",
        ),
    ],
)
def test_penalties_and_maps_refuse_numbers(make, error, message):
    refuses(make, error, message)


@pytest.mark.parametrize("name", PROXIMAL)
def test_map_refuses(name):
    move = PROXIMAL[name]
    for wrong in [*NOT_WEIGHTS, 3, jnp.ones((2, 2), int)]:  # fractions of integers would be truncated
        refuses(lambda wrong=wrong: move({"kernel": wrong}, 0.1, 0.1), TypeError, "params has kernel of dtype")
    for c in (-0.1, np.float32(-1), jnp.ones(3)):
        refuses(lambda c=c: move(KERNEL, c, 0.1), ValueError, "coefficient is .*; give one number >= 0")
    for c in ("x", None, True, {"kernel": 0.1, "bias": 0.1}):
        refuses(lambda c=c: move(KERNEL, c, 0.1), TypeError, "coefficient is .*; give one number >= 0")
    refuses(lambda: move(KERNEL, 0.1, -0.1), ValueError, "step_size is -0.1; give one number >= 0")
    for step_size in ("x", True, 1j, {"kernel": 0.1, "bias": "x"}):
        refuses(lambda step_size=step_size: move(KERNEL, 0.1, step_size), TypeError, "step_size is .*; give one number")
    for step_size in (jnp.ones(7), {"kernel": jnp.ones((5, 2, 3)), "bias": 0.1}):  # the second would add an axis
        refuses(
            lambda step_size=step_size: move(KERNEL, 0.1, step_size), ValueError, r"step_size has shape .* of shape"
        )
    assert move({}, 0.1, 0.1) == {}


# Masks, conversions, schedules.


@pytest.mark.parametrize("mask", [masks.kernels, masks.everything, masks.first, masks.last, masks.hidden])
@pytest.mark.parametrize("wrong", ["x", {"a": "x"}, models.MLP(), masks, object()])
def test_mask_refuses_values_that_are_not_weights(mask, wrong):
    refuses(lambda: mask(wrong), TypeError, "params holds .*, of type .*; give weights: a tree of arrays")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: masks.describe(models.MLP()), TypeError, "params holds .*, of type MLP; give weights"),
        (lambda: masks.describe(KERNEL, decay=3), TypeError, "decay is 3, of type int; give a rule"),
        (lambda: masks.describe(KERNEL, decay=wd.L2), TypeError, "decay is <class .*; give a rule"),
        (lambda: masks.describe(KERNEL, decay="L2"), TypeError, "decay is 'L', of type str; give a rule"),
        (lambda: masks.describe(KERNEL, decay=wd.L2("x")), TypeError, "decay has the coefficient 'x', of type str"),
        (lambda: masks.matching("a")({}), ValueError, r"the pattern 'a' matches no weight; these are: \(none\)"),
        (lambda: masks.matching("a")(jnp.ones(3)), ValueError, r"matches no weight; these are: \(a bare array\)"),
        (
            lambda: wd.convert(HUGE, "L2", "keras.L2"),
            ValueError,
            r"coefficient \(coefficient of L2\) is an integer too",
        ),
        (lambda: wd.convert(0.1, "L2", "L2", batch_size=HUGE), ValueError, "batch_size is an integer too large"),
        (
            lambda: wd.convert(np.array("x"), "L2", "keras.L2"),
            TypeError,
            "coefficient .* is an array of dtype <U1; give",
        ),
        (lambda: wd.convert(np.array(True), "L2", "keras.L2"), TypeError, "coefficient .* is an array of dtype bool"),
        (lambda: wd.convert(np.array(None), "L2", "keras.L2"), TypeError, "coefficient .* is an array of dtype object"),
        (
            lambda: wd.convert(wd.L2(0.1), "L2", "keras.L2"),
            TypeError,
            "coefficient .* of type L2; give a finite number",
        ),
        (
            lambda: wd.convert(0.1, "", "L2"),
            ValueError,
            "source is '', which is not a known convention. The conventions are: L2",
        ),
        (lambda: wd.convert((0.1, "x"), "ElasticNet", "keras.L1L2"), TypeError, "l2_coefficient of ElasticNet. is 'x'"),
        (
            lambda: schedules.check(schedules.Constant(HUGE), argument="a"),
            ValueError,
            "value is 10+; give a finite number",
        ),
        (
            lambda: schedules.check(schedules.Constant(1e39), argument="a"),
            ValueError,
            r"value is 1e\+39; give a finite",
        ),
        (lambda: schedules.check(schedules.Constant(jax.random.key(0)), argument="a"), TypeError, "value is Array"),
        (lambda: schedules.check(schedules.Constant({"a": 1}), argument="a"), TypeError, "value is .*, of type dict"),
        (
            lambda: schedules.check(schedules.Constant(schedules.Constant(1)), argument="a"),
            TypeError,
            "of type Constant",
        ),
    ],
)
def test_masks_conversions_and_schedules_refuse(make, error, message):
    refuses(make, error, message)


# Models and data.


DATA = wd.Data((np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0])), (np.zeros((2, 3), np.float32), np.array([0, 1])))


def linear(key, inputs):
    return {"kernel": jnp.zeros((inputs.shape[1], 3))}


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda: wd.models.MLP((0,)), ValueError, r"model.hidden\[0\] is 0; give an integer of at least 1"),
        (lambda: wd.models.MLP((4, -1)), ValueError, r"model.hidden\[1\] is -1"),
        (lambda: wd.models.MLP((2.0,)), TypeError, r"model.hidden\[0\] is 2.0, of type float; give an integer"),
        (lambda: wd.models.MLP((True,)), TypeError, r"model.hidden\[0\] is True"),
        (lambda: wd.models.MLP(("4",)), TypeError, r"model.hidden\[0\] is '4'"),
        (lambda: wd.models.MLP("64"), TypeError, "model.hidden is '64'; give one width per hidden layer"),
        (lambda: wd.models.MLP(64), TypeError, "model.hidden is 64; give one width per hidden layer"),
        (lambda: wd.models.MLP(None), TypeError, "model.hidden is None"),
        (lambda: wd.models.MLP((4,), num_outputs=0), ValueError, "model.num_outputs is 0"),
        (lambda: wd.models.MLP((4,), num_outputs=3.0), TypeError, "model.num_outputs is 3.0"),
        (lambda: wd.models.MLP((4,), activation=3), TypeError, "model.activation is 3; give a function"),
        (lambda: wd.models.MLP((4,), activation="rely"), ValueError, "model.activation is 'rely'; give one of"),
        (lambda: wd.Model(None, None), TypeError, "model.init is None; give a function"),
        (lambda: wd.Model(linear, 3), TypeError, "model.apply is 3; give a function"),
        (
            lambda: wd.Model(lambda key, x: None, lambda w, x: x),
            ValueError,
            "model.init returns None, which holds no weights",
        ),
        (
            lambda: wd.Model(lambda key, x: {"step": jnp.zeros((), int)}, lambda w, x: x),
            TypeError,
            "params has step of dtype int32",
        ),
        (lambda: wd.Model(lambda key, x: {"a": "x"}, lambda w, x: x), TypeError, "params has a of dtype str"),
        (
            lambda: wd.Model(linear, lambda w, x: None),
            TypeError,
            "model returns outputs of type NoneType, and loss .* takes one array",
        ),
        (lambda: wd.Model(linear, lambda w, x: (x @ w["kernel"], 1)), TypeError, "model returns outputs of type tuple"),
        (lambda: wd.Model(linear, lambda w, x: {"a": x}), TypeError, "model returns outputs of type dict"),
        (
            lambda: wd.Model(linear, lambda w, x: (x @ w["kernel"]).T),
            ValueError,
            r"outputs of shape \(3, 2\) for 2 examples",
        ),
        (
            lambda: wd.Model(linear, lambda w, x: jnp.sum(w["kernel"])),
            ValueError,
            r"outputs of shape \(\) for 2 examples",
        ),
        (
            lambda: wd.Model(linear, lambda w, x: jnp.zeros((len(x), 3), int)),
            TypeError,
            "outputs of dtype int32; return floats",
        ),
    ],
)
def test_fit_refuses_a_model(model, error, message):
    arguments = {"decay": wd.NoDecay(), "learning_rate": 0.1, "num_steps": 1, "batch_size": 2, "progress": False}
    refuses(lambda: wd.fit(model(), DATA, **arguments), error, message)


# Properties.


NUMBERS = [float, np.float32, np.float64, np.array, jnp.asarray, np.float16, jnp.bfloat16]
COEFFICIENTS = st.floats(0, 10).map(lambda value: round(value, 3))
FORMULAS = {  # w <- ... with η = 0.5, g = 1
    "L2": lambda w, c: w - 0.5 * (1 + c * w),
    "L1": lambda w, c: w - 0.5 * (1 + c * np.sign(w)),
    "Decoupled": lambda w, c: w - 0.5 * (1 + c * w),
    "Independent": lambda w, c: w - 0.5 - c * w,
    "ProximalL2": lambda w, c: (w - 0.5) / (1 + 0.5 * c),
    "ProximalL1": lambda w, c: np.sign(w - 0.5) * np.maximum(np.abs(w - 0.5) - 0.5 * c, 0),
}


@pytest.mark.slow
@sweep
@given(st.sampled_from(sorted(FORMULAS)), st.sampled_from(NUMBERS), COEFFICIENTS, COEFFICIENTS, st.booleans())
def test_rule_takes_any_number_as_its_coefficient(name, kind, first, second, prefix):
    weights = {name: jnp.array([[1.0, -2.0], [0.25, 3.0]]) for name in ("a", "b")}
    first, second = kind(first), kind(second if prefix else first)
    rule = decay.KINDS[name]({"a": first, "b": second} if prefix else first)
    updates = updated(wd.sgd(0.5, rule), weights)
    for layer, c in {"a": first, "b": second}.items():
        expected = FORMULAS[name](np.asarray(weights[layer], float), float(c))
        # A few roundings of float32 in numbers of at most 20.
        np.testing.assert_allclose(weights[layer] + updates[layer], expected, rtol=1e-5, atol=1e-5)


BAD_NUMBERS = st.sampled_from(
    [
        *(NAN, INF, -INF, -1.0, -1e-30, HUGE, -HUGE, 1e39, None, "0.1", b"1", True, np.True_, 1j, [0.1], (), {}, set()),
        *(object(), np.array("x"), np.array(None), np.ones(2), jnp.ones(1), jnp.array(-1.0), jnp.array(NAN)),
        np.datetime64("2020"),
    ]
)


@sweep
@given(
    st.sampled_from([name for name, kind in decay.KINDS.items() if kind.coefficient_names()]), BAD_NUMBERS, st.data()
)
def test_rule_refuses_any_bad_number_as_any_coefficient(name, number, data):
    kind = decay.KINDS[name]
    names = list(kind(*(0.5 for _ in kind.required())).coefficients())
    chosen = data.draw(st.sampled_from(names))
    if chosen in ("warm_start", "fade") and number is None:
        return
    rule = kind(**{name_: number if name_ == chosen else 0.5 for name_ in names})
    with pytest.raises((TypeError, ValueError), match=rf"decay = {name}.*: {chosen}|{chosen} of {name}"):
        wd.adam(0.1, rule).init(PARAMS)


AXES = st.fixed_dictionaries(
    {"learning_rate": st.lists(st.floats(2**-20, 10, width=32), min_size=1, max_size=4, unique=True)},
    optional={
        "seed": st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4, unique=True),
        "momentum": st.lists(st.floats(0, 0.75, width=32), min_size=1, max_size=3, unique=True),
        "nesterov": st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
        "decay": st.lists(
            st.one_of(
                st.builds(wd.L2, COEFFICIENTS),
                st.builds(wd.ElasticNet, COEFFICIENTS, COEFFICIENTS),
                st.builds(lambda *c: wd.L1(list(c)), COEFFICIENTS, COEFFICIENTS),
                st.builds(lambda *c: wd.L1(c), COEFFICIENTS, COEFFICIENTS),
                st.builds(lambda a, b: wd.Decoupled({"a": a, "b": {"c": b}}), COEFFICIENTS, COEFFICIENTS),
                st.builds(lambda a, b: wd.L2(wd.PerLayer({"a": a}, b)), COEFFICIENTS, COEFFICIENTS),
                st.builds(lambda a, n: wd.L2(schedules.Cosine(a, n)), COEFFICIENTS, st.integers(0, 1000)),
                st.builds(lambda a, b: (wd.L2(a), wd.Masked(wd.L1(b), masks.last)), COEFFICIENTS, COEFFICIENTS),
            ),
            min_size=1,
            max_size=4,
            unique_by=str,
        ),
    },
)


@pytest.mark.slow
@sweep
@given(AXES, st.sampled_from([list, tuple, iter]))
def test_grid_is_the_product_of_its_axes_and_can_be_stored(axes, form):
    given_axes = {name: form(values) if name != "decay" else values for name, values in axes.items()}
    ours = wd.Grid(**given_axes)
    assert len(ours) == math.prod(map(len, axes.values()))
    stored = json.loads(json.dumps([member_json.encode(member) for member in ours]))
    again = [member_json.decode(member) for member in stored]
    assert again == list(ours)
    # Their trees are equal too: a coefficient in a list fits other weights than one in a tuple.
    assert [jax.tree.structure(member["decay"]) for member in again] == [
        jax.tree.structure(member["decay"]) for member in ours
    ]
    numbers = member_json.candidates(ours)
    assert sorted(set(numbers)) == list(range(len(ours) // len(axes.get("seed", [0]))))
    assert member_json.candidates(again) == numbers


NAMES = [convention.name for convention in conventions.TABLE]
POSITIVE = st.floats(1e-6, 1e3)


@pytest.mark.slow
@sweep
@given(
    st.sampled_from(NAMES), POSITIVE, st.floats(0.01, 0.99), POSITIVE, st.integers(1, 10**6), st.integers(1, 10**4),
    st.integers(1, 10**6), st.integers(1, 10**5),
)  # fmt: skip
def test_convert_there_and_back_gives_the_coefficient(source, value, l1_ratio, rate, examples, batch, steps, width):
    run = {"learning_rate": rate, "num_examples": examples, "batch_size": batch, "num_steps": steps, "width": width}
    pair = conventions.find(source, argument="source").kind == "elastic_net"
    coefficient = (value, l1_ratio) if pair else value
    for target in NAMES:
        there, message = None, ""
        try:
            there = wd.convert(coefficient, source, target, **run)
        except ValueError as error:
            message = str(error)
        if message:
            assert message.startswith(f"{source} to {target}: no conversion exists. ")
            continue
        np.testing.assert_allclose(wd.convert(there, target, source, **run), coefficient, rtol=1e-9)  # float64
        if (source, target) == ("keras.L2", "L2"):
            assert there == 2 * value


LEAVES = st.builds(
    lambda shape, dtype: np.ones(shape, dtype),
    st.lists(st.integers(1, 3), max_size=4).map(tuple),
    st.sampled_from([np.float32, np.float16, np.int32]),
)
KEYS = st.sampled_from(["kernel", "bias", "scale", "Dense_0", "Dense_1", "embedding", "a"])
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3), max_leaves=6
)


@sweep
@given(TREES)
def test_masks_have_the_structure_of_any_tree_or_say_why_not(params):
    if getattr(params, "shape", None) == () and params.dtype == np.int32:
        return  # a step count: refused elsewhere
    leaves, structure = jax.tree.flatten(params)
    for mask in (masks.kernels, masks.everything, masks.first, masks.last, masks.hidden):
        made, message = None, ""
        try:
            made = mask(params)
        except ValueError as error:
            message = str(error)
        if message:
            assert "the structure of the weights does not tell" in message
            continue
        assert jax.tree.structure(made) == structure
        assert all(isinstance(leaf, bool) for leaf in jax.tree.leaves(made))
        if mask is not masks.everything and not isinstance(params, np.ndarray):
            chosen = [leaf for leaf, decays in zip(leaves, jax.tree.leaves(made), strict=True) if decays]
            assert all(leaf.ndim >= 2 for leaf in chosen)
        text = masks.describe(params, masks.everything if leaves else masks.kernels)
        assert text.endswith("weights decay (100.0 %)" if leaves else "weights decay (0.0 %)")


SIZES = st.sampled_from([0.0, -0.0, 1e-45, 1e-38, -1e-20, 1e-3, 1.0, -2.5, 1e4, 6e4, -6e4])
ARRAYS = st.builds(
    lambda shape, dtype, values: jnp.asarray(np.resize(np.array(values), shape), dtype),
    st.sampled_from([(), (1,), (3,), (2, 3), (2, 1, 2), (0, 2)]),
    st.sampled_from([jnp.float32, jnp.float16, jnp.bfloat16]),
    st.lists(SIZES, min_size=1, max_size=6),
)
WEIGHTS = st.dictionaries(KEYS, ARRAYS | st.dictionaries(KEYS, ARRAYS, max_size=2), max_size=3)


@pytest.mark.slow
@sweep
@given(WEIGHTS)
def test_penalties_of_finite_weights_are_finite_and_numpys(params):
    wide = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(params)]
    # Float32 sums of terms of one sign; numbers below the smallest normal number may count as 0.
    close = {"rtol": 1e-5, "atol": 1e-30}
    np.testing.assert_allclose(penalties.l1(params), sum(np.abs(w).sum() for w in wide), **close)
    np.testing.assert_allclose(penalties.l2(params), sum((w**2).sum() / 2 for w in wide), **close)
    for name, penalty in PENALTIES.items():
        value = penalty(params)
        assert (np.shape(value), np.isfinite(value), bool(value >= 0)) == ((), True, True), name


@pytest.mark.slow
@sweep
@given(
    WEIGHTS,
    st.sampled_from(sorted(PROXIMAL)),
    st.sampled_from([0.0, 1e-30, 0.1, 1e4]),
    st.sampled_from([0.0, 0.1, 1e3]),
)
def test_maps_of_finite_weights_are_finite_keep_dtypes_and_shrink(params, name, coefficient, step_size):
    moved = PROXIMAL[name](params, coefficient, step_size)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        assert (after.shape, after.dtype) == (before.shape, before.dtype)
        assert np.isfinite(np.asarray(after, np.float64)).all()
        assert (np.abs(np.asarray(after, float)) <= np.abs(np.asarray(before, float)) * (1 + 1e-2) + 1e-37).all()
    projected = proximal.max_norm(params, coefficient)
    assert all(np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(projected))


SCHEDULES = st.one_of(
    st.builds(schedules.Constant, COEFFICIENTS),
    st.builds(schedules.Linear, COEFFICIENTS, COEFFICIENTS, st.integers(0, 1000)),
    st.builds(schedules.Cosine, COEFFICIENTS, st.integers(0, 1000), COEFFICIENTS),
    st.builds(schedules.Exponential, COEFFICIENTS, st.floats(0, 1, width=32), st.integers(0, 1000)),
    st.builds(schedules.EarlyOnly, COEFFICIENTS, st.integers(0, 1000)),
    st.builds(schedules.LogTime, COEFFICIENTS, st.integers(0, 1000)),
)


@sweep
@given(SCHEDULES, st.integers(0, 2**31 - 1), st.sampled_from([int, np.int32, jnp.int32]))
def test_schedules_are_finite_within_their_values_at_any_step(schedule, step, kind):
    schedules.check(schedule, argument="schedule")
    value = schedule(kind(step))
    ends = [number for name, number in schedule.parameters().items() if name in ("value", "start", "stop")]
    assert np.shape(value) == ()
    assert 0 <= value <= max(ends) * (1 + 1e-6)  # a rounding of float32
