# SPDX-License-Identifier: Apache-2.0
"""Contrast between N locations and N keys without ever storing the N x N similarities.

Everything here rests on one quantity, the log-sum-exp of similarities s_ij = q_i . k_j over a temperature. Rows are
expected to be normalized by the caller (any norm: the operators themselves normalize nothing and add no constant), in
shape (B, N, C); items of a batch never see each other. Computation is in float32 (float64 for float64 input) whatever
the input and autocast say, memory grows with N and not with N^2, repeats are bit-equal (on a CPU for any number of
threads), and a side that needs no gradient costs nothing: detach a frozen key.
"""

from __future__ import annotations

from fewlabel.kernels.contrast.labeled import region_contrast, supcon
from fewlabel.kernels.contrast.lse import masked_lse
from fewlabel.kernels.contrast.pairs import all_negative, info_nce

__all__ = ["all_negative", "info_nce", "masked_lse", "region_contrast", "supcon"]
