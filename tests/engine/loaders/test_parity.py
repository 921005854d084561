"""With the extras off, one denoising run equals diffusers' own pipeline on the same files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

torch = pytest.importorskip("torch")

from diffusers import (  # noqa: E402
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import CLIPTextModel  # noqa: E402

from engine.loaders.control_net import load_control_net  # noqa: E402
from engine.loaders.ip_adapter import install, read_ip_adapter  # noqa: E402
from engine.loaders.lora import fuse_lora  # noqa: E402
from engine.loaders.sd15 import Sd15Files, load_tiny  # noqa: E402
from engine.nets.conditions import Conditions, Guidance  # noqa: E402
from engine.nets.control_net import AnimateControlNet  # noqa: E402
from engine.nets.identity_unet import IdentityUnet  # noqa: E402
from engine.nets.portraittalk import Networks, PortraitTalkModel  # noqa: E402
from engine.nets.projection import IdentityProjection, PlusProjection  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from engine.nets.sd_codec import SdCodec  # noqa: E402
from tests.engine.loaders.layouts import (  # noqa: E402
    faceid,
    faceid_plus,
    lcm_lora,
    random,
    save,
    save_nested,
)

pytestmark = pytest.mark.train

STEPS, GUIDANCE, STRENGTH, CONTROL = 4, 3.5, 0.7, 0.9
Layout = Literal["folder", "single"]


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@dataclasses.dataclass
class Case:
    """What both sides are given."""

    ids: Tensor
    nobody: Tensor
    embeddings: Tensor
    patches: Tensor
    nothing: Tensor
    image: Tensor
    latents: Tensor


@pytest.fixture
def case() -> Case:
    g = torch.Generator().manual_seed(3)
    return Case(
        torch.randint(0, 512, (1, 77), generator=g),
        torch.randint(0, 512, (1, 77), generator=g),
        torch.nn.functional.normalize(torch.randn(1, 2, 512, generator=g), dim=-1),
        torch.randn(1, 2, 5, 24, generator=g),
        torch.randn(5, 24, generator=g),
        torch.rand(1, 3, 64, 64, generator=g),
        torch.randn(1, 4, 8, 8, generator=g),
    )


def few_steps() -> dict[str, Tensor]:
    """A LoRA in the public layout; one alpha for all layers, as in the public files."""
    tensors = random(lcm_lora(Sd15Config.small().unet, 4), 2, 0.3)
    return {n: torch.tensor(3.0) if n.endswith("alpha") else t for n, t in tensors.items()}


def theirs(
    files: Path, layout: Layout, adapter: Path, lora: Path | None, case: Case, tiny: bool
) -> Any:
    """Latents and picture of diffusers' pipeline, loading everything by itself."""
    if layout == "folder":
        unet = UNet2DConditionModel.from_pretrained(files, subfolder="unet")
        vae = AutoencoderKL.from_pretrained(files, subfolder="vae")
    else:
        whole = str(files / "whole.safetensors")
        local = {"config": str(files), "local_files_only": True}
        unet = UNet2DConditionModel.from_single_file(whole, subfolder="unet", **local)
        vae = AutoencoderKL.from_single_file(whole, subfolder="vae", **local)
    text = CLIPTextModel.from_pretrained(files / "text_encoder")
    if tiny:
        vae = AutoencoderTiny.from_pretrained(files / "taesd")
    pipeline = StableDiffusionControlNetPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        controlnet=ControlNetModel.from_pretrained(files, subfolder="diffusion_sd15"),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(
        str(adapter.parent), subfolder=None, weight_name=adapter.name, image_encoder_folder=None
    )
    pipeline.set_ip_adapter_scale(STRENGTH)
    layer = unet.encoder_hid_proj.image_projection_layers[0]
    if isinstance(layer, IPAdapterFaceIDPlusImageProjection):
        layer.clip_embeds = torch.cat([case.nothing.expand_as(case.patches), case.patches])
        layer.shortcut = True  # of version 2
    if lora is not None:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="few")
        pipeline.set_adapters([n for n in ("faceid_0", "few") if n in pipeline.unet.peft_config])
        pipeline.fuse_lora(adapter_names=list(pipeline.unet.peft_config))
    read = lambda ids: text(ids).last_hidden_state
    people = case.embeddings[:, :, None]
    with torch.no_grad():
        arguments = {
            "prompt_embeds": read(case.ids),
            "negative_prompt_embeds": read(case.nobody),
            "image": case.image,
            "ip_adapter_image_embeds": [torch.cat([torch.zeros_like(people), people])],
            "num_inference_steps": STEPS,
            "guidance_scale": GUIDANCE,
            "controlnet_conditioning_scale": CONTROL,
            "return_dict": False,
        }
        latents = pipeline(**arguments, latents=case.latents.clone(), output_type="latent")[0]
        picture = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return latents, picture


