import dataclasses

import pytest

torch = pytest.importorskip("torch")

from engine.nets.sd15_config import Sd15Config  # noqa: E402
from engine.nets.sd_codec import SdCodec, to_bytes  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()


@torch.no_grad()
@pytest.mark.parametrize("tiny", [False, True])
def test_pictures_go_to_scaled_latents_and_back(tiny: bool) -> None:
    codec = SdCodec.build(SMALL.codec).eval()
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    latents = codec.encode(pictures, tiny=tiny)
    assert latents.shape == (2, 4, 8, 8)
    assert torch.equal(latents, codec.encode(pictures, tiny=tiny))
    assert codec.decode(latents, tiny=tiny).shape == (2, 3, 64, 64)


@torch.no_grad()
def test_latents_carry_the_scaling_the_unet_wants() -> None:
    codec = SdCodec.build(SMALL.codec).eval()
    pictures = torch.rand(1, 3, 64, 64) * 2 - 1
    assert codec.vae is not None
    raw = codec.vae.encode(pictures).latent_dist.mode()
    assert torch.allclose(codec.encode(pictures), raw * 0.18215)


@torch.no_grad()
def test_output_size_is_apart_from_latent_size() -> None:
    torch.manual_seed(0)
    larger = SdCodec.build(dataclasses.replace(SMALL.codec, output_scale=2)).eval()
    latents = torch.randn(1, 4, 8, 8)
    big = larger.decode(latents, tiny=True)
    assert larger.tiny is not None
    plain = larger.tiny.decode(latents, return_dict=False)[0]
    assert big.shape == (1, 3, 128, 128)
    untrained = torch.nn.functional.interpolate(plain, scale_factor=2.0, mode="bilinear")
    assert torch.allclose(big, untrained, atol=1e-5)  # starts as plain enlargement


def test_an_autoencoder_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no tiny autoencoder"):
        SdCodec(None, None).decode(torch.zeros(1, 4, 8, 8), tiny=True)


def test_bytes_are_rounded_and_clipped() -> None:
    row = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).expand(1, 3, 1, 5)
    assert to_bytes(row)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
