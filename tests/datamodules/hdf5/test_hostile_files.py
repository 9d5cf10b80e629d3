"""Damaged and malicious files are refused in one line, before they take memory."""

import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from records import crc32c, framed
from scene_files import noise, npz, object_centric_library, stored_singly, tetrominoes

from iodine_pl.datamodules import SceneDataset, SceneFileError, TFRecordError
from iodine_pl.datamodules.deepmind.conversion import convert
from iodine_pl.datamodules.deepmind.releases import TETROMINOES
from iodine_pl.datamodules.hdf5.errors import made_here


def replaced(path, name, **given):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, **given)
    return path


def read_all(path):
    scenes = SceneDataset(path)
    return scenes[list(range(len(scenes)))]


def with_value(values, value):
    values = values.astype(type(value))
    values[3, 2, 1] = value
    return values


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("mask", with_value(noise(6)[1], 256), r"mask, scenes 0 to 5: labels from 0 to 256, but .* 0 to 255"),
        ("mask", with_value(noise(6)[1], -1), r"mask, scenes 0 to 5: labels from -1 to 3, but"),
        ("mask", noise(6)[1] / 2, "mask must be whole numbers, the entity of each pixel, got float64"),
        ("mask", np.full((6, 2, 6, 6), 0.5), r"mask, scene 0: a mask holds 0.5, but a pixel belongs .* or does not"),
        ("mask", np.full((6, 2, 6, 6), np.nan), "mask, scene 0: a mask holds nan, but"),
        ("mask", np.full((6, 2, 6, 6), 300), "mask, scene 0: a mask holds 300, but"),
        ("mask", np.zeros((6, 300, 6, 6), np.uint8), "mask must be a map .* or at most 255 masks"),
        ("mask", np.zeros((5, 6, 6), np.uint8), r"mask must be a map .* got \(5, 6, 6\)"),
        ("mask", np.array([b"x"] * 6), "mask must be a map"),
        ("image", np.full((6, 6, 6, 3), 7.0), r"image, scenes 0 to 5: floats from 7 to 7, but .* in \[0, 1\]"),
        ("image", np.full((6, 6, 6, 3), -0.1), r"image, scenes 0 to 5: floats from -0.1 to -0.1, but"),
        ("image", np.full((6, 6, 6, 3), np.nan), "image, scenes 0 to 5: floats from nan to nan, but"),
        ("visibility", np.full((6, 4), np.nan), "scene 0 has nan objects by num_objects or visibility"),
    ],
)
def test_invalid_values_are_refused(tmp_path, name, values, words):
    path = replaced(object_centric_library(tmp_path / "a.h5"), name, data=values)
    with pytest.raises(SceneFileError, match=f"a.h5: {words}") as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("num_objects", {"data": np.full(20, np.nan)}, "scene 0 has nan objects"),
        ("num_objects", {"data": np.full(20, -1)}, "scene 0 has -1 objects"),
        ("num_objects", {"data": np.zeros(19, int)}, r"num_objects must be \(20,\) whole numbers.* got \(19,\)"),
        ("num_objects", {"data": 3}, r"num_objects must be \(20,\)"),
        ("factors/kind", {"data": np.array([b"x"] * 20)}, "factor kind must be numbers"),
        ("factors/kind", {"data": np.zeros((20, 3))}, r"factors have \[3, 4\] entities"),
        ("factors/kind", {"shape": (20, 1 << 40), "dtype": "u1"}, "kind cannot be read: nothing of its .* is stored"),
        ("factors", {"data": np.zeros(20)}, "factors must be a group"),
        ("label", {"data": np.zeros((20, 6, 6), np.float32)}, "label must be whole numbers"),
        ("crc32c/label", {"data": np.zeros(3)}, r"crc32c/label must be \(20,\) uint32"),
        ("image", {"shape": (20, 6, 6, 3), "dtype": h5py.string_dtype()}, "image must be a dataset of numbers"),
        (
            "image",
            {"shape": (1 << 15, 1 << 10, 1 << 10, 3), "dtype": "u1", "chunks": (1 << 10, 1 << 10, 1 << 10, 3)},
            "GB",
        ),
    ],
)
def test_broken_tables_are_refused(tmp_path, name, given, words):
    path = replaced(stored_singly(tmp_path / "a.h5"), name, **given)
    with pytest.raises(SceneFileError, match=f"a.h5.*{words}") as caught:
        SceneDataset(path)
    assert "\n" not in str(caught.value)


