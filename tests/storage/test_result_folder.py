"""Result folders: what is written comes back, and no bytes whatever give anything else than that or a ValueError."""

import hashlib
import json
import os
import shutil
import struct
import tracemalloc

import jax
import numpy as np
import pytest
from flax import linen
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import weightdecay as wd
from compare import same_bits
from weightdecay.engine.plans import Plan
from weightdecay.storage import result_folder
from weightdecay.storage import weights as weight_files

FILES = ["dataset.nc", "weights.safetensors", "settings.json"]
TREE = {
    "Dense_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float16)},
    "scale": np.array(2.5, np.float32),
}


@pytest.fixture(scope="module")
def contents():
    data = wd.data.digits(num_train=50)
    grid = wd.Grid(
        decay=[wd.NoDecay(), wd.L2(wd.PerLayer({"Dense_0/kernel": 0.1}, default=0.0))],
        learning_rate=[0.1],
        seed=range(2),
    )
    result = wd.fit_grid(wd.models.MLP((4,)), data, grid, num_steps=4, batch_size=10, eval_every=2, progress=False)
    result.test()
    weights = [(result.params(member), result.model_state(member)) for member in range(len(result))]
    return result_folder.Contents(
        result.dataset, result.members, weights, result.settings, result._test, result.versions
    )


@pytest.fixture(scope="module")
def written(contents, tmp_path_factory):
    return result_folder.write(tmp_path_factory.mktemp("results") / "run", contents)


@pytest.fixture
def run(written, tmp_path):
    return shutil.copytree(written, tmp_path / "run")


def same(found, expected):
    assert found.dataset.identical(expected.dataset)
    assert (found.members, found.settings, found.test) == (expected.members, expected.settings, expected.test)
    assert len(found.weights) == len(expected.weights)
    for one, other in zip(found.weights, expected.weights, strict=True):
        same_bits(one, other)


def sign(folder, version=2, **changed):
    """Settings with sums that fit the files as they are, as one would write who means harm."""
    stored = json.loads((folder / "settings.json").read_text()) | changed | {"version": version}
    stored["sha256"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in FILES[:2]
        if (folder / name).is_file()
    }
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    stored["sha256"]["settings.json"] = hashlib.sha256(text.encode()).hexdigest()
    if version == 1:
        del stored["sha256"]
    (folder / "settings.json").write_text(json.dumps(stored))


def peak_of(read, path):
    tracemalloc.start()
    with pytest.raises(ValueError, match=str(path)) as refused:
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return str(refused.value), peak


@pytest.mark.slow
def test_read_gives_back_what_was_written(written, contents):
    same(result_folder.read(written), contents)


@pytest.mark.slow
def test_read_result_is_written_again_alike(written, contents, tmp_path):
    again = result_folder.write(tmp_path / "again", result_folder.read(written))
    same(result_folder.read(again), contents)
    assert (again / FILES[1]).read_bytes() == (written / FILES[1]).read_bytes()
    # xarray reads the coordinates in another order, and writes them so: the sums of the dataset, and with it of the
    # settings, are others.
    told = [json.loads((folder / FILES[2]).read_text()) for folder in (again, written)]
    for one in told:
        del one["sha256"][FILES[0]], one["sha256"][FILES[2]]
    assert told[0] == told[1]


def test_settings_hold_the_sums_that_the_docstring_says(written):
    stored = json.loads((written / "settings.json").read_text())
    assert list(stored) == ["format", "version", "versions", "settings", "test", "members", "sha256"]
    assert stored["version"] == 2
    own = stored["sha256"].pop("settings.json")
    assert stored["sha256"] == {name: hashlib.sha256((written / name).read_bytes()).hexdigest() for name in FILES[:2]}
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    assert own == hashlib.sha256(text.encode()).hexdigest()
    for key in stored:
        assert f"``{key}``" in result_folder.__doc__


def test_read_takes_version_1_without_sums(run, contents):
    sign(run, version=1)
    assert "sha256" not in json.loads((run / "settings.json").read_text())
    same(result_folder.read(run), contents)


