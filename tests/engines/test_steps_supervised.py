# SPDX-License-Identifier: Apache-2.0
"""The baselines: one network, or two that share nothing."""

from __future__ import annotations

from functools import partial

import torch
from tests.toy_steps import batch, images, reached, step

from fewlabel.engines.steps import SupervisedStep
from fewlabel.losses import PartialLabelLoss, PixelCrossEntropyLoss, VoronoiLoss
from fewlabel.networks import ResUNet34, Twin


def test_tied_is_one_network_on_one_stream() -> None:
    made = step(SupervisedStep, tied=True)
    one = batch(1, unlabeled=False)
    terms = made(one)
    stream = one["labeled"][0]
    torch.testing.assert_close(terms["loss"], made.loss(made.network.first(stream["image"]), stream["label"]))
    terms["loss"].backward()
    assert reached(made.network.second)


def test_untied_networks_learn_from_their_own_stream() -> None:
    made, two = step(SupervisedStep), batch(2, unlabeled=False)
    made(two)["loss"].backward()
    assert reached(made.network.first) and reached(made.network.second)
    with_gradients = {n: p.grad.clone() for n, p in made.network.first.named_parameters()}
    made.zero_grad()
    two["labeled"][1] = batch(1, seed=7)["labeled"][0]
    made(two)["loss"].backward()
    for name, p in made.network.first.named_parameters():
        torch.testing.assert_close(p.grad, with_gradients[name])


def test_one_network_of_exclusive_classes_learns_pseudo_masks_and_voronoi_labels() -> None:
    torch.manual_seed(0)
    network = Twin(partial(ResUNet34, width=16, blocks=(1, 1, 1, 1)), dropout=0.1, tied=True, softmax=True)
    image, mask = images(0)
    voronoi = torch.full_like(mask, 255).masked_fill(mask == 1, 1)
    for loss, label in ((PixelCrossEntropyLoss(), mask), (VoronoiLoss(), torch.cat([mask, voronoi], dim=1))):
        made = SupervisedStep(network, loss)
        terms = made({"labeled": [{"image": image, "label": label}]})
        terms["loss"].backward()
        assert terms["loss"].isfinite() and reached(network.first)
    assert network.eval()(image).shape == (2, 2, 32, 32)


def test_the_loss_is_told_which_classes_are_present() -> None:
    torch.manual_seed(0)
    network = Twin(partial(ResUNet34, width=16, blocks=(1, 1, 1, 1), out_channels=3), tied=True, softmax=True)
    made = SupervisedStep(network.eval(), PartialLabelLoss())
    image, mask = images(0)
    present = torch.tensor([[True, True, False]]).expand(len(image), 3)
    stream = {"image": image, "label": mask, "labels_present": present}
    terms = made({"labeled": [stream]})
    logits = network.first(image)
    torch.testing.assert_close(terms["loss"], PartialLabelLoss()(logits, mask, present))
    assert not torch.allclose(terms["loss"], PartialLabelLoss()(logits, mask))
