"""How well the invisible mark is read, how often one is seen that is not there, what it costs and shows.

Every portrait of a folder speaks for four seconds as it would live: its frames are marked, coded at each
rate by the server's own encoders, and read window by window (2 s) without knowing scale or place.

  read        windows whose deployment and session are read: as they come, scaled to 0.75, and one
              frame as a screenshot of a page (0.9375 of its size, cut, beside text)
  alarms      what is read with keys that nobody used, in marked pictures and in plain ones
  psnr, cost  of the luma plane; processor time of marking one frame of 512 pixels

    python -m benchmarks.marks --portraits FOLDER --audio speech.wav

Prints a table, then one JSON line, and writes a picture: plain, marked, twenty times their difference,
and what a viewer sees at 1 Mbit/s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.environment import describe, print_header, print_json
from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.face.image_file import decode_image
from engine.offline.video import frames_of
from engine.watermark.detector import Found, find_mark, flattened
from engine.watermark.mark import Mark
from engine.watermark.payload import Payload
from server.live.yuv import as_frame, to_yuv
from server.webrtc.encoders import make_h264, make_vp8

SIDE, WINDOW, WINDOWS = 512, 50, 2
CODECS, RATES = ("vp8", "h264"), (500_000, 1_000_000, 2_000_000)
LOOKED_AT = 1_000_000  # bit/s at which pictures are scaled and photographed, too
SHOWN, CUT = 3, 256  # portraits in the picture, and pixels of each
Planes = list[NDArray[np.uint8]]


def spoken(engine: AvatarEngine, portrait: Path, pcm: NDArray[np.float32], seed: int) -> Planes:
    """What a live session shows, planes of YUV."""
    identity = engine.enroll(decode_image(portrait.read_bytes()))
    frames = [to_yuv(frame.rgb) for frame in frames_of(engine, identity, pcm, seed)]
    return frames[: WINDOW * WINDOWS]


def coded(frames: Planes, codec: str, bits_per_second: int) -> Iterator[NDArray[np.uint8]]:
    """Planes of YUV as a viewer decodes them."""
    height, width = frames[0].shape[0] * 2 // 3, frames[0].shape[1]
    make = make_vp8 if codec == "vp8" else make_h264
    encoder = make(width, height, bits_per_second)
    decoder = av.CodecContext.create(codec, "r")
    for index, yuv in enumerate(frames):
        frame = as_frame(yuv)
        frame.pts, frame.time_base = index, Fraction(1, 25)
        for packet in encoder.encode(frame):
            for picture in decoder.decode(packet):
                yield picture.to_ndarray()


def luma(yuv: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The plane Y (H, W) of planes (3H/2, W)."""
    return yuv[: yuv.shape[0] * 2 // 3]


def scaled(plane: NDArray[np.uint8], by: float) -> NDArray[np.uint8]:
    """A plane (H, W) in another size."""
    size = (round(plane.shape[1] * by), round(plane.shape[0] * by))
    return np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))


def window(planes: Planes) -> NDArray[np.float32]:
    """What a detector looks at of 2 s."""
    total: NDArray[np.float32] = np.sum([flattened(plane) for plane in planes[::5]], 0)
    return total


