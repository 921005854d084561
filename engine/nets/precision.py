"""bfloat16 weights on any CPU: where the chip cannot multiply them, they are widened layer by layer.

PyTorch's bfloat16 products on a CPU without AVX-512 are some hundred times slower than float32.
Weights kept in bfloat16 and widened as each layer runs take half the memory at nearly the speed of
float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def multiplies_bfloat16() -> bool:
    """Whether this CPU has fast bfloat16 products."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


class WidenedLinear(nn.Linear):
    """Weights kept narrow, arithmetic in the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight.to(x.dtype), _widened(self.bias, x))


class WidenedConv2d(nn.Conv2d):
    """Weights kept narrow, arithmetic in the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W')."""
        return self._conv_forward(x, self.weight.to(x.dtype), _widened(self.bias, x))


def _widened(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(x.dtype)


WIDENED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: WidenedLinear,
    nn.Conv2d: WidenedConv2d,
}


def keep_narrow(module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Keep the weights of linear and convolution layers in `dtype`; everything else is float32.

    Inputs stay float32. State-dict names do not change. For inference: gradients would be narrow.
    """
    for layer in module.modules():
        widened = WIDENED.get(type(layer))
        for name, parameter in layer.named_parameters(recurse=False):
            keep = dtype if widened is not None and name == "weight" else torch.float32
            setattr(layer, name, nn.Parameter(parameter.detach().to(keep), requires_grad=False))
        if widened is not None:
            layer.__class__ = widened
    return module
