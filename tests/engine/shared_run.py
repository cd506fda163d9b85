"""A grid that several processes share: ``python shared_run.py DIRECTORY PAUSE HEARTBEAT EXPIRY``.

Prints the digest of the result, and the number of members that this process trained to the end. A pause before each
evaluation leaves time for faults.
"""

import hashlib
import json
import sys
import time

import jax

import weightdecay as wd
from weightdecay.engine import lanes, training_workload
from weightdecay.engine.plans import Plan
from weightdecay.storage import processes

MEMBERS = 8


def grid(seeds=4):
    return wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01)], learning_rate=1e-2, seed=range(seeds))


def settings(**changed):
    base = {"num_steps": 6, "batch_size": 20, "eval_every": 2, "plan": Plan(2, 1), "save_every": 1e-9}
    return {**base, "progress": False, **changed}


def fit(directory=None, seeds=4, **changed):
    """Train four lanes of two members."""
    data = wd.data.digits(num_train=40)
    return wd.fit_grid(wd.models.MLP((4,)), data, grid(seeds), directory=directory, **settings(**changed))


def digest(result):
    """Digest of every metric and weight."""
    content = hashlib.sha256()
    for name in sorted(result.dataset.data_vars):
        content.update(result.dataset[name].values.tobytes())
    for member in range(len(result)):
        for leaf in jax.tree.leaves(result.params(member)):
            content.update(leaf.tobytes())
    return content.hexdigest()


def slow(pause):
    """Pause before each evaluation, and count the members that are trained to the end."""
    evaluate, compute, trained = training_workload.TrainingLane._evaluate, lanes.DeviceWorker.compute, []

    def paused(*arguments):
        time.sleep(pause)
        return evaluate(*arguments)

    def counted(self, lane, programs):
        is_done = compute(self, lane, programs)
        trained.extend(lane.indices if is_done else ())
        return is_done

    training_workload.TrainingLane._evaluate = paused
    lanes.DeviceWorker.compute = counted
    return trained


if __name__ == "__main__":
    directory, pause, processes.HEARTBEAT, processes.EXPIRY = sys.argv[1], *map(float, sys.argv[2:])
    trained = slow(pause)
    print("ready", flush=True)
    result = fit(directory)
    print(json.dumps({"digest": digest(result), "trained": list(map(int, trained))}), flush=True)
