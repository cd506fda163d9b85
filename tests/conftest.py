"""Eight CPU devices, shapes checked by beartype, the switch to float64, and what keeps the tests fast and small."""

import os
import resource
import sys

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import config, install_import_hook

install_import_hook("weightdecay", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

OPTIMIZED = {"engine", "storage"}  # rooms whose tests run programs that are optimized as users' programs are
LARGEST_KIBIBYTES = 1_500_000


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
def _compile_quickly(request):
    """Compile with few optimizations, but in the rooms that promise bits; this halves the time of most tests."""
    optimized = request.path.parent.name in OPTIMIZED
    jax.config.update("jax_disable_most_optimizations", not optimized)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def _drop_programs():
    """Drop compiled programs at the end of a test file where they fill the memory of the process."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > LARGEST_KIBIBYTES:
        if "weightdecay.engine.lane_programs" in sys.modules:
            sys.modules["weightdecay.engine.lane_programs"].clear()
        jax.clear_caches()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
