import csv
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig
from engine.errors import MediaError, WeightsError
from engine.face import arkit
from engine.offline.motion_file import (
    CSV_COLUMNS,
    MotionTrack,
    motion,
    timecode,
    write_csv,
    write_npz,
)
from tests.engine.audio.test_sound_file import tone, write_wav


@pytest.fixture
def track() -> MotionTrack:
    rng = np.random.default_rng(0)
    pose = np.tile(np.array([0.1, -0.2, 0.3, 0, 0, 1], np.float32), (60, 1))
    return MotionTrack(rng.random((60, 52), np.float32), pose, np.zeros(60, np.float32))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_live_link_faces_columns_in_its_order() -> None:
    assert len(CSV_COLUMNS) == 63
    assert CSV_COLUMNS[:3] == ("Timecode", "BlendShapeCount", "EyeBlinkLeft")
    jaw = CSV_COLUMNS.index("JawForward")
    assert CSV_COLUMNS[jaw : jaw + 4] == ("JawForward", "JawRight", "JawLeft", "JawOpen")
    assert CSV_COLUMNS.index("MouthRight") + 1 == CSV_COLUMNS.index("MouthLeft")
    assert CSV_COLUMNS[-10:-6] == ("TongueOut", "HeadYaw", "HeadPitch", "HeadRoll")
    assert CSV_COLUMNS[-1] == "RightEyeRoll"


def test_csv_values_stand_under_their_own_names(track: MotionTrack, tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", track)
    read = rows(tmp_path / "m.csv")
    assert len(read) == 60
    for name in arkit.NAMES:
        got = [float(r[name[0].upper() + name[1:]]) for r in read]
        np.testing.assert_allclose(got, track.coefficients[:, arkit.index(name)], atol=1e-6)
    assert float(read[0]["HeadPitch"]) == pytest.approx(-0.2)
    assert {r["BlendShapeCount"] for r in read} == {"61"}
    assert read[26]["Timecode"] == "00:00:01:01.000"


def test_eyes_turn_the_way_the_gaze_goes(tmp_path: Path) -> None:
    face = np.zeros((1, 52), np.float32)
    face[0, arkit.indices("eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft")] = 0.5
    write_csv(
        tmp_path / "m.csv", MotionTrack(face, np.zeros((1, 6), np.float32), np.zeros(1, np.float32))
    )
    row = rows(tmp_path / "m.csv")[0]
    assert float(row["LeftEyeYaw"]) == float(row["RightEyeYaw"]) > 0
    assert float(row["LeftEyePitch"]) < 0 == float(row["RightEyePitch"])


def test_npz_holds_what_it_says(track: MotionTrack, tmp_path: Path) -> None:
    write_npz(tmp_path / "m.npz", track)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert tuple(file["names"]) == arkit.NAMES
        np.testing.assert_array_equal(file["v"], track.coefficients)
        np.testing.assert_array_equal(file["pose"], track.pose)
        assert file["fps"] == 25


def test_timecode_counts_frames_of_25() -> None:
    assert timecode(25 * 3661 + 7) == "01:01:01:07.000"


@pytest.mark.parametrize("name", ["m.csv", "m.npz"])
def test_a_sound_file_becomes_one_frame_per_40_ms(name: str, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(1.01))
    assert motion(tmp_path / "a.wav", tmp_path / name) == 26
    assert (tmp_path / name).stat().st_size > 1000


def test_without_idle_life_eyes_and_head_rest(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(4))
    motion(tmp_path / "a.wav", tmp_path / "m.npz", idle=False)
    with np.load(tmp_path / "m.npz") as file:
        assert file["v"][:, arkit.EYES].max() == 0
        np.testing.assert_array_equal(np.unique(file["pose"], axis=0), [[0, 0, 0, 0, 0, 1]])


def test_other_endings_and_bad_sound_and_missing_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.csv or \.npz"):
        motion(tmp_path / "a.wav", tmp_path / "m.txt")
    (tmp_path / "bad.wav").write_text("no")
    with pytest.raises(MediaError, match=r"bad\.wav"):
        motion(tmp_path / "bad.wav", tmp_path / "m.csv")
    write_wav(tmp_path / "a.wav", tone(0.2))
    with pytest.raises(WeightsError, match=r"speech\.onnx"):
        motion(tmp_path / "a.wav", tmp_path / "m.csv", EngineConfig(weights=tmp_path))
