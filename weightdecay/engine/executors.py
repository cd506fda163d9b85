"""Executors: the members of a grid on workers that somebody else starts, such as processes, Dask, Ray or SLURM.

Each worker gets one task, which is the same call in the run directory of the grid: it shares the lanes with the other
workers (`weightdecay.engine.sharing`), so that a task that is lost and submitted again goes on where it was. The
process that made the call trains nothing: it waits, and reads what was trained. Where a worker cannot see the run
directory, its task trains a fixed part of the members, and returns its checkpoints.
"""

import contextlib
import functools
import importlib
import io
import pickle
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from weightdecay.core import checks, files, jax_settings
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.warn import warn
from weightdecay.search import grid as grids
from weightdecay.search.grid import Grid
from weightdecay.storage import fingerprints, run_directory
from weightdecay.storage.run_directory import RunDirectory

_ATTEMPTS = 5  # submissions of a task whose worker dies
_IDLE_LOOKS = 2  # without a task before it is an error: what the last one saved is seen at the next look
_LAST_WAIT = 60.0  # seconds for the tasks to return after the last member is saved
_REFUSALS = (ValueError, TypeError, MemoryError)  # of a task itself; most other errors are of a worker that died


def check(executor: Any, *, strategy: Any = None, mesh: Any = None) -> None:
    """Validate the argument ``executor``.

    Args:
      executor: What the user passed.
      strategy: What decides which member is trained next; None = all are trained.
      mesh: Devices of this process, or of several, that train a lane together; None = without a mesh.

    Raises:
      ArgumentTypeError: It has no ``submit``.
      ArgumentError: The run has a strategy, and cannot be shared; or it has a mesh, whose devices workers do not have.
    """
    if executor is None:
        return
    if not callable(getattr(executor, "submit", None)):
        raise ArgumentTypeError(
            "executor",
            f"executor is {executor!r}; give an object with submit(function, *arguments), such as "
            "concurrent.futures.ProcessPoolExecutor(2), a distributed.Client or wd.executors.ray().",
        )
    if mesh is not None:
        raise ArgumentError(
            "executor",
            "executor trains on workers, which do not have the devices of mesh; give one of the two. Several processes "
            "that make the same call, each with a mesh of its own devices, may share one directory.",
        )
    if strategy is not None:
        raise ArgumentError(
            "executor",
            "executor cannot train within a budget or by a strategy, whose rounds depend on all members; leave out "
            "executor, or budget and strategy.",
        )


@contextlib.contextmanager
def directory_of(executor: Any, directory: Any) -> Iterator[Any]:
    """Return the run directory of a call: the user's, or where an executor needs one, a temporary one.

    A temporary directory is removed where the call succeeds, and stays where it fails.
    """
    if executor is None or directory is not None:
        yield directory
        return
    temporary = Path(tempfile.mkdtemp(prefix="weightdecay-"))
    yield temporary
    is_function = run_directory.read_description(temporary).get("depends_on", {}).get("kind") == "map_grid"
    if is_function or (temporary / "result").exists():  # else it was interrupted
        files.remove_folder(temporary)


