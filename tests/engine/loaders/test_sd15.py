import dataclasses
import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from engine.errors import WeightsError  # noqa: E402
from engine.loaders.control_net import load_control_net  # noqa: E402
from engine.loaders.files import Damaged, WrongFamily  # noqa: E402
from engine.loaders.sd15 import Sd15Files, load_text, load_tiny, load_vae  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from tests.engine.loaders.layouts import old_vae, random, save, single_file  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()
STEM = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tiny_files: Path, tmp_path: Path) -> Path:
    """Files that a test may damage."""
    shutil.copytree(tiny_files, tmp_path / "sd")
    return tmp_path / "sd"


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_folder_and_one_file_give_the_same_weights(tiny_files: Path) -> None:
    folder, whole = Sd15Files(tiny_files), Sd15Files(tiny_files / "whole.safetensors")
    for a, b in (
        (folder.unet(SMALL.unet), whole.unet(SMALL.unet)),
        (folder.vae(SMALL.codec), whole.vae(SMALL.codec)),
        (folder.text(SMALL.text), whole.text(SMALL.text)),
    ):
        other = b.state_dict()
        assert all(torch.equal(t, other[n]) for n, t in a.state_dict().items())
        assert not any(p.is_meta for p in a.parameters())


def test_an_autoencoder_with_the_old_names_is_read(copied: Path) -> None:
    path = copied / "vae" / STEM
    new = load_vae(copied / "vae", SMALL.codec).state_dict()
    renamed = old_vae(load_file(path))
    assert any(".proj_attn." in name for name in renamed)
    save(renamed, path)
    old = load_vae(copied / "vae", SMALL.codec).state_dict()
    assert all(torch.equal(t, old[n]) for n, t in new.items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cross_attention_dim": 1024}, "Stable Diffusion 2 family"),
        ({"cross_attention_dim": 2048}, "Stable Diffusion XL"),
        ({"in_channels": 9}, "inpainting"),
        ({"attention_head_dim": [5, 10, 20, 20]}, "attention_head_dim"),
    ],
)
def test_another_family_is_refused_by_its_configuration(
    copied: Path, values: dict[str, object], message: str
) -> None:
    change_config(copied / "unet", **values)
    with pytest.raises(WrongFamily, match=message):
        Sd15Files(copied).unet(SMALL.unet)


def test_another_family_is_refused_by_its_weights(copied: Path) -> None:
    sd2 = dataclasses.replace(SMALL.unet, cross_attention_dim=1024)
    weights = load_file(copied / "unet" / STEM)
    wide = {
        n: torch.zeros(len(t), 1024)
        if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
        else t
        for n, t in weights.items()
    }
    save(wide, copied / "unet" / STEM)
    with pytest.raises(WrongFamily, match="Stable Diffusion 2 family"):
        Sd15Files(copied).unet(SMALL.unet)
    vae, text = (
        load_file(copied / "vae" / STEM),
        load_file(copied / "text_encoder/model.safetensors"),
    )
    config = dataclasses.replace(
        SMALL, unet=sd2, text=dataclasses.replace(SMALL.text, hidden=1024, heads=2)
    )
    save(single_file(wide, vae, text, config), copied / "whole.safetensors")
    with pytest.raises(WrongFamily, match="Stable Diffusion 2 family"):
        Sd15Files(copied / "whole.safetensors").unet(SMALL.unet)


def test_a_text_encoder_of_version_2_is_refused(copied: Path) -> None:
    change_config(copied / "text_encoder", hidden_size=1024)
    with pytest.raises(WrongFamily, match="hidden_size is 1024.*Stable Diffusion 2"):
        load_text(copied / "text_encoder", SMALL.text)


def test_one_file_of_version_2_has_another_text_encoder(copied: Path) -> None:
    whole = load_file(copied / "whole.safetensors")
    save(
        {
            n.replace("cond_stage_model.transformer.", "cond_stage_model.model."): t
            for n, t in whole.items()
        },
        copied / "whole.safetensors",
    )
    with pytest.raises(WrongFamily, match="no CLIP text encoder of Stable Diffusion 1"):
        Sd15Files(copied / "whole.safetensors").text(SMALL.text)


def test_one_file_that_lacks_a_part_or_has_other_inputs_is_refused(copied: Path) -> None:
    path = copied / "whole.safetensors"
    whole = load_file(path)
    save({n: t for n, t in whole.items() if not n.startswith("first_stage")}, path)
    with pytest.raises(WrongFamily, match="has no autoencoder in it.*bring sd-vae-ft-mse"):
        Sd15Files(path).vae(SMALL.codec)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save({**whole, first: torch.zeros(16, 9, 3, 3)}, path)
    with pytest.raises(WrongFamily, match="in_channels is 9, wanted 4; this is an inpainting"):
        Sd15Files(path).unet(SMALL.unet)
    del whole["model.diffusion_model.input_blocks.1.0.in_layers.0.weight"]
    save(whole, path)
    with pytest.raises(WrongFamily, match="lacks 1 tensors, the first down_blocks.0.resnets.0"):
        Sd15Files(path).unet(SMALL.unet)


def test_a_file_that_is_no_stable_diffusion_is_refused(tmp_path: Path) -> None:
    save({"weight": torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(WrongFamily, match="it has no UNet"):
        Sd15Files(tmp_path / "x.safetensors").unet(SMALL.unet)


def test_a_truncated_unet_is_refused(copied: Path) -> None:
    path = copied / "unet" / STEM
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Damaged, match="cut short"):
        Sd15Files(copied).unet(SMALL.unet)


def test_a_missing_folder_points_at_the_list(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="see: portraittalk models"):
        Sd15Files(tmp_path / "none")
    with pytest.raises(WeightsError, match="no folder unet"):
        Sd15Files(tmp_path)


def test_the_tiny_autoencoder_of_another_model_is_refused(copied: Path) -> None:
    change_config(copied / "taesd", latent_channels=16)
    with pytest.raises(WrongFamily, match="tiny autoencoder of another model"):
        load_tiny(copied / "taesd", SMALL.codec)


def test_the_root_of_the_control_net_repository_is_refused_in_words(copied: Path) -> None:
    change_config(copied / "diffusion_sd15", cross_attention_dim=1024)
    root = copied / "root"
    shutil.move(copied / "diffusion_sd15", root)
    with pytest.raises(
        WrongFamily, match=r"Stable Diffusion 2\.1.*use its subfolder diffusion_sd15"
    ):
        load_control_net(root, SMALL.unet)


def test_a_root_without_weights_names_the_subfolder(copied: Path) -> None:
    with pytest.raises(WeightsError, match="use its subfolder diffusion_sd15"):
        load_control_net(copied, SMALL.unet)


def test_a_unet_is_no_control_net(copied: Path) -> None:
    shutil.copy(copied / "unet" / STEM, copied / "diffusion_sd15" / STEM)
    with pytest.raises(WrongFamily, match="lacks .* and has .* unknown"):
        load_control_net(copied / "diffusion_sd15", SMALL.unet)


def test_weights_come_in_the_precision_asked_for(tiny_files: Path) -> None:
    net = load_control_net(tiny_files / "diffusion_sd15", SMALL.unet, dtype=torch.bfloat16)
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    assert random({"a": torch.zeros(2)}, 0)["a"].any()
