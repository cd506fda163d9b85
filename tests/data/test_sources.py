"""Arrays out of tables, rows and batches: the same examples from whatever holds them."""

import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets

import weightdecay as wd

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(11, 3, 2)).astype(np.float32)
LABELS = np.arange(11) % 3
WORDS = np.array(["wren", "crow", "jay"])[LABELS]
NUMBERED = np.array([2, 0, 1])[LABELS]
PAIRS = list(zip(IMAGES, LABELS, strict=True))


def dicts():
    return [{"image": image, "kind": word} for image, word in zip(IMAGES, WORDS, strict=True)]


def batches(size=4):
    for start in range(0, 11, size):
        yield IMAGES[start : start + size], LABELS[start : start + size]


def agree(read, labels=LABELS):
    np.testing.assert_array_equal(read[0], IMAGES)
    np.testing.assert_array_equal(read[1], labels)


def is_read(source, options, labels):
    agree(wd.data.arrays(source, **options), labels)
    part = wd.data.arrays(source, num_examples=5, **options)
    np.testing.assert_array_equal(part[0], IMAGES[:5])
    assert len(part[1]) == 5


def is_read_in_turn(make, options, labels):
    agree(wd.data.arrays(make(), **options), labels)
    for size in (1, 7):
        part = wd.data.arrays(make(), **options | {"num_examples": size})
        np.testing.assert_array_equal(part[0], IMAGES[:size])
        assert len(part[1]) == size


class Rows:
    def __len__(self):
        return 11

    def __getitem__(self, index):
        if index >= 11:
            raise AssertionError("asked for more than there is")
        return {"image": IMAGES[index], "kind": WORDS[index]}


@pytest.mark.parametrize(
    ("source", "options", "labels"),
    [
        ((IMAGES, LABELS), {}, LABELS),
        ((IMAGES.tolist(), WORDS), {}, NUMBERED),
        ({"image": IMAGES, "kind": WORDS}, {"targets": "kind"}, NUMBERED),
        ({"image": IMAGES, "kind": WORDS}, {"inputs": "image"}, NUMBERED),
        ({"image": IMAGES, "kind": WORDS, "name": WORDS}, {"inputs": "image", "targets": "kind"}, NUMBERED),
        (PAIRS, {}, LABELS),
        ([(label, image) for image, label in PAIRS], {"inputs": 1, "targets": 0}, LABELS),
        ([[image, 0, label] for image, label in PAIRS], {"targets": 2, "inputs": 0}, LABELS),
        ([None, *PAIRS[:5], None, *PAIRS[5:]], {}, LABELS),
        (dicts(), {"targets": "kind"}, NUMBERED),
        (Rows(), {"inputs": "image"}, NUMBERED),
    ],
    ids=[
        "pair",
        "lists",
        "columns",
        "columns by inputs",
        "columns by both",
        "rows",
        "rows by place",
        "rows of three",
        "rows and none",
        "mappings",
        "rows of its own",
    ],
)
def test_arrays_reads(source, options, labels):
    is_read(source, options, labels)


def test_arrays_reads_a_data_set_of_torch():
    torch = pytest.importorskip("torch")
    is_read(torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS)), {}, LABELS)


@pytest.mark.parametrize(
    ("make", "options", "labels"),
    [
        (lambda: iter(PAIRS), {}, LABELS),
        (lambda: iter(dicts()), {"targets": "kind"}, NUMBERED),
        (batches, {}, LABELS),
        (lambda: list(batches()), {"batched": True}, LABELS),
        (lambda: ({"x": x, "y": y} for x, y in batches()), {"inputs": "x", "targets": "y"}, LABELS),
        (
            lambda: itertools.chain.from_iterable(itertools.repeat(PAIRS)),
            {"num_examples": 11, "max_bytes": 10**6},
            LABELS,
        ),
    ],
    ids=["rows", "mappings", "batches", "list of batches", "batches by name", "without end"],
)
def test_arrays_reads_what_comes_one_after_another(make, options, labels):
    is_read_in_turn(make, options, labels)


def test_arrays_reads_a_loader_of_torch():
    torch = pytest.importorskip("torch")
    pairs = [(image, int(label)) for image, label in PAIRS]
    is_read_in_turn(lambda: torch.utils.data.DataLoader(pairs, batch_size=3), {}, LABELS)


