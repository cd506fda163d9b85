"""Arrays that a function closes over, moved out of its program and made an argument.

`jax.make_jaxpr` does so for arrays that a function uses directly. Arrays used under a `jax.jit` inside it stay there,
and would be written number by number into the compiled program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from weightdecay.core import jaxprs


def hoist(traced: ClosedJaxpr) -> ClosedJaxpr:
    """Move the arrays of the inner functions of a traced function to its own constants.

    Functions under `jax.jit` are entered, also inside loops and branches.

    Args:
      traced: As `jax.make_jaxpr` returns it.

    Returns:
      The same computation, with all arrays among its own constants; ``traced`` itself where they are there already.

    Examples:
      >>> import jax.numpy as jnp
      >>> numbers = jnp.arange(3.0)
      >>> traced = jax.make_jaxpr(jax.jit(lambda factor: factor * numbers))(2.0)
      >>> len(traced.consts), len(hoist(traced).consts)
      (0, 1)
    """
    hidden: dict[int, Any] = {}
    for equation in traced.jaxpr.eqns:
        for inner in jaxprs.inner(equation):
            hidden |= _constants(inner)
    if not hidden:
        return traced
    constants = [*traced.consts, *hidden.values()]

    def with_arguments(constants: Sequence[Any], *inputs: Any) -> list[Any]:
        direct, moved = constants[: len(traced.consts)], constants[len(traced.consts) :]
        return _evaluate(traced.jaxpr, direct, inputs, dict(zip(hidden, moved, strict=True)))

    avals = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in traced.in_avals]
    flat = jax.make_jaxpr(with_arguments)(constants, *avals)
    jaxpr = flat.jaxpr
    constvars, invars = jaxpr.invars[: len(constants)], jaxpr.invars[len(constants) :]
    return ClosedJaxpr(
        jaxpr.replace(constvars=[*jaxpr.constvars, *constvars], invars=invars), [*flat.consts, *constants]
    )


def _constants(traced: ClosedJaxpr) -> dict[int, Any]:
    """Arrays in a traced function and in the functions inside it, by identity."""
    constants = {id(constant): constant for constant in traced.consts}
    for equation in traced.jaxpr.eqns:
        for inner in jaxprs.inner(equation):
            constants |= _constants(inner)
    return constants


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], hoisted: dict[int, Any]) -> list[Any]:
    """Evaluate with the arrays of inner functions taken from ``hoisted``, by identity."""

    def run(inner: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
        return _evaluate(inner.jaxpr, [hoisted[id(constant)] for constant in inner.consts], inputs, hoisted)

    def interpret(equation: JaxprEqn, operands: list[Any]) -> list[Any] | None:
        enter = _ENTERED.get(equation.primitive.name)
        if enter is None or not any(map(_constants, jaxprs.inner(equation))):
            return None
        return enter(equation.params, operands, run)

    return jaxprs.evaluate(jaxpr, constants, inputs, interpret)


Run = Callable[[ClosedJaxpr, Sequence[Any]], list[Any]]


def _jit(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    return run(params["jaxpr"], operands)


def _scan(params: dict[str, Any], operands: list[Any], run: Run) -> list[Any]:
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, init, sliced = operands[:first], operands[first:last], operands[last:]

    def body(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = run(params["jaxpr"], [*constants, *carry, *slices])
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
