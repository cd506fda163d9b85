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


@pytest.fixture(scope="module", autouse=True)
def _drop_programs():
    """Drop the compiled programs of a test file at its end; hundreds of them are what fills a worker's memory."""
    yield
    import sys

    if "weightdecay.engine.lane_programs" in sys.modules:
        sys.modules["weightdecay.engine.lane_programs"].clear()
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
