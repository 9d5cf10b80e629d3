import gzip

import numpy as np
import pytest
from records import example, framed, write
from reference import DATA

from iodine_pl.datamodules import Feature, TFRecordError
from iodine_pl.files.tensorflow.tfrecord import parse_example, read_records

REAL = DATA / "tetrominoes_mini.tfrecords"
FEATURES = {"bytes": Feature((2, 3), np.uint8), "floats": Feature((4,)), "one": Feature(())}
VALUES = {
    "bytes": np.array([[0, 10, 255], [1, 128, 7]], np.uint8),
    "floats": np.array([0.5, -2, 0, 1e9], np.float32),
    "one": np.float32(3),
    "ignored": np.zeros(2, np.float32),
}


@pytest.mark.parametrize(
    "options", [{}, {"strings": "one for all"}, {"packed": False}], ids=["as released", "one string", "not packed"]
)
def test_reads_what_was_written(tmp_path, options):
    for compress in (True, False):
        path = write(tmp_path / "file", [example(VALUES, **options)] * 3, compress)
        read = [parse_example(record, FEATURES) for record in read_records(path)]
        assert len(read) == 3
        for name, feature in FEATURES.items():
            np.testing.assert_array_equal(read[2][name], VALUES[name])
            assert read[2][name].dtype == feature.dtype


def test_members_of_gzip_may_follow_one_another(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"".join(gzip.compress(framed(bytes([i]) * 5)) for i in range(3)))
    assert list(read_records(path)) == [b"\0" * 5, b"\1" * 5, b"\2" * 5]


def test_reads_the_real_records():
    assert [len(record) for record in read_records(REAL)] == [25_944] * 10


def cut(data):
    return data[: len(data) // 2]


def flip(data):
    content = bytearray(gzip.decompress(data))
    content[6 * (25_944 + 16) + 5000] ^= 1
    return gzip.compress(bytes(content))


def flip_length(data):
    content = bytearray(gzip.decompress(data))
    content[2 * (25_944 + 16) + 1] ^= 1
    return gzip.compress(bytes(content))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, r"ends inside record \d; the file is cut off: download the rest or ask for the first \d records"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-100]), "ends inside record 9"),
        (flip, "record 6 has a wrong checksum; the file is damaged: download it again"),
        (flip_length, "record 2 has a wrong length checksum"),
        (lambda data: data[:100] + b"\0" * 50 + data[150:], "gzip stream breaks in record 0"),
        (lambda data: b"<!DOCTYPE html><html>Not found</html>", "is this a TFRecord file"),
        (lambda data: b"<html>", "ends inside record 0"),
        (lambda data: b"", "is empty"),
        (lambda data: data + b"more", "not gzip follows record 10"),
    ],
)
def test_damaged_files_are_refused(tmp_path, damage, words):
    path = tmp_path / "damaged.tfrecords"
    path.write_bytes(damage(REAL.read_bytes()))
    with pytest.raises(TFRecordError, match=words) as caught:
        list(read_records(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"image": Feature((2,), np.uint8)}, "no feature image"),
        ({"floats": Feature((5,))}, r"floats has 4 elements, not 5 = \(5,\)"),
        ({"bytes": Feature((2, 2), np.uint8)}, "bytes has 6 elements, not 4"),
        ({"bytes": Feature((2, 3))}, "bytes is stored as bytes, not as float32"),
        ({"floats": Feature((4,), np.uint8)}, "floats is stored as floats, not as uint8"),
    ],
)
def test_records_of_another_kind_are_refused(features, words):
    with pytest.raises(ValueError, match=words):
        parse_example(example(VALUES), features)


def test_random_bytes_are_refused_and_do_not_hang():
    rng = np.random.default_rng(0)
    good = example(VALUES)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(3):
            bad[rng.integers(len(bad))] = rng.integers(256)
        try:
            read = parse_example(bytes(bad), FEATURES)
        except ValueError:
            continue
        assert {name: value.shape for name, value in read.items()} == {k: f.shape for k, f in FEATURES.items()}
