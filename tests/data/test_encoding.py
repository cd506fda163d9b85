"""Words and tables as numbers: as pandas and scikit-learn number them, and nothing guessed."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.preprocessing import OneHotEncoder

import weightdecay as wd
from weightdecay.data.encoding import as_inputs, as_targets

TABLE = pd.DataFrame(
    {
        "size": [1.5, -2.25, 0.1, 7.0, 3.0, 2.0] * 5,
        "colour": ["red", "blue", "red", "green", "blue", "red"] * 5,
        "wild": [True, False, True, True, False, False] * 5,
        "grade": pd.Categorical(["low", "high", "low", "low", "high", "high"] * 5, categories=["low", "mid", "high"]),
        "kind": ["wren", "crow", "wren", "crow", "crow", "wren"] * 5,
    },
    index=np.arange(30)[::-1] + 100,
)


def test_one_hot_agrees_with_pandas():
    made = wd.data.one_hot(TABLE.drop(columns="kind"))
    expected = pd.get_dummies(TABLE.drop(columns="kind"), columns=["colour", "grade"], prefix_sep="=", dtype=float)
    assert list(made)[:5] == ["size", "colour=blue", "colour=green", "colour=red", "wild"]
    assert list(made)[5:] == ["grade=low", "grade=mid", "grade=high"]
    pd.testing.assert_frame_equal(made, expected[list(made)].astype(float))


def test_one_hot_agrees_with_scikit_learn():
    words = TABLE[["colour", "kind"]]
    expected = OneHotEncoder(sparse_output=False).fit_transform(words.to_numpy(object))
    np.testing.assert_array_equal(wd.data.one_hot(words), expected)


def test_split_takes_a_table_and_a_column():
    splits = wd.data.split(TABLE.drop(columns="kind"), TABLE["kind"], standardize=False)
    table = wd.data.one_hot(TABLE.drop(columns="kind")).to_numpy(np.float32)
    assert splits.train[0].shape == (18, 8)
    for row, label in zip(*splits.train, strict=True):
        where = (row == table).all(axis=1)
        assert set(TABLE["kind"][where]) == {["crow", "wren"][label]}


def test_as_inputs_takes_a_table_of_whole_numbers_for_measurements():
    assert as_inputs(pd.DataFrame({"age": [3, 1, 4]})).dtype == np.float64
    assert as_inputs(np.array([[3], [1]])).dtype == np.int64


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        pd.Series([3, 1, 2], index=[5, 6, 5]),
        pd.Series([3, 1, 2], dtype="Int64"),
        pd.Series([3, 1, 2], dtype="category"),
        pd.Series([3, 1, 2], dtype=object),
        pd.DataFrame({"y": [3, 1, 2]}),
        ["3", "1", "2"],
        np.array([b"3", b"1", b"2"]),
        jnp.array([3, 1, 2]),
    ],
)
def test_as_targets_takes_numbers_as_they_are(values):
    array = as_targets(values)
    assert array.tolist() == [3, 1, 2]
    assert array.dtype.kind == "i"


@pytest.mark.parametrize(
    "values",
    [
        ["wren", "crow", "wren"],
        np.array(["wren", "crow", "wren"], object),
        np.array([b"wren", b"crow", b"wren"]),
        np.array(["wren", "crow", "wren"], np.dtypes.StringDType()),
        pd.Series(["wren", "crow", "wren"]),
        pd.Series(["wren", "crow", "wren"], dtype="category"),
        pd.Series(["wren", "crow", "wren"], dtype=object),
    ],
)
def test_as_targets_numbers_words_in_sorted_order(values):
    array = as_targets(values)
    assert array.tolist() == [1, 0, 1]
    assert array.dtype == np.int32


def test_as_targets_orders_whole_numbers_in_words_as_numbers():
    assert as_targets([str(number) for number in range(12)]).tolist() == list(range(12))


def test_as_targets_keeps_several_labels_an_example():
    table = pd.DataFrame({"a": [0, 1], "b": [True, False]})
    assert as_targets(table).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            ["a", 1],
            TypeError,
            "targets contain strings and 1, which is of type int; give all as strings, or all as numbers",
        ),
        (pd.Series(["a", 1]), TypeError, "targets contain strings and numbers together; give all as strings"),
        (
            pd.Series(["a", None]),
            ValueError,
            "targets contain .* a missing value .* give rows of equal length, without None",
        ),
        (np.array([1, None]), ValueError, "targets contain .* a missing value"),
        (["a", ""], ValueError, "targets contain an empty string; replace it or remove the example"),
        (
            ["1.5", "2"],
            TypeError,
            r"targets contain real numbers written as strings, such as '1.5'; give targets.astype",
        ),
        ([[1], [1, 2]], ValueError, "targets contain rows of unequal length"),
        (np.ma.masked_equal([1, 2], 2), ValueError, "targets contain masked values; replace them"),
        (scipy.sparse.csr_array(np.eye(2)), TypeError, "targets is a sparse matrix; give targets.toarray"),
    ],
)
def test_as_targets_refuses(values, error, message):
    with pytest.raises(error, match=f"^{message}"):
        as_targets(values)


@pytest.mark.parametrize(
    ("table", "options", "error", "message"),
    [
        (
            {"a": [1.0, np.nan]},
            {},
            ValueError,
            "inputs: column 'a' has 1 missing values, the first in row 1 .counted from 0.; replace",
        ),
        (
            {"a": ["x", None]},
            {},
            ValueError,
            "inputs: column 'a' has 1 missing values, the first in row 1 .counted from 0.; replace",
        ),
        ({"a": pd.to_datetime(["2020-01-01", "2021-01-01"])}, {}, TypeError, "inputs: column 'a' has dtype datetime64"),
        ({"a": [[1], [2]]}, {}, TypeError, "inputs: column 'a' has dtype object, which is neither numbers nor strings"),
        ({"a": [1j, 2j]}, {}, TypeError, "inputs: column 'a' has dtype complex128; give real numbers"),
        (
            {"a": list("abc")},
            {"max_categories": 2},
            ValueError,
            "inputs: column 'a' has 3 different strings, and max_categories is 2; remove the column",
        ),
    ],
)
def test_one_hot_refuses(table, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        wd.data.one_hot(pd.DataFrame(table), **options)


def test_one_hot_refuses_what_is_no_table_of_named_columns():
    with pytest.raises(TypeError, match="frame is of type list; give a pandas DataFrame"):
        wd.data.one_hot([[1, 2]])
    with pytest.raises(ValueError, match="frame has several columns 'a'; give each column its own name"):
        wd.data.one_hot(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_split_refuses_a_missing_number_in_a_column():
    with pytest.raises(ValueError, match="targets contain 1 values that are nan or infinite, the first in example 2"):
        wd.data.split(np.zeros((4, 1)), pd.Series([1, 0, None, 1], dtype="Int64"))