def test_write_keeps_weights_in_fortran_order(contents, tmp_path):
    turned = [({"kernel": np.asfortranarray(np.arange(6.0).reshape(2, 3)) + member}, {}) for member in range(4)]
    read = result_folder.read(result_folder.write(tmp_path / "run", contents._replace(weights=turned)))
    for (params, _), (expected, _) in zip(read.weights, turned, strict=True):
        np.testing.assert_array_equal(params["kernel"], expected["kernel"])


@pytest.fixture
def mixed(contents):
    """Members whose weights differ in names, in shapes and in dtypes."""
    wider, half = ({"Dense_0": {"kernel": np.full((2, 5), 3.0, dtype)}} for dtype in (np.float32, np.float16))
    state = {"batch_stats": {"mean": np.arange(3, dtype=np.float32)}}
    return contents._replace(weights=[(TREE, {}), (wider, {}), (TREE, state), (half, {})])


def test_write_keeps_members_of_several_structures(mixed, tmp_path):
    run = result_folder.write(tmp_path / "run", mixed)
    same(result_folder.read(run), mixed)
    stored = json.loads((run / "settings.json").read_text())
    assert (stored["version"], stored["structures"]) == (3, [0, 1, 2, 3])
    arrays = load_file(run / "weights.safetensors")
    np.testing.assert_array_equal(arrays["2/model_state/batch_stats/mean"], [[0, 1, 2]])
    sizes = (2, 5, 2, 5)
    apart = [({"kernel": np.full((2, size), member, np.float32)}, {}) for member, size in enumerate(sizes)]
    alternating = mixed._replace(weights=apart)
    same(result_folder.read(result_folder.write(tmp_path / "other", alternating)), alternating)


@pytest.mark.parametrize(
    "structures", [None, [0, 1, 2], [0, 1, 2, 4], [0, 1, 2, -1], [0, 1, 2, True], [0, 0, 1, 2], [0] * 4]
)
def test_read_refuses_structures_that_do_not_fit_the_weights(structures, mixed, tmp_path):
    run = result_folder.write(tmp_path / "run", mixed)
    sign(run, version=3, structures=structures)
    with pytest.raises(ValueError, match=r"is missing, damaged or altered"):
        result_folder.read(run)


ODD_KEYS = {
    "slashes": {"inner/kernel/scale": np.arange(2.0), "inner": {"kernel": {"bias": np.ones(2)}}},
    "the same name by other keys": {"a": {"b": np.zeros(2), "c": np.ones(1)}, "a/b": np.ones(2), "a%2Fb": np.ones(3)},
    "a key above another": {"a": np.zeros(2), "a/b": np.ones(2)},
    "integers": {"layers": {0: np.zeros(2), 10: np.ones(2), -1: np.ones(1)}},
    "numbers of other types": {"x": {0.5: np.zeros(1)}, "y": {True: np.ones(1)}, "z": {None: np.ones(2)}},
    "tuples": {("kernel",): np.zeros(2), ("scale", 1, ("b/c",)): np.ones(2)},
    "other letters": {"ä/ö": {"": np.zeros(1)}, '\n\0"': np.ones(2), "%2F": np.ones(1), "'": np.ones(1)},
    "lists": {"layers": [{"w": np.zeros(2)}, {"w": np.ones(3)}], "0": np.ones(1)},
    "lists in lists": [[np.zeros(1), np.ones(2)], [np.ones(3)]],
    "items without arrays": [(), [np.zeros(1)], (), [np.ones(1)]],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_KEYS)
def test_keys_come_back_as_they_went_in(name, contents, tmp_path):
    params = ODD_KEYS[name]
    weights = [(jax.tree.map(lambda leaf, member=member: leaf + member, params), {"s": params}) for member in range(4)]
    odd = contents._replace(weights=weights)
    read = result_folder.read(result_folder.write(tmp_path / "run", odd))
    for one, expected in zip(read.weights, weights, strict=True):
        same_bits(one, expected)
    wider = contents._replace(weights=[(params, {}), (TREE, {})] * 2)  # of two structures
    read = result_folder.read(result_folder.write(tmp_path / "other", wider))
    for one, expected in zip(read.weights, wider.weights, strict=True):
        same_bits(one, expected)
    same_bits(weight_files.load_params(weight_files.write_params(tmp_path / "w.safetensors", params)), params)


