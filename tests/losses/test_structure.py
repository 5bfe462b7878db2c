# SPDX-License-Identifier: Apache-2.0
"""The structure loss: against the formula written out in NumPy, and what the released code makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabel.errors import ConfigError
from fewlabel.losses import StructureLoss, box_mean


def disk(height: int = 40, width: int = 52) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((y - 20) ** 2 + (x - 30) ** 2 < 100).float()[None, None]


def written_out(z: np.ndarray, y: np.ndarray, window: int) -> float:
    """Image by image, pixel by pixel."""
    losses = []
    for logits, mask in zip(z[:, 0], y[:, 0], strict=True):
        padded, half = np.pad(mask, window // 2), window // 2
        w = np.empty_like(mask)
        for i in range(mask.shape[0]):
            for j in range(mask.shape[1]):
                w[i, j] = 1 + 5 * abs(padded[i : i + 2 * half + 1, j : j + 2 * half + 1].mean() - mask[i, j])
        p = 1 / (1 + np.exp(-logits))
        bce = -(mask * np.log(p) + (1 - mask) * np.log(1 - p))
        overlap, both = (w * p * mask).sum(), (w * (p + mask)).sum()
        losses.append((w * bce).sum() / w.sum() + 1 - (overlap + 1) / (both - overlap + 1))
    return float(np.mean(losses))


@pytest.mark.parametrize("window", [5, 31])
def test_against_the_formula_with_soft_targets(window: int) -> None:
    z, y = torch.randn(2, 1, 20, 23, dtype=torch.float64), torch.rand(2, 1, 20, 23, dtype=torch.float64)
    assert StructureLoss(window)(z, y).item() == pytest.approx(written_out(z.numpy(), y.numpy(), window), rel=1e-12)


def test_box_mean_is_the_square_window() -> None:
    x = torch.rand(2, 1, 40, 52)
    torch.testing.assert_close(box_mean(x, 31), F.avg_pool2d(x, 31, stride=1, padding=15))


def test_gradient() -> None:
    z = torch.randn(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, 1, 5, 6).round()
    assert torch.autograd.gradcheck(lambda z: StructureLoss(3)(z, y), (z,))


def test_a_batch_is_the_mean_of_its_images() -> None:
    z, y, loss = torch.randn(3, 1, 40, 52), disk().repeat(3, 1, 1, 1).roll(7, dims=2), StructureLoss()
    alone = torch.stack([loss(z[i : i + 1], y[i : i + 1]) for i in range(3)]).mean()
    torch.testing.assert_close(loss(z, y), alone)


def test_perfect_and_inverted_predictions() -> None:
    y, loss = disk(), StructureLoss()
    assert loss(60 * y - 30, y) < 1e-3
    assert loss(30 - 60 * y, y) > 10


def test_released_code_never_reaches_zero() -> None:
    """Sigmoid twice: a perfect prediction costs log 2 on background and log(1 + 1/e) on the tool."""
    y = disk()
    share = y.mean().item()
    released = StructureLoss(double_sigmoid=True, weighted_bce=False)
    expected = (1 - share) * np.log(2) + share * np.log1p(np.exp(-1))
    assert released(200 * y - 100, y).item() == pytest.approx(expected, abs=1e-5)


def test_released_cross_entropy_ignores_the_boundary() -> None:
    y = disk()
    z = torch.randn_like(y)
    with_bce = [StructureLoss(emphasis=e, weighted_bce=False)(z, y) for e in (0.0, 5.0)]
    p = torch.sigmoid(z)
    iou = []
    for emphasis in (0.0, 5.0):
        w = 1 + emphasis * (box_mean(y, 31) - y).abs()
        iou.append(1 - ((w * p * y).sum() + 1) / ((w * (p + y)).sum() - (w * p * y).sum() + 1))
    torch.testing.assert_close(with_bce[0] - iou[0], with_bce[1] - iou[1])
    torch.testing.assert_close(with_bce[0] - iou[0], F.binary_cross_entropy_with_logits(z, y))


def test_target_gets_no_gradient() -> None:
    z, y = torch.randn(2, 2, 1, 8, 8, requires_grad=True)
    assert torch.autograd.grad(StructureLoss()(z, torch.sigmoid(y)), y, allow_unused=True)[0] is None


def test_full_precision_inside_autocast() -> None:
    z, y = torch.randn(1, 1, 40, 52).bfloat16(), disk()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = StructureLoss()(z, y)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, StructureLoss()(z.float(), y))


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="window of the structure loss is 30"):
        StructureLoss(window=30)
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\) and \(1, 4, 4\)"):
        StructureLoss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
