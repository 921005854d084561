"""Talking videos become clips; broken ones are named; a killed run goes on."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.audio.speech_encoder import WIDTH
from engine.backends import load_backend
from engine.config import EngineConfig
from engine.errors import ConfigError, DataError, MediaError
from engine.face.candidates import FaceCrop
from engine.face.detector import (
    DETECTOR,
    LANDMARKS,
    Face,
    FaceReader,
    aligned_crop,
    face_box,
)
from engine.face.framing import cut_square
from engine.face.head_mask import head_mask
from engine.training.commands import PrepareOptions, parse_shard, prepare_folder
from engine.training.data.clips import Clip, load_clips
from engine.training.data.contact_sheet import contact_sheet, report
from engine.training.data.face_masks import holes, lower_face_mask
from engine.training.data.face_track import TrackSettings, track
from engine.training.data.labeller import FaceLabel
from engine.training.data.mediapipe_reader import MediaPipeReader
from engine.training.data.prepare import PrepareSettings, Tools, prepare
from engine.training.data.talking_video import HOP, frames_at, sound_of
from engine.training.data.video_folders import find_videos, held_out

SIDE, HEAD = 96, 48
SHAPE = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2)).astype(np.float32)
SHAPE[[33, 263, 2, 10, 152, 4]] = [
    (-0.3, -0.2), (0.3, -0.2), (0, 0.1), (0, -0.5), (0, 0.5), (0, 0.05),
]  # fmt: skip


def write_video(
    path: Path, pictures: list[np.ndarray], *, fps: int = 25, tone: float | None = 440.0
) -> Path:
    """Encode pictures (H, W, 3), with a tone beside them unless `tone` is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "12"})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono") if tone else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            time = np.arange(len(pictures) * 16000 // fps) / 16000
            pcm = (0.5 * np.sin(2 * np.pi * (tone or 0) * time)).astype(np.float32)
            for start in range(0, len(pcm), 1024):
                piece = av.AudioFrame.from_ndarray(
                    pcm[None, start : start + 1024], format="fltp", layout="mono"
                )
                piece.sample_rate, piece.pts = 16000, start
                container.mux(sound.encode(piece))
            container.mux(sound.encode(None))
    return path


def head(x: float, y: float = 48, wall: int = 30) -> np.ndarray:
    """A picture with a bright square, which `SquareReader` takes for a face."""
    picture = np.full((SIDE, SIDE, 3), wall, np.uint8)
    half = HEAD // 2
    picture[int(y) - half : int(y) + half, int(x) - half : int(x) + half] = 230
    return picture


