"""Writes valid and invalid TensorFlow checkpoints, whose checksums always match their content."""

import numpy as np

from iodine_pl.files.tensorflow.wire import masked_crc

MAGIC = 0xDB4775248B80FB57
NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def number(value):
    out = bytearray()
    value &= (1 << 64) - 1
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def field(which, value):
    """Returns a protobuf field: a number, or bytes."""
    if isinstance(value, int):
        return number(which << 3) + number(value)
    return number(which << 3 | 2) + number(len(value)) + value


def header(shards=1, endianness=0):
    return field(1, shards) + (field(2, endianness) if endianness else b"") + field(3, field(1, 1))


def entry(array, offset, shard=0, **changed):
    """Returns the entry of an array, with any part replaced."""
    said = {"dtype": NUMBERS[array.dtype.name], "shape": array.shape, "size": array.nbytes, "offset": offset} | changed
    axes = b"".join(field(2, field(1, length) if length else b"") for length in said["shape"])
    crc = masked_crc(array.tobytes()).to_bytes(4, "little")
    message = field(1, said["dtype"]) + field(2, axes)
    for which, value in ((3, shard), (4, said["offset"]), (5, said["size"])):
        message += field(which, value) if value else b""
    return message + number(6 << 3 | 5) + crc


def block(pairs, restart=16):
    """Returns a block of sorted pairs. Each key leaves out the prefix that it shares with the key before."""
    out, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(pairs):
        shared = 0
        if i % restart == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return out + b"".join(r.to_bytes(4, "little") for r in (*restarts, len(restarts)))


def sealed(content, compression=0):
    body = content + bytes([compression])
    return body + masked_crc(body).to_bytes(4, "little")


def table(blocks, handles=None, compression=0):
    """Returns an index of these blocks, each a list of pairs; ``handles`` replaces their stated positions."""
    out, places, last = b"", [], []
    for pairs in blocks:
        content = pairs if isinstance(pairs, bytes) else block(pairs)
        places.append((len(out), len(content)))
        last.append(b"~%03d" % len(last))
        out += sealed(content, compression)
    empty = len(out), len(block([]))
    out += sealed(block([]))
    of_index = block(
        [(key, number(a) + number(n)) for key, (a, n) in zip(last, handles or places, strict=True)], restart=1
    )
    top = len(out), len(of_index)
    out += sealed(of_index)
    footer = b"".join(number(x) for x in (*empty, *top))
    return out + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def bundle(arrays, per_block=1000):
    """Returns the index and the data of a valid checkpoint."""
    pairs, data = [(b"", header())], b""
    for name in sorted(arrays):
        pairs.append((name.encode(), entry(arrays[name], len(data))))
        data += arrays[name].tobytes()
    return table([pairs[i : i + per_block] for i in range(0, len(pairs), per_block)]), data


def write(folder, arrays, prefix="model.ckpt"):
    """Writes a checkpoint into a folder, which is made if it is missing, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    index, data = bundle({name: np.asarray(value) for name, value in arrays.items()})
    (folder / f"{prefix}.index").write_bytes(index)
    (folder / f"{prefix}.data-00000-of-00001").write_bytes(data)
    return folder
