"""Windows of a stream of tokens: what they contain, that no part leaks into another, and that no file is read whole."""

import gzip
import re
import resource
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay.core import random_streams
from weightdecay.models import network as networks
from weightdecay.storage import fingerprints

TEXT = "to be, or not to be, that is the question: whether 'tis nobler in the mind to suffer " * 8


class Bigrams(nn.Module):
    """A table of logits for each token."""

    num_outputs: int | None = None

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(self.num_outputs)(nn.Embed(self.num_outputs, 8)(tokens))


def splits(data):
    return {name: getattr(data, name) for name in ("train", "validation", "test")}


@pytest.mark.parametrize("stride", [None, 1, 3, 20])
def test_windows_are_those_of_a_loop(stride):
    stream, length = np.arange(200), 7
    data = wd.data.tokens(stream, length=length, stride=stride, validation_size=0.2, test_size=0.1)
    parts = {"train": stream[:140], "validation": stream[140:180], "test": stream[180:]}
    for name, (inputs, targets) in splits(data).items():
        step = stride if stride is not None and name == "train" else length
        starts = [start for start in range(0, len(parts[name]), step) if start + length < len(parts[name])]
        np.testing.assert_array_equal(inputs, [parts[name][start : start + length] for start in starts])
        np.testing.assert_array_equal(targets, [parts[name][start + 1 : start + 1 + length] for start in starts])


@pytest.mark.parametrize("num_tokens", [100, 101, 997])
@pytest.mark.parametrize("sizes", [(0.1, 0.1), (0.25, 0.5), (0.3, 0.21)])
@pytest.mark.parametrize("stride", [1, None, 9])
def test_no_token_of_a_part_is_in_another(num_tokens, sizes, stride):
    """Each token is its own position in the stream."""
    data = wd.data.tokens(np.arange(num_tokens), length=5, stride=stride, validation_size=sizes[0], test_size=sizes[1])
    read = {name: set(np.concatenate(split).ravel().tolist()) for name, split in splits(data).items()}
    assert max(read["train"]) < min(read["validation"]) <= max(read["validation"]) < min(read["test"])
    assert sum(map(len, read.values())) == len(set.union(*read.values()))


def test_each_token_but_the_first_of_a_part_is_a_target_once():
    data = wd.data.tokens(np.arange(901), length=10, validation_size=201 / 901, test_size=0.0)
    assert data.test is None
    np.testing.assert_array_equal(data.validation[1].ravel(), np.arange(701, 901))


def test_train_tokens_are_the_first_and_change_no_other_part():
    whole = wd.data.tokens(TEXT, length=8)
    part = wd.data.tokens(TEXT, length=8, train_tokens=100)
    np.testing.assert_array_equal(part.train[0], whole.train[0][:12])
    assert part.train[1].max() == np.frombuffer(TEXT.encode(), np.uint8)[:97].max()
    for name in ("validation", "test"):
        np.testing.assert_array_equal(getattr(part, name)[0], getattr(whole, name)[0])
    everything = len(TEXT) - 2 * round(0.1 * len(TEXT))
    assert wd.data.tokens(TEXT, length=8, train_tokens=everything).train[0].shape == whole.train[0].shape


def written(tmp_path, kind):
    content = np.frombuffer(TEXT.encode(), np.uint8)
    path = tmp_path / {"gz": "text.txt.gz", "flat": "tokens.bin"}.get(kind, f"file.{kind}")
    if kind == "gz":
        path.write_bytes(gzip.compress(content.tobytes()))
    elif kind == "npy":
        np.save(path, content)
    else:
        path.write_bytes(content.tobytes())
    return path, {"dtype": "uint8"} if kind == "flat" else {}


@pytest.mark.parametrize("kind", ["txt", "gz", "npy", "flat"])
@pytest.mark.parametrize("as_string", [False, True])
def test_files_are_the_stream_that_they_hold(tmp_path, kind, as_string):
    path, options = written(tmp_path, kind)
    data = wd.data.tokens(str(path) if as_string else path, length=8, **options)
    expected = wd.data.tokens(TEXT, length=8)
    for name, split in splits(data).items():
        for ours, theirs in zip(split, getattr(expected, name), strict=True):
            assert ours.dtype == np.uint8
            np.testing.assert_array_equal(ours, theirs)
    assert data.num_classes == (256 if kind in ("txt", "gz") else max(TEXT.encode()) + 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "uint64", ">u2"])
def test_dtype_of_the_source_is_kept_where_jax_has_it(dtype):
    stream = (np.arange(300) % 100).astype(dtype)
    data = wd.data.tokens(stream, length=4)
    native = {"int64": "int32", "uint64": "int32", ">u2": "uint16"}.get(dtype, dtype)
    assert {array.dtype.name for split in splits(data).values() for array in split} == {native}
    np.testing.assert_array_equal(data.train[0].ravel()[:200], stream[:200])
    assert data.num_classes == 100
    if dtype == native:
        assert all(np.shares_memory(array, stream) for split in splits(data).values() for array in split)


