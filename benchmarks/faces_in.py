"""What becomes of forty picture files as people send them: accepted, accepted with a word, or refused, and why.

Prints a table, then one JSON line, and writes a contact sheet (what was read, and what is drawn of it):

    python -m benchmarks.faces_in --out benchmarks/results/faces_in.json --sheet benchmarks/results/faces_in.jpg

Each file goes the way of an upload, which is that of the command line too. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.environment import describe, print_header, print_json
from benchmarks.picture_files import ACCEPTED, FILES, REFUSED, SAID, PictureFile, portrait
from engine.avatar import AvatarEngine
from engine.config import EngineConfig
from engine.errors import AvatarError
from engine.face.image_colour import plain_colour
from engine.face.image_file import Picture, read_picture
from engine.types import RgbImage
from server.portraits import Portrait, enroll_picture

TILE, LABEL, COLUMNS = 112, 26, 8
SPOKEN_FRAME = 4
COLOURS = {ACCEPTED: (60, 150, 80), SAID: (200, 140, 20), REFUSED: (190, 50, 50)}


def peak_mib() -> float:
    """The most memory this process has held since `forget_peak`, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def forget_peak() -> float:
    """Begin to watch the peak anew; what is held now, MiB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def colours_off(rgb: RgbImage) -> float | None:
    """Mean difference of an image (H, W, 3) from the portrait, of 255; None where the sizes differ."""
    wanted = np.asarray(portrait()).astype(int)
    return None if rgb.shape != wanted.shape else float(np.abs(rgb.astype(int) - wanted).mean())


def take_in(
    engine: AvatarEngine, file: PictureFile, data: bytes
) -> tuple[dict[str, Any], Picture | None, Portrait | None]:
    """Read and enrol one file: what became of it, the picture if it could be read, the portrait."""
    held = forget_peak()
    begun, cpu = time.perf_counter(), time.process_time()
    picture = known = None
    try:
        background = plain_colour(file.background) if file.background else None
        picture = read_picture(data, background)
        read = time.process_time() - cpu
        known = enroll_picture(engine, file.name, picture, file.face)
        verdict, words = (
            (SAID if known.report.notices else ACCEPTED),
            " ".join(known.report.notices),
        )
    except AvatarError as error:
        verdict, words = REFUSED, str(error)
        read = time.process_time() - cpu
    off = colours_off(picture.rgb) if picture and file.true_colours else None
    row = {
        "file": file.name,
        "kb": round(len(data) / 1000),
        "verdict": verdict,
        "words": words,
        "pixels": "" if picture is None else f"{picture.rgb.shape[1]}x{picture.rgb.shape[0]}",
        "colours_off": None if off is None else round(off, 2),
        "read_cpu_s": round(read, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - begun, 2),
        "peak_mib": round(peak_mib() - held),
    }
    row["as_expected"] = (
        verdict == file.wanted
        and file.why in words
        and (not file.true_colours or (off is not None and off < 3))
    )
    return row, picture, known


def drawn(engine: AvatarEngine, known: Portrait) -> RgbImage:
    """A frame of the portrait, in silence."""
    hop = engine.config.stream.hop_samples
    state = engine.start(known.identity)
    frames = engine.step(state, np.zeros((SPOKEN_FRAME + 3) * hop, np.float32))
    return frames[SPOKEN_FRAME].rgb


def head(rgb: RgbImage, known: Portrait | None) -> Image.Image:
    """The face of an image (H, W, 3), or all of it where none is known, as a square tile."""
    image = Image.fromarray(rgb)
    if known is not None:
        shares = known.report.faces[known.report.face - 1]
        left, top, right, bottom = np.array(shares) * np.tile(image.size, 2)
        half = 0.75 * max(right - left, bottom - top)
        x, y = (left + right) / 2, (top + bottom) / 2
        image = image.crop((int(x - half), int(y - half), int(x + half), int(y + half)))
    square = Image.new("RGB", (TILE, TILE), (235, 235, 235))
    image.thumbnail((TILE, TILE))
    square.paste(image, ((TILE - image.width) // 2, (TILE - image.height) // 2))
    return square


def tile(
    row: dict[str, Any], read: RgbImage | None, made: RgbImage | None, known: Portrait | None
) -> Image.Image:
    """What was read and what is drawn of it, side by side, with what became of it."""
    out = Image.new("RGB", (2 * TILE + 6, TILE + LABEL + 6), COLOURS[row["verdict"]])
    for i, rgb in enumerate((read, made)):
        shown = (
            head(rgb, known) if rgb is not None else Image.new("RGB", (TILE, TILE), (235, 235, 235))
        )
        out.paste(shown, (2 + i * (TILE + 2), 2))
    pen = ImageDraw.Draw(out)
    pen.text((4, TILE + 3), row["file"], fill="white")
    pen.text((4, TILE + 14), row["words"][:38], fill=(255, 240, 220))
    return out


def contact_sheet(tiles: list[Image.Image], path: Path) -> None:
    """Write the tiles in rows."""
    width, height = tiles[0].size
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    for i, image in enumerate(tiles):
        sheet.paste(image, (i % COLUMNS * width, i // COLUMNS * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=85)


def main() -> None:
    """Make the files, take them in, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--sheet", type=Path, default=Path("runs/faces_in.jpg"))
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    engine = AvatarEngine.load(EngineConfig())
    take_in(engine, FILES[0], FILES[0].make())  # what is loaded at first use
    rows, tiles = [], []
    about = describe()
    print_header(f"Pictures that come in (sheet: {args.sheet})", about)
    print(
        f"{'file':27}{'kB':>7}  {'became':9}{'read as':>11}{'colours':>8}{'CPU s':>7}{'MiB':>6}  what is said"
    )
    for file in FILES:
        if args.only not in file.name:
            continue
        row, picture, known = take_in(engine, file, file.make())
        mark = " " if row["as_expected"] else "!"
        off = "" if row["colours_off"] is None else f"{row['colours_off']:.2f}"
        print(
            f"{file.name:27}{row['kb']:>7} {mark}{row['verdict']:9}{row['pixels']:>11}{off:>8}"
            f"{row['cpu_s']:>7.2f}{row['peak_mib']:>6}  {row['words']}"
        )
        rows.append(row)
        made = None if known is None else drawn(engine, known)
        tiles.append(tile(row, picture and picture.rgb, made, known))
    contact_sheet(tiles, args.sheet)
    small = [row for row in rows if row["kb"] <= 1000]
    result = {
        "files": len(rows),
        "as_expected": sum(row["as_expected"] for row in rows),
        **{verdict: sum(row["verdict"] == verdict for row in rows) for verdict in COLOURS},
        "worst_cpu_s_up_to_1_mb": max(row["cpu_s"] for row in small),
        "worst_peak_mib_up_to_1_mb": max(row["peak_mib"] for row in small),
        "worst_peak_mib": max(row["peak_mib"] for row in rows),
    }
    print_json({"benchmark": "faces_in", **result, "each": rows, **about}, args.out)


if __name__ == "__main__":
    main()