class SquareReader:
    """Reads bright squares as faces, as the face reader reads faces; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def faces(self, rgb: np.ndarray) -> list[Face]:
        self.asked += 1
        rows, columns = np.nonzero(rgb[:, :, 1] > 150)
        if len(rows) < 100:
            return []
        middle = np.array([columns.mean(), rows.mean()], np.float32)
        points = SHAPE * HEAD * 2 + middle  # twice as large: a face of 80 pixels and more
        return [Face(points, np.zeros(52, np.float32), 0.1, 0.0, 0.0, 0.99, face_box(points))]

    def look(self, image: Image.Image, crop: FaceCrop) -> Face:
        found = self.faces(np.asarray(image))
        missing = dataclasses.replace(
            Face(SHAPE, np.zeros(52, np.float32), 0, 0, 0, 0.0, face_box(SHAPE))
        )
        return found[0] if found else missing


class Corner:
    """Stands in for a face encoder."""

    name, width = "corner", 3

    def __call__(self, rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return rgb[rgb.shape[0] // 2, rgb.shape[1] // 2].astype(np.float32) / 255


def tools(reader: SquareReader | None = None) -> Tools:
    features = lambda pcm: np.zeros((len(pcm) // 320, 4), np.float32)
    return Tools(reader or SquareReader(), features, Corner())  # type: ignore[arg-type]


SETTINGS = PrepareSettings(size=64, references=4, track=TrackSettings(least_frames=5))


def talker(count: int = 12) -> list[np.ndarray]:
    return [head(48 + (i % 3)) for i in range(count)]


# -- reading


@pytest.mark.parametrize(("fps", "count"), [(25, 25), (30, 30), (50, 50), (10, 10)])
def test_any_frame_rate_becomes_25(tmp_path: Path, fps: int, count: int) -> None:
    shades = [np.full((32, 32, 3), 8 * (i % 30), np.uint8) for i in range(count)]
    frames = list(frames_at(write_video(tmp_path / "v.mp4", shades, fps=fps, tone=None)))
    assert len(frames) == 25
    for k, frame in enumerate(frames):
        last = min(k / 25, (count - 1) / fps)
        nearest = {8 * (i % 30) for i in range(count) if abs(i / fps - last) <= 0.5 / fps + 1e-6}
        assert min(abs(float(frame.mean()) - shade) for shade in nearest) < 4


def test_sound_lies_under_its_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", talker(10))
    sound = sound_of(path, 10)
    assert sound is not None
    assert len(sound) == 10 * HOP
    assert np.abs(sound[2000:4000]).max() > 0.3
    assert len(sound_of(path, 14)) == 14 * HOP, "silence is added where the sound is shorter"
    assert sound_of(write_video(tmp_path / "mute.mp4", talker(5), tone=None), 5) is None


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    whole = write_video(tmp_path / "whole.mp4", talker()).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match="no file"):
        list(frames_at(tmp_path / "missing.mp4"))
    for name in ("text.mp4", "cut.mp4"):
        with pytest.raises(MediaError, match="cannot be read"):
            list(frames_at(tmp_path / name))


# -- layouts


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    for name in ("RD_Radio1_000.mp4", "WDA_Someone_001.mp4", "WDA_Someone_000.mp4"):
        touch(tmp_path / "hdtf" / name)
    touch(tmp_path / "plain/anna/a.mp4")
    touch(tmp_path / "plain/b.mov")
    touch(tmp_path / "mead/M003/video/front/angry/level_2/001.mp4")
    touch(tmp_path / "mead/W011/video/front/neutral/level_1/001.mp4")
    touch(tmp_path / "mead/W011/video/left_30/neutral/level_1/001.mp4")
    sound = touch(tmp_path / "mead/M003/audio/angry/level_2/001.m4a")

    hdtf = find_videos(tmp_path / "hdtf")
    assert [v.person for v in hdtf] == ["RD_Radio1", "WDA_Someone", "WDA_Someone"]
    assert len({v.split for v in hdtf[1:]}) == 1, "a person is in one split only"
    assert [v.person for v in find_videos(tmp_path / "plain")] == ["anna", "b"]
    mead = find_videos(tmp_path / "mead")
    assert [(v.person, v.split) for v in mead] == [("M003", "test"), ("W011", "train")]
    assert mead[0].prompt.endswith(", angry")
    assert mead[0].sound == sound
    assert not mead[1].prompt.endswith("neutral")
    assert mead[1].sound is None


def test_folders_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        find_videos(tmp_path / "none")
    with pytest.raises(DataError, match="no videos"):
        find_videos(tmp_path)
    touch(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="MEAD"):
        find_videos(tmp_path, "mead")
    touch(tmp_path / "a.mov")
    with pytest.raises(DataError, match="both be called"):
        find_videos(tmp_path)


def test_a_fifth_of_the_people_is_held_out() -> None:
    share = np.mean([held_out(f"person {i}", 0.2) for i in range(2000)])
    assert 0.17 < share < 0.23


# -- tracking


def test_cuts_gaps_and_jumps_end_a_piece() -> None:
    film = [head(40 + i) for i in range(10)]
    film += [head(50, wall=140) for _ in range(8)]  # a cut: another wall
    film += [np.zeros((SIDE, SIDE, 3), np.uint8)] * 3  # nobody
    film += [head(40) for _ in range(4)]  # too short
    pieces = track(film, SquareReader(), TrackSettings(least_frames=5))  # type: ignore[arg-type]
    assert [(p.first, len(p.faces)) for p in pieces] == [(0, 10), (10, 8)]


def test_long_pieces_are_cut() -> None:
    settings = TrackSettings(least_frames=3, longest_frames=6)
    pieces = track([head(48)] * 13, SquareReader(), settings)  # type: ignore[arg-type]
    assert [(p.first, len(p.faces)) for p in pieces] == [(0, 6), (6, 6)]


# -- masks and crops


def test_masks_hide_what_they_say() -> None:
    angle = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    points = 0.5 + 0.25 * np.stack([np.sin(angle), -np.cos(angle)], 1)
    from engine.face.topology import JAW, OVAL

    ring = np.linspace(0, 2 * np.pi, len(OVAL) - 1, endpoint=False)
    points[list(OVAL[:-1])] = 0.5 + 0.25 * np.stack([np.sin(ring), -np.cos(ring)], 1)
    points[[33, 263, 4]] = [(0.4, 0.45), (0.6, 0.45), (0.5, 0.55)]
    points = points.astype(np.float32)
    head_only, lower = (mask(points, 64) for mask in (head_mask, lower_face_mask))
    assert head_only[32, 32] == 1
    assert head_only[2, 2] == head_only[60, 60] == 0
    assert lower[2, 2] == lower[20, 32] == 1, "the upper face is kept"
    assert lower[40, 32] == 0, "the mouth is hidden"
    for x, y in points[list(JAW)]:
        if y > 0.6:
            assert lower[int(y * 63), int(x * 63)] == 0, "and so is the jaw's contour"
    gone = holes(np.random.RandomState(0), 64, 0.4)
    assert 0.3 < gone.mean() < 0.8
    assert set(np.unique(gone)) == {0, 1}


def test_crops_beyond_the_picture_are_black() -> None:
    white = np.full((20, 30, 3), 255, np.uint8)
    crop = cut_square(white, np.array([-10.0, -10.0]), 20.0, 20)
    assert crop.shape == (20, 20, 3)
    assert crop[:9, :9].max() == 0
    assert crop[11:, 11:].min() == 255
    assert cut_square(white, np.array([5.0, 5.0]), 10.0, 40).min() == 255


# -- the whole


def test_videos_become_clips(tmp_path: Path) -> None:
    film = talker(12) + [np.zeros((SIDE, SIDE, 3), np.uint8)] + talker(6)
    write_video(tmp_path / "v/anna/one.mp4", film)
    write_video(tmp_path / "v/empty.mp4", [np.zeros((SIDE, SIDE, 3), np.uint8)] * 8)
    (tmp_path / "v/broken.mp4").write_bytes(b"no video")
    records = prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS)
    assert [r.clips for r in records] == [("anna__one_000", "anna__one_001"), (), ()]
    first, second = load_clips(tmp_path / "out")
    assert (len(first), len(second)) == (12, 6)
    assert (first.card.person, second.card.first_frame) == ("anna", 13)
    assert first.frame(3).shape == (64, 64, 3)
    assert first.sound().shape == (12 * HOP,)
    assert first.speech().shape == (24, 4)
    assert first.embeddings.shape == (4, 3)
    assert first.embeddings.min() > 0.7, "made of the bright head, each one"
    # landmarks are in units of the crop: the head's middle is where the picture is bright
    where = np.argwhere(first.frame(0)[:, :, 1] > 150)[:, ::-1].mean(0) / 64
    np.testing.assert_allclose(first.landmarks[0].mean(0), where + SHAPE.mean(0) * 0.9, atol=0.1)
    text = report(records)
    assert "1 of 3 videos gave 2 clips, 18 frames" in text
    assert "left out: broken.mp4: broken.mp4 cannot be read" in text
    assert "left out: empty.mp4: no face of 80 px" in text
    contact_sheet([first, second], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (7 * 112, 2 * 112)


def test_finished_videos_are_not_touched_again(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4", talker())
    (tmp_path / "v/broken.mp4").write_bytes(b"no video")
    first, again = SquareReader(), SquareReader()
    out = tmp_path / "out"
    records = prepare(tmp_path / "v", out, tools(first), SETTINGS)
    assert first.asked
    assert prepare(tmp_path / "v", out, tools(again), SETTINGS) == records
    assert again.asked == 0

    write_video(tmp_path / "v/a.mp4", talker(7))  # another film under the same name
    assert prepare(tmp_path / "v", out, tools(again), SETTINGS)[0].frames == 7
    assert len(load_clips(out)) == 1
    (out / "records/a.json").write_text("{half a rec")
    assert prepare(tmp_path / "v", out, tools(), SETTINGS)[0].frames == 7


class Killed(Exception):
    pass


class Dies(Corner):
    """The process is killed at the second reference frame of a clip."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == 2:
            raise Killed
        return super().__call__(rgb, landmarks)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / f"v/{name}.mp4", talker())
    out = tmp_path / "out"

    def dies(done: int, total: int, name: str) -> None:
        if name == "c.mp4":
            raise Killed

    with pytest.raises(Killed):
        prepare(tmp_path / "v", out, tools(), SETTINGS, progress=dies)

    with pytest.raises(Killed):  # in the middle of writing a clip
        prepare(tmp_path / "v", out, dataclasses.replace(tools(), embed=Dies()), SETTINGS)
    assert [p.name for p in (out / "clips").iterdir() if p.suffix == ".part"] == ["c_000.part"]
    assert len(load_clips(out)) == 2, "half a clip is none"
    reader = SquareReader()
    prepare(tmp_path / "v", out, tools(reader), SETTINGS)
    assert len(load_clips(out)) == 3
    assert reader.asked < 3 * 12, "only the third video was read"
    assert not list((out / "clips").glob("*.part"))


