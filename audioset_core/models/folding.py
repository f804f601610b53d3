"""Networks made faster without another result: batch norms folded into convolutions."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def fold_batch_norm(model: AnyModule) -> AnyModule:
    """The same function for inference: each batch norm becomes part of its convolution.

    The two stand side by side in a module and are named alike: ``conv`` and ``bn``, ``conv2`` and
    ``bn2``, or they begin a sequence. Works in place on an ``eval()`` model and returns it, in the
    channels-last format.
    """
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1:
            first, second = module[0], module[1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(first, second), nn.Identity()
        for name, convolution in list(module.named_children()):
            norm_name = name.replace("conv", "bn")
            norm = getattr(module, norm_name, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
                setattr(module, norm_name, nn.Identity())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
