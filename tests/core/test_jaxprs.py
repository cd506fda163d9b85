"""Jaxprs: walked with equations replaced, and searched for what depends on inputs."""

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import jaxprs


def function(x, y):
    z = jax.jit(lambda a: jnp.sin(a) * 2)(x)
    first, _ = jax.lax.top_k(z + y, 2)  # one result is used
    return jax.lax.fori_loop(0, 3, lambda _, carry: carry + z.sum(), first), jnp.zeros(2)


def test_evaluate_without_replacement_gives_the_same_numbers():
    traced = jax.make_jaxpr(function)(jnp.arange(4.0), 1.0)
    outputs = jaxprs.evaluate(traced.jaxpr, traced.consts, [jnp.arange(4.0), 1.0], lambda equation, operands: None)
    jax.tree.map(np.testing.assert_allclose, tuple(outputs), function(jnp.arange(4.0), 1.0))


def test_evaluate_replaces_equations_and_enters_no_inner_function():
    traced = jax.make_jaxpr(lambda x: jnp.sin(x) + jax.jit(jnp.sin)(x))(1.0)

    def cosine(equation, operands):
        return [jnp.cos(operands[0])] if equation.primitive.name == "sin" else None

    (output,) = jaxprs.evaluate(traced.jaxpr, traced.consts, [1.0], cosine)
    np.testing.assert_allclose(output, np.cos(1.0) + np.sin(1.0), rtol=1e-6)


def test_inner_finds_bodies_branches_and_jitted_functions():
    def branching(x):
        return jax.lax.cond(x > 0, lambda v: v, lambda v: -v, x) + jax.lax.scan(lambda c, _: (c, None), x, None, 2)[0]

    found = [len(jaxprs.inner(equation)) for equation in jax.make_jaxpr(branching)(1.0).jaxpr.eqns]
    assert sorted(found)[-2:] == [1, 2]
    assert jaxprs.as_closed(3) is None


def test_depend_on_inputs_knows_constants_and_gradients_of_what_is_stopped():
    traced = jax.make_jaxpr(function)(jnp.arange(4.0), 1.0)
    assert jaxprs.depend_on_inputs(traced.jaxpr) == [True, False]

    def loss(weights, x):
        stopped = jax.jit(jax.lax.stop_gradient)(weights["a"])
        return (
            jax.checkpoint(lambda b: jnp.sum(b * stopped * x))(weights["b"]) + jax.lax.stop_gradient(weights["c"]).sum()
        )

    weights = {name: jnp.ones(3) for name in "abcd"}
    traced = jax.make_jaxpr(jax.grad(loss))(weights, jnp.ones(3))
    assert jaxprs.depend_on_inputs(traced.jaxpr) == [False, True, False, False]
