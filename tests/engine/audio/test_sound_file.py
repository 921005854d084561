"""Twenty bad sound files, all made here, and the good ones beside them."""

import wave
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from engine.audio.sound_file import check_sound_file, read_audio, read_voice, spoken_track
from engine.errors import MediaError


def tone(seconds: float, rate: int = 16_000, hertz: float = 440) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


def write_wav(path: Path, pcm: np.ndarray, rate: int = 16_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((pcm * 32767).astype("<i2").tobytes())
    return path


def float_wav(path: Path, samples: np.ndarray) -> None:
    data = samples.astype("<f4").tobytes()
    head = (
        b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    )
    shape = (3).to_bytes(2, "little") + (1).to_bytes(2, "little") + (16_000).to_bytes(4, "little")
    shape += (64_000).to_bytes(4, "little") + (4).to_bytes(2, "little") + (32).to_bytes(2, "little")
    path.write_bytes(head + shape + b"data" + len(data).to_bytes(4, "little") + data)


def silent_video(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def encoded(path: Path, codec: str, rate: int, pcm: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None], format="flt", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            stream.format, "mono", rate, frame_size=stream.frame_size or None
        )
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))


def damaged(path: Path, keep: int) -> None:
    write_wav(path, tone(1))
    path.write_bytes(path.read_bytes()[:keep])


def text(path: Path) -> None:
    path.write_text("this is not sound\n" * 200)


def with_nan(path: Path) -> None:
    pcm = tone(0.5)
    pcm[100] = np.nan
    float_wav(path, pcm)


def with_infinity(path: Path) -> None:
    pcm = tone(0.5)
    pcm[100] = np.inf
    float_wav(path, pcm)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes())


def cut_flac(path: Path) -> None:
    encoded(path, "flac", 16_000, tone(1))
    path.write_bytes(path.read_bytes()[:40])


def png(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(path)


def no_rate(path: Path) -> None:
    write_wav(path, tone(0.2))
    raw = bytearray(path.read_bytes())
    raw[24:28] = bytes(4)
    path.write_bytes(bytes(raw))


BAD: dict[str, Callable[[Path], object]] = {
    "empty.wav": lambda p: p.write_bytes(b""),
    "empty.mp3": lambda p: p.write_bytes(b""),
    "one_byte.wav": lambda p: p.write_bytes(b"R"),
    "zeros.wav": lambda p: p.write_bytes(bytes(5000)),
    "text.wav": text,
    "text.mp3": text,
    "noise.ogg": noise,
    "noise.wav": noise,
    "noise.m4a": noise,
    "head_only.wav": lambda p: damaged(p, 44),
    "half_head.wav": lambda p: damaged(p, 30),
    "riff_only.wav": lambda p: damaged(p, 12),
    "no_samples.wav": lambda p: write_wav(p, np.zeros(0)),
    "nan.wav": with_nan,
    "infinity.wav": with_infinity,
    "cut.flac": cut_flac,
    "picture.png": png,
    "silent_video.mp4": silent_video,
    "no_rate.wav": no_rate,
    "page.html": lambda p: p.write_text("<html><body>hello</body></html>"),
    "list.m3u8": lambda p: p.write_text("#EXTM3U\n#EXTINF:10,\n/etc/passwd\n"),
    "script.json": lambda p: p.write_text('{"audio": [1, 2, 3]}'),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    BAD[name](tmp_path / name)
    with pytest.raises(MediaError) as caught:
        read_audio(tmp_path / name)
    assert name in str(caught.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(MediaError, match="no file"):
            read_audio(path)


def test_too_long_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", tone(3))
    with pytest.raises(MediaError, match="longer than"):
        read_audio(tmp_path / "long.wav", longest_s=2)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_comes_out_at_16_khz(rate: int, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(1, rate), rate)
    pcm = read_audio(tmp_path / "a.wav")
    assert pcm.dtype == np.float32
    assert abs(len(pcm) - 16_000) <= 20
    spectrum = np.abs(np.fft.rfft(pcm[:16_000], 16_000))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_stereo_becomes_mono(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.stack([tone(1), np.zeros(16_000)], 1).reshape(-1), channels=2)
    pcm = read_audio(tmp_path / "a.wav")
    assert len(pcm) == 16_000
    assert 0.1 < np.abs(pcm).max() < 0.3


def stereo(path: Path, left: np.ndarray, right: np.ndarray) -> Path:
    return write_wav(path, np.stack([left, right], 1).reshape(-1), channels=2)


@pytest.mark.parametrize(("of_left", "of_right"), [(1, -1), (0.5, -1), (-1, 0.5)])
def test_of_channels_that_undo_each_other_the_louder_is_heard(
    of_left: float, of_right: float, tmp_path: Path
) -> None:
    path = stereo(tmp_path / "a.wav", of_left * tone(1), of_right * tone(1))
    np.testing.assert_allclose(np.abs(read_audio(path)), np.abs(tone(1)), atol=1e-4)
    assert np.abs(read_voice(path.read_bytes())).max() == pytest.approx(0.3 * 32767, rel=0.05)


def test_channels_that_say_the_same_are_as_loud_as_one(tmp_path: Path) -> None:
    both = read_audio(stereo(tmp_path / "a.wav", tone(1), tone(1)))
    np.testing.assert_allclose(both, read_audio(write_wav(tmp_path / "b.wav", tone(1))), atol=1e-6)


def with_tracks(path: Path, tracks: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in tracks]
        for stream, pcm in zip(streams, tracks, strict=True):
            whole = (pcm * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
            frame.sample_rate = 16_000
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def test_the_first_track_that_is_not_silent_is_heard(tmp_path: Path) -> None:
    quiet = 0.0005 * tone(1)
    path = with_tracks(tmp_path / "a.mkv", [quiet, tone(1, hertz=300), tone(1, hertz=700)])
    assert spoken_track(path) == 1
    assert np.abs(np.fft.rfft(read_audio(path)[:16_000], 16_000)).argmax() == 300
    assert np.abs(np.fft.rfft(read_voice(path.read_bytes())[:48_000], 48_000)).argmax() == 300
    silent = with_tracks(tmp_path / "b.mkv", [quiet, quiet])
    assert spoken_track(silent) == 0
    assert len(read_audio(silent)) == 16_000


def test_how_long_a_file_is_is_known_from_its_header(tmp_path: Path) -> None:
    assert check_sound_file(write_wav(tmp_path / "a.wav", tone(1.5))) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.flac", "flac", 44_100),
        ("a.mp3", "libmp3lame", 44_100),
        ("a.ogg", "libopus", 48_000),
        ("a.m4a", "aac", 44_100),
    ],
)
def test_common_formats_are_read(name: str, codec: str, rate: int, tmp_path: Path) -> None:
    encoded(tmp_path / name, codec, rate, tone(1, rate))
    pcm = read_audio(tmp_path / name)
    assert 15_000 < len(pcm) < 18_000
    assert np.abs(np.fft.rfft(pcm[2000:10_000])).argmax() == 220


def test_a_file_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    damaged(tmp_path / "a.wav", 44 + 16_000)
    assert abs(len(read_audio(tmp_path / "a.wav")) - 8_000) < 700


def test_loud_files_are_limited_to_full_scale(tmp_path: Path) -> None:
    float_wav(tmp_path / "a.wav", tone(1) * 20)
    assert np.abs(read_audio(tmp_path / "a.wav")).max() == 1