def test_ordinary_keys_need_no_paths(written, tmp_path):
    """Files of ordinary keys are those that earlier releases wrote."""
    for file in (written / "weights.safetensors", weight_files.write_params(tmp_path / "w.safetensors", TREE)):
        with safe_open(file, framework="numpy") as opened:
            assert opened.metadata() is None


@pytest.mark.parametrize(
    "paths",
    [
        "[",
        "[" * 10**5,
        "[]",
        '{"w": 1}',
        '{"w": []}',
        '{"w": [-1]}',
        '{"w": [true]}',
        '{"w": [{}]}',
        '{"w": [{"key": {}}]}',
        '{"w": [1000000000]}',
        '{"w": [' + "0," * 1000 + "0]}",
        '{"w": ["v"]}',
        '{"w": [0]}',
    ],
)
def test_paths_that_make_no_tree_are_refused(paths, tmp_path):
    file = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(1), "v": np.zeros(1)}, file, {"paths": paths})
    told, peak = peak_of(weight_files.load_params, file)
    assert told.startswith(f"file {file} is missing, damaged or altered (")
    assert peak < 4 * 2**20  # the modules' own


@pytest.mark.slow
def test_networks_are_applied_with_keys_that_hold_slashes(tmp_path):
    class Normalized(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            return linen.Dense(10)(linen.WeightNorm(linen.Dense(4, name="inner"))(inputs))

    data = wd.data.digits(num_train=50)
    settings = {"num_steps": 2, "batch_size": 10, "plan": Plan(1, 1), "progress": False}
    result = wd.fit_grid(Normalized(), data, wd.Grid(learning_rate=0.1), **settings)
    result.save(tmp_path / "run")
    params = wd.load(tmp_path / "run").params(0)
    same_bits(params, jax.tree.map(np.asarray, result.params(0)))
    assert Normalized().apply({"params": params}, data.validation[0]).shape == (len(data.validation[0]), 10)


def test_write_refuses_settings_that_could_not_be_read(contents, tmp_path, monkeypatch):
    monkeypatch.setattr(result_folder, "_LARGEST_SETTINGS", 1000)
    with pytest.raises(
        ValueError, match=r"hyperparameters of 4 members take \d+ bytes, settings.json may have 1000; save"
    ):
        result_folder.write(tmp_path / "run", contents)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@settings(max_examples=100, deadline=None)
@given(draw=st.data())
def test_truncated_and_altered_folders_are_refused(name, written, contents, tmp_path_factory, draw):
    run = tmp_path_factory.getbasetemp() / "fuzzed"
    if not run.exists():
        shutil.copytree(written, run)
    whole = (written / name).read_bytes()
    altered = bytearray(whole[: draw.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    for place in draw.draw(st.lists(st.integers(0, len(altered) - 1), max_size=3)) if altered else []:
        altered[place] = draw.draw(st.integers(0, 255))
    (run / name).write_bytes(altered)
    try:
        same(result_folder.read(run), contents)
        refused = None
    except (ValueError, FileNotFoundError) as error:
        refused = error
    finally:
        (run / name).write_bytes(whole)
    # White space in JSON is free.
    assert (
        refused is not None
        or altered == whole
        or (name == "settings.json" and json.loads(altered) == json.loads(whole))
    )
    assert refused is None or str(run) in str(refused)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("version", [1, 2])
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_altered_folders_whose_sums_fit_do_no_harm(name, version, written, tmp_path_factory, draw):
    run = tmp_path_factory.getbasetemp() / "signed"
    if run.exists():
        shutil.rmtree(run)
    shutil.copytree(written, run)
    altered = bytearray((run / name).read_bytes())
    # Headers are where harm is done.
    for place in draw.draw(st.lists(st.integers(0, min(len(altered), 600) - 1), min_size=1, max_size=4)):
        altered[place] = draw.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, *b'0123456789"[]{},']))
    (run / name).write_bytes(altered)
    if name != "settings.json" or version == 1:
        try:
            sign(run, version=version)
        except (ValueError, TypeError):
            return
    tracemalloc.start()
    try:
        read = result_folder.read(run)
    except (ValueError, FileNotFoundError) as error:
        read = None
        told = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    if read is None:
        assert str(run) in told
    else:
        assert len(read.members) == len(read.weights) == read.dataset.sizes["member"]
        _ = list(read.weights)


