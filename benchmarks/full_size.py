"""One frame of the full-size system on this CPU, beside diffusers' own pipeline, in the same run.

Random weights, 512 x 512 pixels, the tiny autoencoder, no classifier-free guidance. Three systems,
each in a process of its own so that its peak memory is its own:

  diffusers   StableDiffusionControlNetPipeline with IP-Adapter-FaceID
  ours        the same networks through ours, extras off
  ours, all   with landmark, placement and temporal attention, a reference and a previous frame

Weights are bfloat16. Where the CPU has fast bfloat16 products (AVX-512) they are used; elsewhere
weights are widened layer by layer and products are float32, for all three alike. Prints a table, then
one JSON line. Run it on an idle machine:

    python -m benchmarks.full_size --out benchmarks/results/full_size.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.environment import describe, print_header

SYSTEMS = ("diffusers", "ours", "ours, all")
TOKENS = 4
MEMORY_BAR_GIB = 12.0


def peak_gib() -> float:
    """The most memory this process ever held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/self/status has no VmHWM")


def measure(system: str, size: str, steps: int, frames: int, precision: str, threads: int) -> dict:
    """Build one system here and time its frames."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    begun = time.perf_counter()
    make = theirs if system == "diffusers" else ours
    frame = make(size, steps, precision, everything=system == "ours, all")
    built = time.perf_counter() - begun
    seconds = []
    with torch.inference_mode():
        for _ in range(frames):
            begun = time.perf_counter()
            picture = frame()
            seconds.append(round(time.perf_counter() - begun, 2))
    return {
        "system": system,
        "built_s": round(built, 1),
        "frame_s": seconds,
        "peak_gib": round(peak_gib(), 2),
        "picture": list(picture.shape),
    }


def configuration(size: str) -> Any:
    """Real sizes, or small ones to try the script."""
    from engine.nets.sd15_config import Sd15Config

    return Sd15Config.full() if size == "full" else Sd15Config.small()


def filled(module: Any, precision: str) -> Any:
    """A module built on the meta device, with small random numbers in `precision`."""
    import torch

    from engine.nets.precision import keep_narrow

    narrow = precision != "float32"
    module = module.to(torch.bfloat16 if narrow else torch.float32).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            bound = (3 / max(parameter[0].numel(), 1)) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.uniform_(-bound, bound)
    module = keep_narrow(module) if precision == "widened" else module
    return module.eval().requires_grad_(False)


def parts(size: str, precision: str) -> tuple[Any, dict[str, Any]]:
    """The plain networks that both sides share, and what a frame is made from."""
    import torch
    from diffusers import AutoencoderTiny, ControlNetModel, UNet2DConditionModel

    from engine.nets.control_net import control_net_arguments
    from engine.nets.identity_unet import unet_arguments
    from engine.nets.sd_codec import tiny_arguments

    config = configuration(size)
    with torch.device("meta"):
        nets = {
            "unet": UNet2DConditionModel(**unet_arguments(config.unet)),
            "control": ControlNetModel(**control_net_arguments(config.unet)),
            "tiny": AutoencoderTiny(**tiny_arguments(config.codec)),
        }
    return config, nets


def inputs(config: Any, precision: str) -> dict[str, Any]:
    """One stream's conditions and one frame's guidance, random."""
    import torch

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    D, side = config.unet.cross_attention_dim, config.unet.sample_size
    r = lambda *shape: torch.randn(shape).to(dtype)
    return {
        "dtype": dtype,
        "text": r(1, 77, D),
        "embedding": torch.nn.functional.normalize(r(1, 1, 512).float(), dim=-1).to(dtype),
        "latents": r(1, 4, side, side),
        "landmarks": torch.rand(1, 478, 2) * 0.5 + 0.25,
        "points": r(1, 68, 3),
        "placement": r(1, 8),
        "portrait": r(1, 4, side, side),
    }


def scheduler() -> Any:
    """The few-step sampler both sides use."""
    from diffusers import LCMScheduler

    return LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def ours(size: str, steps: int, precision: str, *, everything: bool) -> Callable[[], Any]:
    """Landmarks to picture through our networks."""
    import torch

    from engine.nets.control_net import AnimateControlNet
    from engine.nets.face_lines import FaceLines
    from engine.nets.identity_unet import IdentityUnet
    from engine.nets.projection import IdentityProjection
    from engine.nets.sd_codec import SdCodec, to_bytes

    config, nets = parts(size, precision)
    with torch.device("meta"):
        unet, animate = (
            IdentityUnet(nets["unet"], config),
            AnimateControlNet(nets["control"], config),
        )
        projection, codec = IdentityProjection.build(config), SdCodec(None, nets["tiny"])
    unet, animate, projection, codec = (
        filled(m, precision) for m in (unet, animate, projection, codec)
    )
    x, lines = inputs(config, precision), FaceLines(config.picture_side)
    with torch.inference_mode():
        identity = projection(x["embedding"])
        scale = torch.ones(config.unet.attention_layers, dtype=x["dtype"])
        reference = unet.write_reference(x["portrait"], x["text"], identity) if everything else None
    memory: list[Any] = [None, None]
    steps_ = scheduler()

    def frame() -> Any:
        steps_.set_timesteps(steps)
        z = x["latents"] * steps_.init_noise_sigma
        image = lines(x["landmarks"]).to(x["dtype"])
        told = (x["points"], x["placement"]) if everything else (None, None)
        before = memory if everything else [None, None]
        own: Any = None
        drawn: Any = None
        for t in steps_.timesteps:
            now = t.expand(1)
            control, drawn = animate(z, now, x["text"], image, *told, previous=before[1])
            noise, own = unet(
                *(z, now, x["text"], identity),
                scale=scale,
                control=control,
                reference=reference,
                previous=before[0],
            )
            z = steps_.step(noise, t, z, return_dict=False)[0].to(x["dtype"])
        memory[:] = [own, drawn]
        return to_bytes(codec.decode(z, tiny=True))

    return frame


def theirs(size: str, steps: int, precision: str, *, everything: bool) -> Callable[[], Any]:
    """The same through diffusers' pipeline."""
    import torch
    from diffusers import StableDiffusionControlNetPipeline
    from diffusers.utils import logging

    assert not everything
    logging.set_verbosity_error()
    config, nets = parts(size, precision)
    plain = "bfloat16" if precision == "widened" else precision  # narrowed once it is complete
    nets = {name: filled(net, plain) for name, net in nets.items()}
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
    if precision == "widened":
        narrow_again(pipeline)
    x = inputs(config, precision)
    from engine.nets.face_lines import FaceLines

    lines = FaceLines(config.picture_side)

    def frame() -> Any:
        made = pipeline(
            prompt_embeds=x["text"],
            image=lines(x["landmarks"]).to(x["dtype"]),
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
    import torch

    from engine.nets.precision import keep_narrow

    for net in (pipeline.unet, pipeline.controlnet, pipeline.vae):
        keep_narrow(net)
        # The pipeline casts its inputs to the type of the first weight, which is narrow.
        type(net).dtype = property(lambda _: torch.float32)


def adapter(config: Any) -> dict[str, Any]:
    """A random IP-Adapter-FaceID without LoRA, as diffusers takes it from memory."""
    import torch

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


def child(system: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one system in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.full_size", "--system", system]
    for name in ("size", "steps", "frames", "precision", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{system} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def precision_here() -> str:
    """bfloat16 products where they are fast; else bfloat16 weights and float32 products."""
    from engine.nets.precision import multiplies_bfloat16

    return "bfloat16" if multiplies_bfloat16() else "widened"


def main() -> None:
    """Measure each system in turn, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--steps", type=int, default=1, help="denoising steps a frame")
    parser.add_argument("--frames", type=int, default=2, help="frames to time; the best counts")
    parser.add_argument(
        "--precision",
        choices=("auto", "bfloat16", "widened", "float32"),
        default="auto",
        help="widened: bfloat16 weights, float32 products",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--system", choices=SYSTEMS, help="only this one, in this process")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    if args.precision == "auto":
        args.precision = precision_here()
    chosen = (args.size, args.steps, args.frames, args.precision, args.threads)
    if args.system:
        print(json.dumps(measure(args.system, *chosen)))
        return
    rows = [child(system, args) for system in SYSTEMS]
    best = {row["system"]: min(row["frame_s"]) for row in rows}
    about = describe()
    print_header(f"One {rows[0]['picture'][1]} px frame, {args.steps} step(s)", about)
    print(f"  torch {version('torch')}, diffusers {version('diffusers')}, {args.precision}")
    print(f"{'system':<12}{'frame':>9}{'peak':>10}{'built':>9}")
    for row in rows:
        print(
            f"{row['system']:<12}{best[row['system']]:>7.2f} s{row['peak_gib']:>6.2f} GiB"
            f"{row['built_s']:>7.1f} s"
        )
    ratio = best["ours"] / best["diffusers"]
    peak = max(row["peak_gib"] for row in rows if row["system"] != "diffusers")
    print(f"ours / diffusers: {ratio:.2f}; ours at most {peak:.2f} GiB (bar {MEMORY_BAR_GIB:.0f})")
    result = {
        "benchmark": "full_size",
        "size": args.size,
        "steps": args.steps,
        "precision": args.precision,
        "threads": args.threads,
        "systems": rows,
        "ours_over_diffusers": round(ratio, 3),
        "ours_peak_gib": peak,
        "packages": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        **about,
    }
    line = json.dumps(result)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