def ours(
    files: Path, layout: Layout, adapter: Path, lora: Path | None, case: Case, tiny: bool
) -> Any:
    """The same through our loaders and networks."""
    opened = read_ip_adapter(adapter)
    config = dataclasses.replace(Sd15Config.small(), projection=opened.kind)
    source = Sd15Files(files if layout == "folder" else files / "whole.safetensors")
    networks = Networks(
        unet=IdentityUnet(source.unet(config.unet), config),
        animate=AnimateControlNet(load_control_net(files / "diffusion_sd15", config.unet), config),
        projection=IdentityProjection.build(config),
        codec=SdCodec(source.vae(config.codec), load_tiny(files / "taesd", config.codec)),
        text=source.text(config.text),
    )
    model = PortraitTalkModel(config, networks).eval()
    install(opened, model.unet, model.projection)
    if lora is not None:
        fuse_lora(model.unet.unet, lora)
    with torch.no_grad():
        person = case.embeddings
        if isinstance(model.projection, PlusProjection):
            person = torch.cat([person, case.patches.flatten(2)], -1)
            model.projection.nothing.copy_(case.nothing)
        people = torch.cat([torch.zeros_like(person), person])
        conditions = Conditions(
            text=model.read(torch.cat([case.nobody, case.ids])),
            identity=model.identify(people),
            scale=torch.full((16,), STRENGTH),
        )
        steps = scheduler()
        steps.set_timesteps(STEPS)
        z = case.latents.clone()
        for t in steps.timesteps:
            pair = torch.cat([z, z])
            control, _ = model.animate(
                pair, t.expand(2), conditions.text, Guidance(case.image.expand(2, -1, -1, -1))
            )
            noise, _ = model.unet(
                pair,
                t.expand(2),
                conditions,
                control=tuple(CONTROL * c for c in control),
            )
            without, with_ = noise.chunk(2)
            z = steps.step(without + GUIDANCE * (with_ - without), t, z, return_dict=False)[0]
        return z, model.codec.decode(z, tiny=tiny)


@pytest.mark.parametrize(
    ("layout", "kind", "few", "tiny"),
    [
        ("folder", "faceid", False, False),
        ("single", "portrait", True, True),
        ("single", "faceid", True, False),
        ("folder", "plus", False, True),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_one_run_equals_diffusers(
    tiny_files: Path, tmp_path: Path, case: Case, layout: Layout, kind: str, few: bool, tiny: bool
) -> None:
    sizes = Sd15Config.small().unet
    shapes = (
        faceid_plus(sizes, rank=8, patch=24)
        if kind == "plus"
        else faceid(sizes, tokens=4, rank=8)
        if kind == "faceid"
        else faceid(sizes, tokens=16, rank=0)
    )
    adapter = save_nested(random(shapes, 1), tmp_path / "adapter.bin")
    lora = save(few_steps(), tmp_path / "lora.safetensors") if few else None
    wanted, wanted_picture = theirs(tiny_files, layout, adapter, lora, case, tiny)
    latents, picture = ours(tiny_files, layout, adapter, lora, case, tiny)
    assert wanted.abs().max() > 0.5
    assert (latents - wanted).abs().max() <= 1e-4
    assert (picture - wanted_picture).abs().max() <= 1e-4


def test_the_model_itself_runs_the_same_evaluation(tiny_files: Path, case: Case) -> None:
    config = Sd15Config.small()
    torch.manual_seed(0)
    model = PortraitTalkModel.build(config).eval()
    text = model.read(case.ids)
    z, t = case.latents, torch.tensor([400])
    with torch.no_grad():
        guidance = Guidance(case.image, torch.zeros(1, 68, 3), torch.zeros(1, 8))
        noise, (own, animated) = model(z, t, Conditions(text, None), guidance)
        control, _ = model.animate(z, t, text, Guidance(case.image))
        plain = model.unet.unet(
            z,
            t,
            text,
            down_block_additional_residuals=control[:-1],
            mid_block_additional_residual=control[-1],
        ).sample
    assert torch.equal(noise, plain)
    assert (len(own), len(animated)) == (16, 7)
