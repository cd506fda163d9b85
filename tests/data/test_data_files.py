"""Files of examples: read as NumPy, gzip and pandas have them; no bytes whatever do more than raise a ValueError."""

import csv
import gzip
import io
import math
import re
import struct
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weightdecay as wd
from weightdecay.data import files

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
ARRAYS = {"inputs": np.linspace(0, 1, 12).reshape(4, 3), "targets": np.arange(4)}
TABLE = pd.DataFrame(
    {
        "size": [1.5, -2.25, 3e-7, 1e20, 0.1, 7.0],
        "kind": ["b", "a", "c", "a", "b, or so", "a"],
        "age": [3, 1, 4, 1, 5, 9],
    }
)


def idx(array):
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.name], array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npz(arrays, save=np.savez_compressed):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(header, data=b""):
    text = repr(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def read_table(path, **options):
    return files.read_csv(path, **{"target": "kind"} | options)


@pytest.fixture(name="file")
def a_file(tmp_path):
    def write(content):
        path = tmp_path / "examples"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(7,), (5, 4, 3), (2, 1, 3, 2)])
@pytest.mark.parametrize("name", CODES)
def test_read_idx_reads_what_was_written(name, shape, compress, file):
    array = np.random.default_rng(1).normal(0, 50, shape).astype(name)
    read = files.read_idx(file(compress(idx(array))))
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    assert read.flags.writeable


def test_read_idx_reads_the_bytes_of_the_format(file):
    # Written out by hand: int16, shape (2, 2), big end first.
    read = files.read_idx(file(bytes([0, 0, 0x0B, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 1, 1, 0, 0xFF, 0xFF, 0x80, 0])))
    assert read.tolist() == [[1, 256], [-1, -32768]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_npz_reads_what_numpy_wrote(save, file):
    arrays = {
        "scalar": np.float32(3),
        "empty": np.zeros((0, 5)),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(4, dtype=">i4"),
        "half": np.ones((2, 2, 2), np.float16),
        "truth": np.array([True, False]),
        "folder/name": np.arange(3, dtype=np.uint8),
    }
    path = file(npz(arrays, save))
    read = files.read_npz(path)
    with np.load(path) as expected:
        assert list(read) == list(expected) == list(arrays)
        for name, array in read.items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.shape == expected[name].shape
            assert array.dtype == expected[name].dtype.newbyteorder("=")


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize(("target", "header"), [("kind", None), (1, None), (-2, True)])
def test_read_csv_agrees_with_pandas(compress, target, header, file):
    inputs, targets = files.read_csv(file(compress(TABLE.to_csv(index=False).encode())), target=target, header=header)
    np.testing.assert_array_equal(inputs, TABLE[["size", "age"]].to_numpy(np.float32))
    np.testing.assert_array_equal(targets, pd.Categorical(TABLE["kind"]).codes)
    assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)


def test_read_csv_without_header_takes_every_row(file):
    path = file(TABLE[["size", "age"]].to_csv(index=False, header=False).encode())
    for header in (None, False):
        inputs, targets = files.read_csv(path, target=-1, header=header)
        np.testing.assert_array_equal(inputs[:, 0], TABLE["size"].to_numpy(np.float32))
        assert targets.tolist() == TABLE["age"].to_list()
    # Words as targets and no names: only the reader's caller can know.
    path = file(b"1,yes\n2,no\n3,yes\n")
    assert files.read_csv(path, target=1, header=False)[1].tolist() == [1, 0, 1]
    assert files.read_csv(path, target=1)[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (["0", "2", "1"], np.int32),
        (["1.0", "2e0", "-3"], np.int32),  # numpy.savetxt writes whole numbers so
        (["0.5", "2", "1"], np.float32),
        (["1", "2", "3000000000"], np.float32),
        (["no", "yes", "no"], np.int32),
        (["True", "False", "True"], np.int32),
    ],
)
def test_read_csv_tells_classes_from_real_targets(column, dtype, file):
    _, targets = files.read_csv(file("".join(f"1,{cell}\n" for cell in column).encode()), target=1, header=False)
    assert targets.dtype == dtype
    words = sorted(set(column))
    expected = [words.index(cell) for cell in column] if column[0][0] in "nyT" else [float(cell) for cell in column]
    assert targets.tolist() == expected


