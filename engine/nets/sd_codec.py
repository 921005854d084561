"""Images to latents and back: the SD autoencoder offline, the tiny one live, any output size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from engine.nets.sd15_config import CodecSizes


def vae_arguments(sizes: CodecSizes) -> dict[str, Any]:
    """`sizes` of the SD autoencoder as the arguments of diffusers' `AutoencoderKL`."""
    levels = len(sizes.vae_channels)
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": sizes.vae_channels,
        "layers_per_block": sizes.vae_layers,
        "norm_num_groups": sizes.norm_num_groups,
        "scaling_factor": sizes.scaling_factor,
        "latent_channels": 4,
    }


def tiny_arguments(sizes: CodecSizes) -> dict[str, Any]:
    """`sizes` of the tiny autoencoder as the arguments of diffusers' `AutoencoderTiny`."""
    return {
        "encoder_block_out_channels": sizes.tiny_channels,
        "decoder_block_out_channels": sizes.tiny_channels,
        "num_encoder_blocks": sizes.tiny_blocks,
        "num_decoder_blocks": sizes.tiny_blocks[::-1],
    }


class Enlarger(nn.Module):
    """Twice the size at the same latents (DiffTalk's cheap high resolution): bilinear plus detail.

    The detail is what two small convolutions add; it starts at zero, so an untrained one is plain
    bilinear enlargement.

    Shapes:
        in: images (B, 3, H, W). out: (B, 3, 2 H, 2 W).
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 12, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pictures: Tensor) -> Tensor:
        """Enlarge."""
        smooth = F.interpolate(pictures, scale_factor=2.0, mode="bilinear", align_corners=False)
        return smooth + F.pixel_shuffle(self.second(F.relu(self.first(pictures))), 2)


class SdCodec(nn.Module):
    """Both autoencoders behind one pair of calls; latents are scaled as the UNet wants them.

    Shapes:
        images (B, 3, 8 h, 8 w) in [-1, 1], RGB; latents (B, 4, h, w). With `output_scale` 2,
        decoded images are (B, 3, 16 h, 16 w).
    """

    def __init__(
        self,
        vae: AutoencoderKL | None,
        tiny: AutoencoderTiny | None,
        *,
        output_scale: int = 1,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.tiny = tiny
        self.enlarge = Enlarger() if output_scale == 2 else None

    @classmethod
    def build(cls, sizes: CodecSizes) -> SdCodec:
        """With random weights."""
        vae = AutoencoderKL(**vae_arguments(sizes))
        tiny = AutoencoderTiny(**tiny_arguments(sizes))
        return cls(vae, tiny, output_scale=sizes.output_scale)

    def encode(self, pictures: Tensor, *, tiny: bool = False) -> Tensor:
        """Latents of images: the mean, so that an image always gives the same latents.

        Raises:
            ValueError: the codec was built without that autoencoder.
        """
        net = self._net(tiny)
        if tiny:
            latents = net.encode(pictures).latents
        else:
            latents = net.encode(pictures).latent_dist.mode()
        return latents * net.config.scaling_factor

    def decode(self, latents: Tensor, *, tiny: bool = False) -> Tensor:
        """Images of latents, in [-1, 1] (not clipped).

        Raises:
            ValueError: the codec was built without that autoencoder.
        """
        net = self._net(tiny)
        images: Tensor = net.decode(latents / net.config.scaling_factor, return_dict=False)[0]
        return images if self.enlarge is None else self.enlarge(images)

    def _net(self, tiny: bool) -> Any:
        net = self.tiny if tiny else self.vae
        if net is None:
            raise ValueError(f"no {'tiny' if tiny else 'full'} autoencoder was given to this codec")
        return net


def to_bytes(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8."""
    return byte_values(pictures).to(torch.uint8).permute(0, 2, 3, 1)


def byte_values(pictures: Tensor) -> Tensor:
    """Values (...,) in [-1, 1] as the whole numbers 0 to 255, float32."""
    return (pictures.float() * 127.5 + 127.5).round().clamp(0, 255)
