"""Arrays: what they are called here, and how they stand in JSON, bit for bit: compressed bytes in base64."""

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """JSON object that `unpack` turns into the same array, bit for bit."""
    flat = np.ascontiguousarray(array)
    data = base64.b64encode(zlib.compress(flat.tobytes(), level=1)).decode("ascii")
    return {"dtype": str(flat.dtype), "shape": list(flat.shape), "data": data}


def unpack(packed: dict[str, Any]) -> NDArray[Any]:
    """Array that `pack` stored; never unpickles."""
    raw = zlib.decompress(base64.b64decode(packed["data"]))
    return np.frombuffer(raw, dtype=np.dtype(packed["dtype"])).reshape(packed["shape"]).copy()
