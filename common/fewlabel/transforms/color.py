# SPDX-License-Identifier: Apache-2.0
"""Color, gray and blur augmentation of RGB pictures in ``[0, 1]``, drawn from MONAI's random state."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tvf
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import RandomizableTransform

from fewlabel.transforms._meta import like, plain
from fewlabel.transforms._random import SharedDrawd


def shift_hue(image: torch.Tensor, turns: float) -> torch.Tensor:
    """Rotate the hue of every pixel at constant saturation and value (HSV).

    The same numbers as torchvision's ``adjust_hue``, several times faster, as no HSV image is built: with hue h in
    sixths of a turn, channel n in (5, 3, 1) is ``V - C max(0, min(k, 4 - k, 1))``, ``k = (n + h) mod 6``, C the
    chroma.

    Args:
        image: RGB, shape ``(3, H, W)``, floating point in ``[0, 1]``.
        turns: shift in turns, usually in ``[-0.5, 0.5]``.

    Returns:
        The same shape and dtype.
    """
    red, green, blue = image
    value = image.amax(0)
    chroma = value - image.amin(0)
    divisor = chroma.clamp_min(1e-12)
    hue = torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    hue = torch.where(value == red, (green - blue) / divisor, hue).add_(6 * turns)
    out = torch.empty_like(image)
    for channel, n in enumerate((5, 3, 1)):
        k = (hue + n).remainder_(6)
        torch.sub(value, torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma), out=out[channel])
    return out


_ADJUST = {
    "brightness": tvf.adjust_brightness,
    "contrast": tvf.adjust_contrast,
    "saturation": tvf.adjust_saturation,
    "hue": shift_hue,
}


class _RandPicture(RandomizableTransform):
    """Draw, then apply ``_apply`` to the plain tensor of one picture."""

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> NdarrayOrTensor:
        """Transform one picture.

        Args:
            img: RGB, shape ``(3, H, W)``, floating point in ``[0, 1]``.
            randomize: draw anew; False repeats the last draw.

        Returns:
            The same shape, dtype and container; the input is left as it is.

        Raises:
            ValueError: an input of other shape or dtype.
        """
        if randomize:
            self.randomize(None)
        if not self._do_transform:
            return img
        values = plain(img)
        if values.ndim != 3 or values.shape[0] != 3 or not values.is_floating_point():
            raise ValueError(f"expected floating-point RGB (3, H, W), received {values.dtype} {tuple(values.shape)}.")
        return like(self._apply(values), img)

    @abstractmethod
    def _apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return the changed picture."""


