"""A convolution that stays in single precision where oneDNN's bf16 kernel for CPUs with AMX reads foreign memory."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_CHANNELS, _WIDTH = 64, 2


class Convolution(nn.Conv2d):
    """``nn.Conv2d``, but for one shape in bf16 on a CPU, which is computed in float32 and rounded.

    With a kernel of 3 x 3, stride 2, at least 64 input channels and an input at most two columns wide (the last stage
    of a ResNet on 64 x 32 images), oneDNN's kernel for AMX reads memory that it never wrote: the same input gives
    other outputs, NaN at times. Widths 3 and 4, stride 1 and 16 channels are exact. Found by repeating layers with
    torch 2.13. The shape decides, not the processor, so that a network computes the same everywhere.
    """

    def forward(self, input: Float[Tensor, "B c h w"]) -> Float[Tensor, "B C H W"]:
        """The convolution in the type that autocast or the input asks for."""
        if not self._would_misread(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            exact: Tensor = self._conv_forward(input.float(), self.weight.float(), bias)
            return exact.to(torch.bfloat16)

    def _would_misread(self, input: Tensor) -> bool:
        """Whether this is the shape, in bf16, on a CPU."""
        shape = self.kernel_size == (3, 3) and self.stride == (2, 2) and self.in_channels >= _CHANNELS
        if not shape or input.shape[-1] > _WIDTH or input.device.type != "cpu":
            return False
        if torch.is_autocast_enabled("cpu"):
            return torch.get_autocast_dtype("cpu") == torch.bfloat16
        return input.dtype == torch.bfloat16
