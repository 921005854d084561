"""IP-Adapter-FaceID, -portrait and -Plus v2 (arXiv 2308.06721): projection, identity keys/values, LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.loaders.files import Tensors, WrongFamily, fill, read_tensors, strip
from engine.loaders.lora import fuse
from engine.nets.attention import DecoupledCrossAttention
from engine.nets.identity_unet import IdentityUnet
from engine.nets.projection import IdentityProjection, PlusProjection

LORA = "_lora."
PLUS = "perceiver_resampler.proj_in.weight"


@dataclass(frozen=True, slots=True)
class IpAdapter:
    """An opened adapter file: its two groups, as the public layout names them.

    Attributes:
        embedding: width of the face embeddings it takes.
        context: width of the tokens it gives.
        tokens: how many a reference; 4 (FaceID and Plus) or 16 (portrait).
        patch: width of CLIP's patches that it reads beside; 0 for none.
    """

    source: Path
    image_proj: Tensors
    ip_adapter: Tensors
    embedding: int
    context: int
    tokens: int
    patch: int = 0

    @property
    def kind(self) -> str:
        """The configuration's `projection` that it goes with."""
        return "plus" if self.patch else "portrait" if self.tokens == 16 else "faceid"


def read_ip_adapter(path: Path) -> IpAdapter:
    """Open a .bin or .safetensors adapter.

    Raises:
        WrongFamily: it is an IP-Adapter of another kind, or none at all.
    """
    tensors = read_tensors(path)
    image_proj, ip_adapter = strip(tensors, "image_proj."), strip(tensors, "ip_adapter.")
    if not image_proj or not ip_adapter:
        raise WrongFamily(f"{path} is no IP-Adapter: it lacks image_proj or ip_adapter")
    if not {"proj.0.weight", "proj.2.weight", "norm.weight"} <= set(image_proj):
        raise WrongFamily(
            f"{path} is an IP-Adapter for images, not for faces; use ip-adapter-faceid_sd15"
        )
    context = len(image_proj["norm.weight"])
    return IpAdapter(
        path,
        image_proj,
        ip_adapter,
        embedding=image_proj["proj.0.weight"].shape[1],
        context=context,
        tokens=len(image_proj["proj.2.weight"]) // context,
        patch=image_proj[PLUS].shape[1] if PLUS in image_proj else 0,
    )


def install(
    adapter: IpAdapter,
    unet: IdentityUnet,
    projection: IdentityProjection,
    *,
    lora_strength: float = 1.0,
) -> int:
    """Put an adapter into the networks and fuse its LoRA; returns how many layers that changed.

    Raises:
        WrongFamily: widths, token count or layers differ (another Stable Diffusion, another kind).
    """
    _check(adapter, projection)
    dtype = next(unet.parameters()).dtype
    fill(projection, adapter.image_proj, adapter.source, dtype=dtype)
    low_rank: Tensors = {}
    wanted = set(adapter.ip_adapter)
    if unet.config.attention == "unified":  # the ablation has no identity layers to fill
        wanted = {key for key in wanted if LORA in key}
    for number, name in enumerate(unet.unet.attn_processors):
        block = name.removesuffix(".processor")
        processor = unet.unet.get_submodule(name)
        if isinstance(processor, DecoupledCrossAttention):
            own = {
                k: t for k, t in strip(adapter.ip_adapter, f"{number}.").items() if LORA not in k
            }
            fill(processor, own, adapter.source, dtype=dtype)
            wanted -= {f"{number}.{k}" for k in own}
        for key in [k for k in wanted if k.startswith(f"{number}.") and LORA in k]:
            low_rank[f"{block}.{key.partition('.')[2]}"] = adapter.ip_adapter[key]
            wanted.discard(key)
    if wanted:
        raise WrongFamily(
            f"{adapter.source} has {len(wanted)} tensors for layers that are not here, the first "
            f"{min(wanted)}; it is for another Stable Diffusion"
        )
    return fuse(unet.unet, low_rank, adapter.source, strength=lora_strength)


def _check(adapter: IpAdapter, projection: IdentityProjection) -> None:
    embedding, context = projection.proj[0].in_features, len(projection.norm.weight)
    if adapter.context != context:
        raise WrongFamily(
            f"{adapter.source} gives tokens {adapter.context} wide, wanted {context}; it is for "
            "another Stable Diffusion"
        )
    if adapter.embedding != embedding:
        raise WrongFamily(
            f"{adapter.source} takes face embeddings {adapter.embedding} wide, the face encoder gives "
            f"{embedding}"
        )
    if adapter.tokens != projection.count:
        raise WrongFamily(
            f"{adapter.source} gives {adapter.tokens} tokens a portrait, the configuration says "
            f"{projection.count}; set projection to {adapter.kind}"
        )
    wanted = projection.nothing.shape[1] if isinstance(projection, PlusProjection) else 0
    if adapter.patch != wanted:
        raise WrongFamily(
            f"{adapter.source} {_reads(adapter.patch)}, the configuration {_reads(wanted)}; set "
            f"projection to {adapter.kind}"
        )


def _reads(width: int) -> str:
    return f"reads CLIP's patches {width} wide" if width else "reads none of CLIP's patches"
