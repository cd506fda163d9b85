"""Decay of touched rows alone: embeddings of tokens that occur, rows of kernels, whole steps under accumulation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import families, theory
from weightdecay.search import member

RNG = np.random.default_rng(0)
TABLE = {"Embed_0": {"embedding": jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)}}
TOUCHED = np.array([True, False, True, False, False])
everything = wd.masks.everything


def gradient(params):
    """A gradient in two of the five rows; in one of them it has a zero."""
    rows = jnp.zeros((5, 3)).at[0].set(jnp.array([1.0, 0.0, -2.0])).at[2].set(0.5)
    return jax.tree.map(lambda _: rows, params)


def one_step(rule, params=TABLE, gradient_fn=gradient, make=wd.sgd, rate=0.5):
    transform = make(rate, rule, mask=everything)
    updates, state = transform.update(gradient_fn(params), transform.init(params), params)
    return optax.apply_updates(params, updates), state


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
@pytest.mark.parametrize(
    "rule",
    [
        wd.L2(0.3),
        wd.Decoupled(0.3),
        wd.ProximalL1(0.3),
        wd.TowardAverage(0.3, 0.5),
        wd.RadialBrake(0.2),
        wd.MaxNorm(0.6),
    ],
    ids=lambda rule: rule.name,
)
def test_touched_is_the_rule_on_rows_with_a_gradient_and_the_base_optimizer_elsewhere(rule, make):
    touched, plain, free = (
        one_step(r, make=make)[0]["Embed_0"]["embedding"] for r in (wd.Touched(rule), rule, wd.NoDecay())
    )
    compare.same_bits(touched[TOUCHED], plain[TOUCHED])
    compare.same_bits(touched[~TOUCHED], free[~TOUCHED])


def test_touched_leaves_an_absent_token_as_it_is_and_decoupled_does_not():
    """The trap that it is for: a token that never occurs fades away under plain decoupled decay."""
    run = lambda rule: cases.train(wd.sgd(0.5, rule, mask=everything), TABLE, 20, gradient)["Embed_0"]["embedding"]  # noqa: E731
    start = TABLE["Embed_0"]["embedding"]
    np.testing.assert_array_equal(run(wd.Touched(wd.Decoupled(0.3)))[~TOUCHED], start[~TOUCHED])
    np.testing.assert_allclose(run(wd.Decoupled(0.3))[~TOUCHED], start[~TOUCHED] * 0.85**20, rtol=1e-5)


def test_touched_rows_are_tokens_inputs_windows_and_single_numbers():
    params = {
        "Conv_0": {"kernel": jnp.ones((2, 2, 3, 4)), "bias": jnp.ones(4)},
        "ScanDense_0": {"kernel": jnp.ones((2, 3, 4))},
        "query": {"kernel": jnp.ones((3, 2, 4)), "bias": jnp.ones((2, 4))},
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    gradients = {
        "Conv_0": {
            "kernel": zeros["Conv_0"]["kernel"].at[0, 1, 2, 3].set(1),
            "bias": zeros["Conv_0"]["bias"].at[1].set(1),
        },
        "ScanDense_0": {"kernel": zeros["ScanDense_0"]["kernel"].at[1, 0, 2].set(-1)},
        "query": {
            "kernel": zeros["query"]["kernel"].at[2, 1, 0].set(jnp.nan),
            "bias": zeros["query"]["bias"].at[1, 2].set(1),
        },
    }
    transform = wd.sgd(0.0, wd.Touched(wd.Independent(0.5)), mask=everything)
    updates, _ = transform.update(gradients, transform.init(params), params)
    decayed = jax.tree.map(lambda u: np.argwhere(np.asarray(u) != 0).tolist(), updates)
    assert decayed["Conv_0"]["kernel"] == [[0, 1, 2, output] for output in range(4)]
    assert decayed["Conv_0"]["bias"] == [[1]]
    assert decayed["ScanDense_0"]["kernel"] == [[1, 0, output] for output in range(4)]
    assert decayed["query"]["kernel"] == [[2, head, feature] for head in range(2) for feature in range(4)]
    assert decayed["query"]["bias"] == [[1, 2]]


def test_touched_has_the_coefficient_unit_name_and_storage_of_its_rule():
    rule = wd.Touched(wd.L2(0.3))
    assert (str(rule), rule.name, rule.coefficients()) == (
        "Touched(L2(0.3))",
        "L2 on touched rows",
        {"coefficient": 0.3},
    )
    for one in (rule, wd.Masked(wd.Touched(wd.TowardAverage(0.1)), wd.masks.kernels), wd.Touched(wd.SODA(fade=0.5))):
        assert member.decode(member.encode({"decay": one})) == {"decay": one}
    assert families.rule_family(rule) == families.rule_family(wd.Touched(wd.L2(0.1)))
    assert families.is_without_decay(wd.Touched(wd.L2(0.0)))
    params = {"kernel": jnp.ones((2, 3))}
    np.testing.assert_allclose(decay.penalty(rule, params), 0.9, rtol=1e-6)
    assert np.isnan(decay.penalty(wd.Touched(wd.TowardAnchor(0.3)), params))
    assert np.isnan(theory.decayed(wd.adam(0.1, wd.Touched(wd.Decoupled(0.1))), [5]).time_scale).all()
    assert "0.3" in str(wd.masks.describe(params, decay=rule))
    assert "Hyperball" in str(wd.masks.describe(params, decay=wd.Hyperball()))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            lambda: wd.Touched(wd.Masked(wd.L2(0.1), True)),
            r"takes one rule without a mask, as in wd\.Masked\(wd\.Touched",
        ),
        (lambda: wd.Touched((wd.L2(0.1), wd.L1(0.1))), "takes one rule without a mask"),
        (lambda: wd.Touched(0.1), r"decay\.rule is 0\.1, of type float, which is not a decay rule"),
    ],
)
@pytest.mark.usefixtures("without_beartype")
def test_touched_refuses_what_is_not_one_rule(rule, message):
    with pytest.raises(TypeError, match=message):
        wd.adam(0.1, rule())


class Tokens(nn.Module):
    """A bag of embeddings."""

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(2)(nn.Embed(6, 3)(tokens).mean(axis=1))


def tokens():
    """Examples in which token 5 occurs in the second half alone, and token 4 never."""
    inputs = RNG.integers(0, 4, size=(40, 3)).astype(np.int32)
    inputs[30:, 0] = 5
    labels = (inputs[:, 1] > 1).astype(np.int32)
    return wd.Data(train=(inputs, labels), validation=(inputs, labels), test=None)


@pytest.mark.slow
def test_touched_in_a_grid_decays_a_token_in_the_steps_in_which_it_occurs():
    data, parts = tokens(), {}
    embedding = wd.masks.matching("Embed_0/embedding")
    rules = [wd.Masked(rule, embedding) for rule in (wd.Touched(wd.Decoupled(2.0)), wd.Decoupled(2.0))]
    rules += [wd.Masked(wd.Touched(wd.Decoupled(c)), embedding) for c in (0.0, 4.0)]
    grid = wd.Grid(decay=[wd.NoDecay(), *rules], learning_rate=0.05)
    for accumulate in (1, 4):
        result = wd.fit_grid(
            Tokens(), data, grid, optimizer=wd.sgd, num_steps=6, batch_size=None, eval_every=6, progress=False,
            accumulate=accumulate,
        )  # fmt: skip
        parts[accumulate] = [np.asarray(result.params(index)["Embed_0"]["embedding"]) for index in range(len(grid))]
    start, touched, plain, zero, stronger = parts[1]
    np.testing.assert_array_equal(touched[4], start[4])  # never occurs, and so never moves
    np.testing.assert_allclose(plain[4], start[4] * 0.9**6, rtol=1e-5)
    np.testing.assert_allclose(zero, start, rtol=1e-6)
    assert np.linalg.norm(stronger[5]) < np.linalg.norm(touched[5]) < np.linalg.norm(start[5])
    for whole, accumulated in zip(parts[1], parts[4], strict=True):
        # Token 5 occurs in the last part of the batch alone: it is touched in the accumulated step.
        np.testing.assert_allclose(whole, accumulated, rtol=1e-4, atol=1e-5)
