"""A folder of every public checkpoint that sd15 can load, small and random, laid out as downloads are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engine.loaders.registry import find
from engine.nets.sd15_config import Sd15Config
from tests.engine.loaders.layouts import (
    Tensors,
    faceid,
    faceid_plus,
    lcm_lora,
    random,
    save,
    save_nested,
    write_sd15,
)
from tests.engine.loaders.test_face_encoder import write, write_clip

SMALL = Sd15Config.small()
WORDS = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}


def write_small_models(folder: Path) -> Path:
    """Write them; those that only the sizes of Stable Diffusion 1.5 fit are as small as `SMALL`."""
    base = folder / "stable-diffusion-v1-5"
    write_sd15(base, SMALL)
    (folder / "ControlNetMediaPipeFace").mkdir()
    shutil.move(base / "diffusion_sd15", folder / "ControlNetMediaPipeFace")
    shutil.move(base / "taesd", folder)
    (base / "whole.safetensors").rename(base / find("sd15-file").files[0])
    for name, text in (
        ("tokenizer/vocab.json", json.dumps(WORDS)),
        ("tokenizer/merges.txt", "#version: 0.2\n"),
        ("scheduler/scheduler_config.json", "{}"),
    ):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(text)
    adapters: dict[str, Tensors] = {
        "faceid": faceid(SMALL.unet, tokens=4, rank=4),
        "faceid-portrait": faceid(SMALL.unet, tokens=16, rank=0),
        "faceid-plus-v2": faceid_plus(SMALL.unet, rank=4, patch=SMALL.patches.width),
    }
    for seed, (name, tensors) in enumerate(adapters.items()):
        save_nested(random(tensors, seed), place(folder, name))
    for seed, name in enumerate(("lcm-lora", "tcd-lora", "hyper-sd-1step", "hyper-sd-2steps")):
        save(random(lcm_lora(SMALL.unet, 2), seed), place(folder, name))
    write(place(folder, "insightface"), 512)
    write_clip(folder / "IP-Adapter")
    return folder


def place(folder: Path, name: str) -> Path:
    """Where the one file of a checkpoint belongs."""
    path = folder / name / find(name).files[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
