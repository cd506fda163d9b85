"""Traced functions (jaxprs), walked equation by equation: evaluated with some equations replaced, or searched."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal

Interpret = Callable[[JaxprEqn, list[Any]], list[Any] | None]
"""``interpret(equation, operands) -> results``; None = the equation is evaluated as it is."""


def evaluate(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], interpret: Interpret) -> list[Any]:
    """Evaluate a traced function, with some of its equations interpreted in another way.

    Args:
      jaxpr: The traced function.
      constants: Values of its ``constvars``.
      inputs: Values of its ``invars``; may be traced.
      interpret: Called for every equation, not for those of inner functions; see `Interpret`.

    Returns:
      Values of its ``outvars``.

    Examples:
      >>> traced = jax.make_jaxpr(lambda x: 2.0 * x + 1.0)(3.0)
      >>> minus = lambda equation, operands: [operands[0] - operands[1]] if equation.primitive.name == "add" else None
      >>> float(evaluate(traced.jaxpr, traced.consts, [3.0], minus)[0])
      5.0
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        operands = [value(variable) for variable in equation.invars]
        results = interpret(equation, operands)
        if results is None:
            results = bind(equation, operands, jaxpr.debug_info)
        values.update(zip(equation.outvars, results, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def bind(equation: JaxprEqn, operands: Sequence[Any], debug_info: Any) -> list[Any]:
    """Evaluate one equation.

    Args:
      equation: The equation.
      operands: Values of its ``invars``.
      debug_info: That of its jaxpr.

    Returns:
      Values of its ``outvars``; None for those that nothing uses.
    """
    pairs = zip(equation.invars, operands, strict=True)
    variables = {variable: operand for variable, operand in pairs if not isinstance(variable, Literal)}
    outputs = [output for output in equation.outvars if not isinstance(output, DropVar)]
    alone = Jaxpr((), list(variables), outputs, [equation], equation.effects, debug_info.with_unknown_names())
    results = iter(jax.core.eval_jaxpr(alone, (), *variables.values()))
    return [None if isinstance(output, DropVar) else next(results) for output in equation.outvars]


def inner(equation: JaxprEqn) -> list[ClosedJaxpr]:
    """Functions inside an equation: bodies of loops, branches, and what `jax.jit` and the like call.

    Args:
      equation: The equation.

    Returns:
      The traced functions, in the order of the equation's parameters.
    """
    return [closed for leaf in jax.tree.leaves(list(equation.params.values())) if (closed := as_closed(leaf))]


def as_closed(value: Any) -> ClosedJaxpr | None:
    """A traced function as a `ClosedJaxpr`.

    Args:
      value: Anything among the parameters of an equation.

    Returns:
      The function, None for what is not one. The constants of an open jaxpr come first among the inputs.
    """
    if isinstance(value, ClosedJaxpr):
        return value
    if not isinstance(value, Jaxpr):
        return None
    inputs = [*value.constvars, *value.invars]
    debug_info = value.debug_info.with_unknown_names() if value.constvars else value.debug_info
    return ClosedJaxpr(Jaxpr((), inputs, value.outvars, value.eqns, value.effects, debug_info), ())


def depend_on_inputs(jaxpr: Jaxpr) -> list[bool]:
    """Whether each output of a traced function depends on any of its inputs.

    Args:
      jaxpr: The traced function.

    Returns:
      One bool per output. False = the output is a constant, such as the gradient of what is under
      `jax.lax.stop_gradient`. An output of an inner function counts as dependent if any input of that function does.

    Examples:
      >>> depend_on_inputs(jax.make_jaxpr(lambda x: (2.0 * x, jax.numpy.zeros(3)))(1.0).jaxpr)
      [True, False]
    """
    dependent = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(not isinstance(variable, Literal) and variable in dependent for variable in equation.invars):
            dependent.update(equation.outvars)
    return [not isinstance(output, Literal) and output in dependent for output in jaxpr.outvars]
