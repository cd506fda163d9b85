"""Executables: a program is compiled once, in the background, copied to the other CPU devices, and kept on disk.

Compiling takes seconds; a copy takes milliseconds, and its bits are those of the first, because it is the same machine
code. JAX compiles a program for each CPU device anew, and its persistent cache holds a file for each device. Where a
program cannot be copied (on GPUs and TPUs, with a callback to Python in it, or under a cache that the user has given to
JAX) every device compiles it through JAX.
"""

import contextlib
import functools
import hashlib
import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay.core import files, jax_settings
from weightdecay.core.types import Device
from weightdecay.engine import devices
from weightdecay.storage import result_folder

_SHORTEST_KEPT = 0.2  # seconds; what compiles faster is not worth a file
_CACHE_HIT = "/jax/compilation_cache/cache_hits"  # event that JAX reports in the thread that compiles


class _Serialized(NamedTuple):
    """A compiled program as bytes, and the structures of its arguments and outputs."""

    content: bytes
    in_tree: Any
    out_tree: Any


def compiled(
    lower: Callable[[Device], Mapping[str, Any]],
    targets: Sequence[Device],
    finish: Callable[[dict[str, Any], Device], Any],
) -> list[Future[Any]]:
    """Compile programs in the background for each device.

    Args:
      lower: Function that returns the lowered programs of a device, by name (`jax.stages.Lowered`).
      targets: Devices to compile for.
      finish: Makes what is returned of the compiled programs, by name, and their device.

    Returns:
      What ``finish`` returns, to come, in the order of the devices.
    """
    if targets[0].platform != "cpu":

        def compile_on(device: Device, lowered: Mapping[str, Any]) -> Any:
            return finish(_compile_all(lowered), device)

        return [_compilers().submit(compile_on, device, lower(device)) for device in targets]
    futures: list[Future[Any]] = [Future() for _ in targets]
    programs = SharedPrograms(lower)

    def compile_once(lowered: Mapping[str, Any]) -> None:
        for future, device in zip(futures, targets, strict=True):
            try:
                future.set_result(finish(programs.on(device, lowered if device == targets[0] else None), device))
            except BaseException as error:
                future.set_exception(error)

    _compilers().submit(compile_once, lower(targets[0]))
    return futures


def in_background(lowered: Mapping[str, Any], finish: Callable[[dict[str, Any]], Any]) -> Future[Any]:
    """Compile programs of several devices together in the background, through JAX.

    Args:
      lowered: The lowered programs, by name.
      finish: Makes what is returned of the compiled programs, by name.

    Returns:
      What ``finish`` returns, to come.
    """
    return _compilers().submit(lambda: finish(_compile_all(lowered)))


