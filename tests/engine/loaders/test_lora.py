from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from engine.loaders.files import WrongFamily  # noqa: E402
from engine.loaders.lora import fuse_lora  # noqa: E402
from tests.engine.loaders.layouts import save  # noqa: E402

pytestmark = pytest.mark.train


class Block(nn.Module):
    """Named as parts of a UNet are."""

    def __init__(self) -> None:
        super().__init__()
        self.attn1 = nn.Module()
        self.attn1.to_q = nn.Linear(6, 5, bias=False)
        self.attn1.to_out = nn.ModuleList([nn.Linear(5, 6)])
        self.conv1 = nn.Conv2d(3, 4, 3)


UP, DOWN = torch.randn(5, 2), torch.randn(2, 6)
STYLES = {
    "underscores": ("lora_unet_attn1_to_q.lora_down.weight", "lora_unet_attn1_to_q.lora_up.weight"),
    "dots": ("unet.attn1.to_q.lora.down.weight", "unet.attn1.to_q.lora.up.weight"),
    "processor": (
        "unet.attn1.processor.to_q_lora.down.weight",
        "unet.attn1.processor.to_q_lora.up.weight",
    ),
    "peft": ("unet.attn1.to_q.lora_A.weight", "unet.attn1.to_q.lora_B.weight"),
    "peft model": (
        "base_model.model.attn1.to_q.lora_A.default.weight",
        "base_model.model.attn1.to_q.lora_B.default.weight",
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_way_of_naming_adds_the_same_product(tmp_path: Path, style: str) -> None:
    block = Block()
    before = block.attn1.to_q.weight.detach().clone()
    down, up = STYLES[style]
    path = save({down: DOWN, up: UP}, tmp_path / "a.safetensors")
    assert fuse_lora(block, path, strength=0.5) == 1
    torch.testing.assert_close(block.attn1.to_q.weight, before + 0.5 * UP @ DOWN)


def test_alpha_over_rank_scales_and_the_output_layer_is_found(tmp_path: Path) -> None:
    block = Block()
    before = block.attn1.to_out[0].weight.detach().clone()
    name = "lora_unet_attn1_to_out_0"
    up, down = torch.randn(6, 2), torch.randn(2, 5)
    tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    path = save({**tensors, f"{name}.alpha": torch.tensor(8.0)}, tmp_path / "a.safetensors")
    fuse_lora(block, path)
    torch.testing.assert_close(block.attn1.to_out[0].weight, before + 4 * up @ down)


def test_a_convolution_changes_as_down_then_up_would(tmp_path: Path) -> None:
    block = Block()
    x = torch.randn(1, 3, 7, 7)
    down, up = torch.randn(2, 3, 3, 3), torch.randn(4, 2, 1, 1)
    conv = torch.nn.functional.conv2d
    wanted = block.conv1(x) + conv(conv(x, down), up)
    path = save(
        {"unet.conv1.lora_A.weight": down, "unet.conv1.lora_B.weight": up},
        tmp_path / "a.safetensors",
    )
    fuse_lora(block, path)
    torch.testing.assert_close(block.conv1(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_other.lora_down.weight": DOWN}, "no whole layer other here"),
        ({"unet.attn1.to_q.lora_A.weight": DOWN}, "no whole layer attn1.to_q here"),
        (
            {
                "unet.attn1.to_q.lora_A.weight": torch.ones(2, 7),
                "unet.attn1.to_q.lora_B.weight": UP,
            },
            "5 x 7, the layer is 5 x 6",
        ),
        ({"attn1.to_q.weight": DOWN}, "is no LoRA this can read"),
        ({"lora_te_text_model_x.lora_down.weight": DOWN}, "also changes the text encoder"),
    ],
)
def test_a_lora_for_another_model_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    block = Block()
    before = block.attn1.to_q.weight.detach().clone()
    with pytest.raises(WrongFamily, match=message):
        fuse_lora(block, save(tensors, tmp_path / "a.safetensors"))
    assert torch.equal(block.attn1.to_q.weight, before)


def test_a_file_that_fits_only_in_part_changes_nothing(tmp_path: Path) -> None:
    block = Block()
    before = block.attn1.to_q.weight.detach().clone()
    good = {"unet.attn1.to_q.lora_A.weight": DOWN, "unet.attn1.to_q.lora_B.weight": UP}
    bad = {"unet.conv1.lora_A.weight": DOWN, "unet.conv1.lora_B.weight": UP}
    with pytest.raises(WrongFamily, match="conv1"):
        fuse_lora(block, save({**good, **bad}, tmp_path / "a.safetensors"))
    assert torch.equal(block.attn1.to_q.weight, before)