def screenshot(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A page with the face on it, smaller and cut, and text beside it."""
    face = Image.fromarray(scaled(plane, 0.9375)[20:, 9:])
    page = Image.new("L", (face.width + 420, face.height + 120), 244)
    pen = ImageDraw.Draw(page)
    for line in range(page.height // 20):
        pen.text((face.width + 60, 20 * line), f"line {line} of a page with much to read on it", 30)
    page.paste(face, (37, 81))
    return np.asarray(page)


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of two planes, dB."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def read(found: Found | None, payload: Payload) -> bool:
    """Whether that is what was marked."""
    return found is not None and found.payload == payload


def readings(frames: Planes, payload: Payload, reads: dict[str, list[bool]]) -> Planes:
    """Read one portrait's marked frames after all that is done to them; returns those of a viewer."""
    viewed: Planes = []
    for codec in CODECS:
        for rate in RATES:
            seen = list(coded(frames, codec, rate))
            name = f"{codec} {rate / 1e6:g}"
            parts = [
                [luma(yuv) for yuv in seen[at : at + WINDOW]] for at in range(0, len(seen), WINDOW)
            ]
            for part in parts:
                reads.setdefault(name, []).append(read(find_mark(window(part)), payload))
            if rate != LOOKED_AT:
                continue
            small = window([scaled(plane, 0.75) for plane in parts[0]])
            reads.setdefault(f"{name} x0.75", []).append(read(find_mark(small), payload))
            shot = flattened(screenshot(parts[-1][-1]))
            reads.setdefault(f"{name} screenshot", []).append(read(find_mark(shot), payload))
            viewed = viewed or seen
    return viewed


def alarms(frames: Planes, keys: range) -> int:
    """Marks that are read with keys that nobody used, in 2 s."""
    flat = window([luma(yuv) for yuv in frames[:WINDOW]])
    return sum(find_mark(flat, [f"nobody's key {key}"], 1.0) is not None for key in keys)


def cost_ms() -> float:
    """Processor time of marking a frame, the median."""
    mark = Mark(Payload.of("cost", "cost"))
    plane = np.random.default_rng(0).integers(20, 230, (SIDE, SIDE)).astype(np.uint8)
    took = []
    for _ in range(400):
        began = time.thread_time()
        mark.on_luma(plane.copy())
        took.append(time.thread_time() - began)
    return 1000 * float(np.median(took[1:]))


def sheet_row(plain: Planes, marked: Planes, viewed: Planes) -> NDArray[np.uint8]:
    """One portrait on the sheet."""
    at = len(plain) // 2
    pictures = [as_frame(yuv).to_ndarray(format="rgb24") for yuv in (plain[at], marked[at])]
    difference = luma(marked[at]).astype(int) - luma(plain[at])
    shown = np.clip(128 + 20 * difference, 0, 255).astype(np.uint8)
    last = as_frame(viewed[at]).to_ndarray(format="rgb24")
    row = [*pictures, np.repeat(shown[..., None], 3, 2), last]
    top, left = (max(0, n - CUT) // 2 for n in shown.shape)
    return np.hstack([each[top : top + CUT, left : left + CUT] for each in row])


def measured(args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Planes]]:
    """All figures, and the rows of the picture, after each portrait."""
    engine, pcm = AvatarEngine.load(), read_audio(args.audio)
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = [f for f in sorted(args.portraits.iterdir()) if f.suffix.lower() in suffixes]
    reads: dict[str, list[bool]] = {}
    quality: list[float] = []
    sheet: Planes = []
    false = tried = 0
    for number, path in enumerate(files[: args.limit]):
        payload = Payload.of("benchmark", path.stem)
        mark = Mark(payload)
        plain = spoken(engine, path, pcm[: 16_000 * 5], number)
        marked = [yuv.copy() for yuv in plain]
        for yuv in marked:
            mark.on_luma(luma(yuv))
        quality += [psnr(luma(a), luma(b)) for a, b in zip(plain[::25], marked[::25], strict=True)]
        viewed = readings(marked, payload, reads)
        for frames in (plain, marked):
            false += alarms(frames, range(tried, tried + args.keys))
            tried += args.keys
        false += find_mark(window([luma(yuv) for yuv in plain[:WINDOW]])) is not None
        if len(sheet) < SHOWN:
            sheet.append(sheet_row(plain, marked, viewed))
        yield (
            {
                "portraits": number + 1,
                "windows": {name: len(each) for name, each in reads.items()},
                "read": {name: round(sum(each) / len(each), 4) for name, each in reads.items()},
                "false_alarms": {"found": false, "tried": tried + number + 1},
                "psnr_db": {"mean": round(np.mean(quality), 2), "least": round(min(quality), 2)},
                "cost_ms": round(cost_ms(), 3),
            },
            sheet,
        )


def main() -> None:
    """Draw, mark, code, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--portraits", type=Path, required=True, help="folder of images")
    parser.add_argument("--audio", type=Path, required=True, help="what they say")
    parser.add_argument("--limit", type=int, default=24, help="only the first portraits")
    parser.add_argument("--keys", type=int, default=650, help="wrong keys a portrait, twice")
    parser.add_argument("--sheet", type=Path, default=Path("runs/marks.png"))
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    for result, sheet in measured(args):
        show(result, sheet, args)


def show(result: dict[str, Any], sheet: Planes, args: argparse.Namespace) -> None:
    """Print the table of what is measured so far, and write it with the picture."""
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(sheet)).save(args.sheet, optimize=True)
    about = describe()
    print_header(f"Invisible mark (picture: {args.sheet})", about)
    print(f"{'':<24}{'windows':>10}{'read':>10}")
    for name, share in result["read"].items():
        print(f"{name:<24}{result['windows'][name]:>10}{share:>10.1%}")
    false, quality = result["false_alarms"], result["psnr_db"]
    print(f"false alarms            {false['found']} of {false['tried']}")
    print(f"PSNR                    {quality['mean']} dB, least {quality['least']}")
    print(f"cost                    {result['cost_ms']} ms of a processor a frame")
    print_json({"benchmark": "marks", **result, **about}, args.out)


if __name__ == "__main__":
    main()
