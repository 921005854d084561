"""HuBERT base and large (arXiv 2106.07447) from a transformers folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import HubertConfig, HubertModel

from engine.errors import WeightsError
from engine.loaders.files import WrongFamily, fill, read_config, read_tensors, weight_file

OLD = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def hubert_weights(folder: Path) -> Path:
    """The file of its weights, under either name that transformers gives it.

    Raises:
        WeightsError: there is none.
    """
    try:
        return weight_file(folder, "model")
    except WeightsError:
        return weight_file(folder, "pytorch_model")


def load_hubert(folder: Path, *, dtype: torch.dtype = torch.float32) -> HubertModel:
    """The feature network; a speech recognition head in the file is left out.

    Raises:
        WeightsError: a file is missing or damaged.
        WrongFamily: it is another speech model.
    """
    config = read_config(folder)
    if config.get("model_type") != "hubert":
        raise WrongFamily(f"{folder} is a {config.get('model_type')} model, wanted hubert")
    source = hubert_weights(folder)
    tensors = {}
    for name, tensor in read_tensors(source).items():
        if name.startswith("lm_head."):
            continue
        head, _, leaf = name.removeprefix("hubert.").rpartition(".")
        if "pos_conv_embed" in head and leaf in OLD:
            leaf = OLD[leaf]
        tensors[f"{head}.{leaf}" if head else leaf] = tensor
    net = HubertModel(HubertConfig(**config))
    return fill(net, tensors, source, dtype=dtype, may_lack=("masked_spec_embed",))
