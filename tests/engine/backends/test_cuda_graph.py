"""A recorded function computes what the function does; no GPU is needed but for the last test.

`rerun` keeps the contract of a CUDA graph on a CPU: inputs are read and outputs written where they
were when it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.audio.speech_encoder import WIDTH
from engine.avatar import AvatarEngine
from engine.backends.cuda_graph import Recorded, Tree, cuda_graph, over
from engine.config import DiffusionSettings, EngineConfig
from engine.errors import ConfigError
from engine.face.image_file import decode_image
from engine.nets.conditions import Conditions
from engine.nets.portraittalk import PortraitTalkModel
from engine.nets.sd15_config import Sd15Config
from engine.profiles.sd15 import load_engine, random_parts
from engine.render.sd15 import DiffusionRenderer
from server.settings import BUNDLED_PORTRAIT
from tests.contracts.small import renderer_of, stirred

pytestmark = pytest.mark.train
HOP = 640


@dataclass(frozen=True, slots=True)
class Pair:
    """A branch of a tree."""

    left: Tensor
    right: Tensor | None = None


def rerun(run: Callable[[], Tree]) -> tuple[Tree, Callable[[], None]]:
    """Record by remembering the function and where it wrote."""
    out, places = run(), []
    over(out, places.append)

    def again() -> None:
        made: list[Tensor] = []
        over(run(), made.append)
        for place, new in zip(places, made, strict=True):
            place.copy_(new)

    return out, again


def step(x: Tensor, told: Pair, before: tuple[Tensor, ...] | None) -> tuple[Tensor, Pair]:
    out = 2 * x + told.left
    if before is not None:
        out = out + before[0]
    return out, Pair(out.sum(-1), told.right)


def test_a_replay_is_the_call_and_leaves_earlier_results_alone() -> None:
    recorded, seen = Recorded(step, rerun), []
    for seed in range(4):
        torch.manual_seed(seed)
        x, told = torch.randn(2, 3), Pair(torch.randn(3), torch.randn(1))
        before = (torch.randn(3),) if seed % 2 else None
        seen.append((recorded(x, told, before), step(x, told, before)))
    for (got, left), (wanted, kept) in seen:
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
        assert left.right is not None
        torch.testing.assert_close((left.left, left.right), (kept.left, kept.right))


def test_another_structure_shape_or_type_is_another_recording() -> None:
    made = 0

    def count(run: Callable[[], Tree]) -> tuple[Tree, Callable[[], None]]:
        nonlocal made
        made += 1
        return rerun(run)

    recorded = Recorded(step, count)
    told = Pair(torch.zeros(3))
    calls: list[tuple[Any, ...]] = [
        (torch.zeros(2, 3), told, None),
        (torch.ones(2, 3), told, None),
        (torch.zeros(4, 3), told, None),
        (torch.zeros(2, 3), told, (torch.zeros(3),)),
        (torch.zeros(2, 3), Pair(torch.zeros(3), torch.zeros(1)), None),
        (torch.zeros(2, 3, dtype=torch.float64), told, None),
        (torch.zeros(4, 3), told, None),
    ]
    counts = []
    for call in calls:
        recorded(*call)
        counts.append(made)
    assert counts == [1, 1, 2, 3, 4, 5, 5]


def test_what_is_no_tensor_cannot_be_recorded() -> None:
    with pytest.raises(TypeError, match="not float"):
        Recorded(lambda x, strength: x * strength, rerun)(torch.zeros(1), 0.5)


def settings(**how: Any) -> EngineConfig:
    """The full-size profile with small random weights."""
    diffusion = DiffusionSettings(random_weights="small", **{"device": "cpu", **how})
    return EngineConfig.sd15(live=True, num_inference_steps=2, threads=1, diffusion=diffusion)


def small(**how: Any) -> tuple[AvatarEngine, DiffusionRenderer]:
    """An engine of such weights, none at zero; what draws."""
    return stirred(settings(**how))


def test_streams_drawn_by_turns_with_recordings_are_as_drawn_alone_without() -> None:
    """The caches of two streams pass through the same recorded memory."""
    engine, renderer = small(guidance_scale=2.0)
    identity = engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))
    sound = (0.2 * np.random.default_rng(0).standard_normal((2, 6, HOP))).astype(np.float32)
    alone = []
    for pcm, seed in zip(sound, (3, 9), strict=True):
        state = engine.start(identity, seed=seed)
        alone.append([engine.step(state, hop) for hop in pcm])
    made: list[Tree] = []

    def record(run: Callable[[], Tree]) -> tuple[Tree, Callable[[], None]]:
        made.append(rerun(run))
        return made[-1]

    parts = random_parts(engine.config.diffusion, WIDTH, torch.float32)
    parts = replace(parts, model=renderer.networks.model)
    again = renderer_of(parts, renderer.sampling, record)
    engine = AvatarEngine.load(engine.config, renderer=again)
    states = [engine.start(identity, seed=seed) for seed in (3, 9)]
    turns = [
        [engine.step(state, sound[i, hop]) for i, state in enumerate(states)] for hop in range(6)
    ]
    assert len(made) == 2, "one without a frame before and one with"
    for i, hops in enumerate(alone):
        frames = np.stack([frame.rgb for drawn in hops for frame in drawn]).astype(int)
        same = np.stack([frame.rgb for turn in turns for frame in turn[i]]).astype(int)
        assert len(frames) == 4
        assert np.abs(same - frames).max() <= 1, "memory laid out otherwise rounds otherwise"
    others = np.stack([frame.rgb for turn in turns for frame in turn[0]]).astype(int)
    assert np.abs(others - frames).mean() > 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU here")
def test_without_a_gpu_graphs_are_refused_in_words() -> None:
    for device in ("cpu", "auto"):
        with pytest.raises(ConfigError, match="compile='cudagraphs' needs an NVIDIA GPU"):
            load_engine(settings(compile="cudagraphs", device=device))
    with pytest.raises(ConfigError, match="compile='inductor' is unknown; one of 'none', 'cuda"):
        settings(compile="inductor")


class OnTheDevice(TorchDispatchMode):
    """Fails where work needs the host: a number read back, a tensor made elsewhere."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(function)
        assert not name.startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.lift_fresh"))
        assert torch.device(kwargs.get("device") or "meta").type == "meta", name
        self.count += 1
        return function(*args, **kwargs)