class Helpers:
    """The tasks of one call on an executor."""

    def __init__(self, executor: Any, call: Callable[..., Any], grid: Grid) -> None:
        """Prepare the call.

        Args:
          executor: Has ``submit(function, *arguments)``, which returns something with ``result()``.
          call: ``call(grid, directory=..., progress=False)`` trains the members of a grid.
          grid: The members.

        Raises:
          ArgumentTypeError: The call cannot be pickled.
        """
        self._executor, self._grid = executor, grid
        self._payload = _pickled((call, grid, jax_settings.setting("enable_x64")))
        self._tasks: list[_Task] = []
        self._warned: set[str] = set()
        self._idle = 0  # looks at which no task was left

    def start(self, run: RunDirectory) -> None:
        """Submit a task for each worker.

        Args:
          run: The run directory, in which this process has recorded what the numbers depend on.
        """
        self._run = run
        number = _num_workers(self._executor)
        arguments = str(run.path.absolute()), run.processes.name, number
        self._tasks = [_Task(self._executor, self._payload, (*arguments, part)) for part in range(number)]

    def check(self) -> None:
        """Take what tasks returned, and submit those again whose worker died.

        Raises:
          RuntimeError: No task is left.
        """
        for task in self._tasks:
            if task.is_running or task.is_settled:
                continue
            task.is_settled = True
            if task.error is None:
                if task.returned is not None:
                    task.error = self._take(task.returned)
                if task.error is None:
                    continue
            self._report(task.error)
            is_refusal = isinstance(task.error, _REFUSALS) or type(task.error) is RuntimeError
            if not is_refusal and task.attempts < _ATTEMPTS:
                task.submit(self._payload)
        is_idle = all(task.is_settled and not task.is_running for task in self._tasks)
        self._idle = self._idle + 1 if is_idle else 0
        if self._idle > _IDLE_LOOKS:
            errors = [task.error for task in self._tasks if task.error is not None]
            last = f"; the last one ended by {type(errors[-1]).__name__}: {errors[-1]}" if errors else ""
            raise RuntimeError(
                f"no task of the executor is left, of {len(self._tasks)}{last}. What was trained is saved: make the "
                f"same call again with a new executor and directory={str(self._run.path)!r}."
            ) from (errors[-1] if errors else None)

    def wait(self) -> None:
        """Wait for the tasks to return, after the last member was saved."""
        deadline = time.monotonic() + _LAST_WAIT
        for task in self._tasks:
            task.thread.join(max(0.0, deadline - time.monotonic()))

    def _report(self, error: BaseException) -> None:
        message = f"a task of the executor ended by {type(error).__name__}: {error}"
        if message not in self._warned:
            self._warned.add(message)
            warn(f"{message}; the others go on.")

    def _take(self, archive: bytes) -> Exception | None:
        """Take the checkpoints of a worker that does not see the directory; return what is wrong with them."""
        with tempfile.TemporaryDirectory(
            prefix=f".{self._run.processes.name}-", dir=self._run.path / "checkpoints"
        ) as folder:
            with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
                opened.extractall(folder, filter="data")
            theirs = run_directory.read_description(folder).get("depends_on")
            if theirs is None:  # there were more tasks than members
                return None
            different = fingerprints.differences(self._run.description["depends_on"], theirs)
            if different:
                return ValueError(f"it trained a different run: {'; '.join(different)}")
            self._run.index.adopt(Path(folder) / "checkpoints")
        return None


class _Task:
    """One task, which is submitted again where its worker dies."""

    def __init__(self, executor: Any, payload: bytes, arguments: tuple[Any, ...]) -> None:
        self._executor, self._arguments = executor, arguments
        self.attempts = 0
        self.submit(payload)

    def submit(self, payload: bytes) -> None:
        self.attempts += 1
        self.returned: bytes | None = None
        self.error: BaseException | None = None
        self.is_settled = False
        self.thread = threading.Thread(target=self._wait, args=(payload,), daemon=True, name="task")
        self.thread.start()

    @property
    def is_running(self) -> bool:
        return self.thread.is_alive()

    def _wait(self, payload: bytes) -> None:
        try:
            self.returned = _submitted(self._executor, payload, self._arguments).result()
        except BaseException as error:  # whatever an executor raises for a worker that died
            self.error = error


def join(payload: bytes, directory: str, caller: str, num_parts: int, part: int) -> bytes | None:
    """Train members on a worker: the task that is submitted.

    Args:
      payload: The pickled call.
      directory: The run directory.
      caller: Name of the process that made the call; its file shows that this is the same directory.
      num_parts: Number of tasks.
      part: Number of this task, from 0.

    Returns:
      None; the checkpoints of a part of the members as an archive where the worker does not see the directory.
    """
    call, grid, x64 = pickle.loads(payload)
    with jax.enable_x64(x64):
        if (Path(directory) / "processes" / f"{caller}.json").exists():
            call(grid, directory=directory, progress=False)
            return None
        members = list(grid)[part::num_parts]
        with tempfile.TemporaryDirectory(prefix="weightdecay-") as folder:
            if members:
                call(grids.of_members(members), directory=folder, progress=False)
            archive = io.BytesIO()
            with tarfile.open(fileobj=archive, mode="w") as opened:
                for name in ("run.json", "checkpoints"):
                    if (Path(folder) / name).exists():
                        opened.add(Path(folder) / name, arcname=name)
            return archive.getvalue()


def sized(executor: Any, num_workers: int) -> "Sized":
    """Say how many tasks an executor is to get, where it does not tell how many workers it has.

    Args:
      executor: Has ``submit(function, *arguments)``, such as ``submitit.AutoExecutor``.
      num_workers: Number of tasks, >= 1.

    Returns:
      The same executor, for the argument ``executor``.

    Raises:
      ArgumentError: ``num_workers`` is not a number of at least 1.
    """
    return Sized(executor, checks.integer(num_workers, "num_workers", at_least=1))


