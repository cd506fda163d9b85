"""Settings of JAX in the current thread, and compiler options that are used in several places."""

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
