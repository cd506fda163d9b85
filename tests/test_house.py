"""The house: imports go down, the face is whole, and importing costs nothing that is not used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import weightdecay

PACKAGE = Path(weightdecay.__file__).parent
# From the ground up; a file imports from the floors below its own, and from its own only what stands before it.
FLOORS = [
    ["types"],
    ["tree", "markup"],
    ["penalties", "proximal", "losses", "augment", "schedules", "conventions"],
    ["rule", "terms", "placement"],
    ["layers", "masks"],
    ["coupled", "decoupled", "projected"],
    ["decay"],
    ["preconditioners", "transform", "optimizers", "theory"],
    ["dropout", "modes", "models", "linen_networks", "nnx_networks", "equinox_networks", "networks"],
    ["diagnostics", "lowering", "readers", "encoding", "sources"],
    ["examples", "splits", "builtin", "synthetic", "data"],
    ["tasks", "training", "evaluation"],
    ["distributions", "member_json", "domains", "sampling", "grid"],
    ["backend", "planning", "records"],
    ["files", "netcdf", "weight_files", "folders", "digests", "checkpoints", "directories"],
    ["uncertainty", "candidates", "edges", "selection", "labels", "tables", "joining"],
    ["units", "lines", "drawing", "heatmaps", "layer_plots", "rankings", "plots", "plotting"],
    ["illustrations", "report", "results"],
    ["axes", "batches", "groups", "preparing", "workers", "lane_programs", "lanes", "expectations"],
    ["progressing", "scoring", "running", "forecasting", "hoisting", "map_results", "mapping"],
    ["comparing", "printing", "jobs", "timing", "verdicts", "article_tables", "article", "cli"],
]
ORDER = [name for floor in FLOORS for name in floor]


def imports(name):
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "weightdecay":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("weightdecay."):
            found.add(node.module.split(".")[1])
    return found


def test_house_has_every_file_on_a_floor():
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_down(name):
    above = imports(name) - set(ORDER[: ORDER.index(name)])
    assert not above, f"{name} imports {above}, which stands above it"


def test_members_are_batched_in_two_places_alone():
    batching = [path.stem for path in PACKAGE.glob("*.py") if "vmap" in path.read_text()]
    # A module of equinox sees one example, so that its batch of examples is mapped.
    assert sorted(batching) == ["equinox_networks", "lane_programs", "mapping"]


def test_face_loads_every_name_that_it_lists():
    listed = ast.parse((PACKAGE / "__init__.pyi").read_text()).body[-1].value
    names = [element.value for element in listed.elts]
    assert sorted(weightdecay.__all__) == sorted(names)
    for name in names:
        assert getattr(weightdecay, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = weightdecay.nothing


def modules_after(code):
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(loaded.stdout.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import weightdecay", {"jax", "numpy"}),
        ("import weightdecay.cli", {"jax", "numpy", "pandas", "matplotlib", "sklearn"}),
        ("import weightdecay as wd; wd.adam(1e-3, wd.L2(0.1))", {"flax", "pandas", "xarray", "matplotlib", "sklearn"}),
        ("import weightdecay as wd; wd.fit_grid", {"matplotlib", "sklearn"}),
    ],
)
def test_import_loads_nothing_that_is_not_used(code, unwanted):
    assert not modules_after(code) & unwanted
