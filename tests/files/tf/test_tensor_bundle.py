"""The reader of TensorFlow checkpoints reads genuine and unusual files, and refuses invalid ones."""

import contextlib
import tracemalloc
from pathlib import Path

import bundles
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import DATA

from iodine_pl.files.tensorflow.snappy import decompress
from iodine_pl.files.tensorflow.tensor_bundle import LARGEST_INDEX, BundleError, read_bundle
from iodine_pl.files.tensorflow.wire import WireError, masked_crc

TINY = DATA / "checkpoint" / "model.ckpt-5"
EDGE = DATA / "checkpoint_edge"


def read(prefix, index=None):
    """Reads a checkpoint of the test data, by another index if given."""

    def shard(number, count):
        return Path(f"{prefix}.data-{number:05d}-of-{count:05d}").read_bytes()

    return read_bundle(Path(f"{index or prefix}.index").read_bytes(), shard)


def refuses(index, data, words):
    with pytest.raises(BundleError, match=words):
        read_bundle(index, lambda *_: data)


def assert_same(ours, reference):
    assert ours.dtype == reference.dtype
    assert ours.shape == reference.shape
    assert ours.tobytes() == reference.tobytes()


@pytest.mark.parametrize("index", [TINY, EDGE / "snappy"])
def test_a_genuine_checkpoint_is_read_as_tensorflow_reads_it(index):
    arrays, unreadable = read(TINY, index)
    with np.load(DATA / "checkpoint_oracle.npz") as file:
        reference = {name[4:]: file[name] for name in file.files if name.startswith("var/")}
    assert arrays.keys() == reference.keys()
    assert len(arrays) == 90
    assert not unreadable
    for name, array in arrays.items():
        assert_same(array, reference[name])
        assert array.flags.writeable
        assert array.flags.aligned


def test_types_and_shapes():
    arrays, unreadable = read(EDGE / "dtypes")
    with np.load(EDGE / "dtypes.npz") as file:
        assert arrays.keys() == set(file.files)
        for name, array in arrays.items():
            assert_same(array, file[name])
    assert not unreadable


def test_two_shards():
    arrays, _ = read(EDGE / "two")
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [1, 2], "b": [[3, 4]], "c": [5]}


@pytest.mark.parametrize(
    ("prefix", "readable", "unreadable"),
    [
        ("string", {"a", "w"}, {"s": "a string tensor"}),
        ("part/model.ckpt", {"plain"}, {"p/w": "a partitioned variable"}),
    ],
)
def test_entries_that_are_not_arrays_are_named_and_the_rest_is_read(prefix, readable, unreadable):
    bundle = read(EDGE / prefix)
    assert bundle.arrays.keys() == readable
    assert bundle.unreadable == unreadable


def test_many_blocks():
    arrays = {f"layer_{i}/w": np.arange(i, dtype=np.float32).reshape(1, i) for i in range(1, 400)}
    index, data = bundles.bundle(arrays, per_block=7)
    read_back = read_bundle(index, lambda *_: data).arrays
    assert read_back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert_same(read_back[name], array)


W = np.arange(6, dtype=np.float32).reshape(2, 3)
INDEX, CONTENT = bundles.bundle({"v": W, "w": W + 1})


