"""Settings of JAX in the current thread, and compiler options that are used in several places."""

from typing import Any

import jax

FAST_COMPILE = {"xla_backend_optimization_level": 1}
"""Compiler options for programs that run once, such as the drawing of initial weights, which is slow to optimize."""


def setting(name: str) -> Any:
    """Return the setting ``jax.config.jax_<name>`` of the current thread."""
    return getattr(jax.config, f"jax_{name}")
