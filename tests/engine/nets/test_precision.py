import copy

import pytest

torch = pytest.importorskip("torch")

from engine.nets.conditions import Conditions  # noqa: E402
from engine.nets.identity_unet import IdentityUnet  # noqa: E402
from engine.nets.precision import keep_narrow, multiplies_bfloat16  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402

pytestmark = pytest.mark.train


@torch.no_grad()
def test_narrow_weights_compute_what_their_values_say() -> None:
    torch.manual_seed(0)
    wide = IdentityUnet.build(Sd15Config.small()).eval()
    for name, parameter in wide.named_parameters():
        if name.endswith("weight") and parameter.ndim > 1:
            parameter.copy_(parameter.bfloat16())
    narrow = keep_narrow(copy.deepcopy(wide))
    assert narrow.state_dict().keys() == wide.state_dict().keys()
    z, t = torch.randn(1, 4, 8, 8), torch.tensor([7])
    told = Conditions(torch.randn(1, 77, 32), torch.randn(1, 4, 32))
    a, b = wide(z, t, told)[0], narrow(z, t, told)[0]
    assert b.dtype == torch.float32
    assert torch.allclose(a, b, atol=1e-6)


def test_narrow_weights_take_about_half_the_memory() -> None:
    net = IdentityUnet.build(Sd15Config.small())
    held = lambda m: sum(p.numel() * p.element_size() for p in m.parameters())
    before = held(net)
    assert held(keep_narrow(net)) < 0.52 * before


def test_the_chip_is_asked() -> None:
    assert multiplies_bfloat16() == (torch.backends.cpu.get_cpu_capability() == "AVX512")