class RandColorJitter(_RandPicture):
    """Change brightness, contrast, saturation and hue, in random order.

    Meaning and formulas are torchvision's ``ColorJitter``; only the draws come from MONAI's random state. A strength
    x of the first three draws a factor from ``[max(0, 1 - x), 1 + x]``, hue x draws a shift from ``[-x, x]`` turns.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.5,
        prob: float = 1.0,
    ) -> None:
        """Set the strengths; the defaults are those of the MMS paper (hue alone).

        Args:
            brightness: strength, at least 0; 0 leaves it out.
            contrast: strength, at least 0.
            saturation: strength, at least 0.
            hue: strength in turns, in ``[0, 0.5]``.
            prob: probability of any change.

        Raises:
            ValueError: a strength outside its range.
        """
        RandomizableTransform.__init__(self, prob)
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise ValueError(
                f"expected strengths >= 0 and hue <= 0.5, received {(brightness, contrast, saturation, hue)}."
            )
        strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self.ranges = {
            name: (-x, x) if name == "hue" else (max(0.0, 1.0 - x), 1.0 + x) for name, x in strengths.items() if x > 0
        }
        self._drawn: list[tuple[str, float]] = []

    def randomize(self, data: object = None) -> None:
        """Draw whether to change, the factors and their order."""
        super().randomize(None)
        drawn = [(name, float(self.R.uniform(*limits))) for name, limits in self.ranges.items()]
        self._drawn = [drawn[i] for i in self.R.permutation(len(drawn))]

    def _apply(self, values: torch.Tensor) -> torch.Tensor:
        for name, amount in self._drawn:
            values = _ADJUST[name](values, amount)
        return values


class RandGrayscale(_RandPicture):
    """Replace the color by its luma (ITU-R 601) in all three channels."""

    def __init__(self, prob: float = 0.2) -> None:
        """Set the probability.

        Args:
            prob: probability of losing the color.
        """
        RandomizableTransform.__init__(self, prob)

    def _apply(self, values: torch.Tensor) -> torch.Tensor:
        return tvf.rgb_to_grayscale(values, num_output_channels=3).contiguous()


class RandGaussianBlur(_RandPicture):
    """Blur with a small Gaussian kernel of random width.

    MONAI's ``RandGaussianSmooth`` lets the kernel grow with sigma; the paper's is cut to three pixels, a much milder
    blur.
    """

    def __init__(self, kernel_size: int = 3, sigma: tuple[float, float] = (0.1, 2.0), prob: float = 1.0) -> None:
        """Set kernel and range.

        Args:
            kernel_size: side of the kernel in pixels, odd.
            sigma: lowest and highest standard deviation in pixels, drawn uniformly.
            prob: probability of blurring.

        Raises:
            ValueError: an even kernel or a standard deviation that is not positive.
        """
        RandomizableTransform.__init__(self, prob)
        if kernel_size % 2 != 1 or min(sigma) <= 0:
            raise ValueError(f"expected an odd kernel_size and sigma > 0, received {kernel_size} and {sigma}.")
        self.kernel_size, self.sigma = kernel_size, sigma
        self._drawn = sigma[0]

    def randomize(self, data: object = None) -> None:
        """Draw whether to blur, and how much."""
        super().randomize(None)
        self._drawn = float(self.R.uniform(*self.sigma))

    def _apply(self, values: torch.Tensor) -> torch.Tensor:
        reach = self.kernel_size // 2
        weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / self._drawn) ** 2)
        taps: list[float] = (weights / weights.sum()).tolist()
        padded, zero = F.pad(values, [reach] * 4, mode="reflect"), values.new_zeros(())
        rows = sum((w * padded[:, i : i + values.shape[1], :] for i, w in enumerate(taps)), start=zero)
        return sum((w * rows[:, :, i : i + values.shape[2]] for i, w in enumerate(taps)), start=zero)


class RandColorJitterd(SharedDrawd):
    """Dictionary version of :class:`RandColorJitter`."""

    def __init__(
        self,
        keys: KeysCollection,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.5,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set keys and strengths.

        Args:
            keys: keys of the pictures.
            brightness: see :class:`RandColorJitter`.
            contrast: see :class:`RandColorJitter`.
            saturation: see :class:`RandColorJitter`.
            hue: see :class:`RandColorJitter`.
            prob: see :class:`RandColorJitter`.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        super().__init__(keys, RandColorJitter(brightness, contrast, saturation, hue, prob), allow_missing_keys)


class RandGrayscaled(SharedDrawd):
    """Dictionary version of :class:`RandGrayscale`."""

    def __init__(self, keys: KeysCollection, prob: float = 0.2, allow_missing_keys: bool = False) -> None:
        """Set keys and probability.

        Args:
            keys: keys of the pictures.
            prob: see :class:`RandGrayscale`.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        super().__init__(keys, RandGrayscale(prob), allow_missing_keys)


class RandGaussianBlurd(SharedDrawd):
    """Dictionary version of :class:`RandGaussianBlur`."""

    def __init__(
        self,
        keys: KeysCollection,
        kernel_size: int = 3,
        sigma: tuple[float, float] = (0.1, 2.0),
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        """Set keys and blur.

        Args:
            keys: keys of the pictures.
            kernel_size: see :class:`RandGaussianBlur`.
            sigma: see :class:`RandGaussianBlur`.
            prob: see :class:`RandGaussianBlur`.
            allow_missing_keys: skip keys that an item lacks instead of raising.
        """
        super().__init__(keys, RandGaussianBlur(kernel_size, sigma, prob), allow_missing_keys)
