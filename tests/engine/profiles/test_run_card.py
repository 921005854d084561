"""A run knows what it was trained with: what does not fit is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from engine.config import EngineConfig  # noqa: E402
from engine.diffusion.samplers import make_scheduler, set_steps  # noqa: E402
from engine.errors import AvatarError, ConfigError, WeightsError  # noqa: E402
from engine.loaders.run_card import (  # noqa: E402
    KEY,
    WEIGHTS,
    FaceSpace,
    RunCard,
    RunSampling,
    Start,
    find_run,
)
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from engine.profiles.checkpoints import encoder_of, weights_digest  # noqa: E402
from engine.profiles.choose import make_config  # noqa: E402
from engine.profiles.sd15_trained import trained_parts  # noqa: E402
from tests.engine.loaders.layouts import lcm_lora, random, save, write_sd15  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()
LORA = "pytorch_lora_weights.safetensors"
TIMES = tuple(int(t) for t in set_steps(make_scheduler("ddim", trailing=True), 4))
OWN = RunSampling(sampler="ddim", trailing=True, num_inference_steps=4, times=TIMES, guidable=False)


def card(**changes: Any) -> RunCard:
    face = FaceSpace(name="tiny", width=512)
    how = {"stage": "joint", "step": 5, "start": Start(kind="random"), "networks": SMALL}
    return RunCard(**{**how, "latents": "tiny", "face": face, "sampling": OWN, **changes})


def write(folder: Path, what: RunCard | dict[str, Any] | None, **tensors: torch.Tensor) -> Path:
    """A stage with that card and hardly a weight."""
    folder.mkdir(parents=True, exist_ok=True)
    said = (
        {} if what is None else {KEY: json.dumps(what)} if isinstance(what, dict) else what.packed()
    )
    save_file(tensors or {"nothing": torch.zeros(1)}, folder / WEIGHTS, metadata=said)
    return folder


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    networks = replace(SMALL, temporal=False, references="first", reference_writer="reference_net")
    wanted = card(networks=networks, after={"codec": 7, "identity": None})
    write(tmp_path / "joint", wanted)
    for name, step in (("codec", 7), ("identity", 9)):
        write(tmp_path / name, card(stage=name, step=step))
    found = find_run([tmp_path])
    assert found.card == wanted
    assert [f.name for f in found.folders] == ["codec", "identity", "joint"]
    assert find_run([tmp_path / "identity", tmp_path / "joint"]) == found, (
        "the last one says it all"
    )


def test_the_stage_that_was_trained_last_is_taken(tmp_path: Path) -> None:
    for stage in ("codec", "animate", "distill"):
        write(tmp_path / stage, card(stage=stage))
        if stage != "codec":
            assert find_run([tmp_path]).folder.name == stage


def test_what_a_run_does_not_say_is_not_guessed(tmp_path: Path) -> None:
    said = json.loads(card().model_dump_json())
    for what, message in (
        (None, "older version.*writes that in, without a step more"),
        (said | {"version": 2}, "in version 2, this reads 1"),
        (said | {"colour": "red"}, "colour"),
        (said | {"latents": "raw"}, "latents"),
        (said | {"networks": said["networks"] | {"strange": 1}}, "networks.strange"),
        (said | {"stage": "codec"}, "stage codec, after which no frame can be drawn"),
        (said | {"stage": "identity"}, "train animate and joint too"),
    ):
        write(tmp_path / "run" / "joint", what)
        with pytest.raises(ConfigError, match=message):
            find_run([tmp_path / "run"])
    (tmp_path / "run" / "joint" / WEIGHTS).write_bytes(b"\xff" * 40)
    with pytest.raises(WeightsError, match="damaged or no safetensors file"):
        find_run([tmp_path / "run"])
    with pytest.raises(WeightsError, match="name the folder of a run"):
        find_run([tmp_path])


def test_stages_that_belong_together_stay_together(tmp_path: Path) -> None:
    write(tmp_path / "a" / "joint", card(after={"codec": 7}))
    write(tmp_path / "a" / "codec", card(stage="codec", step=8))
    with pytest.raises(
        ConfigError, match="trained on since: joint began from its 7 steps, now it has 8"
    ):
        find_run([tmp_path / "a"])
    write(tmp_path / "a" / "codec", card(stage="codec", step=7))
    write(tmp_path / "b" / "identity", card(stage="identity"))
    with pytest.raises(ConfigError, match="is no part of the run"):
        find_run([tmp_path / "b" / "identity", tmp_path / "a"])


def test_a_face_encoder_is_known_by_its_space_and_its_numbers(tmp_path: Path) -> None:
    for name, width, encoder in (
        ("tiny", 512, "tiny"),
        ("sface", 128, "sface"),
        ("insightface-buffalo_l", 512, "insightface"),
        ("insightface-antelopev2", 512, "antelopev2"),
        ("insightface-buffalo_l+clip-vit-h-14", 632, "insightface-clip"),
    ):
        folder = write(tmp_path / name, card(face=FaceSpace(name=name, width=width)))
        assert encoder_of(find_run([folder])) == encoder
        config = make_config("sd15", {}, {"trained": (folder,)}, live=True)
        assert config.diffusion.face_encoder == encoder, "the run's own, and not the default"
        with pytest.raises(ConfigError, match=f"was trained with '{encoder}'"):
            make_config("sd15", {}, {"trained": (folder,), "face_encoder": "auraface"}, live=True)
    folder = write(tmp_path / "drawn", card(face=FaceSpace(name="drawn", width=512)))
    with pytest.raises(
        ConfigError, match="nothing here makes of a portrait; prepare its clips with"
    ):
        make_config("sd15", {}, {"trained": (folder,)}, live=True)
    folder = write(tmp_path / "other", card(face=FaceSpace(name="tiny", width=128)))
    config = make_config("sd15", {"threads": 1}, {"trained": (folder,)}, live=True)
    with pytest.raises(ConfigError, match="of 128 numbers, tiny gives 512"):
        trained_parts(find_run([folder]), config, 192, torch.float32)


def test_a_public_adapter_wants_its_own_face_encoder() -> None:
    from engine.profiles.sd15 import load_engine

    for encoder in ("tiny", "sface"):
        config = make_config("sd15", {}, {"face_encoder": encoder}, live=True)
        with pytest.raises(WeightsError, match="use the matching encoder or train the adapter"):
            load_engine(config)


def test_guidance_is_only_for_a_run_that_learnt_without_words(tmp_path: Path) -> None:
    folder = write(tmp_path / "joint", card())
    parts = lambda **how: trained_parts(
        find_run([folder]),
        make_config("sd15", {"threads": 1}, {"trained": (folder,), **how}, live=False),
        192,
        torch.float32,
    )
    with pytest.raises(ConfigError, match="nothing to guide from; use 1"):
        parts(guidance_scale=3.5)
    with pytest.raises(AvatarError, match="another \\[model\\]"):  # let through to the weights
        parts(guidance_scale=0.0)
    write(folder, card(sampling=OWN.model_copy(update={"guidable": True})))
    with pytest.raises(AvatarError, match="another \\[model\\]"):
        parts(guidance_scale=3.5)
    write(folder, card(sampling=OWN.model_copy(update={"times": (999, 749, 499, 200)})))
    with pytest.raises(ConfigError, match="at times .999, 749, 499, 200., this version takes"):
        parts()


def test_a_few_step_lora_is_added_to_what_was_trained(tmp_path: Path) -> None:
    """It was overwritten by the trained weights: any LoRA gave the same pictures."""
    models = tmp_path / "models"
    write_sd15(models, SMALL)
    for name, text in (
        (
            "tokenizer/vocab.json",
            json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}),
        ),
        ("tokenizer/merges.txt", "#version: 0.2\n"),
        ("scheduler/scheduler_config.json", "{}"),
    ):
        (models / name).parent.mkdir(exist_ok=True)
        (models / name).write_text(text)
    start = Start(kind="public")
    folder = tmp_path / "run" / "joint"
    plain = card(start=start, face=None, networks=replace(SMALL, face_encoder=False), latents="vae")
    name = "unet.unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    write(folder, plain, **{name: torch.full((16, 16), 0.5)})
    made = []
    for seed, sampler in ((1, "lcm"), (2, "lcm"), (0, "ddim")):
        save(random(lcm_lora(SMALL.unet, 2), seed), models / "lcm-lora" / LORA)
        config = make_config(
            "sd15",
            {"threads": 1},
            {"trained": (folder,), "sampler": sampler, "models_dir": models},
            live=True,
        )
        model, _, _ = trained_parts(find_run([folder]), config, 192, torch.float32)
        made.append(dict(model.named_parameters())[name].detach())
    one, other, none = made
    assert torch.equal(none, torch.full((16, 16), 0.5)), "the trained weight"
    assert not torch.equal(one, other)
    lora = load_file(models / "lcm-lora" / LORA)
    assert any("attn1_to_q" in key for key in lora)


def test_the_weights_of_every_stage_count_for_what_a_stopped_video_goes_on_from(
    tmp_path: Path,
) -> None:
    write(tmp_path / "run" / "codec", card(stage="codec", step=7))
    write(tmp_path / "run" / "joint", card(after={"codec": 7}))
    config = make_config("sd15", {}, {"trained": (tmp_path / "run",)}, live=False)
    before = weights_digest(config)
    write(tmp_path / "run" / "codec", card(stage="codec", step=7), other=torch.ones(2))
    assert weights_digest(config) != before
    assert isinstance(config, EngineConfig)