def with_entry(*pairs, shards=1):
    return bundles.table([[(b"", bundles.header(shards)), *pairs]])


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (b"", "its end is missing"),
        (INDEX[:-1], "its end is missing"),
        (INDEX[:-48], "its end is missing"),
        (INDEX[:-8] + bytes(8), "not the index of a TensorFlow checkpoint"),
        (INDEX[1:], "cut off|wrong checksum"),
        (bytes(LARGEST_INDEX + 1), f"{LARGEST_INDEX} are the most"),
        (b"\xff" * 40 + INDEX[-8:], "a number is too long"),
        (INDEX[:3] + b"!" + INDEX[4:], "block of the index has a wrong checksum"),
        (bundles.table([]), "the index is empty"),
        (bundles.table([[(b"w", bundles.entry(W, 0))]]), "no header"),
        (bundles.table([[(b"", bundles.header(0))]]), "says that there are 0 data files"),
        (bundles.table([[(b"", bundles.header(1 << 40))]]), "data files"),
        (bundles.table([[(b"", bundles.header(endianness=1))]]), "big-endian"),
        (bundles.table([[(b"", bundles.header(-1))]]), "negative or too long"),
        (bundles.table([[(b"", b"\x0a\x7f")]]), "longer than its message"),
        (bundles.table([[(b"", b"\x0b")]]), "wire type 3"),
        (bundles.table([[(b"", bundles.header())]], compression=2), "unknown way 2"),
        (bundles.table([[(b"", bundles.header())]], compression=1), "damaged: .*compressed block|unpacks"),
        (bundles.table([b"abc"]), "shorter than its list"),
        (bundles.table([b"\xff\xff\xff\x7f"]), "shorter than its list"),
        (bundles.table([bundles.number(1) + b"\0\0" + bytes(8)]), "an entry is longer than its block"),
        (bundles.table([b"\0\x7f\x7f" + bytes(8)]), "an entry is longer than its block"),
        (bundles.table([[(b"", bundles.header())]], handles=[(1 << 60, 5)]), "cut off"),
        (bundles.table([[(b"", bundles.header())]], handles=[(0, 1 << 62)]), "cut off"),
        (bundles.table([[(b"", bundles.header())]] * 2, handles=[(0, 17), (0, 17)]), "blocks overlap"),
        (bundles.table([[(b"", bundles.header()), (b"b", bundles.entry(W, 0)), (b"a", b"")]]), "not in order"),
        (with_entry((b"\xff", bundles.entry(W, 0))), "is no text"),
        (with_entry((b"w", bundles.entry(W, 25))), r"bytes 25 to 49 of a data file of 48: the file is cut off"),
        (with_entry((b"w", bundles.entry(W, 1 << 62))), "the file is cut off"),
        (with_entry((b"w", bundles.entry(W, -5))), "negative"),
        (with_entry((b"w", bundles.entry(W, 0, size=-24))), "negative"),
        (with_entry((b"w", bundles.entry(W, 0, shape=(-2, -3)))), "negative"),
        (with_entry((b"w", bundles.entry(W, 0, size=20))), r"w has 20 bytes, but \(2, 3\) of float32"),
        (with_entry((b"w", bundles.entry(W, 0, shape=(2, 1 << 60)))), "absurd shape"),
        (with_entry((b"w", bundles.entry(W, 0, shape=(0, 1 << 62), size=0))), "absurd shape"),
        (with_entry((b"w", bundles.entry(W, 0, shape=(1,) * 99))), "99 axes"),
        (with_entry((b"w", bundles.entry(W, 0, shard=1))), "data file 1 of 1"),
        (with_entry((b"w", bundles.entry(W, 0)[:-5])), "no checksum"),
        (with_entry((b"w", bundles.entry(W, 4))), "w has a wrong checksum: the data file is damaged"),
        (with_entry((b"v", bundles.entry(W, 0)), (b"w", bundles.entry(W, 0))), "w and v share bytes"),
    ],
)
def test_a_hostile_index_is_refused_in_words(index, words):
    refuses(index, CONTENT, words)


