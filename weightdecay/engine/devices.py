"""Devices: one CPU device a core, the free memory, and the folder that keeps compiled programs.

The number of devices and the folder are left as they are where the user has chosen them: by ``jax.config``, by JAX's
environment variables, or by ``WEIGHTDECAY_COMPILATION_CACHE``, which is ``off`` or a folder.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from weightdecay.core import jax_settings
from weightdecay.core.types import Device
from weightdecay.core.warn import warn

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_SWITCH = "WEIGHTDECAY_COMPILATION_CACHE"
_SHORTEST_KEPT = 0.2  # seconds; what compiles faster is not worth a file
_VECTORS = re.compile("sse4|ssse3|avx|fma$|f16c$|amx|asimd|sve|fphp$|bf16$|i8mm$")  # instructions that XLA compiles to


def prepare() -> None:
    """Give JAX one CPU device a core, unless its backend has started or the user has chosen the number.

    Warns where JAX already runs with fewer CPU devices than there are cores.

    Raises:
      RuntimeError: A setting of JAX is on with which members cannot be trained.
    """
    jax_settings.check_supported()
    chosen = getattr(jax.config, "jax_num_cpu_devices", -1) != -1
    if not chosen and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            jax.config.update("jax_num_cpu_devices", num_cores())
        except RuntimeError:
            pass  # The backend has started: members train on the devices that it has.
    devices = len(jax.local_devices())
    if not chosen and jax.default_backend() == "cpu" and devices < num_cores():
        warn(
            f"JAX already runs with {devices} CPU device(s), and lanes of members could use {num_cores()} cores; call "
            f"jax.config.update('jax_num_cpu_devices', {num_cores()}) before JAX is used."
        )


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: Device) -> int | None:
    """Return the free memory of a device, in bytes.

    Args:
      device: A local device.

    Returns:
      The bytes that its allocator has left; for a CPU, the bytes that the machine has available, shared by all CPU
      devices; None = unknown.
    """
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def arithmetic(device: Device) -> dict[str, Any]:
    """Return what the bits of a computation on a device depend on, in addition to the program.

    Args:
      device: The device.

    Returns:
      JSON values by name, as ``run.json`` holds them: precision, device, the instructions of the processor that XLA
      makes use of, and the flags of XLA.
    """
    return {
        **jax_settings.numeric(),
        "device": f"{jax.default_backend()} {device.device_kind}",
        "instruction_set": _instruction_set() if device.platform == "cpu" else "",
        "xla_flags": xla_flags(),
    }


def _instruction_set() -> str:
    """Return the instructions for vectors and matrices that the processor has, such as ``"x86_64 avx avx2 fma"``."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}
    return " ".join([platform.machine(), *sorted(flag for flag in flags if _VECTORS.match(flag))])


def xla_flags() -> str:
    """Return the flags of XLA that may change bits: all but the number of devices and what XLA dumps.

    JAX's own setting that reduces optimizations is one of them where it is on.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    if jax.config.read("jax_disable_most_optimizations"):
        flags.append("jax_disable_most_optimizations")
    harmless = ("--xla_force_host_platform_device_count", "--xla_dump")
    return " ".join(sorted(flag for flag in flags if not flag.startswith(harmless)))


def outside_mesh(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function as if no mesh were set.

    A lane is computed by one device, or by the mesh that is an argument of `fit_grid`: one that the user has set with
    `jax.set_mesh` must not reach its programs.

    Args:
      function: Any function that is not traced.

    Returns:
      The same function; the user's mesh is set again when it returns.
    """

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with jax.set_mesh(jax.sharding.Mesh(np.empty((), dtype=object), ())):
            return function(*args, **kwargs)

    return run


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Turn on JAX's persistent compilation cache inside the ``with`` block, and restore JAX's settings after it.

    Programs for CPUs are kept by `weightdecay.engine.executables` in its place.
    """
    folder = cache_folder()
    if folder is None or jax.default_backend() == "cpu":
        yield
        return
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": _SHORTEST_KEPT,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _configure(settings)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        _configure(before)
        compilation_cache.reset_cache()


def cache_folder() -> Path | None:
    """Return the folder of compiled programs.

    Returns:
      A folder in the user's cache, one for each kind of processor, because programs are compiled for it. None where the
      cache is switched off or JAX has a cache of its own.
    """
    switch = os.environ.get(_SWITCH, "")
    has_own = jax_settings.setting("compilation_cache_dir") is not None or not jax_settings.setting(
        "enable_compilation_cache"
    )
    if has_own or switch.lower() in ("off", "0", "no", "false"):
        return None
    if switch:
        return Path(switch)
    import platformdirs

    return Path(platformdirs.user_cache_dir("weightdecay")) / f"programs-{processor()}"


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)


def processor() -> str:
    """Return a short name of the processor and its instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
    except OSError:
        flags = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