def test_arrays_takes_rows_with_several_labels():
    labels = np.eye(3, dtype=int)[LABELS]
    rows = list(zip(IMAGES, labels, strict=True))
    agree(wd.data.arrays(rows), labels)
    agree(wd.data.arrays(iter(rows), batched=False), labels)


def test_arrays_keeps_rows_that_their_source_writes_over():
    def reused():
        image = np.zeros((3, 2), np.float32)
        for place in range(11):
            image[:] = IMAGES[place]
            yield image, LABELS[place]

    agree(wd.data.arrays(reused()))


def test_arrays_puts_columns_side_by_side():
    frame = datasets.load_iris(as_frame=True).frame
    expected = frame.drop(columns="target").to_numpy()
    for source in (frame, frame.to_dict("list"), frame.to_dict("records")):
        x, y = wd.data.arrays(source, inputs=list(frame)[:4], targets="target")
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, frame["target"])
    x, y = wd.data.arrays(frame, inputs="target", targets=list(frame)[:2])
    np.testing.assert_array_equal(x[:, 0], frame["target"])
    np.testing.assert_array_equal(y, expected[:, :2])


def test_arrays_turns_words_of_a_table_into_columns():
    frame = pd.DataFrame({"colour": ["red", "blue", "red"], "size": [1, 2, 3], "kind": ["wren", "crow", "jay"]})
    x, y = wd.data.arrays(frame, targets="kind")
    assert (x.tolist(), y.tolist()) == ([[0, 1, 1], [1, 0, 2], [0, 1, 3]], [2, 0, 1])


def test_arrays_reads_hugging_face_data_sets():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        hugging_face = pytest.importorskip("datasets")
    names = ["crow", "jay", "wren"]
    features = hugging_face.Features(
        {"image": hugging_face.Array2D((3, 2), "float32"), "kind": hugging_face.ClassLabel(names=names)}
    )
    table = hugging_face.Dataset.from_dict({"image": IMAGES, "kind": NUMBERED}, features=features)
    agree(wd.data.arrays(table, targets="kind"), NUMBERED)
    assert len(wd.data.arrays(table, targets="kind", num_examples=4)[1]) == 4
    shuffled = table.select([3, 1, 2])
    np.testing.assert_array_equal(wd.data.arrays(shuffled, inputs="image")[0], IMAGES[[3, 1, 2]])
    agree(wd.data.arrays(table.to_iterable_dataset(), targets="kind"), NUMBERED)
    with pytest.raises(
        TypeError, match=r"^source contains several data sets, 'train', 'test'; give .* source\['train'\]"
    ):
        wd.data.arrays(hugging_face.DatasetDict(train=table, test=table), targets="kind")
    words = hugging_face.Dataset.from_dict({"x": [[1, 2], [3]], "y": list("ab")})
    with pytest.raises(ValueError, match="inputs contain rows of unequal length"):
        wd.data.arrays(words, targets="y")


def test_arrays_reads_grain():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        grain = pytest.importorskip("grain")
    rows = grain.MapDataset.source(PAIRS)
    agree(wd.data.arrays(rows))
    agree(wd.data.arrays(rows.to_iter_dataset()))
    agree(wd.data.arrays(rows.to_iter_dataset().batch(4)))
    agree(wd.data.arrays(rows.batch(4), batched=True))
    agree(wd.data.arrays(rows.repeat(), num_examples=11))
    some = wd.data.arrays(rows.filter(lambda row: row[1] == 1))
    np.testing.assert_array_equal(some[0], IMAGES[LABELS == 1])
    with pytest.raises(ValueError, match="source has no end; give num_examples, the number of examples to read"):
        wd.data.arrays(rows.repeat())
    loader = grain.DataLoader(
        data_source=PAIRS,
        sampler=grain.samplers.IndexSampler(11, num_epochs=1, seed=0, shuffle=False),
        operations=[grain.transforms.Batch(4)],
    )
    agree(wd.data.arrays(loader))


