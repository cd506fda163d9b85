"""Arrays that a function closes over, taken out of its program and made an argument.

`jax.make_jaxpr` does so for what a function uses directly. What is used under a `jax.jit` inside it stays there, and
would be written out number by number in the compiled program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal


def hoist(traced: ClosedJaxpr) -> ClosedJaxpr:
    """Take arrays out of the inner functions of a traced one.

    Functions under `jax.jit` are entered, also where they stand in loops and branches.

    Args:
      traced: As `jax.make_jaxpr` gives it.

    Returns:
      The same computation, with all arrays among its own constants; as it is where they stand there already.

    Examples:
      >>> import jax.numpy as jnp
      >>> numbers = jnp.arange(3.0)
      >>> traced = jax.make_jaxpr(jax.jit(lambda factor: factor * numbers))(2.0)
      >>> len(traced.consts), len(hoist(traced).consts)
      (0, 1)
    """
    hidden: dict[int, Any] = {}
    for equation in traced.jaxpr.eqns:
        for inner in _inner(equation):
            hidden |= _constants(inner)
    if not hidden:
        return traced
    constants = [*traced.consts, *hidden.values()]

    def whole(constants: Sequence[Any], *inputs: Any) -> list[Any]:
        own, others = constants[: len(traced.consts)], constants[len(traced.consts) :]
        return _evaluate(traced.jaxpr, own, inputs, dict(zip(hidden, others, strict=True)))

    avals = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in traced.in_avals]
    flat = jax.make_jaxpr(whole)(constants, *avals)
    jaxpr = flat.jaxpr
    constvars, invars = jaxpr.invars[: len(constants)], jaxpr.invars[len(constants) :]
    return ClosedJaxpr(
        jaxpr.replace(constvars=[*jaxpr.constvars, *constvars], invars=invars), [*flat.consts, *constants]
    )


def _inner(equation: JaxprEqn) -> list[ClosedJaxpr]:
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda one: isinstance(one, ClosedJaxpr | Jaxpr))
    closed = [ClosedJaxpr(one, ()) if isinstance(one, Jaxpr) and not one.constvars else one for one in leaves]
    return [one for one in closed if isinstance(one, ClosedJaxpr)]


def _constants(traced: ClosedJaxpr) -> dict[int, Any]:
    """Arrays in a traced function and all inside it, by identity."""
    found = {id(one): one for one in traced.consts}
    for equation in traced.jaxpr.eqns:
        for inner in _inner(equation):
            found |= _constants(inner)
    return found


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], hoisted: dict[int, Any]) -> list[Any]:
    """Evaluate with the arrays of inner functions from ``hoisted``, by identity."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
    value = lambda one: one.val if isinstance(one, Literal) else values[one]  # noqa: E731

    def run(inner: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
        own = [hoisted[id(constant)] for constant in inner.consts]
        return _evaluate(inner.jaxpr, own, inputs, hoisted)

    for equation in jaxpr.eqns:
        enter = _ENTERED.get(equation.primitive.name)
        operands = [value(one) for one in equation.invars]
        if enter is not None and any(map(_constants, _inner(equation))):
            results = enter(equation.params, operands, run)
        else:
            results = _bind(equation, operands, jaxpr.debug_info)
        values.update(zip(equation.outvars, results, strict=True))
    return [value(one) for one in jaxpr.outvars]


def _bind(equation: JaxprEqn, operands: Sequence[Any], debug_info: Any) -> list[Any]:
    pairs = zip(equation.invars, operands, strict=True)
    variables = {one: operand for one, operand in pairs if not isinstance(one, Literal)}
    outputs = [one for one in equation.outvars if not isinstance(one, DropVar)]
    alone = Jaxpr((), list(variables), outputs, [equation], equation.effects, debug_info.with_unknown_names())
    results = iter(eval_jaxpr(alone, (), *variables.values()))
    return [None if isinstance(one, DropVar) else next(results) for one in equation.outvars]


Run = Callable[[ClosedJaxpr, Sequence[Any]], list[Any]]


def _jit(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    return run(params["jaxpr"], operands)


def _scan(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, init, sliced = operands[:first], operands[first:last], operands[last:]

    def body(carry: list[Any], one: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = run(params["jaxpr"], [*constants, *carry, *one])
        return outputs[: len(init)], outputs[len(init) :]

    carry, stacked = lax.scan(
        body, init, sliced, length=params["length"], reverse=params["reverse"], unroll=params["unroll"]
    )
    return [*carry, *stacked]


def _while(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_condition, of_body, init = operands[:first], operands[first:last], operands[last:]
    return lax.while_loop(
        lambda carry: run(params["cond_jaxpr"], [*of_condition, *carry])[0],
        lambda carry: run(params["body_jaxpr"], [*of_body, *carry]),
        init,
    )


def _cond(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    index, *others = operands
    branches = [lambda *inputs, branch=branch: run(branch, inputs) for branch in params["branches"]]
    return lax.switch(index, branches, *others)


_ENTERED: dict[str, Callable[[dict[str, Any], list[Any], Run], list[Any]]] = {
    "jit": _jit,
    "pjit": _jit,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
}
