"""Eight CPU devices, shapes checked by beartype, the switch to float64, and what keeps the tests fast and small."""

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import config, install_import_hook

install_import_hook("weightdecay", "beartype.beartype")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a process that a script has put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

OPTIMIZED = {"test_fit.py", "test_map_grid.py", "test_promise.py"}  # programs are optimized as users' programs are
_limit = 1200  # MiB


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
    """Compile with few optimizations, but in the files that hold promises of bits; this halves the time of a fit."""
    optimized = request.path.name in OPTIMIZED
    jax.config.update("jax_disable_most_optimizations", not optimized)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(not optimized))  # for processes that a test starts
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    del os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]


@pytest.fixture(autouse=True)
def _bound_memory():
    """Drop the compiled programs that earlier tests left, where they fill the memory of the process."""
    yield
    global _limit
    if _megabytes() > _limit:
        if "weightdecay.engine.lane_programs" in sys.modules:
            sys.modules["weightdecay.engine.lane_programs"].clear()
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":  # glibc keeps what is freed
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        _limit = max(_limit, _megabytes() + 500)


def _megabytes():
    """Memory of this process; 0 where it is unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
