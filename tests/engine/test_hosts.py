"""One mesh of two real processes, joined by `jax.distributed` with the CPU collectives of gloo."""

import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import weightdecay as wd
from weightdecay.engine import hosts

SCRIPT = """
import sys
import jax

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{port}", 2, rank)
import numpy as np
import weightdecay as wd

data = wd.data.digits(num_train=200)
grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2), wd.Decoupled(1e-1)], learning_rate=1e-2)
of_processes = np.array(jax.devices()).reshape(2, 2)
reports = []
settings = dict(batch_size=16, eval_every=4, progress=False, plan=wd.Plan(2, 1), on_evaluation=reports.append)

def fit(devices, num_steps, **others):
    mesh = jax.sharding.Mesh(devices, ("member", "data"))
    return wd.fit_grid(
        wd.models.MLP((8,)), data, grid, num_steps=num_steps, mesh=mesh, sharding="fsdp", **settings, **others
    )

runs = {"at once": fit(of_processes.T, 12)}  # the examples of a batch are spread over the processes
directory = f"{folder}/run"  # seen by the first process alone
directory = directory if rank == 0 else f"{folder}/not/there"
fit(of_processes.T, 8, directory=directory, save_every=1e-9)
runs["resumed"] = fit(of_processes.T, 12, directory=directory)
try:
    fit(of_processes.T, 4, directory=directory)
except ValueError as error:
    refused = str(error)
lacking = ""
try:
    if rank == 1:
        fit(of_processes[:1], 4)
except ValueError as error:
    lacking = str(error)
np.savez(
    f"{folder}/{rank}.npz",
    refused=refused,
    lacking=lacking,
    reports=len(reports),
    **{f"{name}/loss": run.dataset["validation_loss"].values for name, run in runs.items()},
    **{f"{name}/kernel": run.params(1)["Dense_0"]["kernel"] for name, run in runs.items()},
)
"""


@pytest.mark.slow
def test_two_processes_train_the_members_of_one_mesh_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    arguments = [[sys.executable, "-c", SCRIPT, str(rank), port, str(tmp_path)] for rank in range(2)]
    processes = [
        subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for call in arguments
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    first, second = (dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(2))
    for name in ("at once", "resumed"):
        for kind in ("loss", "kernel"):
            np.testing.assert_array_equal(first[f"{name}/{kind}"], second[f"{name}/{kind}"])
    for kind in ("loss", "kernel"):  # the same mesh, interrupted after 8 steps
        np.testing.assert_array_equal(first[f"resumed/{kind}"], first[f"at once/{kind}"])
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2), wd.Decoupled(1e-1)], learning_rate=1e-2)
    settings = {"num_steps": 12, "batch_size": 16, "eval_every": 4, "progress": False, "plan": wd.Plan(2, 1)}
    alone = wd.fit_grid(wd.models.MLP((8,)), wd.data.digits(num_train=200), grid, **settings)
    np.testing.assert_allclose(first["at once/loss"], alone.dataset["validation_loss"], rtol=2e-4)
    kernel = alone.params(1)["Dense_0"]["kernel"]
    np.testing.assert_allclose(first["at once/kernel"], kernel, rtol=2e-4, atol=2e-5)
    for outcome in (first, second):  # what the first process finds wrong is an error in both
        assert "a run can only grow" in str(outcome["refused"])
    assert "this is process 1; give one of all processes" in str(second["lacking"])
    assert not (tmp_path / "not").exists()
    assert first["reports"] > second["reports"] == 0
    result = wd.load(tmp_path / "run")
    np.testing.assert_array_equal(result.dataset["validation_loss"], first["resumed/loss"])


def test_one_process_decides_for_itself():
    mesh = jax.make_mesh((2,), ("member",), devices=jax.devices()[:2])
    assert not hosts.several(mesh)
    assert hosts.is_first(mesh)
    assert hosts.agreed(mesh, lambda: 3) == hosts.agreed(None, lambda: 3) == 3
