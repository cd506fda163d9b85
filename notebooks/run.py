"""Run the notebooks, and write them with their new outputs.

    python notebooks/run.py [NAME ...] [--small]

Without names all of them run, one after the other. With ``--small`` they run at the small size of the tests, and are
not written.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))

# The content of the cell tagged "parameters" at the small size: each of its names, with a smaller value.
SMALL: dict[str, dict[str, Any]] = {
    "a_tenth_of_the_grid": {"NUM_STEPS": 20, "NUM_COEFFICIENTS": 5, "SEEDS": 2, "BUDGET": 0.3},
    "a_grid_of_thousands": {"NUM_CANDIDATES": 32, "SEEDS": 2, "NUM_STEPS": 20, "NUM_TRAIN": 100},
    "coupled_and_decoupled": {"NUM_STEPS": 20, "SEEDS": 2, "NUM_COEFFICIENTS": 4, "NUM_LEARNING_RATES": 3},
    "dropout_and_normalization": {
        "NUM_STEPS": 20,
        "NUM_TRAIN": 100,
        "NUM_COEFFICIENTS": 2,
        "DROPOUT_RATES": (0.0, 0.5),
        "NUM_TRIALS": 2,
        "SEEDS": 2,
    },
    "fine_tuning": {"NUM_PRETRAINING_STEPS": 20, "NUM_STEPS": 20, "NUM_TRAIN": 60, "NUM_COEFFICIENTS": 3, "SEEDS": 2},
    "first_sweep": {"NUM_STEPS": 20, "SEEDS": 2, "NUM_COEFFICIENTS": 3, "LEARNING_RATES": [1e-3, 3e-3]},
    "in_scikit_learn": {"NUM_STEPS": 20, "NUM_COEFFICIENTS": 2, "FOLDS": 2, "OUTER_FOLDS": 2},
    "l1_and_sparsity": {
        "NUM_LASSO_STEPS": 20,
        "NUM_ALPHAS": 3,
        "NUM_STEPS": 20,
        "NUM_COEFFICIENTS": 3,
        "SEEDS": 2,
    },
    "norms_and_rotation": {"NUM_STEPS": 40, "EVAL_EVERY": 10, "COEFFICIENTS": (0.3, 3.0), "SEEDS": 2},
    "repeated_text": {"NUM_STEPS": 20, "EPOCHS": (1, 4), "NUM_COEFFICIENTS": 2, "SEEDS": 2},
    "several_machines": {"NUM_STEPS": 20, "NUM_COEFFICIENTS": 3, "SEEDS": 2},
    "what_a_coefficient_means": {"NUM_STEPS": 20, "ALPHAS": [1.0, 100.0], "NUM_FREE_STEPS": 10},
    "your_own_network": {"NUM_STEPS": 20, "NUM_TRAIN": 100, "NUM_COEFFICIENTS": 2, "SEEDS": 2, "WIDTHS": (16,)},
}


def read(name: str) -> Any:
    """Read a notebook."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(notebook: Any, folder: Path, values: dict[str, Any] | None = None) -> Any:
    """Execute a notebook in a new kernel.

    Args:
      notebook: The notebook; its outputs are replaced.
      folder: Where it runs.
      values: New content of its parameters cell; None = as it is.

    Returns:
      The same notebook.
    """
    if values is not None:
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        first.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    # The kernel draws into the notebook, and does not use the settings of the person who runs it.
    environment = {variable: value for variable, value in os.environ.items() if variable != "MPLBACKEND"}
    environment |= {"IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": str(FOLDER.parent)}
    client = NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env=environment)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--small", action="store_true", help="at the small size of the tests, without writing")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no notebook {unknown[0]}; give some of {', '.join(NAMES)}")
    for name in options.names or NAMES:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(read(name), Path(folder), SMALL[name] if options.small else None)
        if not options.small:
            notebook.metadata.language_info = {"name": "python"}
            nbformat.write(notebook, FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
