"""Settings of JAX in the current thread, and compiler options that are used in several places."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

FAST_COMPILE = {"xla_backend_optimization_level": 1}
"""Compiler options for programs that run once, such as the drawing of initial weights, which is slow to optimize."""

_NUMERIC = {
    "float64": "enable_x64",
    "matmul_precision": "default_matmul_precision",
    "random_numbers": "default_prng_impl",
    "partitionable_random_numbers": "threefry_partitionable",
}


def setting(name: str) -> Any:
    """Return the setting ``jax.config.jax_<name>`` of the current thread."""
    return getattr(jax.config, f"jax_{name}")


def numeric() -> dict[str, Any]:
    """Return the settings of the current thread that change the numbers of a program: precision and random numbers.

    Returns:
      JSON values by name.
    """
    return {name: setting(option) for name, option in _NUMERIC.items()}


@contextlib.contextmanager
def applied(settings: Mapping[str, Any]) -> Iterator[None]:
    """Apply the settings of another thread inside the ``with`` block.

    Args:
      settings: What `numeric` returned there.
    """
    with contextlib.ExitStack() as stack:
        for name, option in _NUMERIC.items():
            stack.enter_context(getattr(jax, option)(settings[name]))
        yield


def check_supported() -> None:
    """Check that no setting is on with which members cannot be trained.

    Raises:
      RuntimeError: ``jax_debug_nans`` or ``jax_debug_infs`` is on: nan is a value in results, such as a metric of a
        diverged member. Or ``jax_disable_jit`` is on: members train in compiled programs.
    """
    for name in ("debug_nans", "debug_infs"):
        if setting(name):
            raise RuntimeError(
                f"jax_{name} is on, so that JAX raises an error at every nan or infinity, but a result contains nan "
                "on purpose (metrics of members that diverged, the accuracy of a regression); call "
                f"jax.config.update('jax_{name}', False). result.dataset['diverged_at'] has the step at which a member "
                "became nan or infinite."
            )
    if setting("disable_jit"):
        raise RuntimeError(
            "jax_disable_jit is on, but members are trained by programs that are compiled before training; call "
            "jax.config.update('jax_disable_jit', False). To debug a model, call its init and apply directly."
        )
