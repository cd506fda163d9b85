"""Eight CPU devices, shapes checked by beartype, the switch to float64, and what keeps the tests fast and small."""

import ctypes
import functools
import gc
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import config, install_import_hook

install_import_hook("weightdecay", "type_checks.checked")

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a process that a script has put into the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

OPTIMIZED = {"test_fit.py", "test_map_grid.py", "test_promise.py"}  # programs are optimized as users' programs are
QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}  # a third of the compile time
XLA_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())


def _memory_limit():
    """MiB that a process may fill before programs are dropped: with all its neighbours a quarter of the machine."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError):
        memory = 0
    return max(1200, min(4000, memory / 4 / processes))


_limit = _memory_limit()
gc.set_threshold(20_000, 10, 10)  # in place of 700: tracing makes many objects, and few of them are in a cycle


def _with_quick_options(get_compile_options):
    """Add `QUICK` to the options of every program where JAX compiles with few optimizations."""

    @functools.wraps(get_compile_options)
    def options(*args, **kwargs):
        result = get_compile_options(*args, **kwargs)
        if jax.config.read("jax_disable_most_optimizations"):
            result.env_option_overrides = list((QUICK | dict(result.env_option_overrides)).items())
        return result

    return options


compiler.get_compile_options = _with_quick_options(compiler.get_compile_options)  # jax.jit asks for them by this name


def pytest_collection_finish():
    """Leave out of each garbage collection what the imports and the collection made."""
    gc.collect()
    gc.freeze()


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
    with pytest.MonkeyPatch.context() as environment:  # for processes that a test starts
        if not optimized:
            environment.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
            environment.setenv("XLA_FLAGS", XLA_FLAGS)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


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


@pytest.fixture(autouse=True)
def _only_the_rules_of_a_test():
    """Forget the rules that a test defines, and meanwhile those that other tests in this process have defined."""
    from weightdecay.decay.registry import USER_KINDS

    before = dict(USER_KINDS)
    USER_KINDS.clear()
    yield
    USER_KINDS.clear()
    USER_KINDS.update(before)