def test_read_csv_takes_the_forms_of_ordinary_programs(file):
    text = '\n "first, name" , y\r\n\r\n 1.5 , "3"\r\n"2",  4 \r\n   \r\n'
    inputs, targets = files.read_csv(file(b"\xef\xbb\xbf" + text.encode()), target="y")
    assert (inputs.tolist(), targets.tolist()) == ([[1.5], [2]], [3, 4])
    inputs, targets = files.read_csv(file(b'x,"y\nz"\n1,2\n'), target="y\nz")
    assert (inputs.tolist(), targets.tolist()) == ([[1]], [2])


def test_read_csv_reads_the_floats_of_numpy(file):
    values = np.random.default_rng(0).normal(size=(50, 4)) * 10.0 ** np.arange(-30, 30, 15)
    text = io.StringIO()
    np.savetxt(text, values, delimiter=",")
    inputs, targets = files.read_csv(file(text.getvalue().encode()), target=0)
    # One unit in the last place of float32: a parser may miss float64 by one, and so tip a rounding.
    np.testing.assert_allclose(inputs, values[:, 1:], rtol=1.2e-7)
    np.testing.assert_allclose(targets, values[:, 0], rtol=1.2e-7)


def test_what_is_read_is_split_and_trained_on(file):
    rows = [f"{x},{-x},{'high' if x > 20 else 'low'}" for x in range(40)]
    data = wd.data.split(*files.read_csv(file("\n".join(["a,b,y", *rows]).encode()), target="y"))
    wd.data.check(data, batch_size=8)
    assert data.train[0].shape == (24, 2)


