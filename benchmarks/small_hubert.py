"""A HuBERT a thousand times smaller than the base one, with random weights, as the engine looks for it.

With it everything of `--speech hubert-base` runs but the hearing: the mouth moves with the sound by chance.

Example:
  python -m benchmarks.small_hubert /tmp/models
  portraittalk serve --profile sd15 --random-weights small --speech hubert-base --models-dir /tmp/models
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

from engine.config import SPEECH_HOPS_MS
from engine.loaders.hubert_motion import motion_checkpoint
from engine.nets.motion_vae import MotionSettings, MotionVae

NAME = "hubert-base"
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def write_models(folder: Path) -> None:
    """Write the network and its motion networks of every hop into `folder`."""
    torch.manual_seed(0)
    home = folder / NAME
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps({**SIZES, "model_type": "hubert"}))
    net = HubertModel(HubertConfig(**SIZES))
    save_file(net.state_dict(), home / "pytorch_model.safetensors")
    mouth = MotionVae(MotionSettings.hearing(SIZES["hidden_size"]))
    torch.nn.init.normal_(mouth.channels.weight, std=0.3)
    torch.nn.init.constant_(mouth.channels.bias, 0.3)
    average = torch.optim.swa_utils.AveragedModel(mouth)
    saved = {"model": mouth.state_dict(), "average": average.state_dict(), "step": 1}
    for hop_ms in SPEECH_HOPS_MS:
        path = motion_checkpoint(NAME, hop_ms, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(saved, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of checkpoints to write into")
    write_models(parser.parse_args().folder)


if __name__ == "__main__":
    main()