class Sized:
    """An executor with a number of workers; `sized` makes it."""

    def __init__(self, executor: Any, num_workers: int) -> None:
        """Take both."""
        self._executor, self.num_workers = executor, num_workers

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Submit a call."""
        return self._executor.submit(function, *arguments)


def ray(num_workers: int | None = None, **options: Any) -> "RayExecutor":
    """Make an executor of a Ray cluster; a local one is started where none is connected.

    Args:
      num_workers: Number of tasks; None = the CPUs of the cluster divided by those of a task.
      **options: Options of a Ray task, such as ``num_cpus=4`` or ``num_gpus=1``.

    Returns:
      The executor, for the argument ``executor``.

    Raises:
      ArgumentError: ``num_workers`` is not a number of at least 1.
    """
    cluster: Any = importlib.import_module("ray")
    if not cluster.is_initialized():
        cluster.init(log_to_driver=False)
    if num_workers is None:
        cpus = float(cluster.cluster_resources().get("CPU", 1))
        num_workers = max(1, int(cpus // max(float(options.get("num_cpus", 1)), 1e-3)))
    return RayExecutor(checks.integer(num_workers, "num_workers", at_least=1), options)


class RayExecutor:
    """Tasks on a Ray cluster; `ray` makes it."""

    def __init__(self, num_workers: int, options: dict[str, Any]) -> None:
        """Take the number of tasks and their options."""
        self.num_workers, self._options = num_workers, {"max_retries": 0, **options}
        self._stored: dict[int, tuple[Any, Any]] = {}  # large arguments, which travel to a node once

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "RayFuture":
        """Submit a call; bytes are put into the object store once."""
        cluster: Any = importlib.import_module("ray")
        references = [self._reference(cluster, value) if isinstance(value, bytes) else value for value in arguments]
        return RayFuture(cluster.remote(function).options(**self._options).remote(*references))

    def _reference(self, cluster: Any, value: bytes) -> Any:
        if id(value) not in self._stored:
            self._stored[id(value)] = value, cluster.put(value)
        return self._stored[id(value)][1]


class RayFuture:
    """What a Ray task returns."""

    def __init__(self, reference: Any) -> None:
        """Take the reference."""
        self._reference = reference

    def result(self) -> Any:
        """Wait for the task, and return what it returned."""
        cluster: Any = importlib.import_module("ray")
        try:
            return cluster.get(self._reference)
        except cluster.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None


def _is_dask(executor: Any) -> bool:
    return callable(getattr(executor, "scheduler_info", None)) and callable(getattr(executor, "nthreads", None))


def _num_workers(executor: Any) -> int:
    """Number of the workers; 1 where the executor does not tell it."""
    if _is_dask(executor):
        if not executor.nthreads():
            executor.wait_for_workers(1)
        return len(executor.nthreads())
    for attribute in ("num_workers", "_max_workers"):
        number: Any = getattr(executor, attribute, None)
        if checks.is_integer(number) and number >= 1:
            return int(number)
    return 1


def _submitted(executor: Any, payload: bytes, arguments: tuple[Any, ...]) -> Any:
    """Submit a task.

    In Dask a task that is bound to a worker, or needs scattered data, waits forever if the worker dies; so it is bound
    to none and has the data with it, which with one task a worker travel once to each.
    """
    if _is_dask(executor):
        return executor.submit(join, payload, *arguments, pure=False)
    return executor.submit(join, payload, *arguments)


def _pickled(value: Any) -> bytes:
    try:
        import cloudpickle as pickler
    except ImportError:
        pickler = pickle
    try:
        return pickler.dumps(value)
    except Exception as error:  # whatever the classes of the user's network raise
        raise ArgumentTypeError(
            "executor",
            f"executor needs a call that can be pickled ({error}); install cloudpickle (pip install "
            "'weightdecay[executors]'), and define functions at the top of a module.",
        ) from error


def partial(function: Callable[..., Any], *before: Any, **settings: Any) -> Callable[..., Any]:
    """Return ``call(grid, **others)``, which a worker calls."""
    return functools.partial(_called, function, before, settings)


def _called(
    function: Callable[..., Any], before: tuple[Any, ...], settings: dict[str, Any], grid: Grid, **others: Any
) -> Any:
    return function(*before, grid, **{**settings, **others})
