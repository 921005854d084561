"""DiffTalk's conditioning: starts as the plain model, and what it is told leaves the mouth out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.face.placement import HEIGHT, PLACEMENT, SIXTY_EIGHT, WITHOUT_MOUTH_68
from engine.face.topology import OVAL
from engine.loaders.sd15 import Sd15Files
from engine.nets.conditions import Conditions, Guidance
from engine.nets.face_lines import LIPS, LOWER_JAW, FaceLines, connections
from engine.nets.identity_unet import IdentityUnet
from engine.nets.portraittalk import PortraitTalkModel, hide_lower_half
from engine.nets.sd15_config import Sd15Config
from tests.engine.loaders.layouts import write_sd15

pytestmark = pytest.mark.train
torch.set_num_threads(1)
SMALL = Sd15Config.small()
DIFFTALK = dataclasses.replace(SMALL, conditioning="difftalk", speech_features=6)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pair() -> tuple[PortraitTalkModel, PortraitTalkModel]:
    """The plain model and DiffTalk's with the same weights wherever both have them."""
    torch.manual_seed(0)
    plain, mode = (PortraitTalkModel.build(c).eval() for c in (SMALL, DIFFTALK))
    own = dict(mode.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name in own and own[name].shape == parameter.shape:
                own[name].copy_(parameter)
    return plain, mode


def test_it_adds_three_parts_and_changes_one(
    pair: tuple[PortraitTalkModel, PortraitTalkModel],
) -> None:
    plain, mode = ({n: p.shape for n, p in m.named_parameters()} for m in pair)
    new = {n for n in mode if n not in plain}
    assert {n for n in new if "speech_tokens" not in n} == {"unet.unet.conv_in.more.weight"}
    assert mode["unet.unet.conv_in.more.weight"] == (16, 8, 3, 3)
    assert plain.keys() <= mode.keys()
    assert [n for n in plain if plain[n] != mode[n]] == ["animate.landmark_tokens.place"]
    assert mode["animate.landmark_tokens.place"] == (39, 32)


@torch.no_grad()
def test_at_the_start_it_is_the_plain_model(
    pair: tuple[PortraitTalkModel, PortraitTalkModel],
) -> None:
    plain, mode = pair
    z, t, image = noise(2, 4, 8, 8), torch.tensor([500, 20]), noise(2, 3, 64, 64).clamp(0, 1)
    told = Conditions(noise(2, 77, 32), noise(2, 4, 32))
    before = Guidance(image, noise(2, 68, 3), noise(2, 8))
    told_more = Guidance(
        image, noise(2, 39, 3), noise(2, 8), concat=noise(2, 8, 8, 8), speech=noise(2, 16, 6)
    )
    expected = plain(z, t, told, before)[0]
    assert torch.equal(mode(z, t, told, told_more)[0], expected)
    for part in (mode.unet.unet.conv_in.more, mode.animate):  # once they are learnt
        for parameter in part.parameters():
            parameter.add_(0.05 * noise(*parameter.shape))
    moved = mode(z, t, told, told_more)[0]
    for change in ({"concat": -told_more.concat}, {"speech": -told_more.speech}):  # type: ignore[operator]
        assert not torch.allclose(
            mode(z, t, told, dataclasses.replace(told_more, **change))[0], moved, atol=1e-6
        ), change


@torch.no_grad()
def test_a_public_checkpoint_loads_and_starts_identical(tmp_path: Path) -> None:
    write_sd15(tmp_path, SMALL)
    files = Sd15Files(tmp_path)
    plain, mode = (IdentityUnet(files.unet(c.unet), c).eval() for c in (SMALL, DIFFTALK))
    state = dict(plain.named_parameters())
    mode.load_state_dict(state, strict=False)  # the identity layers, which are random
    told = Conditions(noise(1, 77, 32), noise(1, 4, 32))
    args = (noise(1, 4, 8, 8), torch.tensor([300]), told)
    expected = plain(*args)[0]
    assert torch.equal(mode(*args, concat=noise(1, 8, 8, 8))[0], expected)
    assert torch.equal(mode(*args)[0], expected)
    assert torch.equal(plain(*args, concat=noise(1, 8, 8, 8))[0], expected), "off, it is not read"
    assert files.unet(SMALL.unet).conv_in.weight.shape[1] == 4


def test_neither_drawing_nor_points_nor_placement_tell_the_mouth_or_the_chin(
    pair: tuple[PortraitTalkModel, PortraitTalkModel],
) -> None:
    assert len(WITHOUT_MOUTH_68) == 39
    hidden = {SIXTY_EIGHT[i] for i in range(68)} - {SIXTY_EIGHT[i] for i in WITHOUT_MOUTH_68}
    told_by_lines = {p for line in connections(mouth=False) for p in line[:2]}
    assert not told_by_lines & (hidden | set(LOWER_JAW) | {p for line in LIPS for p in line})
    assert {58, 288, 10} <= told_by_lines, "the upper oval stays"
    assert PLACEMENT[HEIGHT] == "height"

    closed = torch.rand((1, 478, 2), generator=torch.Generator().manual_seed(3)) * 0.5 + 0.25
    points = torch.rand((1, 68, 3), generator=torch.Generator().manual_seed(4))
    opened, moved, placed, dropped = closed.clone(), points.clone(), noise(1, 8), noise(1, 8)
    opened[:, [*LOWER_JAW, *{p for line in LIPS for p in line}]] += 0.1
    moved[:, [i for i in range(68) if i not in WITHOUT_MOUTH_68]] += 0.1
    dropped[:, HEIGHT] += 0.1
    plain, mode = pair
    a, b = mode.guidance(closed, points, placed), mode.guidance(opened, moved, dropped)
    for name in ("image", "landmarks", "placement"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert a.landmarks.shape == (1, 39, 3)
    c, d = plain.guidance(closed, points, placed), plain.guidance(opened, moved, dropped)
    assert not torch.equal(c.image, d.image)
    assert c.concat is None
    assert c.landmarks.shape == (1, 68, 3)


def test_the_lines_that_stay_are_drawn_as_they_were() -> None:
    landmarks = torch.rand((1, 478, 2), generator=torch.Generator().manual_seed(5)) * 0.5 + 0.25
    landmarks[:, [*OVAL[12:25], *{p for line in LIPS for p in line}]] = 2.0  # outside: not drawn
    landmarks[:, [OVAL[11], OVAL[25]]] = landmarks[:, [OVAL[11], OVAL[25]]]
    assert torch.equal(FaceLines(64)(landmarks), FaceLines(64, mouth=False)(landmarks))


def test_the_masked_frame_is_hidden_from_the_nose_tip_down() -> None:
    landmarks = torch.zeros(3, 478, 2)
    landmarks[:, 4, 1] = torch.tensor([0.25, 0.5, 2.0])  # the last one below the picture
    hidden = hide_lower_half(torch.ones(3, 3, 64, 64), landmarks)
    for picture, kept in zip(hidden, (16, 32, 64), strict=True):
        assert (picture[:, :kept] == 1).all()
        assert (picture[:, kept:] == 0).all()


def test_a_pose_guider_is_refused() -> None:
    with pytest.raises(ConfigError, match="reads no speech"):
        dataclasses.replace(DIFFTALK, guider="pose_guider")
