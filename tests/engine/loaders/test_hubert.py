import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from transformers import HubertConfig, HubertModel  # noqa: E402

from engine.loaders.files import Damaged, WrongFamily  # noqa: E402
from engine.loaders.hubert import load_hubert  # noqa: E402
from tests.engine.loaders.layouts import hubert, random, save  # noqa: E402

pytestmark = pytest.mark.train
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def write(folder: Path, *, prefix: str = "", **config: object) -> dict[str, torch.Tensor]:
    made = HubertConfig(**SIZES)
    tensors = random(hubert(made, "cpu"), 1)
    named = {prefix + n: t for n, t in tensors.items()}
    if prefix:
        named["lm_head.weight"] = torch.ones(32, 16)
    save(named, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**SIZES, "model_type": "hubert", **config}))
    return tensors


@pytest.mark.parametrize("prefix", ["", "hubert."])
def test_the_public_names_of_base_and_large_are_read(tmp_path: Path, prefix: str) -> None:
    tensors = write(tmp_path, prefix=prefix)
    net = load_hubert(tmp_path)
    assert isinstance(net, HubertModel)
    convolution = net.encoder.pos_conv_embed.conv
    assert torch.equal(
        convolution.parametrizations.weight.original1,
        tensors["encoder.pos_conv_embed.conv.weight_v"],
    )
    with torch.no_grad():
        assert net(torch.zeros(1, 1600)).last_hidden_state.shape[-1] == 16


def test_another_speech_model_is_refused(tmp_path: Path) -> None:
    write(tmp_path, model_type="wav2vec2")
    with pytest.raises(WrongFamily, match="is a wav2vec2 model, wanted hubert"):
        load_hubert(tmp_path)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path, hidden_size=32)
    with pytest.raises(WrongFamily, match="of another model or size"):
        load_hubert(tmp_path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Damaged, match="cut short"):
        load_hubert(tmp_path)
