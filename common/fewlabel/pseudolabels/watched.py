# SPDX-License-Identifier: Apache-2.0
"""A forward pass that hands out what layers return, with the graph from there to the output only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def watched_forward(network: nn.Module, images: Tensor, layers: Sequence[str]) -> tuple[Any, list[Tensor]]:
    """Return a network's output and the activations of layers, at the first of which the graph begins.

    The network runs in evaluation mode and on detached parameters, so that nothing but activations can require a
    gradient: what comes before them is not recorded, and what comes after keeps nothing for gradients of weights.
    Modes and hooks are put back, also after an error.

    Args:
        network: any module of one argument.
        images: its argument; receives no gradient.
        layers: names in ``network.named_modules()`` of layers that run once and return (B, K, *space).

    Returns:
        Whatever the network returns, and an activation for each layer, which requires a gradient.

    Raises:
        ValueError: for an unknown layer, one that does not run exactly once, or one that returns something else.
    """
    modules, seen = dict(network.named_modules()), dict[str, Tensor]()
    if isinstance(layers, str) or not set(layers) <= set(modules):
        raise ValueError(f"layers is {layers!r}, expected a list of names in network.named_modules()")

    def keep(name: str, module: nn.Module, arguments: Any, output: Any) -> Tensor:
        if name in seen:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass, expected once")
        if not isinstance(output, Tensor) or output.ndim < 3:
            shown = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {name!r} returns {shown}, expected a tensor (B, K, *space)")
        seen[name] = output if output.requires_grad else output.detach().requires_grad_()
        return seen[name].clone()  # what comes next may work in place

    fixed = {name: parameter.detach() for name, parameter in network.named_parameters()}
    plain = images.detach().as_subclass(Tensor)
    inputs = plain.clone() if plain.is_inference() else plain  # the former cannot be part of a graph
    with _evaluating(network), ExitStack() as hooks:
        for name in dict.fromkeys(layers):
            hooks.callback(modules[name].register_forward_hook(partial(keep, name)).remove)
        output = functional_call(network, fixed, (inputs,))
    for name in layers:
        if name not in seen:
            raise ValueError(f"layer {name!r} did not run in the forward pass")
    return output, [seen[name] for name in layers]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode that it was in, which may differ between them."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
