"""The full-size networks as graphs: each a module of flat, named tensors and the spec that goes with it.

What a network is called with (dataclasses and tuples of tensors, some of them absent) depends on a system's
switches. So a spec is read off the call itself: a tensor is named by its way into the arguments, such
as `told.reference.3.0`, keys of the fourth attention to the portrait, and its rows are the dimension that
grows with the streams.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor, nn

from engine.backends.base import BATCH, GraphSpec, TensorSpec
from engine.backends.cuda_graph import Tree, over
from engine.nets.conditions import Conditions
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.sd_codec import byte_values

STEP = ("z_t", "t", "told", "guide", "before")  # of `PortraitTalkModel.forward`
STEP_OUT = ("noise", "after")


def leaves(names: Sequence[str], trees: Sequence[Tree]) -> dict[str, Tensor]:
    """The tensors of named trees, each under its way in: {"told.text": ..., "before.0.2.1": ...}."""
    found: dict[str, Tensor] = {}

    def walk(name: str, tree: Tree) -> None:
        if isinstance(tree, Tensor):
            found[name] = tree
        elif isinstance(tree, tuple):
            for i, branch in enumerate(tree):
                walk(f"{name}.{i}", branch)
        elif is_dataclass(tree):
            for field in fields(tree):
                walk(f"{name}.{field.name}", getattr(tree, field.name))

    for name, tree in zip(names, trees, strict=True):
        walk(name, tree)
    return found


def regrown(tree: Tree, tensors: Sequence[Tensor]) -> Tree:
    """The tree with other tensors (...,) in the places of its own, in the order of `leaves`."""
    following = iter(tensors)
    return over(tree, lambda _: next(following))


class Flat(nn.Module):
    """A call of trees as one of tensors, in the order of `leaves`."""

    def __init__(self, call: Callable[..., Tree], arguments: tuple[Tree, ...]) -> None:
        super().__init__()
        self.owner = getattr(call, "__self__", None) or call  # its weights are the graph's
        self._call, self._arguments = call, arguments

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Call with the arguments (B, ...) put together again; the tensors (B, ...) of what comes back."""
        out = self._call(*regrown(self._arguments, tensors))
        return tuple(leaves(("out",), (out,)).values())


@dataclass(frozen=True, slots=True)
class NetworkGraph:
    """One network ready to be exported.

    Attributes:
        module: takes the tensors of `spec.inputs` in order, returns those of `spec.outputs`.
        sample: one row of each input.
    """

    spec: GraphSpec
    module: nn.Module
    sample: dict[str, Tensor]


def spec_of(
    name: str,
    inputs: Sequence[Mapping[str, Tensor]],
    outputs: Sequence[Mapping[str, Tensor]],
    precision: str = "any",
) -> GraphSpec:
    """The spec of a graph whose tensors were seen with one row and with two."""

    def described(one: Tensor, two: Tensor, called: str) -> TensorSpec:
        pairs = zip(one.shape, two.shape, strict=True)
        shape = tuple(BATCH if a != b else a for a, b in pairs)
        if shape.count(BATCH) != 1:
            raise ValueError(f"{name}: {called} {tuple(one.shape)} has not one row a stream")
        return TensorSpec(called, shape, str(one.dtype).removeprefix("torch."))

    read, left = (
        tuple(described(one[called], two[called], called) for called in one)
        for one, two in (inputs, outputs)
    )
    return GraphSpec(name, read, left, precision=precision)


def step_spec(model: PortraitTalkModel, arguments: tuple[Tree, ...]) -> GraphSpec:
    """The spec of a denoising step that is called with `arguments` of one row each."""
    with torch.no_grad():
        made = model(*arguments)
    return spec_of(
        "step", _seen_twice(leaves(STEP, arguments)), _seen_twice(leaves(STEP_OUT, made))
    )


def _seen_twice(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors of one row as they are, and as those of two."""
    return [{name: _rows(x, rows) for name, x in tensors.items()} for rows in (1, 2)]


def _rows(x: Tensor, count: int) -> Tensor:
    """`count` copies of one row, without their memory: shapes are all that is looked at."""
    return x.expand(count, *x.shape[1:])


def step_arguments(model: PortraitTalkModel, references: int, *, seed: int = 0) -> tuple[Tree, ...]:
    """What a frame's later steps are called with: one row of random conditions, all switches as built."""
    config, weight = model.config, next(model.unet.parameters())
    side, context = config.unet.sample_size, config.unet.cross_attention_dim
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, spread: float = 1.0) -> Tensor:
        numbers = spread * torch.randn(1, *shape, generator=generator)
        return numbers.to(weight.device, weight.dtype)

    latents: Callable[[], Tensor] = lambda: random(config.unet.latent_channels, side, side)
    # What networks make is drawn too, once its shape is known.
    drawn: Callable[[Tree], Tree] = lambda tree: over(tree, lambda x: random(*x.shape[1:]))
    identity = drawn(model.identify(random(references, config.embedding_width)))
    text, t = random(config.text.length, context), torch.tensor([499], device=weight.device)
    portraits = torch.stack([latents() for _ in range(references)], 1)
    told = Conditions(text, identity, drawn(model.write_reference(portraits, text, identity)))
    face = 0.5 + 0.2 * (torch.rand(1, 478, 2, generator=generator) - 0.5)
    guide = model.guidance(
        face.to(weight.device),
        random(68, 3, spread=0.3),
        random(8, spread=0.3),
        concat=model.concat(latents(), latents()),
        speech=random(16, config.speech_features) if config.difftalk else None,
    )
    guide = replace(guide, image=guide.image.to(weight.dtype))
    if config.guider == "pose_guider":  # it reads the drawn face alone
        guide = replace(guide, landmarks=None, placement=None)
    after = model(latents(), t, told, guide, None)[1]
    return latents(), t, told, guide, drawn(after) if config.temporal else None


