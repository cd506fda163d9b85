"""The normal form of the elementwise rules: bits, and one program for all of them."""

import jax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay.decay.elementwise import Terms

EVERY_TERM = frozenset(Terms().coefficients())


@pytest.mark.slow
@cases.two_bases
@pytest.mark.parametrize("name", ["ElasticNet", "Decoupled", "ProximalElasticNet"])
def test_coefficient_zero_and_filled_terms_agree_to_rounding_where_the_compiler_fuses(base, name):
    scan = jax.jit(lambda one: cases.scan(cases.optimizer(base, one)))
    bits = {"rtol": 1e-6, "atol": 1e-7}  # one or two of float32, over a few steps
    compare.close(scan(cases.neutral_rule(name)), scan(wd.NoDecay()), **bits)
    compare.close(scan(cases.rule(name).terms().filled(EVERY_TERM)), scan(cases.rule(name)), **bits)


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.ELEMENTWISE)
@cases.two_bases
def test_filled_terms_are_the_rule_bit_for_bit(base, name):
    terms = cases.rule(name).terms()
    filled = terms.filled(EVERY_TERM)
    assert not any(value is None for value in filled.coefficients().values())
    assert filled.terms() == filled
    assert terms.filled(terms.present) == terms
    compare.same_bits(cases.train(cases.optimizer(base, filled)), cases.train(cases.optimizer(base, cases.rule(name))))


def test_filled_terms_of_all_plain_rules_share_one_program():
    traces = []

    @jax.jit
    def run(terms):
        traces.append(terms)
        return cases.scan(wd.adam(0.1, terms))

    for name in cases.ELEMENTWISE:
        run.eval_shape(cases.rule(name).terms().filled(EVERY_TERM))
    assert len(traces) == 1
