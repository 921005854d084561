"""Full-size networks on the meta device against the committed table of the public files."""

import dataclasses
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import HubertConfig  # noqa: E402

import engine.loaders.control_net as control_net  # noqa: E402
import engine.loaders.hubert as speech  # noqa: E402
import engine.loaders.ip_adapter as ip_adapter  # noqa: E402
import engine.loaders.lora as lora  # noqa: E402
import engine.loaders.sd15 as sd15  # noqa: E402
from engine.nets.attention import DecoupledCrossAttention, SelfAttention  # noqa: E402
from engine.nets.control_net import AnimateControlNet, control_net_arguments  # noqa: E402
from engine.nets.identity_unet import IdentityUnet, unet_arguments  # noqa: E402
from engine.nets.projection import IdentityProjection  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from engine.nets.sd_codec import tiny_arguments, vae_arguments  # noqa: E402
from tests.engine.loaders.layouts import (  # noqa: E402
    HUBERT_LARGE,
    flatten,
    full_table,
    text_config,
    write_config,
)

pytestmark = pytest.mark.train
FULL = Sd15Config.full()
TABLE: dict[str, dict[str, list[int]]] = {
    name: flatten(tree)
    for name, tree in json.loads(
        Path(__file__).with_name("public_layouts.json").read_text()
    ).items()
}


def count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folders whose weight files are only names: reading one gives the table's shapes, on meta."""
    places = {
        "unet/diffusion_pytorch_model.safetensors": "unet",
        "vae/diffusion_pytorch_model.safetensors": "vae_old_names",
        "text_encoder/model.safetensors": "text",
        "taesd/diffusion_pytorch_model.safetensors": "taesd",
        "diffusion_sd15/diffusion_pytorch_model.safetensors": "control_net",
        "whole.safetensors": "single_file",
        "faceid.bin": "faceid",
        "portrait.bin": "faceid_portrait",
        "plus.bin": "faceid_plus_v2",
        "lcm.safetensors": "lcm_lora",
        "base/pytorch_model.bin": "hubert_base",
        "large/pytorch_model.bin": "hubert_large",
    }
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for folder, values, cls in (
        ("unet", unet_arguments(FULL.unet), "UNet2DConditionModel"),
        ("vae", vae_arguments(FULL.codec), "AutoencoderKL"),
        ("text_encoder", text_config(FULL.text), "CLIPTextModel"),
        ("taesd", tiny_arguments(FULL.codec), "AutoencoderTiny"),
        ("diffusion_sd15", control_net_arguments(FULL.unet), "ControlNetModel"),
        ("base", {"model_type": "hubert"}, "HubertModel"),
        ("large", {"model_type": "hubert", **HUBERT_LARGE}, "HubertModel"),
    ):
        write_config(tmp_path / folder, values, cls)

    def read(path: Path) -> dict[str, Any]:
        table = TABLE[places[path.relative_to(tmp_path).as_posix()]]
        return {
            n: torch.empty(shape, device="meta") if shape else torch.tensor(64.0, device="cpu")
            for n, shape in table.items()
        }

    for module in (sd15, control_net, ip_adapter, lora, speech):
        monkeypatch.setattr(module, "read_tensors", read)
    return tmp_path


def test_the_table_is_what_its_command_writes() -> None:
    assert full_table() == TABLE


@pytest.mark.parametrize("whole", [False, True], ids=["folder", "one file"])
def test_stable_diffusion_loads_with_every_name_and_shape(shelf: Path, whole: bool) -> None:
    files = sd15.Sd15Files(shelf / "whole.safetensors" if whole else shelf)
    with torch.device("meta"):
        assert count(files.unet(FULL.unet)) == 859_520_964
        assert count(files.vae(FULL.codec)) == 83_653_863
        assert count(files.text(FULL.text)) == 123_060_480


def test_control_net_and_tiny_autoencoder_load(shelf: Path) -> None:
    assert count(control_net.load_control_net(shelf / "diffusion_sd15", FULL.unet)) == 361_279_120
    tiny = sd15.load_tiny(shelf / "taesd", FULL.codec)
    assert (count(tiny.encoder), count(tiny.decoder)) == (1_222_532, 1_222_531)


@pytest.mark.parametrize(("name", "count_"), [("base", 94_371_712), ("large", 315_438_720)])
def test_hubert_loads(shelf: Path, name: str, count_: int) -> None:
    with torch.device("meta"):
        assert count(speech.load_hubert(shelf / name)) == count_
    assert HubertConfig().hidden_size == 768


def test_identity_adapters_and_few_step_lora_fit_the_full_unet(shelf: Path) -> None:
    with torch.device("meta"):
        unet = IdentityUnet.build(FULL)
        projection = IdentityProjection.build(FULL)
        portrait = IdentityProjection(512, 768, 16)
        assert (
            ip_adapter.install(ip_adapter.read_ip_adapter(shelf / "faceid.bin"), unet, projection)
            == 128
        )
        opened = ip_adapter.read_ip_adapter(shelf / "portrait.bin")
        assert opened.tokens == 16
        assert ip_adapter.install(opened, unet, portrait) == 0
        plus = IdentityProjection.build(dataclasses.replace(FULL, projection="plus"))
        opened = ip_adapter.read_ip_adapter(shelf / "plus.bin")
        assert (opened.kind, opened.patch) == ("plus", 1280)
        assert ip_adapter.install(opened, unet, plus) == 128
        assert lora.fuse_lora(unet.unet, shelf / "lcm.safetensors") == 278
    own = [unet.unet.get_submodule(name) for name in unet.unet.attn_processors]
    assert len(own) == 32
    assert sum(isinstance(p, SelfAttention) for p in own) == 16
    assert sum(isinstance(p, DecoupledCrossAttention) for p in own) == 16
    assert count(unet) - 859_520_964 == sum(count(p) for p in own) == 19_169_280


def test_file_sizes_agree_with_the_public_listings() -> None:
    """Half-precision bytes of the table's numbers, without a file's header."""
    listed = {
        "faceid": 96.7e6,
        "faceid_plus_v2": 156_558_509,
        "faceid_portrait": 64_586_623,
        "lcm_lora": 134_621_556,
    }
    for name, size in listed.items():
        numbers = sum(prod(shape) for shape in TABLE[name].values())
        assert 2 * numbers == pytest.approx(size, rel=0.0015)


def test_animate_net_adds_its_own_attention_to_the_public_control_net() -> None:
    with torch.device("meta"):
        animate = AnimateControlNet.build(FULL)
    assert len(animate.layers) == 7
    public = {n for n in animate.net.state_dict() if ".processor." not in n}
    assert public == set(TABLE["control_net"])