def test_every_flipped_bit_of_the_data_is_found():
    for place in range(0, len(CONTENT) * 8, 5):
        data = bytearray(CONTENT)
        data[place // 8] ^= 1 << place % 8
        refuses(INDEX, bytes(data), "wrong checksum: the data file is damaged")


def test_a_huge_stated_size_allocates_no_memory():
    index = with_entry((b"w", bundles.entry(W, 0, shape=(1 << 38,), size=1 << 40)))
    tracemalloc.start()
    refuses(index, CONTENT, "cut off")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_names_that_grow_without_end_are_refused():
    entries = bytes(2) + bundles.number(len(bundles.header())) + bundles.header()
    for length in range(5000):  # each name is one letter longer than the one before and takes four bytes
        entries += bundles.number(length) + b"\x01\x00a"
    refuses(bundles.table([entries + bytes(4) + (1).to_bytes(4, "little")]), b"", "an entry is longer than its block")


def packed(*commands, size):
    return memoryview(bundles.number(size) + b"".join(commands))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (packed(b"\x08abc", size=3), b"abc"),
        (packed(b"\x08abc", b"\x09\x03", size=9), b"abcabcabc"),  # 6 bytes from 3 back, which overlap
        (packed(b"\x08abc", b"\x12\x02\x00", size=8), b"abcbcbcb"),
        (packed(b"\x08abc", b"\x07\x01\x00\x00\x00", size=5), b"abccc"),
        (packed(b"\xf0\x45" + bytes(70), size=70), bytes(70)),
    ],
)
def test_compressed_blocks(block, expected):
    assert decompress(block, 100) == expected


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (packed(size=1 << 40), "says that it unpacks to"),
        (packed(b"\x08abc", size=4), "unpacks to 3 bytes, not to 4"),
        (packed(b"\x08abc", size=2), "from beyond its end"),
        (packed(b"\x08ab", size=3), "from beyond its end"),
        (packed(b"\xfc\xff\xff\xff\xff", size=3), "from beyond its end"),
        (packed(b"\xf4\x01", size=3), "ends inside a command"),
        (packed(b"\x08abc", b"\x09\x04", size=9), "from before its beginning"),
        (packed(b"\x08abc", b"\x09\x00", size=9), "from before its beginning"),
        (packed(b"\x08abc", b"\x09\x03", size=8), "from before its beginning"),
    ],
)
def test_damaged_compressed_blocks(block, words):
    with pytest.raises(WireError, match=words):
        decompress(block, 100)


GENUINE = Path(f"{TINY}.index").read_bytes()
GENUINE_DATA = Path(f"{TINY}.data-00000-of-00001").read_bytes()
SOUND = read(TINY).arrays


@st.composite
def mutilated(draw, original):
    """Returns the content with some bytes replaced, removed, repeated or inserted."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        end = place + draw(st.integers(0, 9))
        put_in = draw(st.one_of(st.binary(max_size=12), st.just(bytes(data[place : place + 40]))))
        data[place:end] = put_in
    return bytes(data)


FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.data_too_large])


@FUZZ
@given(mutilated(GENUINE), mutilated(GENUINE_DATA), st.booleans(), st.booleans())
def test_mutilated_bytes_give_an_error_or_the_right_arrays(index, data, of_index, of_data):
    try:
        arrays = read_bundle(index if of_index else GENUINE, lambda *_: data if of_data else GENUINE_DATA).arrays
    except BundleError:
        return
    for name, array in arrays.items():
        assert_same(array, SOUND[name])


@FUZZ
@given(mutilated(bundles.block([(b"", bundles.header()), (b"v", bundles.entry(W, 0)), (b"w", bundles.entry(W, 24))])))
def test_mutilated_blocks_with_checksums_that_fit_are_read_or_refused(content):
    try:
        arrays = read_bundle(bundles.table([content]), lambda *_: CONTENT).arrays
    except BundleError:
        return
    for array in arrays.values():  # the checksum matches what the changed entry names
        assert masked_crc(array.tobytes()) in {masked_crc(W.tobytes()), masked_crc(b"")}


@FUZZ
@given(st.binary(max_size=200), st.integers(0, 1000))
def test_any_bytes_are_unpacked_within_the_limit_or_refused(block, limit):
    with contextlib.suppress(WireError):
        assert len(decompress(memoryview(block), limit)) <= limit
