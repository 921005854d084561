"""SyncNet v2 (Chung and Zisserman 2016, "Out of time"): the layers that the public file's weights fit."""

from __future__ import annotations

from torch import Tensor, nn

WIDTH = 1024  # of an embedding
FRAMES, SPECTRA = 5, 20  # of a window: pictures at 25 a second, cepstra at 100 a second


class SyncNet(nn.Module):
    """Embeds windows of 200 ms of sound and of pictures; attribute names are those of the public file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_flat(1, 64, 3, 1), nn.MaxPool2d(1, 1),
            *_flat(64, 192, 3, 1), nn.MaxPool2d(3, (1, 2)),
            *_flat(192, 384, 3, 1), *_flat(384, 256, 3, 1),
            *_flat(256, 256, 3, 1), nn.MaxPool2d(3, 2),
            *_flat(256, 512, (5, 4), 0),
        )  # fmt: skip
        self.netfcaud = _head()
        self.netfclip = _head()
        pool, step = (1, 3, 3), (1, 2, 2)
        self.netcnnlip = nn.Sequential(
            *_deep(3, 96, (5, 7, 7), 2, 0), nn.MaxPool3d(pool, step),
            *_deep(96, 256, (1, 5, 5), 2, 1), nn.MaxPool3d(pool, step, (0, 1, 1)),
            *_deep(256, 256, pool, 1, 1), *_deep(256, 256, pool, 1, 1),
            *_deep(256, 256, pool, 1, 1), nn.MaxPool3d(pool, step),
            *_deep(256, 512, (1, 6, 6), 1, 0),
        )  # fmt: skip

    def forward_aud(self, cepstra: Tensor) -> Tensor:
        """Cepstra (B, 1, 13, 20) -> (B, 1024)."""
        out: Tensor = self.netfcaud(self.netcnnaud(cepstra).flatten(1))
        return out

    def forward_lip(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, 5, 224, 224), BGR from 0 to 255 -> (B, 1024)."""
        out: Tensor = self.netfclip(self.netcnnlip(pictures).flatten(1))
        return out


def _flat(inputs: int, outputs: int, kernel: int | tuple[int, int], pad: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=pad)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _deep(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int, pad: int
) -> list[nn.Module]:
    conv = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (0, pad, pad))
    return [conv, nn.BatchNorm3d(outputs), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, WIDTH))