def test_membership_of_floats_is_refused(tmp_path):
    path = stored_singly(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["membership"] = np.zeros((20, 6, 6), np.float32)
    with pytest.raises(SceneFileError, match=r"membership must be .* of unsigned integers, a bit for each entity, got"):
        SceneDataset(path)


def external_link(file, other):
    file["image"] = h5py.ExternalLink(other, "image")


def soft_link(file, other):
    file["image"] = h5py.SoftLink("/label")


def external_storage(file, other):
    file.create_dataset("image", (20, 6, 6, 3), "u1", external=[(str(other), 0, 20 * 108)])


def virtual(file, other):
    layout = h5py.VirtualLayout((20, 6, 6, 3), "u1")
    layout[:] = h5py.VirtualSource(other, "image", (20, 6, 6, 3))
    file.create_virtual_dataset("image", layout)


@pytest.mark.parametrize(
    ("elsewhere", "words"),
    [
        (external_link, "image is a link, and links are not followed"),
        (soft_link, "image is a link, and links are not followed"),
        (external_storage, "the data of image are in other files, which are not opened"),
        (virtual, "the data of image are in other files, which are not opened"),
    ],
)
def test_no_other_file_is_opened(tmp_path, elsewhere, words):
    other = stored_singly(tmp_path / "other.h5")
    with h5py.File(stored_singly(tmp_path / "a.h5"), "r+") as file:
        del file["image"]
        elsewhere(file, other)
    with pytest.raises(SceneFileError, match=f"a.h5: {words}"):
        SceneDataset(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["image", "label", "kind"])
@pytest.mark.parametrize("filters", [{}, {"shuffle": True}, {"fletcher32": True}])
def test_a_chunk_that_unpacks_to_more_than_its_shape_is_refused(tmp_path, name, filters):
    """The chunk unpacks to a hundred times its size; the reader must take less memory than that."""
    shapes = {"image": (8, 200, 200, 3), "label": (8, 200, 200), "kind": (8, 1000)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for each, shape in shapes.items():
            kind = np.float64 if each == "kind" else np.uint8
            file.create_dataset(each, data=np.zeros(shape, kind), chunks=shape, compression="gzip", **filters)
        size = 48_000_000 if name == "kind" else 72_000_000
        bomb = zlib.compress(bytes(size), 9)
        file[name].id.write_direct_chunk((0,) * len(shapes[name]), bomb + bytes(4 if "fletcher32" in filters else 0))
    tracemalloc.start()
    with pytest.raises(SceneFileError, match=rf"{name}.* cannot be read.* unpacks to more than the \d+ bytes"):
        read_all(tmp_path / "a.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size


def test_a_chunk_that_is_larger_than_possible_is_refused(tmp_path):
    path = tetrominoes(tmp_path / "a.h5", 64)
    with h5py.File(path, "r+") as file:
        file["image"].id.write_direct_chunk((0, 0, 0, 0), bytes(1 << 20))
    with pytest.raises(
        SceneFileError, match=r"image of scenes 0 to 63 cannot be read .a chunk takes more than the \d+"
    ):
        read_all(path)


@pytest.mark.parametrize("part", [b"SNOD", b"HEAP", b"TREE"], ids=["names", "words", "tree"])
@pytest.mark.parametrize("make", [stored_singly, tetrominoes])
def test_a_file_with_a_damaged_structure_is_refused(tmp_path, make, part):
    path = make(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes().replace(part, bytes(4), 1))
    with pytest.raises(SceneFileError, match=r"a.h5.* cannot be \w+.*[Gg]ive a whole (one|copy)") as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_a_chunk_of_the_wrong_size_is_refused(tmp_path):
    path = tetrominoes(tmp_path / "a.h5", 64)
    whole = zlib.compress(bytes(64 * 35 * 35 * 3))
    for content, words in ((whole[:-1], "a chunk is cut off"), (zlib.compress(bytes(9)), "a chunk has 9 bytes, not")):
        with h5py.File(path, "r+") as file:
            file["image"].id.write_direct_chunk((0, 0, 0, 0), content)
        with pytest.raises(SceneFileError, match=f"image of scenes 0 to 63 cannot be read .{words}"):
            read_all(path)


def test_scenes_that_were_never_written_are_zero(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, chunk in (("image", (1, 6, 6, 3)), ("label", (4, 6, 6))):
            file.create_dataset(name, (8, 6, 6, 3)[: len(chunk)], "u1", chunks=chunk, compression="gzip")
            file[name][5] = 3
    batch = read_all(tmp_path / "a.h5")
    assert (
        [int(row.max()) for row in batch["image"]] == [int(row.max()) for row in batch["label"]] == [0] * 5 + [3, 0, 0]
    )


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_flipped_bit_of_a_scene_stored_singly_is_seen(tmp_path, name):
    path = stored_singly(tmp_path / "a.h5")
    with h5py.File(path) as file:
        at = file[name].id.get_chunk_info(7).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 5] ^= 1
    path.write_bytes(content)
    scenes = SceneDataset(path)
    scenes[[6, 8]]
    with pytest.raises(SceneFileError, match=f"a.h5: {name} of scene 7 cannot be read .its checksum is wrong"):
        scenes[[6, 7]]
    scenes.close()
    with h5py.File(path, "r+") as file:
        del file["crc32c"]  # as in files from before checksums
    SceneDataset(path)[[6, 7]]


def test_invalid_npz_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SceneFileError, match=r"a.npz cannot be opened as .npz"):
        SceneDataset(path)
    np.savez(path, images=np.array([None]))
    with pytest.raises(SceneFileError, match=r"a.npz: images cannot be read: it is object, not numbers"):
        SceneDataset(path)
    np.savez_compressed(path, images=np.full((3, 1, 4, 4), 255.0))
    with pytest.raises(SceneFileError, match=r"a.npz: images.npy cannot be read: floats from 255 to 255, but"):
        SceneDataset(path)[[0]]
    with pytest.raises(SceneFileError, match=r"there is no data file .*b.npz"):
        SceneDataset(tmp_path / "b.npz")


def test_a_record_of_a_gigabyte_is_refused_before_it_is_unpacked(tmp_path):
    length = struct.pack("<Q", 1 << 30)
    squeeze = zlib.compressobj(1, wbits=31)
    content = squeeze.compress(length + struct.pack("<I", crc32c(length)))
    content += b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    (tmp_path / "a.tfrecords").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(TFRecordError, match=r"record 0 is of 1,073,741,824 bytes, expected are 1,\d+,\d+ at most"):
        convert(tmp_path / "a.tfrecords", tmp_path / "a.h5", TETROMINOES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20
    assert framed(b"")  # the framing itself is right


def test_a_chunk_for_a_missing_row_is_refused(tmp_path):
    path = stored_singly(tmp_path / "a.h5", 20)
    size = 6 * 6 * 3
    content = path.read_bytes()
    number = struct.pack("<IIQ", size, 0, 5)  # bytes, filters, row, as HDF5's tree of chunks has them
    assert content.count(number) == 1
    path.write_bytes(content.replace(number, struct.pack("<IIQ", size, 0, 1 << 20)))
    with pytest.raises(SceneFileError, match=r"image of scene 0 cannot be read .it has a chunk for row 1048576 of 20"):
        read_all(path)


def test_a_damaged_header_of_an_array_is_refused(tmp_path):
    path = npz(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes().replace(b"'descr'", b"(((((((", 1))
    with pytest.raises(SceneFileError, match=r"a.npz: \w+ cannot be read: its header is damaged"):
        SceneDataset(path)


def test_a_file_with_damaged_attributes_does_not_count_as_generated():
    class Damaged:
        @property
        def attrs(self):
            raise RuntimeError("ran off end of input buffer while decoding")

    assert not made_here(Damaged())