def test_shards_share_the_videos(tmp_path: Path) -> None:
    for name in "abc":
        write_video(tmp_path / f"v/{name}.mp4", talker(6))
    even = prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS, shard=(0, 2))
    odd = prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS, shard=(1, 2))
    assert [r.video for r in (*even, *odd)] == ["a.mp4", "c.mp4", "b.mp4"]
    assert parse_shard("1/2") == (1, 2)
    for bad in ("2/2", "1", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="I/N"):
            parse_shard(bad)


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4", talker())
    prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS)
    other = dataclasses.replace(SETTINGS, size=128)
    with pytest.raises(ConfigError, match="other settings"):
        prepare(tmp_path / "v", tmp_path / "out", tools(), other)
    (clip,) = load_clips(tmp_path / "out")
    assert clip.card.landmarks == "bundled"
    kept = json.loads((tmp_path / "out/prepare.json").read_text())
    del kept["landmarks"]  # as it was written before there was a choice
    (tmp_path / "out/prepare.json").write_text(json.dumps(kept))
    prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS)
    mixed = dataclasses.replace(tools(), landmarks="mediapipe")
    with pytest.raises(ConfigError, match=r"other settings \(landmarks\)"):
        prepare(tmp_path / "v", tmp_path / "out", mixed, SETTINGS)


