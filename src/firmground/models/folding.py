"""Batch norms folded into the convolutions before them: the same function of a frozen model, in fewer passes.

In a model that only has gradients to its pixels, a batch norm is a scale and a shift a channel, which the convolution
before it can do. Which convolution that is, is seen where a batch norm gets the very tensor that a convolution gave.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from firmground.models.classifiers import ImageClassifier

CLOSE = 1e-3  # of the largest logit: how far folding may move any


def folded(base: ImageClassifier) -> ImageClassifier:
    """A classifier with the same logits, up to rounding, and the same identity; `base` itself where nothing folds."""
    if not any(isinstance(part, nn.BatchNorm2d) for part in base.weights.modules()):
        return base
    size = base.image_size
    canvas = torch.linspace(0, 1, 2 * 3 * size * size, device=base.device).view(2, 3, size, size)
    module, weights = copy.deepcopy((base.module, base.weights))
    quick = replace(base, module=module)
    with torch.no_grad():
        found = fold(weights, lambda: quick.read(canvas))
        ours, theirs = quick.read(canvas), base.read(canvas)
    same = (ours - theirs).abs().max() <= CLOSE * theirs.abs().max()
    return quick if found and same else base


def fold(model: nn.Module, run: Callable[[], object]) -> int:
    """Folds in place what `run`, one forward pass of a frozen model, shows to follow one another; says how many."""
    parents = {child: (parent, name) for parent in model.modules() for name, child in parent.named_children()}
    pairs = _followers(model, run)
    for convolution, norm in pairs:
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        convolution.weight = nn.Parameter(weight.detach(), requires_grad=False)
        convolution.bias = nn.Parameter(bias.detach(), requires_grad=False)
        parent, name = parents[norm]
        setattr(parent, name, nn.Identity())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as convolutions run fastest
    return len(pairs)


def _followers(model: nn.Module, run: Callable[[], object]) -> list[tuple[Any, Any]]:
    """Pairs of a convolution and the batch norm that reads its output; each is used once in a pass."""
    given: list[tuple[nn.Module, object]] = []
    calls: list[nn.Module] = []
    pairs: list[tuple[Any, Any]] = []

    def gave(module: nn.Module, _: object, output: object) -> None:
        calls.append(module)
        given.append((module, output))

    def reads(module: nn.Module, inputs: tuple[object, ...]) -> None:
        calls.append(module)
        if given and inputs and inputs[0] is given[-1][1]:
            pairs.append((given[-1][0], module))

    hooks = [part.register_forward_hook(gave) for part in model.modules() if isinstance(part, nn.Conv2d)]
    hooks += [part.register_forward_pre_hook(reads) for part in model.modules() if _is_frozen_norm(part)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if all(calls.count(part) == 1 for part in pair)]


def _is_frozen_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.BatchNorm2d) and not part.training and part.affine and part.track_running_stats
