"""JAX's settings as they are in this thread, and compiler options that are used more than once."""

from typing import Any

import jax

FAST_COMPILE = {"xla_backend_optimization_level": 1}
"""Compiler options for programs that run once: random numbers take long to optimize and little time to draw."""


def setting(name: str) -> Any:
    """Return one of JAX's settings, ``jax.config.jax_<name>``, as it is in this thread."""
    return getattr(jax.config, f"jax_{name}")
