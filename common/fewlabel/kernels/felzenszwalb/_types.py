# SPDX-License-Identifier: Apache-2.0
"""Array types and bit layouts that the compiled parts share.

A forest is an int64 array. The entry of a root is negative: its sign bit, then 31 bits of the region's threshold (a
float32 >= 0, whose bits sort like its value), then 32 bits of its size. Any other entry is the index of a smaller
entry of the same region. A label is the index of an entry; the sign bit marks regions with which nothing more happens.
A record is 31 bits of an edge's weight as float32, its key, then 32 bits that say where the rest of the edge is stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Singles = NDArray[np.float32]
Grid = tuple[int, int, int]  # depth, height, width
Lattice = tuple[Doubles, Grid, Longs, Longs, Doubles]
"""Image (C, N), grid of product N, offsets (E, 3), the same as strides in N (E,), and factors (E,)."""
Store = tuple[Longs, Longs, Doubles]
"""Records, both regions (32 bits each) and weights of edges, (E, capacity) each; a record's low bits index the rest."""

ROOT = -(2**63)
SIGN = -(2**31)
LOW31 = 2**31 - 1
LOW32 = 2**32 - 1
KEY_END = 0x7F800001  # above the key of infinity