def test_arrays_of_a_source_without_end_are_refused_before_memory_is():
    taken = itertools.count()
    endless = ((np.zeros((10, 100)), np.zeros(10)) for _ in taken)
    with pytest.raises(
        ValueError,
        match=r"^source has more than max_bytes, 1000000 bytes, after 1\d\d0 examples; give num_examples if",
    ):
        wd.data.arrays(endless, max_bytes=10**6)
    assert next(taken) < 130
    with pytest.raises(ValueError, match=r"after 130 examples; give a smaller num_examples, or a larger"):
        wd.data.arrays(((np.zeros((10, 1000)), np.zeros(10)) for _ in taken), max_bytes=10**6, num_examples=10**6)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (IMAGES, {}, TypeError, r"source is of type ndarray; give a pair \(inputs, targets\) of arrays, a DataFrame"),
        (3, {}, TypeError, "source is of type int"),
        ("mnist", {}, TypeError, "source is of type str"),
        ([], {}, ValueError, "source yields no examples; give at least one"),
        (iter([]), {}, ValueError, "source yields no examples"),
        ([1.0, 2.0], {}, TypeError, "source yields elements of type float; give pairs"),
        ([(1, 2, 3)], {}, ValueError, "source yields elements of 3 entries; give inputs= and targets="),
        (
            [(1, 2, 3)],
            {"targets": 3},
            ValueError,
            "targets is 3, but source has no column 3; give one or several of 0, 1, 2",
        ),
        (PAIRS, {"inputs": 0, "targets": 0}, ValueError, "inputs and targets both contain 0; give each column to one"),
        (
            PAIRS,
            {"num_examples": 12},
            ValueError,
            "num_examples is 12, but source has only 11 examples; give at most 11",
        ),
        ((IMAGES, LABELS), {"num_examples": 12}, ValueError, "num_examples is 12, but source has only 11 examples"),
        (iter(PAIRS), {"num_examples": 12}, ValueError, "num_examples is 12, but source has only 11 examples"),
        (PAIRS, {"num_examples": 0}, ValueError, "num_examples is 0; give an integer of at least 1"),
        ((IMAGES, LABELS[:3]), {}, ValueError, "source has 11 inputs and 3 targets; give one target for each example"),
        ({"x": IMAGES, "y": LABELS}, {}, ValueError, "targets is None; give the name .* one of 'x', 'y'"),
        ({"x": IMAGES}, {"targets": "x"}, ValueError, "targets is 'x', so that no inputs remain; give some of 'x'"),
        (
            {"x": IMAGES, "y": LABELS},
            {"targets": "z"},
            ValueError,
            "targets is 'z', but source has no column 'z'; give one",
        ),
        (
            {"x": IMAGES, "y": LABELS},
            {"inputs": [], "targets": "y"},
            ValueError,
            r"inputs is \[\], but source needs at least one column",
        ),
        (
            {"x": IMAGES, "y": LABELS, "z": LABELS},
            {"targets": "y"},
            ValueError,
            r"columns have the shapes {'x': \(11, 3, 2\), 'z': \(11,\)}; give columns of one shape",
        ),
        ([("a b", 1)], {}, TypeError, "inputs contain strings; convert them to numbers first"),
        (
            [([1], 1), ([1, 2], 1)],
            {},
            ValueError,
            r"inputs have shape \(1,\) in the first example and \(2,\) in example 1",
        ),
        ([([1], 1), ([1], "a")], {}, TypeError, "targets contain strings and numbers together"),
        (
            [{"x": 1, "y": 1}, {"x": 1}],
            {"targets": "y"},
            ValueError,
            "source yields example 1 without 'x' and 'y'",
        ),
        ([(1, 2), (1,)], {}, ValueError, "source yields example 1 without 0 and 1"),
        (
            iter([(IMAGES, LABELS[:4])]),
            {},
            ValueError,
            r"source yields a batch with inputs of shape \(11, 3, 2\) and targets",
        ),
        (
            iter(PAIRS),
            {"batched": True},
            ValueError,
            r"source yields a batch .* of shape \(\); give equally many of both, or",
        ),
    ],
)
def test_arrays_refuses(source, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        wd.data.arrays(source, **options)


def test_arrays_are_split_and_checked():
    splits = wd.data.split(*wd.data.arrays(list(zip(np.arange(40.0)[:, None], list("ab") * 20, strict=True))))
    wd.data.check(splits, batch_size=8)
