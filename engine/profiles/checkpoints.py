"""Which files an engine is loaded from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from engine.config import DiffusionSettings, EngineConfig
from engine.errors import ConfigError
from engine.loaders.checkpoints import CHECKPOINTS, PAIRS
from engine.loaders.registry import find, locate, parts_of, space_of
from engine.loaders.run_card import WEIGHTS, TrainedRun, find_run

LORA_OF = {"lcm": "lcm-lora", "tcd": "tcd-lora"}  # of a sampler of few steps
BUNDLED = "tiny"  # the face encoder in the package; its name is that of its space
BETTER_VAE = "sd-vae-ft-mse"  # taken in place of the one in sd15, where it is here


def needed_checkpoints(how: DiffusionSettings) -> list[str]:
    """Names of the public checkpoints that these settings load, in the order they are loaded in."""
    names = ["sd15-tokenizer" if how.sd15_file else "sd15", "control-mediapipe-face"]
    names += ["taesd"] if how.codec == "tiny" else []
    names += [how.adapter, *parts_of(face_encoder_of(how))] if how.adapter != "none" else []
    names += [f"motion-{how.motion_modules}"] if how.motion_modules != "none" else []
    few_step = few_step_lora(how)
    return names + ([few_step] if few_step else [])


def run_checkpoints(run: TrainedRun, how: DiffusionSettings, encoder: str) -> list[str]:
    """Names of the public checkpoints that a trained run loads, in the order they are loaded in.

    Args:
        encoder: id of its face encoder; "" for none.
    """
    start, config = run.card.start, run.card.networks
    names: list[str] = []
    if start.kind == "public":
        names += ["sd15"]
        names += ["control-mediapipe-face"] if config.guider == "control_net" else []
        names += ["taesd"]
        names += [start.adapter] if start.adapter != "none" else []
    names += parts_of(encoder) if encoder not in ("", BUNDLED) else []
    few_step = few_step_lora(how)
    return names + ([few_step] if few_step else [])


def face_encoder_of(how: DiffusionSettings) -> str:
    """The face encoder, with CLIP's picture beside it where the adapter reads one."""
    pair = how.adapter == "faceid-plus-v2" and how.face_encoder == "insightface"
    return "insightface-clip" if pair else how.face_encoder


def encoder_of(run: TrainedRun) -> str:
    """Id of the face encoder that a run's embeddings come from; "" where it has none.

    Raises:
        ConfigError: nothing makes such embeddings.
    """
    if run.card.face is None:
        return ""
    space = run.card.face.name
    known = {c.space: c.id for c in CHECKPOINTS if c.space and not c.adapts} | {BUNDLED: BUNDLED}
    known |= {space_of(pair): pair for pair in PAIRS}
    if space not in known:
        raise ConfigError(
            f"{run.folder} was trained on face embeddings of {space!r}, which nothing here makes of a "
            f"portrait; prepare its clips with one of {', '.join(sorted(known.values()))}"
        )
    return known[space]


def few_step_lora(how: DiffusionSettings) -> str:
    """Name of the LoRA that goes with the sampler; empty where there is none."""
    return how.few_step or LORA_OF.get(how.sampler, "")


def weights_digest(config: EngineConfig) -> str:
    """SHA-256 of the contents of `weight_files`, wherever they lie."""
    digest = hashlib.sha256()
    for path in weight_files(config):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def weight_files(config: EngineConfig) -> Iterator[Path]:
    """Every weight file that an engine of `config` is loaded from, in an order of their own."""
    yield from sorted(config.weights.glob("*.onnx"))
    yield config.weights / "basis.npz"
    how = config.diffusion
    if config.speech != "tiny":
        from engine.loaders.hubert_motion import motion_checkpoint

        yield from _checkpoint_files(config.speech, how.models_dir)
        yield motion_checkpoint(config.speech, config.speech_hop_ms, how.models_dir)
    if config.profile == "tiny":
        return
    for name in _names(how):
        yield from _checkpoint_files(name, how.models_dir)
    if how.sd15_file:
        yield how.sd15_file
    if how.trained:
        yield from (folder / WEIGHTS for folder in find_run(how.trained).folders)


def _names(how: DiffusionSettings) -> list[str]:
    """Names of every public checkpoint that may be read."""
    if how.random_weights:
        return []
    if how.trained:
        run = find_run(how.trained)
        return run_checkpoints(run, how, encoder_of(run))
    return needed_checkpoints(how) + ([BETTER_VAE] if how.codec == "full" else [])


def _checkpoint_files(name: str, models_dir: Path) -> Iterator[Path]:
    """The files of a checkpoint, in every precision and file type that a loader may choose."""
    folder = locate(find(name), models_dir)
    if folder is None:
        return
    for pattern in map(Path, find(name).files):
        stem = pattern.name.partition(".")[0].removesuffix("*")
        stems = {stem, stem.removeprefix("pytorch_")}  # transformers knows both names
        found = {p for s in stems for p in (folder / pattern.parent).glob(f"{s}*") if p.is_file()}
        yield from sorted(found)
