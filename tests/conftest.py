"""Eight CPU devices, shapes checked by beartype, and the switch to float64."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import config, install_import_hook

install_import_hook("weightdecay", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def float64():
    """Run a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def without_beartype():
    """Let a wrong argument reach the library's own check, as it does for users."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
