"""The full-size system with random weights, ours and diffusers' own, to be timed beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from torch import Tensor, nn

from engine.backends.cuda_graph import Recorded
from engine.nets.conditions import Conditions, Guidance
from engine.nets.control_net import AnimateControlNet, control_net_arguments
from engine.nets.face_lines import FaceLines
from engine.nets.identity_unet import IdentityUnet, unet_arguments
from engine.nets.portraittalk import Networks, PortraitTalkModel
from engine.nets.precision import keep_narrow
from engine.nets.projection import IdentityProjection
from engine.nets.sd15_config import Sd15Config
from engine.nets.sd_codec import SdCodec, tiny_arguments, to_bytes

SYSTEMS = ("diffusers", "ours", "ours, all")
RECORDED = "ours, all, CUDA graph"
TOKENS = 4
Frame = Callable[[int, int], Tensor]  # steps, rows of the batch -> (B, H, W, 3) uint8 on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is built, and where.

    `precision` is bfloat16, float32, or widened: bfloat16 weights and float32 products.
    """

    small: bool = False
    precision: str = "bfloat16"
    device: str = "cpu"

    @property
    def config(self) -> Sd15Config:
        """Real sizes, or small ones to try a script."""
        return Sd15Config.small() if self.small else Sd15Config.full()

    @property
    def dtype(self) -> torch.dtype:
        """Of what goes in."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def build(system: str, setup: Setup) -> Frame:
    """One of `SYSTEMS`, or `RECORDED` on a GPU, with the same random weights every time."""
    torch.manual_seed(0)
    if system == "diffusers":
        return theirs(setup)
    return ours(setup, everything=system != "ours", recorded=system == RECORDED)


def filled(module: nn.Module, setup: Setup, precision: str = "") -> Any:
    """A module built on the meta device, with small random numbers."""
    precision = precision or setup.precision
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    module = module.to(dtype).to_empty(device=setup.device)
    with torch.no_grad():
        for parameter in module.parameters():
            bound = (3 / max(parameter[0].numel(), 1)) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.uniform_(-bound, bound)
    module = keep_narrow(module) if precision == "widened" else module
    return module.eval().requires_grad_(False)


def networks(config: Sd15Config) -> dict[str, Any]:
    """The plain networks that both sides share, on the meta device."""
    with torch.device("meta"):
        return {
            "unet": UNet2DConditionModel(**unet_arguments(config.unet)),
            "control": ControlNetModel(**control_net_arguments(config.unet)),
            "tiny": AutoencoderTiny(**tiny_arguments(config.codec)),
        }


def inputs(setup: Setup, rows: int) -> dict[str, Tensor]:
    """Conditions of `rows` streams and guidance of a frame of each, random."""
    sizes = setup.config.unet
    r = lambda *shape: torch.randn(rows, *shape).to(setup.device, setup.dtype)
    embedding = torch.nn.functional.normalize(torch.randn(rows, 1, 512), dim=-1)
    return {
        "text": r(77, sizes.cross_attention_dim),
        "embedding": embedding.to(setup.device, setup.dtype),
        "latents": r(4, sizes.sample_size, sizes.sample_size),
        "landmarks": (torch.rand(rows, 478, 2) * 0.5 + 0.25).to(setup.device),
        "points": r(68, 3),
        "placement": r(8),
        "portrait": r(4, sizes.sample_size, sizes.sample_size),
    }


def scheduler() -> Any:
    """The few-step sampler both sides use."""
    return LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def ours(setup: Setup, *, everything: bool, recorded: bool = False) -> Frame:
    """Landmarks to image through our networks; `everything`: all attentions and both caches."""
    config, nets = setup.config, networks(setup.config)
    with torch.device("meta"):
        unet = IdentityUnet(nets["unet"], config)
        animate = AnimateControlNet(nets["control"], config)
        projection, codec = IdentityProjection.build(config), SdCodec(None, nets["tiny"])
    parts = Networks(
        unet=filled(unet, setup),
        animate=filled(animate, setup),
        projection=filled(projection, setup),
        codec=filled(codec, setup),
        text=nn.Identity(),
    )
    model = PortraitTalkModel(config, parts).to(setup.device)
    step: Any = Recorded(model) if recorded else model
    steps_, before = scheduler(), {}

    @cache
    def stream(rows: int) -> tuple[dict[str, Tensor], Conditions]:
        x = inputs(setup, rows)
        identity = model.identify(x["embedding"])
        strength = torch.ones(config.unet.attention_layers).to(setup.device, setup.dtype)
        conditions = Conditions(x["text"], identity, scale=strength)
        if everything:
            conditions = replace(
                conditions, reference=model.write_reference(x["portrait"], x["text"], identity)
            )
        return x, conditions

    def frame(steps: int, rows: int = 1) -> Tensor:
        x, conditions = stream(rows)
        steps_.set_timesteps(steps)
        z = x["latents"] * steps_.init_noise_sigma
        guide = Guidance(model.lines(x["landmarks"]).to(setup.dtype))
        if everything:
            guide = replace(guide, landmarks=x["points"], placement=x["placement"])
        kept: Any = None
        for t in steps_.timesteps:
            now = t.to(setup.device).expand(rows)
            noise, kept = step(z, now, conditions, guide, before.get(rows))
            z = steps_.step(noise, t, z, return_dict=False)[0].to(setup.dtype)
        if everything:
            before[rows] = kept
        return to_bytes(model.codec.decode(z, tiny=True)).cpu()

    return frame


def theirs(setup: Setup) -> Frame:
    """The same through diffusers' pipeline with IP-Adapter-FaceID."""
    logging.set_verbosity_error()
    config = setup.config
    # Narrowed once it is complete.
    plain = "bfloat16" if setup.precision == "widened" else setup.precision
    nets = {name: filled(net, setup, plain) for name, net in networks(config).items()}
    pipeline = StableDiffusionControlNetPipeline(
        vae=nets["tiny"],
        text_encoder=None,
        tokenizer=None,
        unet=nets["unet"],
        controlnet=nets["control"],
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_ip_adapter(
        adapter(config), subfolder=None, weight_name=None, image_encoder_folder=None
    )
    if setup.precision == "widened":
        narrow_again(pipeline)
    given = cache(lambda rows: inputs(setup, rows))
    lines = FaceLines(config.picture_side).to(setup.device)

    def frame(steps: int, rows: int = 1) -> Tensor:
        x = given(rows)
        made = pipeline(
            prompt_embeds=x["text"],
            image=lines(x["landmarks"]).to(setup.dtype),
            ip_adapter_image_embeds=[x["embedding"]],
            latents=x["latents"].clone(),
            num_inference_steps=steps,
            guidance_scale=1.0,
            output_type="np",
        )
        return torch.from_numpy((made.images * 255).round().astype("uint8"))

    return frame


def narrow_again(pipeline: Any) -> None:
    """Widen layer by layer, for the complete pipeline."""
    for net in (pipeline.unet, pipeline.controlnet, pipeline.vae):
        keep_narrow(net)
        # The pipeline casts its inputs to the type of the first weight, which is narrow.
        type(net).dtype = property(lambda _: torch.float32)


def adapter(config: Any) -> dict[str, Any]:
    """A random IP-Adapter-FaceID without LoRA, as diffusers takes it from memory."""
    D, sizes = config.unet.cross_attention_dim, config.unet
    shapes = {"proj.0.weight": (1024, 512), "proj.0.bias": (1024,), "norm.bias": (D,)}
    shapes |= {
        "proj.2.weight": (TOKENS * D, 1024),
        "proj.2.bias": (TOKENS * D,),
        "norm.weight": (D,),
    }
    channels = sizes.block_out_channels
    down = [c for c in channels[:-1] for _ in range(sizes.layers_per_block)]
    up = [c for c in channels[-2::-1] for _ in range(sizes.layers_per_block + 1)]
    layers = {
        f"{2 * i + 1}.to_{n}_ip.weight": torch.randn(width, D) * 0.02
        for i, width in enumerate([*down, *up, channels[-1]])
        for n in "kv"
    }
    return {
        "image_proj": {n: torch.randn(s) * 0.02 for n, s in shapes.items()},
        "ip_adapter": layers,
    }