@torch.no_grad()
def step_graph(model: PortraitTalkModel, references: int = 1) -> NetworkGraph:
    """AnimateNet and IdentityNet of one denoising step: conditions and caches in, noise and caches out."""
    arguments = step_arguments(model, references)
    spec = step_spec(model, arguments)
    return NetworkGraph(spec, Flat(model, arguments), leaves(STEP, arguments))


class Read(nn.Module):
    """Token ids -> the text as IdentityNet reads it.

    In fp32, once a prompt: exported in half precision, its causal mask would stay fp32 and not fit.
    """

    def __init__(self, model: PortraitTalkModel) -> None:
        super().__init__()
        text: nn.Module = copy.deepcopy(model.text)
        self.text = text.to(torch.float32)
        self.dtype = next(model.unet.parameters()).dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (B, 77) -> (B, 77, D)."""
        out: Tensor = self.text(ids).last_hidden_state
        return out.to(self.dtype)


class Identify(nn.Module):
    """Face embeddings -> identity tokens."""

    def __init__(self, model: PortraitTalkModel) -> None:
        super().__init__()
        self.projection = model.projection

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, R, E) -> (B, R * N, D)."""
        assert self.projection is not None
        out: Tensor = self.projection(embeddings)
        return out


class Encode(nn.Module):
    """Pictures -> latents."""

    def __init__(self, model: PortraitTalkModel) -> None:
        super().__init__()
        self.codec = model.codec
        self.tiny = model.codec.tiny is not None

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] -> (B, 4, S / 8, S / 8)."""
        return self.codec.encode(pictures, tiny=self.tiny)


class Decode(Encode):
    """Latents -> the frame."""

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) -> (B, 8 h, 8 w, 3) uint8."""
        images = self.codec.decode(latents, tiny=self.tiny).permute(0, 2, 3, 1)
        return byte_values(images).to(
            torch.uint8
        )  # last of all: TensorRT casts to bytes, and no more


class Reference(nn.Module):
    """A portrait's keys and values."""

    def __init__(self, model: PortraitTalkModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, text: Tensor, *identity: Tensor) -> tuple[Tensor, ...]:
        """Latents (B, R, 4, h, w), text (B, 77, D), tokens (B, N, D) -> K and V (B, R * S, C) by turns."""
        pairs = self.model.write_reference(latents, text, identity[0] if identity else None)
        return tuple(tensor for pair in pairs for tensor in pair)


@torch.no_grad()
def other_graphs(model: PortraitTalkModel, references: int = 1) -> list[NetworkGraph]:
    """The networks beside the step: text encoder, identity, autoencoder, portraits and the line drawer."""
    config, weight = model.config, next(model.unet.parameters())
    generator = torch.Generator().manual_seed(0)
    random: Callable[..., Tensor] = lambda *shape: torch.randn(1, *shape, generator=generator).to(
        weight
    )
    side, context = config.unet.sample_size, config.unet.cross_attention_dim
    ids = torch.arange(config.text.length)[None] % config.text.vocabulary
    picture = random(3, config.picture_side, config.picture_side).clamp(-1, 1)
    latents, text = (
        random(config.unet.latent_channels, side, side),
        random(config.text.length, context),
    )
    face = 0.5 + 0.4 * (torch.rand(1, 478, 2, generator=generator) - 0.5)
    portraits = torch.stack([random(*latents.shape[1:]) for _ in range(references)], 1)
    wanted: list[tuple[str, nn.Module, dict[str, Tensor], str]] = [
        ("text", Read(model), {"ids": ids}, "any"),
        ("encode", Encode(model), {"pictures": picture}, "any"),
        ("decode", Decode(model), {"latents": latents}, "any"),
        ("lines", model.lines, {"landmarks": face}, "f32"),
    ]
    written = {"latents": portraits, "text": text}
    if config.face_encoder:
        embeddings = random(references, config.embedding_width) * 0.05
        wanted.append(("identify", Identify(model), {"embeddings": embeddings}, "any"))
        written["identity"] = random(*Identify(model)(embeddings).shape[1:])
    wanted.append(("reference", Reference(model), written, "any"))
    return [_seen(*one) for one in wanted]


def _seen(name: str, module: nn.Module, sample: dict[str, Tensor], precision: str) -> NetworkGraph:
    """A graph whose outputs are looked at once, with one row and with two."""
    outputs = []
    for rows in (1, 2):
        out = module(*(_rows(x, rows) for x in sample.values()))
        outputs.append(leaves(("out",), (out,)))
    spec = spec_of(name, _seen_twice(sample), outputs, precision)
    return NetworkGraph(spec, module, sample)
