from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from engine.errors import WeightsError  # noqa: E402
from engine.loaders.files import (  # noqa: E402
    Damaged,
    Unsafe,
    WrongFamily,
    fill,
    read_config,
    read_tensors,
    weight_file,
)

pytestmark = pytest.mark.train


class Payload:
    """Would run on unpickling."""

    ran = False

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import tests.engine.loaders.test_files as t; t.Payload.ran = True",))


def tensors() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(600.0).view(20, 30), "bias": torch.ones(20)}


def test_both_file_types_give_the_same(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    torch.save(tensors(), tmp_path / "a.bin")
    for name in ("a.safetensors", "a.bin"):
        read = read_tensors(tmp_path / name)
        assert read.keys() == tensors().keys()
        assert torch.equal(read["weight"], tensors()["weight"])


def test_groups_become_dotted_names_and_a_wrapper_goes_away(tmp_path: Path) -> None:
    torch.save({"image_proj": tensors(), "step": 3}, tmp_path / "a.bin")
    assert set(read_tensors(tmp_path / "a.bin")) == {"image_proj.weight", "image_proj.bias"}
    torch.save({"state_dict": tensors(), "epoch": 1}, tmp_path / "b.ckpt")
    assert set(read_tensors(tmp_path / "b.ckpt")) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["a.bin", "a.pth"])
def test_a_pickle_with_more_than_tensors_is_refused_and_does_not_run(
    tmp_path: Path, name: str
) -> None:
    torch.save({**tensors(), "extra": Payload()}, tmp_path / name)
    with pytest.raises(Unsafe, match="holds more than tensors and could run code"):
        read_tensors(tmp_path / name)
    assert not Payload.ran


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "old.bin"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(tensors(), path)
    else:
        torch.save(tensors(), path, _use_new_zipfile_serialization=name != "old.bin")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Damaged, match="damaged or cut short"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_a_page_of_text_instead_of_weights_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>please log in</html>" * 20)
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / name)


def test_missing_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no file"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"no file .*model.safetensors \(nor "):
        weight_file(tmp_path, "model")
    with pytest.raises(WeightsError, match=r"no file .*config.json"):
        read_config(tmp_path)


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(Damaged, match="is not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(Damaged, match="no JSON object"):
        read_config(tmp_path)


def test_filling_wants_every_name_and_shape(tmp_path: Path) -> None:
    with torch.device("meta"):
        layer = torch.nn.Linear(30, 20)
    assert torch.equal(fill(layer, tensors(), tmp_path).weight, tensors()["weight"])
    with pytest.raises(WrongFamily, match="lacks 1 tensors, the first bias"):
        fill(layer, {"weight": tensors()["weight"]}, tmp_path)
    with pytest.raises(WrongFamily, match="has 1 unknown ones, the first more"):
        fill(layer, {**tensors(), "more": torch.ones(1)}, tmp_path)
    with pytest.raises(WrongFamily, match=r"bias is \[3\], wanted \[20\]"):
        fill(layer, {**tensors(), "bias": torch.ones(3)}, tmp_path)


def test_half_precision_files_become_what_is_asked_for(tmp_path: Path) -> None:
    with torch.device("meta"):
        layer = torch.nn.Linear(30, 20)
    half = {n: t.half() for n, t in tensors().items()}
    assert fill(layer, half, tmp_path).weight.dtype == torch.float32
    assert fill(layer, half, tmp_path, dtype=torch.bfloat16).weight.dtype == torch.bfloat16