def test_settings_cannot_leave_their_sums_behind(run):
    stored = json.loads((run / "settings.json").read_text())
    stored["members"][0]["learning_rate"] = 0.2
    for version in (1, 2):
        (run / "settings.json").write_text(json.dumps(stored | {"version": version}))
        with pytest.raises(
            ValueError, match=r"settings.json is missing, damaged or altered \(its content does not match"
        ):
            result_folder.read(run)
    del stored["sha256"]
    (run / "settings.json").write_text(json.dumps(stored))
    with pytest.raises(
        ValueError, match=r"settings.json is missing, damaged or altered \(KeyError: 'sha256'\); save it again"
    ):
        result_folder.read(run)


@pytest.mark.parametrize("name", FILES[:2])
def test_one_changed_number_is_told(run, name):
    content = bytearray((run / name).read_bytes())
    content[-1] ^= 1
    (run / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{name} is missing, damaged or altered \(its sha256 is \w+, settings.json has"
    ):
        result_folder.read(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "damaged or altered .*Expecting value"),
        (b"[" * 10**6, "nested too deeply"),
        (b'{"format": "weightdecay result", "version": 1, "members": NaN}', "it holds NaN"),
        (b'{"format": "weightdecay result", "version": "2"}', "its version is '2'"),
        (b'{"format": "weightdecay result", "version": true}', "its version is True"),
        (b'{"format": "weightdecay result", "version": 1}', r"damaged or altered \(KeyError: 'members'\)"),
        (
            b'{"format": "weightdecay result", "version": 1, "members": [{"decay": {"rule": "os.system"}}]}',
            "no such rule is defined here",
        ),
        (b'{"format": "weightdecay result", "version": 5}', "format version 5, this library reads up to 4; upgrade"),
        (b'{"format": "weightdecay result", "version": ' + b"9" * 5000 + b"}", "damaged or altered"),
        (b"\xff\xfe{}", "damaged or altered .*utf-8"),
    ],
)
def test_read_refuses_settings(text, message, tmp_path):
    (tmp_path / "settings.json").write_bytes(text)
    with pytest.raises(ValueError, match=rf"(?s){tmp_path}.*{message}"):
        result_folder.read(tmp_path)


def test_read_tells_what_is_no_result(tmp_path):
    for text in (None, "[]", '{"format": "another"}'):
        if text:
            (tmp_path / "settings.json").write_text(text)
        with pytest.raises(FileNotFoundError, match="holds no weightdecay result; give a folder that"):
            result_folder.read(tmp_path)
        assert not result_folder.is_result(tmp_path)


def test_huge_settings_are_refused_unread(run):
    os.truncate(run / "settings.json", 2**40)  # takes no place on the disk
    assert not result_folder.is_result(run)
    told, peak = peak_of(result_folder.read, run)
    assert "settings.json is missing, damaged or altered (it has more than 268435456 bytes)" in told
    assert peak < 2**20


