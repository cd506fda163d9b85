"""The rules by name, and the check of what a user passes as decay."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import coupled, decoupled, norms, projected, sparing, toward


def test_kinds_holds_every_rule_of_its_modules():
    classes = {
        name: kind
        for module in (coupled, decoupled, projected, norms, sparing, toward)
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, decay.Rule) and kind.__module__ == module.__name__
    }
    assert {"NoDecay": wd.NoDecay, **classes} == decay.KINDS
    assert set(cases.EXAMPLES) == set(decay.KINDS)
    assert all(getattr(wd, name) is kind and name in wd.__all__ for name, kind in decay.KINDS.items())


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
def test_check_names_the_value_and_the_remedy(rule, error, message):
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