def test_damaged_clips_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "v/a.mp4", talker())
    prepare(tmp_path / "v", tmp_path / "out", tools(), SETTINGS)
    folder = tmp_path / "out/clips/a_000"
    card = json.loads((folder / "clip.json").read_text())
    (folder / "clip.json").write_text(json.dumps({**card, "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        Clip(folder)
    (folder / "clip.json").write_text(json.dumps(card))
    (folder / "clip.npz").write_bytes(b"gone")
    with pytest.raises(DataError, match="no prepared clip"):
        load_clips(tmp_path / "out")
    with pytest.raises(DataError, match="no prepared clips under"):
        load_clips(tmp_path)


def test_the_real_networks_prepare_a_portrait_that_moves(tmp_path: Path) -> None:
    with Image.open(Path(__file__).parents[3] / "server/data/astronaut.png") as whole:
        portrait = np.asarray(whole.convert("RGB").crop((60, 0, 380, 320)))
    film = [np.roll(portrait, i, 1) for i in range(8)]
    write_video(tmp_path / "v/astronaut.mp4", film)
    options = PrepareOptions(size=128, least_frames=5)
    text = prepare_folder(tmp_path / "v", tmp_path / "out", options)
    assert "1 of 1 videos gave 1 clips, 8 frames" in text
    (clip,) = load_clips(tmp_path / "out")
    assert clip.speech().shape == (16, WIDTH)
    assert clip.embeddings.shape == (8, 512)
    moved = clip.landmarks[7].mean(0) - clip.landmarks[0].mean(0)
    assert moved[0] == pytest.approx(7 / clip.card.crop[2], abs=0.006)
    assert (tmp_path / "out/contact_sheet.png").exists()
    assert (tmp_path / "out/report_0_of_1.txt").read_text() == text


def test_what_mediapipe_sees_in_a_turned_crop_is_placed_in_the_picture() -> None:
    """Its stand-in reads with our own networks what it is shown, and sees only faces larger than 150."""
    backend, bundled = load_backend("openvino", threads=1), EngineConfig().weights
    graphs = [backend.load(spec, bundled / f"{spec.name}.onnx") for spec in (DETECTOR, LANDMARKS)]
    own, shown = FaceReader(*graphs), []

    def label(rgb: np.ndarray) -> FaceLabel | None:
        shown.append(rgb)
        seen = own.faces(rgb)
        if not seen or seen[0].side < 150:
            return None
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3] = [[np.cos(0.2), 0, np.sin(0.2)], [0, 1, 0], [-np.sin(0.2), 0, np.cos(0.2)]]
        points = np.concatenate([seen[0].landmarks / rgb.shape[0], np.zeros((478, 1))], 1)
        return FaceLabel(points.astype(np.float32), np.full(52, 0.25, np.float32), pose)

    reader = MediaPipeReader(*graphs, label)  # type: ignore[arg-type]
    with Image.open(Path(__file__).parents[3] / "server/data/astronaut.png") as whole:
        turned = np.asarray(whole.convert("RGB").rotate(20))
    (face,), (wanted,) = reader.faces(turned), own.faces(turned)
    assert {rgb.shape for rgb in shown} == {(512, 512, 3)}
    error = np.linalg.norm(face.landmarks - wanted.landmarks, axis=1).mean()
    assert error < 0.02 * wanted.side
    assert (face.yaw, face.pitch) == pytest.approx((0.2, 0.0), abs=1e-5)
    assert face.roll == pytest.approx(wanted.roll, abs=0.03)
    assert face.scores.max() == 0.25
    crop = aligned_crop(face.landmarks)
    far = reader.look(Image.fromarray(turned), dataclasses.replace(crop, side=6 * crop.side))
    assert far.confidence == 0