def test_a_file_larger_than_the_memory_is_never_read_whole(tmp_path):
    """A sparse file of 40 GB, in a process that may not allocate 3 GB; mapping it takes no memory of that limit."""
    path = tmp_path / "sparse.bin"
    with open(path, "wb") as file:
        file.truncate(40 * 2**30)
    code = f"""
import resource, weightdecay as wd
resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30, 3 * 2**30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = wd.data.tokens({str(path)!r}, length=1024, dtype="uint16", vocabulary_size=2**16)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(data.train[0].shape, data.validation[1][-1].sum(), (after - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shape, total, grown = re.findall(r"\d+", done.stdout)
    assert [*map(int, shape)] == [(round(0.8 * 20 * 2**30) - 1) // 1024, 1024]
    assert int(total) == 0
    assert int(grown) < 100  # MiB
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 * 2**20  # KiB


def test_digest_of_views_is_that_of_their_copies(monkeypatch):
    monkeypatch.setattr(fingerprints, "_BLOCK_BYTES", 100)
    data = wd.data.tokens(np.arange(500, dtype=np.uint16), length=7, stride=3)
    copies = [np.ascontiguousarray(array) for array in data.train]
    assert not data.train[0].flags.c_contiguous
    assert fingerprints.of_arrays(data.train) == fingerprints.of_arrays(copies)


@pytest.mark.slow
def test_training_on_windows_is_a_loop_of_optax():
    """Batches of all windows, so that the loop needs no order of its own."""
    data = wd.data.tokens(TEXT, length=16)
    grid, model = wd.Grid(decay=[wd.Decoupled(0.5)], learning_rate=0.3), wd.models.Decoder(1, 12, 2)
    settings = {"num_steps": 5, "batch_size": None, "eval_every": 5, "progress": False}
    result = wd.fit_grid(model, data, grid, optimizer=wd.sgd, **settings)
    stream, model = np.frombuffer(TEXT.encode(), np.uint8).astype(np.int32), result.model
    rows = np.stack([stream[at : at + 17] for at in range(0, int(0.8 * len(stream)) - 16, 16)])
    inputs, targets = rows[:, :-1], rows[:, 1:]
    start, _ = networks.network(model).init(random_streams.key(0, random_streams.INITIAL_WEIGHTS), inputs[:1])

    def loss(params):
        outputs = model.apply({"params": params}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", start)
    optimizer = optax.chain(optax.add_decayed_weights(0.5, mask), optax.sgd(0.3))
    params, state = start, optimizer.init(start)
    step = jax.jit(lambda params, state: optimizer.update(jax.grad(loss)(params), state, params))
    for _ in range(5):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(jax.tree.leaves(result.params(0)), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(result.dataset["train_loss"][0, -1], loss(params), rtol=1e-5)
    outputs = result.predict(data.validation[0], 0)
    assert outputs.shape == (*data.validation[0].shape, 256)  # the vocabulary, not what occurs


@pytest.mark.slow
def test_streamed_windows_of_a_mapped_file_have_the_bits_of_windows_in_memory(tmp_path):
    path = tmp_path / "tokens.npy"
    np.save(path, np.frombuffer(TEXT.encode(), np.uint8).astype(np.uint16))
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(0.5)], learning_rate=1e-2, seed=range(2))
    settings = {"num_steps": 12, "batch_size": 8, "eval_every": 6, "progress": False}
    mapped = wd.data.tokens(path, length=8, stride=4, vocabulary_size=128)
    in_memory = wd.data.tokens(TEXT, length=8, stride=4, vocabulary_size=128)
    ours = wd.fit_grid(Bigrams(), mapped, grid, plan=wd.Plan(4, 1, streamed=True), **settings)
    theirs = wd.fit_grid(Bigrams(), in_memory, grid, plan=wd.Plan(4, 1), **settings)
    np.testing.assert_array_equal(ours.dataset["validation_loss"], theirs.dataset["validation_loss"])
    for member in range(4):
        jax.tree.map(np.testing.assert_array_equal, ours.params(member), theirs.params(member))


def test_the_vocabulary_is_given_or_what_occurs():
    assert wd.data.tokens("aab" * 100, length=8).num_classes == 256
    assert wd.data.tokens(np.array([0, 3] * 50), length=4).num_classes == 4
    assert wd.data.tokens(np.array([0, 3] * 50), length=4, vocabulary_size=9).num_classes == 9


def test_a_number_of_classes_leaves_single_targets_as_they_are():
    inputs, targets = np.eye(4), np.array([0, 3, 3, 1])
    data = wd.Data(train=(inputs, targets), validation=(inputs, targets), num_classes=5)
    assert data.with_class_indices() is data
    with pytest.raises(ValueError, match="targets from 0 to 3, and num_classes is 3; give targets from 0 to 2"):
        wd.Data(train=(inputs, targets), num_classes=3).with_class_indices()


def test_a_string_that_is_no_file_is_text_or_is_refused():
    assert bytes(wd.data.tokens("play it again. " * 20, length=4).train[0][0]) == b"play"
    assert bytes(wd.data.tokens(b"shakespeare.txt" * 20, length=11).train[0][0]) == b"shakespeare"
    assert wd.data.tokens("a\0b" * 50, length=4).train[0].shape[1] == 4
    with pytest.raises(FileNotFoundError, match=r"source is 'shakespear\.txt', which ends as the path of a file"):
        wd.data.tokens("shakespear.txt", length=4)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (np.arange(40), {"length": 8}, ValueError, r"source has 40 tokens \(32 for training, 4 for validation, 4 for "),
        (np.arange(9.0), {"length": 1}, TypeError, "source has dtype float64; give tokens as integers"),
        (np.array([True] * 50), {"length": 1}, TypeError, "source has dtype bool; give tokens as integers"),
        (np.array([1, 2, -3] * 9), {"length": 1}, ValueError, "source has the token -3 at 2; give tokens from 0"),
        (np.arange(50), {"length": 1, "vocabulary_size": 7}, ValueError, "vocabulary_size is 7, but source has the to"),
        (np.array([2**40] * 50), {"length": 1}, ValueError, "source has the token 1099511627776; give tokens that int"),
        (np.zeros((9, 9), int), {"length": 1}, ValueError, r"source has shape \(9, 9\); give one stream of tokens"),
        (np.arange(50), {"length": 0}, ValueError, "length is 0; give an integer of at least 1"),
        (np.arange(50), {"length": 1, "stride": 0}, ValueError, "stride is 0; give an integer of at least 1"),
        (np.arange(50), {"length": 1, "validation_size": 0}, ValueError, "validation_size is 0; give a fraction above"),
        (np.arange(50), {"length": 1, "test_size": 0.9}, ValueError, "so that nothing is left for training"),
        (np.arange(50), {"length": 1, "train_tokens": 41}, ValueError, r"train_tokens is 41; give 2 \(one window\) to"),
        (np.arange(50), {"length": 1, "dtype": "uint8"}, ValueError, "source is not the path of a flat binary file"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(source, options, error, message):
    with pytest.raises(error, match=message):
        wd.data.tokens(source, **options)


def test_files_that_do_not_fit_are_refused(tmp_path):
    flat = tmp_path / "tokens.bin"
    flat.write_bytes(bytes(101))
    with pytest.raises(ValueError, match=r"which is neither \.npy nor \.txt nor \.txt\.gz; give the dtype"):
        wd.data.tokens(flat, length=4)
    with pytest.raises(ValueError, match="has 101 bytes, and a number of dtype uint16 has 2"):
        wd.data.tokens(flat, length=4, dtype="uint16")
    with pytest.raises(TypeError, match="dtype is float32; give an integer dtype"):
        wd.data.tokens(flat, length=4, dtype="float32")
    with pytest.raises(FileNotFoundError):
        wd.data.tokens(tmp_path / "nothing.txt", length=4)
    empty, pickled, cut = tmp_path / "empty.txt", tmp_path / "pickled.npy", tmp_path / "cut.txt.gz"
    empty.write_bytes(b"")
    np.save(pickled, np.array([{}]), allow_pickle=True)
    cut.write_bytes(gzip.compress(TEXT.encode())[:-20])
    for path, message in ((empty, "has 0 bytes"), (pickled, "is damaged or is not an NPY file"), (cut, "is damaged")):
        with pytest.raises(ValueError, match=rf"file .*{path.name} {message}"):
            wd.data.tokens(path, length=4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_embeddings_and_losses_take_the_last_token_of_a_dtype(dtype):
    size = 256 if dtype == np.uint8 else 300
    tokens = np.array([[0, size - 1]], dtype)
    table = jnp.arange(2.0 * size).reshape(size, 2)
    ours = nn.Embed(size, 2).apply({"params": {"embedding": table}}, tokens)
    np.testing.assert_array_equal(ours, table[tokens.astype(int)])
    outputs = jax.random.normal(jax.random.key(0), (1, 2, size))
    losses = optax.softmax_cross_entropy_with_integer_labels
    np.testing.assert_array_equal(losses(outputs, tokens), losses(outputs, tokens.astype(np.int32)))
