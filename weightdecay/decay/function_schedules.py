"""A function of the step as a schedule of a grid: `Function`, around a schedule of optax or of the user's own.

The numbers inside of a function are part of the program. Two functions that compute the same are recognized by the
digest of their lowered program, in any process, so that members with the same schedule share a program and a run in a
directory resumes.
"""

import functools
import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Scalar
from weightdecay.decay.parametric import Parametric, real


class NamedFunction:
    """A function of the step that is equal to every function of its name that computes the same.

    Attributes:
      name: Module and name, such as ``optax.join_schedules``.
      digest: Digest of what the function computes.
      function: The function; None where it was read from a file, which holds no code.
    """

    def __init__(self, name: str, digest: str, function: Callable[[Any], Any] | None = None) -> None:
        """Take the name, the digest and the function; `named` finds them for a function."""
        self.name, self.digest, self.function = name, digest, function

    def __call__(self, count: Any) -> Any:
        """Return the value of the function at a step."""
        if self.function is None:
            raise ArgumentError(
                "schedule",
                f"schedule {self!r} was read from a file, which holds the name of a function and not its code; make "
                "the schedule again, as in the program that trained, and give it in its place.",
            )
        return self.function(count)

    def __eq__(self, other: object) -> bool:
        """Whether the other function has the same name and computes the same."""
        return isinstance(other, NamedFunction) and (self.name, self.digest) == (other.name, other.digest)

    def __hash__(self) -> int:
        """Return the same number for equal functions."""
        return hash((self.name, self.digest))

    def __repr__(self) -> str:
        """Return the name and the first digits of the digest, the same in every process."""
        return f"{self.name}#{self.digest[:6]}"


@tree.dataclass
class Function(Parametric):
    """A schedule of optax, or any other function of the step, times a number.

    ``factor * function(count)``. A learning rate or a coefficient that is a function becomes this in a grid. The
    numbers inside of the function belong to the program: members with different functions train in programs of their
    own, and only ``factor`` is an axis without further programs. A saved result holds the name of the function, not its
    code.

    Args:
      function: ``function(count) -> scalar``, of `jax.numpy` operations; see `weightdecay.decay.base.scheduled`.
      factor: >= 0; may be traced.

    Examples:
      >>> import optax
      >>> schedule = Function(optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100), 0.5)
      >>> [round(float(schedule(count)), 6) for count in (0, 5, 10, 100)]
      [0.0, 0.25, 0.5, 0.0]
    """

    function: Any = field(metadata={"static": True})
    factor: Any = 1.0

    @override
    def _value(self, count: Any) -> Scalar:
        return real(self.factor) * real(self.function(count))

    @override
    def at_start(self) -> float:
        is_stored = isinstance(self.function, NamedFunction) and self.function.function is None
        return math.nan if is_stored else float(self(0))

    @override
    def check(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            raise TypeError(
                f"function is {self.function!r}, of type {type(self.function).__name__}; give a function of the step, "
                "such as optax.cosine_decay_schedule(0.1, 1000)."
            )


def named(function: Callable[[Any], Any], *, argument: str) -> NamedFunction:
    """Find the name and the digest of a function of the step.

    Args:
      function: ``function(count) -> scalar``.
      argument: Name of the argument that holds it, for the message.

    Returns:
      The function with its name.

    Raises:
      ArgumentTypeError: JAX cannot trace it, or it does not return one real number.
    """
    if isinstance(function, NamedFunction):
        return function
    name = _name(function)
    try:
        # Nothing is computed, so that JAX's backend does not start before a run prepares it.
        program, value = jax.make_jaxpr(function, return_shape=True)(jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__
        raise ArgumentTypeError(
            argument,
            f"{argument} is the function {name}, which JAX cannot trace as a function of the step ({reason}); write it "
            "with jax.numpy, as count -> scalar, or give a schedule of optax or of wd.schedules.",
        ) from error
    if not tree.is_real(value) or value.shape != ():
        returned = f"an array of shape {value.shape}" if hasattr(value, "shape") else f"a {type(value).__name__}"
        raise ArgumentTypeError(
            argument,
            f"{argument} is the function {name}, which returns {returned} for a step; a schedule returns one real "
            "number.",
        )
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())
    for constant in _constants(program):
        array = np.asarray(constant)
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return NamedFunction(name, digest.hexdigest(), function)


def _constants(program: Any) -> Iterator[Any]:
    """Arrays that a program and the programs inside of it hold, which its text has no numbers of."""
    yield from getattr(program, "consts", ())
    for equation in program.eqns:
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, tuple | list) else [parameter]:
                if hasattr(part, "eqns"):
                    yield from _constants(part)


def _name(function: Any) -> str:
    """Module and name of a function, without the function that made it."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function)
    return f"{function.__module__.split('.')[0]}.{function.__qualname__.split('.<locals>')[0]}"
