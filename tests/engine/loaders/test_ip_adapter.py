import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from engine.loaders.files import Unsafe, WrongFamily  # noqa: E402
from engine.loaders.ip_adapter import install, read_ip_adapter  # noqa: E402
from engine.nets.identity_unet import IdentityUnet  # noqa: E402
from engine.nets.projection import IdentityProjection  # noqa: E402
from engine.nets.sd15_config import Sd15Config  # noqa: E402
from tests.engine.loaders.layouts import faceid, faceid_plus, random, save, save_nested  # noqa: E402

pytestmark = pytest.mark.train
SMALL = Sd15Config.small()
PLUS = dataclasses.replace(SMALL, projection="plus")


def networks(config: Sd15Config = SMALL) -> tuple[IdentityUnet, IdentityProjection]:
    torch.manual_seed(0)
    return IdentityUnet.build(config), IdentityProjection.build(config)


def written(tmp_path: Path, *, safe: bool = False, **changes: int) -> Path:
    shapes = faceid(SMALL.unet, **{"tokens": 4, "rank": 4, **changes})
    tensors = random(shapes, 5)
    if safe:
        return save(tensors, tmp_path / "adapter.safetensors")
    return save_nested(tensors, tmp_path / "adapter.bin")


def test_both_file_types_give_the_same(tmp_path: Path) -> None:
    a, b = (read_ip_adapter(written(tmp_path, safe=safe)) for safe in (True, False))
    assert (a.embedding, a.context, a.tokens) == (512, 32, 4)
    assert a.image_proj.keys() == b.image_proj.keys()
    assert all(torch.equal(t, b.ip_adapter[n]) for n, t in a.ip_adapter.items())


def test_the_low_rank_part_changes_every_attention_and_nothing_else(tmp_path: Path) -> None:
    unet, projection = networks()
    before = {n: t.clone() for n, t in unet.unet.state_dict().items()}
    assert install(read_ip_adapter(written(tmp_path)), unet, projection) == 32 * 4
    changed = {n for n, t in unet.unet.state_dict().items() if not torch.equal(t, before[n])}
    own = {n for n in changed if "_ip." in n}
    assert len(own) == 32
    assert len(changed - own) == 32 * 4
    assert all(n.split(".attn")[1][2:].startswith(("to_", "processor")) for n in changed)


def test_identity_layers_are_numbered_middle_last(tmp_path: Path) -> None:
    unet, projection = networks()
    adapter = read_ip_adapter(written(tmp_path, rank=0))
    install(adapter, unet, projection)
    middle = unet.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.processor")
    assert torch.equal(middle.to_k_ip.weight, adapter.ip_adapter["31.to_k_ip.weight"])
    assert middle.layer == 6  # in the order of the strengths: down, middle, up


def test_every_tensor_of_the_file_is_installed_where_it_belongs(tmp_path: Path) -> None:
    unet, projection = networks()
    adapter = read_ip_adapter(written(tmp_path, rank=0))
    install(adapter, unet, projection)
    own = {
        f"{number}.{key}": tensor
        for number, name in enumerate(unet.unet.attn_processors)
        for key, tensor in unet.unet.get_submodule(name).state_dict().items()
    }
    assert own.keys() == adapter.ip_adapter.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in adapter.ip_adapter.items())
    kept = projection.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in adapter.image_proj.items())


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    tensors = random(faceid(SMALL.unet, tokens=4, rank=0), 1)
    plain = {n: t for n, t in tensors.items() if n != "image_proj.proj.2.weight"}
    with pytest.raises(WrongFamily, match="for images, not for faces"):
        read_ip_adapter(save_nested(plain, tmp_path / "plain.bin"))
    with pytest.raises(WrongFamily, match="is no IP-Adapter"):
        read_ip_adapter(save({"weight": torch.ones(1)}, tmp_path / "no.safetensors"))


def test_sizes_that_do_not_fit_are_refused_in_words(tmp_path: Path) -> None:
    unet, projection = networks()
    with pytest.raises(WrongFamily, match="gives 16 tokens.*set projection to portrait"):
        install(read_ip_adapter(written(tmp_path, tokens=16)), unet, projection)
    with pytest.raises(WrongFamily, match="takes face embeddings 128 wide"):
        install(read_ip_adapter(written(tmp_path, embedding=128)), unet, projection)
    xl = dataclasses.replace(SMALL.unet, cross_attention_dim=64)
    path = save_nested(random(faceid(xl, tokens=4, rank=0), 1), tmp_path / "xl.bin")
    with pytest.raises(WrongFamily, match="tokens 64 wide, wanted 32"):
        install(read_ip_adapter(path), unet, projection)


def test_plus_goes_with_its_own_projection_alone(tmp_path: Path) -> None:
    tensors = random(faceid_plus(SMALL.unet, rank=4, patch=24), 1)
    adapter = read_ip_adapter(save_nested(tensors, tmp_path / "plus.bin"))
    unet, projection = networks()
    with pytest.raises(WrongFamily, match="reads CLIP's patches 24 wide.*set projection to plus"):
        install(adapter, unet, projection)
    unet, projection = networks(PLUS)
    with pytest.raises(
        WrongFamily, match="reads none of CLIP's.*24 wide; set projection to faceid"
    ):
        install(read_ip_adapter(written(tmp_path)), unet, projection)
    other = random(faceid_plus(SMALL.unet, rank=0, patch=16), 1)
    with pytest.raises(WrongFamily, match="patches 16 wide, the configuration reads .* 24 wide"):
        install(read_ip_adapter(save_nested(other, tmp_path / "other.bin")), unet, projection)
    del tensors["image_proj.perceiver_resampler.layers.2.0.to_kv.weight"]
    cut = read_ip_adapter(save(tensors, tmp_path / "cut.safetensors"))
    with pytest.raises(WrongFamily, match="lacks 1 tensors, the first .*layers.2.0.to_kv"):
        install(cut, unet, projection)
    assert install(adapter, unet, projection) == 32 * 4
    kept = projection.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in adapter.image_proj.items())


def test_layers_that_are_not_here_are_refused(tmp_path: Path) -> None:
    unet, projection = networks()
    tensors = random(faceid(SMALL.unet, tokens=4, rank=0), 1)
    tensors["ip_adapter.33.to_k_ip.weight"] = torch.ones(16, 32)
    with pytest.raises(WrongFamily, match="layers that are not here, the first 33"):
        install(read_ip_adapter(save_nested(tensors, tmp_path / "a.bin")), unet, projection)


def test_an_adapter_that_holds_code_is_refused(tmp_path: Path) -> None:
    torch.save({"image_proj": {"a": torch.nn.Linear(1, 1)}}, tmp_path / "a.bin")
    with pytest.raises(Unsafe, match="holds more than tensors"):
        read_ip_adapter(tmp_path / "a.bin")


def test_unified_attention_takes_the_projection_and_the_low_rank_part_only(tmp_path: Path) -> None:
    unet, projection = networks(dataclasses.replace(SMALL, attention="unified"))
    adapter = read_ip_adapter(written(tmp_path))
    assert install(adapter, unet, projection) == 128
    assert torch.equal(projection.norm.weight, adapter.image_proj["norm.weight"])