class SharedPrograms:
    """Programs that are compiled when a device first asks for them, once for all CPU devices."""

    def __init__(self, lower: Callable[[Device], Mapping[str, Any]]) -> None:
        """Take the function that returns the lowered programs of a device, by name."""
        self._lower, self._lock = lower, threading.Lock()
        self._settings, self._folder = jax_settings.numeric(), devices.cache_folder()
        self._programs: dict[Device, dict[str, Any]] = {}
        self._serialized: dict[str, _Serialized] | None = None

    def on(self, device: Device, lowered: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the compiled programs of a device by name; ``lowered`` if they are lowered for it already."""
        with self._lock:
            if device not in self._programs:
                self._programs[device] = self._copied_or_compiled(device, lowered)
            return self._programs[device]

    def _copied_or_compiled(self, device: Device, lowered: Mapping[str, Any] | None) -> dict[str, Any]:
        programs = None if self._serialized is None else _copies(self._serialized, device)
        if programs is not None:
            return programs
        if lowered is None:
            with jax_settings.applied(self._settings):
                lowered = self._lower(device)
        if device.platform != "cpu":
            return _compile_all(lowered)
        programs, self._serialized = _read_or_compile(lowered, device, self._folder)
        return programs


def _compile_all(lowered: Mapping[str, Any]) -> dict[str, Any]:
    return {name: program.compile() for name, program in lowered.items()}


def _read_or_compile(
    lowered: Mapping[str, Any], device: Device, folder: Path | None
) -> tuple[dict[str, Any], dict[str, _Serialized] | None]:
    """Read programs from the folder, or compile them; with their serialized forms, None where there are none."""
    programs, serialized = {}, {}
    for name, program in lowered.items():
        file = None if folder is None else folder / f"{name}-{_key(program)}"
        programs[name], serialized[name] = _read(file, program, device) or _compile(program, file)
    return programs, None if None in serialized.values() else serialized


def _read(file: Path | None, program: Any, device: Device) -> tuple[Any, _Serialized] | None:
    """Read a program from its file; None where there is no file, or it is damaged."""
    try:
        if file is not None:
            serialized = _Serialized(file.read_bytes(), program.in_tree, program.out_tree)
            return _load(serialized, device), serialized
    except Exception:
        pass
    return None


def _compile(program: Any, file: Path | None) -> tuple[Any, _Serialized | None]:
    """Compile a program and write its file; with its serialized form, None where it cannot be copied."""
    begin, hits = time.perf_counter(), _cache_hits()
    executable = program.compile()
    seconds = time.perf_counter() - begin
    if _cache_hits() > hits:
        return executable, None  # What JAX reads from its own cache lacks the machine code when it is serialized again.
    try:
        serialized = _serialize(executable)
    except Exception:  # It has a callback, or this version of JAX is another: every device compiles it.
        return executable, None
    if file is not None and seconds > _SHORTEST_KEPT:
        with contextlib.suppress(OSError), files.atomic(file) as unfinished:
            unfinished.write_bytes(serialized.content)
    return executable, serialized


def _copies(serialized: Mapping[str, _Serialized], device: Device) -> dict[str, Any] | None:
    """Load programs on another device; None where this version of JAX does not allow it."""
    try:
        return {name: _load(program, device) for name, program in serialized.items()}
    except Exception:
        return None


def _serialize(executable: Any) -> _Serialized:
    from jax.experimental import serialize_executable

    return _Serialized(*serialize_executable.serialize(executable))


def _load(program: _Serialized, device: Device) -> Any:
    """Load a serialized program on a device.

    `jax.experimental.serialize_executable.deserialize_and_load` keeps the device that a CPU program was compiled for,
    whatever ``execution_devices`` is (JAX 0.10.2); here the compile options name the device.
    """
    from jax.experimental import serialize_executable

    options = _compile_options(device)
    device_list = jax.sharding.SingleDeviceSharding(device)._internal_device_list

    class Unpickler(serialize_executable._JaxPjrtUnpickler):
        def persistent_load(self, pid: Any) -> Any:
            kind, *content = pid
            if kind == "exec":
                return device.client.deserialize_executable(content[0], device_list, options)
            return device if kind == "device" else super().persistent_load(pid)

    executable, arguments, no_kwargs = Unpickler(io.BytesIO(program.content), device.client, [device]).load()
    arguments = program.in_tree.unflatten(arguments)
    return jax.stages.Compiled(executable.load(), [], arguments, program.out_tree, no_kwargs=no_kwargs)


def _compile_options(device: Device) -> Any:
    from jax._src import compiler

    return compiler.get_compile_options(
        num_replicas=1, num_partitions=1, device_assignment=np.array([[device.id]]), backend=device.client
    )


def _key(program: Any) -> str:
    """Return a name for everything that the machine code of a program depends on."""
    options = _compile_options(jax.local_devices(backend="cpu")[0]).SerializeAsString()
    # Arguments that a program does not read are not in its text, but must be given as they are here.
    arguments = program.args_info, program.in_tree, program.out_tree
    parts = [
        program.as_text(),
        arguments,
        options,
        result_folder.versions(),
        jax_settings.FAST_COMPILE,
        devices.xla_flags(),
        devices.processor(),
    ]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _cache_hits() -> int:
    """Return how often JAX has read a program from its own persistent cache in this thread."""
    return getattr(_listened(), "hits", 0)


@functools.cache
def _listened() -> threading.local:
    hits = threading.local()

    def count(event: str, **_: Any) -> None:
        if event == _CACHE_HIT:
            hits.hits = getattr(hits, "hits", 0) + 1

    jax.monitoring.register_event_listener(count)
    return hits


@functools.cache
def _compilers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(devices.num_cores(), thread_name_prefix="compile")
