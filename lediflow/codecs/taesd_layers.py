"""TAESD's two halves, layer for layer in the order of the original weights' names
(github.com/madebyollin/taesd, MIT).
"""

from typing import Any

from torch import Tensor, nn

WIDTH = 64
CHANNELS = 4
REDUCTION = 8


class Block(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH), nn.ReLU(), _conv(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(x)).relu()


class SoftClamp(nn.Module):
    """Keeps latents within -3 ... 3."""

    def forward(self, x: Tensor) -> Tensor:
        return (x / 3).tanh() * 3


def _conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def _blocks(count: int) -> list[nn.Module]:
    return [Block() for _ in range(count)]


def _halve() -> nn.Conv2d:
    return _conv(WIDTH, WIDTH, stride=2, bias=False)


def _double() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), _conv(WIDTH, WIDTH, bias=False)]


def encoder() -> nn.Sequential:
    """[0, 1] images -> latents."""
    stages = [layer for _ in range(3) for layer in (_halve(), *_blocks(3))]
    return nn.Sequential(_conv(3, WIDTH), *_blocks(1), *stages, _conv(WIDTH, CHANNELS))


def decoder() -> nn.Sequential:
    """Latents -> [0, 1] images."""
    stages = [layer for _ in range(3) for layer in (*_blocks(3), *_double())]
    return nn.Sequential(
        SoftClamp(), _conv(CHANNELS, WIDTH), nn.ReLU(), *stages, *_blocks(1), _conv(WIDTH, 3)
    )
