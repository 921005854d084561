"""AnimateDiff's motion modules: names and shapes of the public files, both kinds of names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

import engine.loaders.motion_modules as loader  # noqa: E402
from engine.loaders.files import WrongFamily  # noqa: E402
from engine.nets.conditions import Conditions  # noqa: E402
from engine.nets.identity_unet import IdentityUnet  # noqa: E402
from engine.nets.motion_modules import build_motion  # noqa: E402
from engine.nets.sd15_config import Sd15Config, UnetSizes  # noqa: E402

pytestmark = pytest.mark.train


def public(sizes: UnetSizes, version: str, device: str) -> dict[str, Tensor]:
    """A file as AnimateDiff's authors published it (`mm_sd_v15_v2.ckpt`, `v3_sd15_mm.ckpt`)."""
    widths, layers = sizes.block_out_channels, sizes.layers_per_block
    places = [(f"down_blocks.{i}", w, layers) for i, w in enumerate(widths)]
    places += [(f"up_blocks.{i}", w, layers + 1) for i, w in enumerate(widths[::-1])]
    places += [("mid_block", widths[-1], 1)] if version == "v2" else []
    shapes: dict[str, tuple[int, ...]] = {}
    for block, C, count in places:
        for number in range(count):
            stem = f"{block}.motion_modules.{number}.temporal_transformer."
            inner = stem + "transformer_blocks.0."
            for name in (stem + "norm", inner + "norms.0", inner + "norms.1", inner + "ff_norm"):
                shapes |= {f"{name}.weight": (C,), f"{name}.bias": (C,)}
            for name in (stem + "proj_in", stem + "proj_out"):
                shapes |= {f"{name}.weight": (C, C), f"{name}.bias": (C,)}
            for attention in (f"{inner}attention_blocks.0.", f"{inner}attention_blocks.1."):
                shapes |= {f"{attention}to_{n}.weight": (C, C) for n in "qkv"}
                shapes |= {f"{attention}to_out.0.weight": (C, C), f"{attention}to_out.0.bias": (C,)}
                shapes[f"{attention}pos_encoder.pe"] = (1, 32, C)
            shapes |= {
                f"{inner}ff.net.0.proj.weight": (8 * C, C),
                f"{inner}ff.net.0.proj.bias": (8 * C,),
            }
            shapes |= {f"{inner}ff.net.2.weight": (C, 4 * C), f"{inner}ff.net.2.bias": (C,)}
    generator = torch.Generator().manual_seed(0)
    if device == "meta":
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("version", "modules", "weights"), [("v2", 21, 453_209_280), ("v3", 20, 417_137_600)]
)
def test_full_size_files_load_with_every_name_and_shape(
    version: str, modules: int, weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(Sd15Config.full(), motion_modules=version)
    monkeypatch.setattr(loader, "read_tensors", lambda path: public(config.unet, version, "meta"))
    adapter = loader.load_motion(Path("v.ckpt"), config)
    assert sum(p.numel() for p in adapter.parameters()) == weights
    assert (
        sum(name.endswith("proj_out.weight") for name, _ in adapter.named_parameters()) == modules
    )
    with torch.device("meta"):
        net = IdentityUnet.build(config)
    wanted = {n: p.shape for n, p in net.motion.named_parameters()}
    assert {n: p.shape for n, p in adapter.named_parameters()} == wanted


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_authors_file_and_a_folder_of_diffusers_are_the_same(
    version: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(Sd15Config.small(), motion_modules=version)
    theirs = public(config.unet, version, "cpu")
    torch.save({"state_dict": {f"module.{n}": t for n, t in theirs.items()}}, tmp_path / "mm.ckpt")
    adapter = loader.load_motion(tmp_path / "mm.ckpt", config)
    save_file(adapter.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    again = loader.load_motion(tmp_path / "diffusion_pytorch_model.safetensors", config)
    fresh = build_motion(config).state_dict()
    assert again.state_dict().keys() == fresh.keys()
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        if name.endswith(".pe"):
            torch.testing.assert_close(tensor, fresh[name])
    net = IdentityUnet.build(config).eval()
    z, told = torch.randn(1, 4, 8, 8), Conditions(torch.randn(1, 77, 32))
    with torch.no_grad():
        plain = net(z, torch.tensor([300]), told)[0]
        net.motion = adapter
        assert not torch.allclose(net(z, torch.tensor([300]), told)[0], plain)


def test_another_version_is_named(tmp_path: Path) -> None:
    config = dataclasses.replace(Sd15Config.small(), motion_modules="v3")
    torch.save(public(config.unet, "v2", "cpu"), tmp_path / "mm.ckpt")
    with pytest.raises(WrongFamily, match="motion modules v2, not v3; use --motion-modules v2"):
        loader.load_motion(tmp_path / "mm.ckpt", config)
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(WrongFamily, match="no motion modules"):
        loader.load_motion(tmp_path / "other.ckpt", config)