@pytest.mark.parametrize("conditioning", ["portraittalk", "difftalk"])
def test_a_denoising_step_never_waits_for_the_host(conditioning: Any) -> None:
    """Tensors of the meta device have no numbers and refuse to meet those of another device: what
    runs on it can be recorded."""
    config = replace(Sd15Config.small(), conditioning=conditioning)
    with torch.device("meta"), torch.inference_mode():
        model = PortraitTalkModel.build(config).eval().bfloat16()
        made = lambda *shape: torch.empty(shape, dtype=torch.bfloat16)
        text, identity = made(1, 77, 32), model.identify(made(1, 1, 512))
        reference = model.write_reference(made(1, 1, 4, 8, 8), text, identity)
        guide = model.guidance(
            torch.empty(1, 478, 2),
            torch.empty(1, 68, 3),
            torch.empty(1, 8),
            concat=model.concat(made(1, 4, 8, 8), made(1, 4, 8, 8)),
            speech=made(1, 16, config.speech_features) if config.difftalk else None,
        )
        told = Conditions(text, identity, reference)
        guide = replace(guide, landmarks=guide.landmarks.bfloat16())
        guide = replace(guide, placement=over(guide.placement, Tensor.bfloat16))
        arguments = (made(1, 4, 8, 8), torch.empty(1, dtype=torch.long), told, guide)
    with OnTheDevice() as watched, torch.inference_mode():
        noise, keys = model(*arguments, None)
        model(*arguments, keys)
    assert noise.shape == (1, 4, 8, 8)
    assert watched.count > 3000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_cuda_graph_computes_what_was_recorded() -> None:
    recorded = Recorded(step, cuda_graph)
    for seed in range(3):
        torch.manual_seed(seed)
        x, told = torch.randn(2, 3).cuda(), Pair(torch.randn(3).cuda())
        torch.testing.assert_close(recorded(x, told, None)[0], step(x, told, None)[0])
