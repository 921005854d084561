import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError, WeightsError
from engine.loaders.checkpoints import CHECKPOINTS
from engine.loaders.registry import (
    LicenceError,
    check_licences,
    find,
    locate,
    require,
    rows,
)
from server.cli import app

ROOT = Path(__file__).parents[3]


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def cached(cache: Path, repository: str, snapshot: str) -> Path:
    """The folder of a snapshot as the hub's client lays it down."""
    (cache / f"models--{repository}" / "refs").mkdir(parents=True)
    (cache / f"models--{repository}" / "refs" / "main").write_text(snapshot)
    return cache / f"models--{repository}" / "snapshots" / snapshot


def test_the_table_needs_no_torch_and_no_network() -> None:
    code = (
        "import sys, pathlib; from engine.loaders.registry import rows; rows(pathlib.Path('x'))\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_ids_are_unique_and_every_row_names_licence_and_command() -> None:
    assert len({c.id for c in CHECKPOINTS}) == len(CHECKPOINTS)
    for row in rows(Path("m"), cache=Path("nowhere")):
        assert row.licence
        assert row.command.startswith(("hf download ", "copy your ", "curl -L "))
        assert not row.present


@pytest.mark.parametrize("where", ["taesd", "."])
def test_a_checkpoint_is_found_in_the_models_folder(tmp_path: Path, where: str) -> None:
    put(tmp_path / where, "config.json", "diffusion_pytorch_model.safetensors")
    assert locate(find("taesd"), tmp_path, cache=tmp_path / "none") == tmp_path / where


def test_a_checkpoint_is_found_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "madebyollin--taesd", "abc")
    put(snapshot, "config.json", "diffusion_pytorch_model.safetensors")
    assert locate(find("taesd"), Path("models"), cache=tmp_path) == snapshot
    assert [r.id for r in rows(Path("models"), cache=tmp_path) if r.present] == ["taesd"]


def test_full_precision_or_the_other_file_type_serves_too(tmp_path: Path) -> None:
    put(tmp_path / "hubert-base-ls960", "config.json", "pytorch_model.safetensors")
    assert locate(find("hubert-base"), tmp_path, cache=tmp_path / "none")
    folder = tmp_path / "ControlNetMediaPipeFace" / "diffusion_sd15"
    put(folder, "config.json", "diffusion_pytorch_model.safetensors")
    assert locate(find("control-mediapipe-face"), tmp_path, cache=tmp_path / "none")


@pytest.mark.parametrize(("one", "other"), [("auraface", "antelopev2"), ("lcm-lora", "tcd-lora")])
def test_of_two_files_of_one_name_the_folder_says_which_it_is(
    one: str, other: str, tmp_path: Path
) -> None:
    """Their shapes agree too: in the models folder itself one would pass for the other."""
    assert find(one).files == find(other).files
    put(tmp_path, *find(one).files)
    none = tmp_path / "none"
    assert locate(find(one), tmp_path, cache=none) is None
    put(tmp_path / one, *find(one).files)
    assert locate(find(one), tmp_path, cache=none) == tmp_path / one
    assert locate(find(other), tmp_path, cache=none) is None


@pytest.mark.parametrize(("name", "pack"), [("insightface", "buffalo_l"), ("antelopev2",) * 2])
def test_a_pack_is_found_where_insightface_itself_keeps_it(
    name: str, pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = tmp_path / ".insightface" / "models" / pack
    put(kept, *find(name).files)
    assert locate(find(name), tmp_path / "models", cache=tmp_path / "none") == kept


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    put(tmp_path / "taesd", "config.json")
    assert locate(find("taesd"), tmp_path, cache=tmp_path / "none") is None


def test_a_missing_checkpoint_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"^taesd \(.*\) is not here; bring it with: hf download"
    ):
        require("taesd", tmp_path, cache=tmp_path)


def test_an_unknown_id_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known: sd15, "):
        find("sd16")


def test_of_several_snapshots_the_one_that_the_hub_calls_main_is_taken(tmp_path: Path) -> None:
    current = cached(tmp_path, "madebyollin--taesd", "abc")
    other = current.parent / "def"
    for snapshot in (current, other):
        put(snapshot, "config.json", "diffusion_pytorch_model.safetensors")
    assert locate(find("taesd"), Path("models"), cache=tmp_path) == current


@pytest.mark.parametrize(
    ("variable", "below"),
    [("HF_HUB_CACHE", "."), ("HF_HOME", "hub"), ("HOME", ".cache/huggingface/hub")],
)
def test_the_cache_of_the_hub_follows_its_variables(
    tmp_path: Path, variable: str, below: str
) -> None:
    snapshot = cached(tmp_path / below, "madebyollin--taesd", "abc")
    put(snapshot, "config.json", "diffusion_pytorch_model.safetensors")
    code = (
        "import pathlib; from engine.loaders.registry import find, locate\n"
        "print(locate(find('taesd'), pathlib.Path('none')))"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), variable: str(tmp_path)},
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).resolve() == snapshot.resolve()


def test_without_the_hubs_client_the_models_folder_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert locate(find("taesd"), tmp_path) is None
    put(tmp_path, "config.json", "diffusion_pytorch_model.safetensors")
    assert locate(find("taesd"), tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["faceid", "insightface", "hyper-sd-1step", "tcd-lora"])
def test_commercial_use_refuses_what_the_licence_forbids_or_does_not_say(name: str) -> None:
    check_licences([find(name)], "research")
    with pytest.raises(LicenceError, match=f"licence of {name}"):
        check_licences([find("taesd"), find(name)], "commercial")


def test_commercial_use_takes_the_rest() -> None:
    check_licences([c for c in CHECKPOINTS if c.commercial], "commercial")


def test_models_lists_what_is_here_and_how_to_bring_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    put(tmp_path / "taesd", "config.json", "diffusion_pytorch_model.safetensors")
    done = CliRunner().invoke(
        app,
        ["models", "--models-dir", str(tmp_path)],
        env={"COLUMNS": "200"},
    )
    assert done.exit_code == 0
    line = next(x for x in done.output.splitlines() if x.strip().startswith("taesd"))
    assert line.split()[-1] == "yes"
    assert "hf download h94/IP-Adapter-FaceID" in done.output
    assert "hf download madebyollin/taesd" not in done.output


def test_tiny_needs_nothing() -> None:
    done = CliRunner().invoke(app, ["models", "--profile", "tiny"])
    assert done.output.strip() == "tiny: nothing to bring, its weights are in the package"


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match="known: tiny, sd15"):
        rows(Path("m"), profile="sd2")