@pytest.mark.parametrize("name", FILES)
def test_pipes_are_refused_without_waiting(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises((ValueError, FileNotFoundError), match=str(run)):
        result_folder.read(run)


def netcdf(dimensions, arrays, data=b""):
    """Header of a netCDF 3 file: lengths of the dimensions; dimension numbers, type and start of each array."""

    def entries(tag, items):
        return struct.pack(">ii", tag if items else 0, len(items)) + b"".join(items)

    def word(text):
        return struct.pack(">i", len(text)) + text.encode().ljust(-(-len(text) // 4) * 4, b"\0")

    lengths = [word(name) + struct.pack(">i", length) for name, length in dimensions]
    headers = [
        word(f"v{number}")
        + struct.pack(f">i{len(shape)}i", len(shape), *shape)
        + entries(12, [])
        + struct.pack(">iiq", kind, 0, begin)
        for number, (shape, kind, begin) in enumerate(arrays)
    ]
    return b"CDF\2" + struct.pack(">i", 0) + entries(10, lengths) + entries(12, []) + entries(11, headers) + data


HUGE = 2**31 - 1


BAD_DATASETS = {
    "long": (netcdf([("member", HUGE)], [([0], 6, 0)]), r"an array of shape \(2147483647,\) does not fit in it"),
    "long in many dimensions": (
        netcdf([("a", HUGE), ("member", HUGE)], [([0, 1] * 8, 6, 0)]),
        r"an array of shape .* does not fit in it",
    ),
    "many dimensions": (netcdf([("member", HUGE)], [([0] * 10_000, 6, 0)]), "an array in it has 10000 dimensions"),
    "record dimension": (netcdf([("member", 0)], [([0], 6, 0)]), r"an array of shape \(0,\) does not fit in it"),
    "negative length": (netcdf([("member", -4)], [([0], 6, 0)]), r"an array of shape \(-4,\) does not fit in it"),
    "one place for all": (netcdf([("member", 1000)], [([0], 6, 0)] * 1000, bytes(8000)), "its arrays do not fit in it"),
    "one name for two dimensions": (
        netcdf([("member", 4), ("member", HUGE)], [([0], 6, 0)]),
        "two dimensions in it have the name b'member",
    ),
    "start before the file": (
        netcdf([("member", 4)], [([0], 6, -8)], bytes(32)),
        r"an array of shape \(4,\) does not fit in it",
    ),
    "unknown type": (netcdf([("member", 4)], [([0], 99, 0)], bytes(32)), "KeyError: 99"),
    "unknown dimension": (netcdf([("member", 4)], [([7], 6, 0)], bytes(32)), "list index out of range"),
    "many dimensions told": (b"CDF\2\0\0\0\0\0\0\0\x0a\x7f\xff\xff\xff", "it is cut off in its header"),
    "long name": (b"CDF\2\0\0\0\0\0\0\0\x0a\0\0\0\1\x7f\xff\xff\xff", "it is cut off in its header"),
    "other tag": (b"CDF\2\0\0\0\0\0\0\0\x63\0\0\0\1", "its header is not a netCDF header"),
    "netCDF 5": (b"CDF\5" + bytes(100), "it starts with b'CDF.x05', unlike a netCDF 3 file"),
    "HDF 5": (b"\x89HDF\r\n", "it starts with"),
    "no members": (netcdf([("step", 4)], [([0], 6, 0)], bytes(32)), "KeyError"),
    "other number of members": (
        netcdf([("member", 3)], [([0], 6, 0)], bytes(32)),
        "it has 3 members, settings.json has 4",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_DATASETS)
def test_datasets_are_refused_before_memory_is_taken(run, name):
    content, message = BAD_DATASETS[name]
    (run / "dataset.nc").write_bytes(content)
    sign(run)
    told, peak = peak_of(result_folder.read, run)
    assert peak < 4 * 2**20  # the modules' own; the arrays would take gigabytes
    with pytest.raises(ValueError, match=f"dataset.nc is missing, damaged or altered .*{message}"):
        result_folder.read(run)
    assert "save it again" in told


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def floats(*shape):
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod(shape))]}


BAD_WEIGHTS = {
    "empty": (b"", "header too small"),
    "huge header": (struct.pack("<Q", 2**60) + b"{}", "header too large"),
    "huge array": (safetensors({"params/w": floats(4, 2**40)}), "file not fully covered"),
    "overflow": (safetensors({"params/w": floats(4) | {"shape": [2**62, 2**62]}}, bytes(16)), "overflow"),
    "many dimensions": (safetensors({"params/w": floats(4, *[1] * 99)}, bytes(16)), "maximum supported dimension"),
    "unknown dtype": (safetensors({"params/w": floats(4) | {"dtype": "F128"}}, bytes(16)), "unknown variant `F128`"),
    "deep name": (safetensors({"params/" + "a/" * 10_000: floats(4)}, bytes(16)), "a name in it has 10002 parts"),
    "deep header": (safetensors(b"[" * 10**6), "invalid JSON in header"),
    "trailing": (safetensors({"params/w": floats(4)}, bytes(20)), "file not fully covered"),
    "nothing": (safetensors({}), "(its arrays are not all of|KeyError)"),
    "pickle": (b"\x80\x04cos\nsystem\n", "header too large"),
}
BAD_STACKS = {
    "another number": (safetensors({"params/w": floats(3)}, bytes(12)), r"params/w has shape \(3,\), .* has 4 members"),
    "more members": (safetensors({"params/w": floats(5)}, bytes(20)), r"params/w has shape \(5,\)"),
    "no dimension": (safetensors({"params/w": floats() | {"data_offsets": [0, 4]}}, bytes(4)), r"has shape \(\)"),
    "other name": (
        safetensors({"weights/w": floats(4)}, bytes(16)),
        "its arrays are not all of params/..., model_state",
    ),
}
BELOW = {
    "params/a": floats(4),
    "params/a/b": floats(4) | {"data_offsets": [16, 32]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BAD_WEIGHTS, *BAD_STACKS])
@pytest.mark.parametrize("version", [1, 2])
def test_weights_are_refused_before_memory_is_taken(run, name, version):
    content, message = (BAD_WEIGHTS | BAD_STACKS)[name]
    (run / "weights.safetensors").write_bytes(content)
    sign(run, version)
    told, peak = peak_of(result_folder.read, run)
    assert peak < 4 * 2**20  # the modules' own
    with pytest.raises(ValueError, match=f"weights.safetensors is missing, damaged or altered .*{message}"):
        result_folder.read(run)
    assert "save it again" in told


def test_weights_below_another_array_are_refused(run):
    (run / "weights.safetensors").write_bytes(safetensors(BELOW, bytes(32)))
    sign(run)
    with pytest.raises(ValueError, match=r"params/a(/b)? is (below|above) another array"):
        result_folder.read(run)


def test_params_come_back_from_a_file(tmp_path):
    path = weight_files.write_params(tmp_path / "deep" / "member.safetensors", TREE)
    assert sorted(load_file(path)) == ["Dense_0/bias", "Dense_0/kernel", "scale"]
    same_bits(weight_files.load_params(path), TREE)
    assert os.listdir(path.parent) == ["member.safetensors"]


def test_params_that_are_one_array_come_back(tmp_path):
    same_bits(
        weight_files.load_params(weight_files.write_params(tmp_path / "w.safetensors", np.arange(3.0))), np.arange(3.0)
    )


def test_params_keep_their_order_in_memory_apart(tmp_path):
    turned = {"kernel": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "strided": np.arange(10)[::3]}
    read = weight_files.load_params(weight_files.write_params(tmp_path / "w.safetensors", turned))
    for name, array in turned.items():
        np.testing.assert_array_equal(read[name], array)


def test_load_params_takes_files_of_other_programs(tmp_path):
    save_file({"layer.0.weight": np.ones((2, 2), np.float32)}, tmp_path / "torch.safetensors")
    assert list(weight_files.load_params(tmp_path / "torch.safetensors")) == ["layer.0.weight"]


def test_write_params_replaces_a_file_only_when_told(tmp_path):
    path = weight_files.write_params(tmp_path / "w.safetensors", TREE)
    before = path.read_bytes()
    other = {"w": np.zeros(2)}
    with pytest.raises(FileExistsError, match=r"exists; nothing was changed. Give another .* overwrite=True"):
        weight_files.write_params(path, other)
    assert path.read_bytes() == before
    weight_files.write_params(path, other, overwrite=True)
    same_bits(weight_files.load_params(path), other)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileExistsError, match=r"folder.safetensors exists; nothing was changed. Give another path\.$"):
        weight_files.write_params(tmp_path / "folder.safetensors", other, overwrite=True)


def test_write_params_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = weight_files.write_params(tmp_path / "w.safetensors", TREE)

    def fail(arrays, file, metadata):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        weight_files.write_params(path, {"w": np.zeros(2)}, overwrite=True)
    same_bits(weight_files.load_params(path), TREE)
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("w.npz", TREE, r"w.npz; give a file name that ends in .safetensors"),
        ("w.safetensors", {}, "params holds no weights; give a tree"),
    ],
)
def test_write_params_refuses(name, params, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        weight_files.write_params(tmp_path / name, params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_load_params_refuses(name, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(BAD_WEIGHTS[name][0])
    told, peak = peak_of(weight_files.load_params, path)
    assert told.startswith(f"file {path} is missing, damaged or altered (")
    assert peak < 4 * 2**20  # the modules' own


def test_load_params_leaves_errors_of_the_file_system_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weight_files.load_params(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="is a folder; give a safetensors file"):
        weight_files.load_params(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="it is not a regular file"):
        weight_files.load_params(tmp_path / "pipe")
