"""Reading of safetensors files that may have been forged; they are written by the package of that name."""

import json
import math
import os

import numpy as np
import torch

_DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}
# Parsed JSON takes less memory than so many bytes for each of these characters, and its text once.
_STRUCTURE, _BYTES_EACH = b"[{,:", 64


class Refused(ValueError):
    """Content of a saved model that is not accepted."""


class Allowance:
    """Memory that a saved model may still take, beside its arrays."""

    def __init__(self, n_bytes):
        self.left = n_bytes

    def take(self, n_bytes):
        """Note that so many bytes are about to be allocated.

        Raises
        ------
        Refused
            They are more than are left.
        """
        self.left -= n_bytes
        if self.left < 0:
            raise Refused("it would take far more memory than its files have bytes.")


def json_cost(text):
    """Bytes of memory that a JSON text (bytes) takes at most when it is parsed, beside those of its strings."""
    return _BYTES_EACH * sum(map(text.count, (bytes([c]) for c in _STRUCTURE)))


class ArrayFile:
    """Arrays of an open safetensors file, each read when it is asked for.

    Their memory is aligned as torch aligns its own, so that networks can use it as it is.

    Parameters
    ----------
    stream : binary file
    allowance : Allowance
        What the header may take.

    Raises
    ------
    Refused
        The header does not describe the bytes of the file, each of them once.
    """

    def __init__(self, stream, allowance):
        n_bytes = os.fstat(stream.fileno()).st_size
        stream.seek(0)
        n_header = int.from_bytes(stream.read(8), "little")
        if n_bytes < 8 or n_header > n_bytes - 8:
            raise Refused("the arrays end within their header.")
        text = stream.read(n_header)
        allowance.take(json_cost(text))
        self.stream, self.entries = stream, {}
        end = 0
        for name, entry in sorted(json.loads(text).items(), key=lambda item: item[1]["data_offsets"]):
            start, (begin, end_before) = end, entry["data_offsets"]
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
            if len(entry) != 3 or not all(type(n) is int and n >= 0 for n in (*shape, begin, end_before)):
                raise Refused(f"the array {name} is described wrongly.")
            end = start + math.prod(shape) * dtype.itemsize
            if (begin, end_before) != (start, end):
                raise Refused(f"the array {name} does not lie where its shape would have it.")
            self.entries[name] = 8 + n_header + start, end - start, dtype, shape
        if 8 + n_header + end != n_bytes:
            raise Refused("the arrays are not as long as their header says.")

    def __len__(self):
        return len(self.entries)

    def get_tensor(self, name):
        """The array of this name."""
        place, n_bytes, dtype, shape = self.entries[name]
        memory = torch.empty(n_bytes, dtype=torch.uint8).numpy()
        self.stream.seek(place)
        if self.stream.readinto(memory) != n_bytes:
            raise Refused(f"the array {name} is cut off.")
        return memory.view(dtype).reshape(shape)