GOOD_IDX = idx(IMAGES)
BAD_IDX = {
    "empty": (b"", "is not an IDX file: it begins with b'', not with two zero bytes"),
    "other magic": (b"\x89PNG" + GOOD_IDX, "is not an IDX file: it begins with"),
    "unknown dtype": (
        b"\0\0\x0a\x01" + GOOD_IDX[4:],
        r"has the dtype code 0x0a; IDX has the codes 0x08 \(uint8\), .* again",
    ),
    "no dimension": (b"\0\0\x08\0", "has 0 dimensions in its header; an array has 1 to 64"),
    "many dimensions": (b"\0\0\x08\xff" + b"\0\0\0\1" * 255, "has 255 dimensions in its header"),
    "cut in the header": (GOOD_IDX[:9], "is truncated in its header; download the file again"),
    "no examples": (b"\0\0\x08\2\0\0\0\0\xff\xff\xff\xff", r"is empty: its header has shape \(0, 4294967295\)"),
    "too short": (
        GOOD_IDX[:-1],
        r"is truncated: its header has shape \(5, 4, 3\) of uint8, which is 60 .* contains 59",
    ),
    "too long": (
        GOOD_IDX + b"\0",
        "continues after its last number: .* is 60 bytes, and it contains more; download it",
    ),
    "huge": (b"\0\0\x0e\x40" + b"\xff" * 256, r"has \d{600,} bytes or more .* max_bytes is 4294967296; give a larger"),
    "broken gzip": (gzip.compress(GOOD_IDX)[:-9], "is damaged or is not an IDX file .*EOFError.*; download or save"),
    "wrong check sum": (gzip.compress(GOOD_IDX)[:-8] + bytes(8), "is damaged or is not an IDX file .*CRC"),
    "garbage behind gzip": (gzip.compress(GOOD_IDX) + b"more", "is damaged or is not an IDX file .*BadGzipFile"),
}
OBJECTS = np.array([{"a": 1}, None], dtype=object)
STRUCTURED = np.zeros(3, [("a", "f4"), ("b", "i4")])
BAD_NPZ = {
    "empty": (b"", "is damaged or is not an NPZ file .*BadZipFile"),
    "npy": (
        npy({"descr": "<f4", "fortran_order": False, "shape": (1,)}, bytes(4)),
        "is damaged or is not an NPZ file .*BadZip",
    ),
    "no members": (zipped({}), r"contains no array; write it with numpy.savez\(path, inputs=..., targets=...\)"),
    "no array": (
        zipped({"readme.txt": b"hello"}),
        "contains 'readme.txt', which is not an array; write it with numpy.savez",
    ),
    "objects": (
        npz({"x": OBJECTS}),
        r"contains 'x', an array of Python objects, which are pickles and can execute code .*; save",
    ),
    "structured": (npz({"x": STRUCTURED}), r"contains 'x', an array of dtype .* is not a number; save numbers"),
    "words": (
        npz({"x": np.array(["a", "b"])}),
        "contains 'x', an array of dtype <U1, which is not a number; save numbers",
    ),
    "no npy": (zipped({"x.npy": b"\x80\x04N."}), "is damaged or is not an NPZ file .*ValueError"),
    "new npy": (zipped({"x.npy": b"\x93NUMPY\x03\x00" + bytes(100)}), r"contains 'x' in version \(3, 0\) of NPY"),
    "short": (
        zipped({"x.npy": npy({"descr": "<f8", "fortran_order": False, "shape": (2**40,)}, bytes(8))}),
        r"contains 'x' in 8 bytes, and its header has shape \(1099511627776,\) of float64, which is 8796093022208",
    ),
    "negative": (
        zipped({"x.npy": npy({"descr": "<f8", "fortran_order": False, "shape": (-1, -1)}, bytes(8))}),
        r"contains 'x' in 8 bytes, and its header has shape \(-1, -1\)",
    ),
    "code in the header": (zipped({"x.npy": npy("__import__('os').abort()")}), "is damaged or is not an NPZ file"),
    "nested header": (
        zipped({"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000}),
        "is damaged or is not an NPZ file",
    ),
    "other compression": (
        zipped({"x.npy": npy({"descr": "<f8", "fortran_order": False, "shape": ()}, bytes(8))}, zipfile.ZIP_BZIP2),
        "contains 'x' in compression 12, which NumPy does not write",
    ),
    "other count": (
        npz(ARRAYS)[:-12] + b"\3" + npz(ARRAYS)[-11:],
        "states that it contains 3 arrays and lists 2; download",
    ),
    "cut": (npz(ARRAYS)[:-30], "is damaged or is not an NPZ file .*BadZipFile"),
}
BAD_CSV = {
    "empty": (b"", {}, "has 0 columns; separate the cells by commas"),
    "one column": (b"kind;size\n1;2\n", {}, "has 1 columns; separate the cells by commas, with at least one input"),
    "wide": (b"," * 200_000, {}, "has 200001 columns; .* at most 131072 columns"),
    "header alone": (b"size,kind\n", {}, "contains no examples; give at least one row after the header"),
    "no such name": (
        b"size,sort\n1,2\n",
        {},
        "has 0 columns with the name 'kind', which is the target; .* one of: size, sort",
    ),
    "twice": (b"kind,size,kind\n1,2,3\n", {}, "has 2 columns with the name 'kind'"),
    "name without header": (b"1,2\n3,4\n", {}, "has no header, and target is 'kind'; give an index from 0, or -1"),
    "no such position": (b"1,2\n3,4\n", {"target": 2}, "has 2 columns, and target is 2; give -2 to 1, or a name"),
    "word": (
        b"size,kind\n1,2\nbig,4\n",
        {},
        "contains 'big' in column 'size', row 2, which is not a number; write inputs as",
    ),
    "word without header": (b"1,2\nbig,4\n", {"target": 1}, "contains 'big' in column 0, row 2, which is not a number"),
    "truth": (b"size,kind\nTrue,2\nFalse,4\n", {}, "contains 'True' in column 'size', row 1, which is not a number"),
    "missing": (
        b"size,kind\n1,2\n\n,4\n",
        {},
        "has a missing value in column 'size', row 2; replace it or remove the row",
    ),
    "missing target": (b"size,kind\n1,2\n3, \n", {}, "has a missing value in column 'kind', row 2"),
    "missing word": (b"size,kind\n1,a\n3,\n", {}, "has a missing value in column 'kind', row 2"),
    "NA": (b"size,kind\n1,2\nNA,4\n", {}, "contains 'NA' in column 'size', row 2, which is not a number"),
    "nan": (b"size,kind\n1,2\nnan,4\n", {}, "contains 'nan' in column 'size', row 2; give a finite number"),
    "infinite": (b"size,kind\n1,2\n-inf,4\n", {}, "contains '-inf' in column 'size', row 2; give a finite number"),
    "beyond float32": (
        b"size,kind\n1,2\n1e39,4\n",
        {},
        "contains '1e39' in column 'size', row 2; give a finite .* float32",
    ),
    "infinite target": (
        b"size,kind\n1,2\n3,1e400\n",
        {},
        "contains '1e400' in column 'kind', row 2; give a finite number",
    ),
    "mixed target": (
        b"size,kind\n1,2\n3,x\n",
        {},
        "contains 'x' in column 'kind', row 2, the target column, whose first rows are numbers",
    ),
    "mixed words": (
        b"size,kind\n1,x\n3,2\n",
        {},
        "contains '2' in column 'kind', row 2, the target column, whose first rows are strings",
    ),
    "long row": (
        b"size,kind\n1,2\n3,4,5\n",
        {},
        "has 3 cells in row 2 and 2 in its first line; give all rows the same",
    ),
    "short row": (b"size,kind\n1,2\n3\n", {}, "has 1 cells in row 2 and 2 in its first line"),
    "long header": (b"size,age,kind\n1,2\n3,4\n", {}, "has 2 cells in row 1 and 3 in its first line"),
    "short header": (b"size,kind\n1,2,3\n4,5,6\n", {}, "has 3 cells in row 1 and 2 in its first line"),
    "separators behind": (b"size,kind\n1,2,\n3,4,\n", {}, "has 3 cells in row 1 and 2 in its first line"),
    "zero byte": (
        b"size,kind\n1\x002,3\n",
        {},
        "contains zero bytes, so it is not UTF-8 text; save it as CSV in UTF-8",
    ),
    "UTF-16": ("size,kind\n1,2\n".encode("utf-16"), {}, "contains zero bytes, so it is not UTF-8 text"),
    "latin-1": ("größe,kind\n1,2\n".encode("latin-1"), {}, "is damaged or is not a CSV file .*UnicodeDecodeError"),
    "open quote": (b'size,kind\n1,2\n"3,4\n', {}, "has 1 cells in row 2"),
    "underscore": (b"size,kind\n1_000,2\n", {}, "contains '1_000' in column 'size', row 1, which is not a number"),
    "cut gzip": (gzip.compress(TABLE.to_csv().encode())[:-9], {}, "is damaged or is not a CSV file .*EOFError"),
    "too large": (
        b"size,kind\n1,2\n",
        {"max_bytes": 10},
        r"has 11 bytes or more .* and max_bytes is 10; give a larger",
    ),
}


@pytest.mark.parametrize("name", BAD_IDX)
def test_read_idx_refuses(name, file):
    content, message = BAD_IDX[name]
    with pytest.raises(ValueError, match=rf"^file \S*examples {message}"):
        files.read_idx(file(content))


@pytest.mark.parametrize("name", BAD_NPZ)
def test_read_npz_refuses(name, file):
    content, message = BAD_NPZ[name]
    with pytest.raises(ValueError, match=rf"^file \S*examples {message}"):
        files.read_npz(file(content))


@pytest.mark.parametrize("name", BAD_CSV)
def test_read_csv_refuses(name, file):
    content, options, message = BAD_CSV[name]
    with pytest.raises(ValueError, match=rf"(?s)^file \S*examples {message}"):
        read_table(file(content), **options)


@pytest.mark.parametrize("read", [files.read_idx, files.read_npz, read_table])
def test_readers_leave_errors_of_the_file_system_alone(read, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        read(tmp_path)


def test_read_npz_runs_no_pickle(file, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    array = np.empty(1, object)
    array[0] = Evil()
    with pytest.raises(ValueError, match="can execute code when opened"):
        files.read_npz(file(npz({"x": array})))
    assert not (tmp_path / "touched").exists()


def gzip_bomb(start, size):
    return gzip.compress(start + bytes(size) if start[:1] == b"\0" else start + b"1" * size)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        # Declares 60 bytes, unfolds to 200 MiB; then declares as much as it holds.
        (files.read_idx, gzip_bomb(GOOD_IDX, 200 * 2**20), "continues after its last number"),
        (
            files.read_idx,
            gzip_bomb(b"\0\0\x08\x01" + struct.pack(">I", 200 * 2**20), 200 * 2**20),
            "max_bytes is 1048576",
        ),
        (read_table, gzip_bomb(b"kind,size\n", 200 * 2**20), "has 1048577 bytes or more"),
        (
            files.read_npz,
            zipped({"x.npy": npy({"descr": "|u1", "fortran_order": False, "shape": (2**27,)}, bytes(2**27))}, 8),
            r"has 134217856 bytes or more \(according to its directory\), and max_bytes is 1048576",
        ),
    ],
    ids=["idx that lies", "idx", "csv", "npz"],
)
def test_bombs_are_refused_before_they_unfold(read, content, message, file):
    assert len(content) < 2**20
    path = file(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read(path, max_bytes=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20  # the limit and the parsers' own buffers; unfolded it would be 128 MiB or more


def test_read_npz_holds_a_member_to_the_size_that_it_declares(file):
    data = bytes(2**24)
    content = bytearray(zipped({"x.npy": npy({"descr": "|u1", "fortran_order": False, "shape": (2**24,)}, data)}, 8))
    # The directory at the end says 200 bytes for what unfolds to 16 MiB.
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 200)
    path = file(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is damaged or is not an NPZ file .*CRC"):
        files.read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


TEXT = TABLE.to_csv(index=False).encode()
FUZZED = {
    "idx": (files.read_idx, GOOD_IDX),
    "idx.gz": (files.read_idx, gzip.compress(GOOD_IDX)),
    "npz": (files.read_npz, npz(ARRAYS, np.savez)),
    "npz compressed": (files.read_npz, npz(ARRAYS)),
    "csv": (read_table, TEXT),
    "csv.gz": (read_table, gzip.compress(TEXT)),
}


def flatten(read):
    if isinstance(read, np.ndarray):
        return [("", read)]
    return sorted(read.items()) if isinstance(read, dict) else list(zip(("inputs", "targets"), read, strict=True))


def bits(read):
    return [(name, array.tobytes()) for name, array in flatten(read)]


def result_or_refusal(read, path):
    """What was read, or None where the file was refused by name."""
    try:
        return read(path)
    except ValueError as error:
        if not str(error).startswith(f"file {path} "):
            raise AssertionError("a refusal without the file's name") from error
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=100, deadline=None)
@given(draw=st.data())
def test_truncated_files_are_refused(name, folder, draw):
    read, content = FUZZED[name]
    path = folder / "truncated"
    path.write_bytes(content)
    whole = read(path)
    length = draw.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:length])
    found = result_or_refusal(read, path)
    if found is None:
        return
    # Text has no length of its own: what is left of it is whole rows, and the last cell may have lost its end.
    assert name == "csv"
    rows = len(list(csv.reader(io.StringIO(content[:length].decode())))) - 1
    assert len(found[0]) == len(found[1]) == rows
    np.testing.assert_array_equal(found[0][: rows - 1], whole[0][: rows - 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=100, deadline=None)
@given(draw=st.data())
def test_altered_files_are_refused_or_keep_their_shape(name, folder, draw):
    read, content = FUZZED[name]
    path = folder / "altered"
    path.write_bytes(content)
    whole = read(path)
    altered = bytearray(content)
    for place in draw.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        altered[place] = draw.draw(st.integers(0, 255))
    path.write_bytes(altered)
    found = result_or_refusal(read, path)
    if found is None:
        return
    if name in ("idx.gz", "csv.gz"):
        # Both carry a check sum.
        assert bits(found) == bits(whole)
    elif name.startswith("npz"):
        # So does a member; a name stands outside of it.
        assert sorted(array.tobytes() for array in found.values()) == sorted(a.tobytes() for a in whole.values())
    elif name == "idx":
        assert math.prod(found.shape) * found.dtype.itemsize == IMAGES.nbytes
    else:
        assert found[0].shape[1] in (1, 2)
        assert len(found[0]) == len(found[1])
        assert np.isfinite(found[0]).all()


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=300),
    start=st.sampled_from([b"", b"\0\0\x08\1", b"PK\3\4", b"\x1f\x8b\x08", b"a,kind\n"]),
)
def test_arbitrary_bytes_raise_value_errors_alone(folder, content, start):
    path = folder / "arbitrary"
    path.write_bytes(start + content)
    for read in (files.read_idx, files.read_npz, read_table):
        result_or_refusal(read, path)


def test_read_csv_keeps_differences_between_large_values(file):
    table = pd.DataFrame({"time": 1.7e9 + np.arange(20), "size": np.arange(20) / 8, "kind": 3e9 + np.arange(20) / 4})
    inputs, targets = read_table(file(table.to_csv(index=False).encode()))
    np.testing.assert_array_equal(inputs, table[["time", "size"]])
    np.testing.assert_array_equal(targets, table["kind"])
