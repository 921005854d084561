"""Sizes and switches of the full-size system as frozen data; a small one is the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.audio.speech_encoder import WIDTH
from engine.config import Adapter, MotionModules
from engine.errors import ConfigError

PLACEMENT = 8  # numbers of `engine.face.placement.placement`
PLACEMENT_TOKENS = 8
MAX_HISTORY = 8  # frames in the cache
MOTION_PLACES = 32  # frames a motion module knows places for
Projection = Literal["faceid", "portrait", "plus"]
ADAPTER_PROJECTION: dict[Adapter, Projection] = {
    "faceid": "faceid",
    "faceid-portrait": "portrait",
    "faceid-plus-v2": "plus",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnetSizes:
    """A UNet of Stable Diffusion 1.x: `blocks` resolutions, attention in all but the deepest."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    cross_attention_dim: int = 768
    heads: int = 8
    norm_num_groups: int = 32
    latent_channels: int = 4
    sample_size: int = 64  # latent side, an eighth of the image's
    conditioning_channels: tuple[int, ...] = (16, 32, 96, 256)  # stem of the control image

    def __post_init__(self) -> None:
        for width in self.block_out_channels:
            if width % self.heads or width % self.norm_num_groups:
                raise ConfigError(
                    f"block_out_channels has {width}, not a multiple of heads={self.heads} and "
                    f"norm_num_groups={self.norm_num_groups}"
                )

    @property
    def attention_layers(self) -> int:
        """Transformer blocks of the UNet: down, middle, up (16 for Stable Diffusion 1.5)."""
        levels = len(self.block_out_channels) - 1
        return levels * self.layers_per_block + 1 + levels * (self.layers_per_block + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """The CLIP text encoder (ViT-L/14 by default)."""

    vocabulary: int = 49408
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3072
    length: int = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSizes:
    """The SD autoencoder (`vae_channels`) and the tiny one (`tiny_channels`, `tiny_blocks`)."""

    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    tiny_channels: tuple[int, ...] = (64, 64, 64, 64)
    tiny_blocks: tuple[int, ...] = (1, 3, 3, 3)
    output_scale: Literal[1, 2] = 1  # decoded images have this many times 8 x the latent side


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSizes:
    """What CLIP's image encoder (ViT-H/14 by default) says of a face: a vector a patch, and one more."""

    count: int = 257
    width: int = 1280


@dataclass(frozen=True, slots=True, kw_only=True)
class Sd15Config:
    """One full system. The five fields after `unet` are the paper's ablations, each one switch.

    `references`: "first" uses only the first portrait for tokens and keys/values.
    `placement`: off, no placement attention is built and landmarks are drawn centred, at one size.
    `temporal`: off, neither net looks at the previous frame.
    `conditioning`: "difftalk" gives IdentityNet the latents of the masked frame and of the reference
    beside the noisy ones, and AnimateNet landmarks without mouth and jaw and speech tokens.
    `prediction`: with "velocity" (arXiv 2202.00512) IdentityNet still returns the noise, computed from
    it; a network that starts from nothing need not learn first to copy its input at high noise.
    `history`: frames before this one whose keys and values the attentions see.
    `motion_modules`: AnimateDiff's, in IdentityNet, which see `motion_window` frames before this one.
    """

    unet: UnetSizes = UnetSizes()
    attention: Literal["decoupled", "unified"] = "decoupled"
    face_encoder: bool = True
    references: Literal["all", "first"] = "all"
    placement: bool = True
    temporal: bool = True
    reference_writer: Literal["self", "reference_net"] = "self"
    guider: Literal["control_net", "pose_guider"] = "control_net"
    projection: Projection = "faceid"  # IP-Adapter-FaceID's kinds
    face_embedding: int = 512  # what the face encoder gives
    patches: PatchSizes = PatchSizes()  # which follow the face's numbers, for "plus" alone
    conditioning: Literal["portraittalk", "difftalk"] = "portraittalk"
    prediction: Literal["noise", "velocity"] = "noise"  # what IdentityNet's last layer gives
    speech_features: int = WIDTH  # of a feature frame of the speech encoder, for "difftalk"
    history: int = 1
    motion_modules: MotionModules = "none"
    motion_window: int = 4
    text: TextSizes = TextSizes()
    codec: CodecSizes = CodecSizes()

    def __post_init__(self) -> None:
        if self.text.hidden != self.unet.cross_attention_dim:
            raise ConfigError(
                f"text.hidden={self.text.hidden} and unet.cross_attention_dim="
                f"{self.unet.cross_attention_dim} must be equal"
            )
        if self.difftalk and self.guider != "control_net":
            raise ConfigError(
                "conditioning='difftalk' needs guider='control_net': a pose guider reads no speech"
            )
        if not 1 <= self.history <= MAX_HISTORY:
            raise ConfigError(f"history={self.history} is out of range; 1 to {MAX_HISTORY} frames")
        if not 1 <= self.motion_window < MOTION_PLACES:
            raise ConfigError(
                f"motion_window={self.motion_window} is out of range; 1 to {MOTION_PLACES - 1} frames"
            )
        if not self.temporal and (self.history > 1 or self.motion_modules != "none"):
            raise ConfigError(
                "history and motion_modules look at frames before: not with temporal off"
            )

    @property
    def difftalk(self) -> bool:
        """Whether the conditioning is DiffTalk's."""
        return self.conditioning == "difftalk"

    @property
    def remembered(self) -> int:
        """Frames before this one that anything looks at."""
        if not self.temporal:
            return 0
        return max(self.history, self.motion_window if self.motion_modules != "none" else 0)

    @property
    def concat_channels(self) -> int:
        """Latent channels beside the noisy ones: the masked frame's and the reference's."""
        return 2 * self.unet.latent_channels if self.difftalk else 0

    @property
    def identity_tokens(self) -> int:
        """Tokens one reference gives: 4 (FaceID and FaceID-Plus) or 16 (portrait)."""
        return 16 if self.projection == "portrait" else 4

    @property
    def embedding_width(self) -> int:
        """Numbers that one reference is described by: the face's, and CLIP's patches' for "plus"."""
        return self.face_embedding + self.patch_numbers

    @property
    def patch_numbers(self) -> int:
        """How many of them are CLIP's patches'."""
        return self.patches.count * self.patches.width if self.projection == "plus" else 0

    @property
    def picture_side(self) -> int:
        """Side in pixels of encoded images and control images; the output's may differ."""
        return 8 * self.unet.sample_size

    @classmethod
    def full(cls) -> Sd15Config:
        """The real sizes of Stable Diffusion 1.5."""
        return cls()

    @classmethod
    def small(cls) -> Sd15Config:
        """The same layers, a few hundred thousand weights: for tests and training on a CPU."""
        return cls(
            unet=UnetSizes(
                block_out_channels=(16, 32, 32, 32),
                cross_attention_dim=32,
                heads=2,
                norm_num_groups=4,
                sample_size=8,
                conditioning_channels=(8, 8, 16, 16),
            ),
            patches=PatchSizes(count=5, width=24),
            text=TextSizes(vocabulary=512, hidden=32, layers=2, heads=2, intermediate=64),
            codec=CodecSizes(
                vae_channels=(16, 16, 32, 32),
                vae_layers=1,
                norm_num_groups=4,
                tiny_channels=(16, 16, 16, 16),
                tiny_blocks=(1, 1, 1, 1),
            ),
        )
