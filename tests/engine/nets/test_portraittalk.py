import dataclasses

import pytest

torch = pytest.importorskip("torch")

from engine.nets.portraittalk import PortraitTalkModel, centred  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()


@torch.no_grad()
def test_a_reference_net_writes_the_portraits_with_weights_of_its_own() -> None:
    torch.manual_seed(0)
    model = PortraitTalkModel.build(dataclasses.replace(SMALL, reference_writer="reference_net"))
    assert model.reference_net is not None
    text, portraits = torch.randn(1, 77, 32), torch.randn(1, 2, 4, 8, 8)
    identity = model.identify(torch.randn(1, 2, 512))
    written = model.write_reference(portraits, text, identity)
    by_itself = model.unet.write_reference(portraits, text, identity)
    assert [k.shape for k, _ in written] == [k.shape for k, _ in by_itself]
    assert not torch.equal(written[0][0], by_itself[0][0])
    assert torch.equal(written[5][1], model.write_reference(portraits, text, -identity)[5][1])


def test_a_centred_face_stands_in_the_middle_at_one_size() -> None:
    landmarks = torch.rand(2, 478, 2) * 0.3
    moved = centred(landmarks, landmarks)
    eyes = (moved[:, 263] - moved[:, 33]).norm(dim=-1)
    assert torch.allclose(eyes, torch.full((2,), 0.25), atol=1e-5)
    again = centred(moved, moved)
    assert torch.allclose(again, moved, atol=1e-5)


@torch.no_grad()
def test_words_and_nobody_have_fixed_shapes() -> None:
    model = PortraitTalkModel.build(dataclasses.replace(SMALL, projection="portrait")).eval()
    assert model.read(torch.zeros(2, 77, dtype=torch.long)).shape == (2, 77, 32)
    nobody = model.identify(torch.zeros(1, 3, 512))
    assert nobody is not None
    assert nobody.shape == (1, 48, 32)
    assert torch.equal(nobody[:, :16], nobody[:, 16:32])
