"""The table of public checkpoints a profile can use: where each comes from and its licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One public file or set of files, and what is known about it.

    Args:
        commercial: False when the licence forbids commercial use; None when it is unclear, which
            counts as forbidden.
        files: paths inside the repository; each may end in `*`. All of them are needed.
        bytes_about: size of the download, rounded.
        needed: the profile does not run without it.
        space: embedding space of a face encoder or identity adapter.
        adapts: it takes embeddings of that space, and makes none.
    """

    id: str
    what: str
    repository: str
    files: tuple[str, ...]
    bytes_about: int
    licence: str
    commercial: bool | None
    profiles: tuple[str, ...] = ("sd15",)
    needed: bool = False
    space: str = ""
    adapts: bool = False
    by_hand: bool = False  # not on the hub: its owner distributes it in another way

    def command(self, models_dir: Path) -> str:
        """The command that downloads it into `models_dir`, or where to copy your own file."""
        if self.by_hand:
            return f"copy your {self.files[0]} into {models_dir / self.id}"
        patterns = " ".join(f"--include '{name}'" for name in self.files)
        target = models_dir / self.repository.partition("/")[2]
        return f"hf download {self.repository} {patterns} --local-dir {target}"


MB = 1_000_000
PROFILES = ("tiny", "sd15")
BUFFALO = "insightface-buffalo_l"  # normed_embedding of w600k_r50

CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        id="sd15",
        what="Stable Diffusion 1.5: UNet, autoencoder, text encoder",
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        files=(
            "unet/config.json",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "tokenizer/*",
            "scheduler/*",
        ),
        bytes_about=2133 * MB,
        licence="CreativeML OpenRAIL-M",
        commercial=True,
        needed=True,
    ),
    Checkpoint(
        id="sd-vae-ft-mse",
        what="the autoencoder with a better decoder",
        repository="stabilityai/sd-vae-ft-mse",
        files=("config.json", "diffusion_pytorch_model.safetensors"),
        bytes_about=335 * MB,
        licence="MIT",
        commercial=True,
    ),
    Checkpoint(
        id="taesd",
        what="the tiny autoencoder, live",
        repository="madebyollin/taesd",
        files=("config.json", "diffusion_pytorch_model.safetensors"),
        bytes_about=10 * MB,
        licence="MIT",
        commercial=True,
        needed=True,
    ),
    Checkpoint(
        id="control-mediapipe-face",
        what="ControlNet of drawn MediaPipe faces, the Stable Diffusion 1.5 one",
        repository="CrucibleAI/ControlNetMediaPipeFace",
        files=(
            "diffusion_sd15/config.json",
            "diffusion_sd15/diffusion_pytorch_model.fp16.safetensors",
        ),
        bytes_about=723 * MB,
        licence="OpenRAIL",
        commercial=True,
        needed=True,
    ),
    Checkpoint(
        id="faceid",
        what="IP-Adapter-FaceID: 4 identity tokens, with its LoRA",
        repository="h94/IP-Adapter-FaceID",
        files=("ip-adapter-faceid_sd15.bin",),
        bytes_about=97 * MB,
        licence="non-commercial (research only)",
        commercial=False,
        space=BUFFALO,
        adapts=True,
    ),
    Checkpoint(
        id="faceid-portrait",
        what="IP-Adapter-FaceID-portrait: 16 identity tokens an image, several images",
        repository="h94/IP-Adapter-FaceID",
        files=("ip-adapter-faceid-portrait-v11_sd15.bin",),
        bytes_about=65 * MB,
        licence="non-commercial (research only)",
        commercial=False,
        space=BUFFALO,
        adapts=True,
    ),
    Checkpoint(
        id="lcm-lora",
        what="few steps: LCM-LoRA",
        repository="latent-consistency/lcm-lora-sdv1-5",
        files=("pytorch_lora_weights.safetensors",),
        bytes_about=135 * MB,
        licence="OpenRAIL++",
        commercial=True,
    ),
    Checkpoint(
        id="tcd-lora",
        what="few steps: TCD-LoRA",
        repository="h1t/TCD-SD15-LoRA",
        files=("pytorch_lora_weights.safetensors",),
        bytes_about=135 * MB,
        licence="not stated",
        commercial=None,
    ),
    Checkpoint(
        id="hyper-sd-1step",
        what="one step: Hyper-SD LoRA",
        repository="ByteDance/Hyper-SD",
        files=("Hyper-SD15-1step-lora.safetensors",),
        bytes_about=269 * MB,
        licence="unclear",
        commercial=None,
    ),
    Checkpoint(
        id="hyper-sd-2steps",
        what="two steps: Hyper-SD LoRA",
        repository="ByteDance/Hyper-SD",
        files=("Hyper-SD15-2steps-lora.safetensors",),
        bytes_about=269 * MB,
        licence="unclear",
        commercial=None,
    ),
    Checkpoint(
        id="motion-v2",
        what="AnimateDiff's motion modules v2, for --motion-modules v2",
        repository="guoyww/animatediff-motion-adapter-v1-5-2",
        files=("diffusion_pytorch_model.fp16.safetensors",),
        bytes_about=908 * MB,
        licence="Apache-2.0",
        commercial=True,
    ),
    Checkpoint(
        id="motion-v3",
        what="AnimateDiff's motion modules v3, for --motion-modules v3",
        repository="guoyww/animatediff-motion-adapter-v1-5-3",
        files=("diffusion_pytorch_model.fp16.safetensors",),
        bytes_about=836 * MB,
        licence="Apache-2.0",
        commercial=True,
    ),
    Checkpoint(
        id="hubert-base",
        what="speech features, 768 wide",
        repository="facebook/hubert-base-ls960",
        files=("config.json", "pytorch_model.bin"),
        bytes_about=378 * MB,
        licence="Apache-2.0",
        commercial=True,
    ),
    Checkpoint(
        id="hubert-large",
        what="speech features, 1024 wide",
        repository="facebook/hubert-large-ls960-ft",
        files=("config.json", "pytorch_model.bin"),
        bytes_about=1262 * MB,
        licence="Apache-2.0",
        commercial=True,
    ),
    Checkpoint(
        id="auraface",
        what="face encoder, 512 numbers; its identity adapter must be trained",
        repository="fal/AuraFace-v1",
        files=("glintr100.onnx",),
        bytes_about=261 * MB,
        licence="Apache-2.0",
        commercial=True,
        space="auraface-v1",
    ),
    Checkpoint(
        id="sface",
        what="face encoder, 128 numbers; its identity adapter must be trained",
        repository="opencv/face_recognition_sface",
        files=("face_recognition_sface_2021dec.onnx",),
        bytes_about=39 * MB,
        licence="Apache-2.0",
        commercial=True,
        space="sface",
    ),
    Checkpoint(
        id="insightface",
        what="face encoder of the FaceID adapters, from a folder of your own",
        repository="insightface/buffalo_l",
        files=("w600k_r50.onnx",),
        by_hand=True,
        bytes_about=174 * MB,
        licence="non-commercial (research only)",
        commercial=False,
        space=BUFFALO,
    ),
    Checkpoint(
        id="clip",
        what="CLIP's image encoder in the face encoder's place (an ablation of the paper); its "
        "identity adapter must be trained",
        repository="h94/IP-Adapter",
        files=("models/image_encoder/config.json", "models/image_encoder/model.safetensors"),
        bytes_about=2528 * MB,
        licence="Apache-2.0",
        commercial=True,
        space="clip-vit-h-14",
    ),
)
