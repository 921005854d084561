"""The talking face itself: is it the person, does the mouth close and open, what does it look like?

Every portrait of a folder says the same sound. Measured on the finished frames with the public
landmarker and a face-recognition network, neither of which the engine uses:

  identity     SFace cosine between the portrait and its talking frames
  gap_*        lip gap over face height (landmarks 13-14 over 10-152) on all frames: percentiles;
               real talkers: 2nd .0005-.002, median .003-.05, 90th .05-.08
  gap_spread   90th less 10th percentile; `--clip` measures a real talker's in the same way
  meeting      share of stretches of five frames in which the lips meet
  lid_off      L* of a closed lid less that of the skin around the eye, the worse eye
  blink        the landmarker's blink score of closed eyes (eyes that really are closed: about .6)
  gap_, upper_, lower_ rest, pressed   lip gap, and thickness of the lips over the portrait's own
  teeth_*      L*, a*, b*; L* over the cheeks'; distance (L*a*b*) from the person's own, where shown
  grey_coloured  share of pixels above chroma 6 in the worst frame of the portrait in grey

Writes contact sheets to look at, prints a table, then one JSON line. Needs the extras `train` and
`label`, and the file `face_landmarker.task`. `--against` shows an earlier result beside this one.

    python -m benchmarks.quality --portraits FOLDER --audio speech.wav --landmarker face_landmarker.task
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.appearance import appearance, meeting, sheets
from benchmarks.environment import describe, print_header, print_json
from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.config import FPS, EngineConfig
from engine.errors import PortraitRefused
from engine.evaluation.identity import IdentityScore
from engine.evaluation.track import follow
from engine.face.image_file import decode_image
from engine.face.landmarks import lip_gap
from engine.offline.video import frames_of
from engine.training.data.labeller import Labeller
from engine.training.data.talking_video import frames_at


def pixels(label: Labeller, rgb: np.ndarray) -> np.ndarray | None:
    """Landmarks (478, 2) in pixels as the public landmarker sees them."""
    found = label(rgb)
    return (
        None if found is None else found.landmarks[:, :2] * np.float32([rgb.shape[1], rgb.shape[0]])
    )


def face_crop(rgb: np.ndarray, landmarks: np.ndarray, side: int) -> np.ndarray:
    """The face with some hair, for the sheet."""
    low, high = landmarks.min(0), landmarks.max(0)
    size = float((high - low).max()) * 1.5
    scale = side / size
    shift = side / 2 - scale * (low + high) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        rgb, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )


def judge(
    engine: AvatarEngine,
    path: Path,
    pcm: np.ndarray,
    label: Labeller,
    who: IdentityScore,
    args: Any,
) -> tuple[dict[str, Any], np.ndarray, list[np.ndarray]] | None:
    """Figures, lip gaps and shown crops of one portrait; None when it is refused."""
    portrait = decode_image(path.read_bytes())
    try:
        identity = engine.enroll(portrait)
    except PortraitRefused as refusal:
        tqdm.write(f"{path.name}: {refusal}")
        return None
    still = identity.face.composite.maps.rgb
    at_rest = pixels(label, still)
    assert at_rest is not None, f"the public landmarker finds no face in {path}"
    wanted = who.embed(still, at_rest)
    gaps, cosines, crops, lost = [], [], [face_crop(still, at_rest, args.tile)], 0
    shown = set(np.linspace(args.skip, len(pcm) // 640 - 1, args.columns).astype(int).tolist())
    for frame in frames_of(engine, identity, pcm):
        landmarks = pixels(label, frame.rgb)
        if landmarks is None:
            lost += 1
            continue
        gaps.append(float(lip_gap(landmarks)))
        if frame.index % 5 == 0:
            cosines.append(float(wanted @ who.embed(frame.rgb, landmarks)))
        if frame.index in shown:
            crops.append(face_crop(frame.rgb, at_rest, args.tile))
    low, tenth, median, high = np.percentile(gaps, [2, 10, 50, 90])
    row = {
        "identity": round(float(np.mean(cosines)), 3),
        "identity_worst_frame": round(float(np.min(cosines)), 3),
        "gap_p02": round(float(low), 4),
        "gap_p50": round(float(median), 4),
        "gap_p90": round(float(high), 4),
        "gap_spread": round(float(high - tenth), 4),
        "meeting": round(meeting(np.array(gaps)), 3),
        "frames_without_face": lost,
    }
    if (figures := appearance(engine, portrait, label)) is not None:
        row |= {name: round(value, 4) for name, value in figures.items()}
    return row, np.array(gaps), crops


def real_talker(clip: Path, label: Labeller, seconds: float) -> dict[str, float]:
    """Spread and meeting of the lips of a film of a talking face."""
    track = follow(islice(frames_at(clip), round(seconds * FPS) + 1), label=label)
    gaps = track.lips[track.found, 0]
    low, high = np.percentile(gaps, [10, 90])
    return {"gap_spread": round(float(high - low), 4), "meeting": round(meeting(gaps), 3)}


def summary(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, least and greatest of each figure over the portraits that have it."""
    result = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = [row[name] for row in rows.values() if name in row]
        mean = round(float(np.mean(values)), 4)
        result[name] = {"mean": mean, "least": min(values), "greatest": max(values)}
    return result


def shown(figure: Any) -> str:
    """A figure, or the mean of several with the least and the greatest."""
    if not isinstance(figure, dict):
        return str(figure)
    if "mean" not in figure:
        return "  ".join(f"{name} {value}" for name, value in figure.items())
    return "{mean:.3f} ({least:.3f} to {greatest:.3f})".format(**figure)


def write_sheet(strips: list[np.ndarray], path: Path) -> None:
    """Strips of the same size, in two columns."""
    half = (len(strips) + 1) // 2
    strips = strips + [np.zeros_like(strips[0])] * (2 * half - len(strips))
    sheet = np.concatenate([np.concatenate(strips[:half]), np.concatenate(strips[half:])], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


def main() -> None:
    """Render, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--portraits", type=Path, required=True, help="folder of images")
    parser.add_argument("--audio", type=Path, required=True, help="what they say")
    parser.add_argument("--landmarker", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="downloaded tools")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--limit", type=int, help="only the first portraits")
    parser.add_argument(
        "--weights", type=Path, help="folder of the graphs, if not the embedded one"
    )
    parser.add_argument("--sheet", type=Path, default=Path("runs/quality.png"))
    parser.add_argument("--tile", type=int, default=160, help="pixels of a face on the sheet")
    parser.add_argument("--columns", type=int, default=9, help="frames a portrait on the sheet")
    parser.add_argument("--skip", type=int, default=5, help="first frame on the sheet")
    parser.add_argument("--clip", type=Path, help="a film of a real talker to compare with")
    parser.add_argument("--lids", type=Path, help="also write a sheet of closing eyes here")
    parser.add_argument("--mouths", type=Path, help="also write a sheet of mouths here")
    parser.add_argument("--against", type=Path, help="JSON of an earlier run to show beside it")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    chosen = {} if args.weights is None else {"weights": args.weights}
    engine = AvatarEngine.load(EngineConfig(**chosen))
    label, who = Labeller(args.landmarker), IdentityScore(args.cache)
    pcm = read_audio(args.audio)[: int(args.seconds * 16_000)]
    rows, gaps, sheet, strips = {}, [], [], []
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = [f for f in sorted(args.portraits.iterdir()) if f.suffix.lower() in suffixes]
    for number, path in enumerate(tqdm(files[: args.limit], unit="portrait")):
        if (judged := judge(engine, path, pcm, label, who, args)) is not None:
            row, gap, crops = judged
            rows[f"{number:02d}"] = row
            gaps.append(gap)
            sheet.append(np.concatenate(crops, 1))
            if args.lids or args.mouths:
                strips.append(sheets(engine, decode_image(path.read_bytes()), label, args.tile))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.sheet), np.concatenate(sheet)[:, :, ::-1])
    for out, kind in ((args.lids, 0), (args.mouths, 1)):
        if out is not None:
            write_sheet([strip[kind] for strip in strips], out)
    low, median, high = (float(x) for x in np.percentile(np.concatenate(gaps), [2, 50, 90]))
    result = {
        "portraits": len(rows),
        "refused": len(files[: args.limit]) - len(rows),
        "gap_all": {"p02": round(low, 4), "p50": round(median, 4), "p90": round(high, 4)},
        **summary(rows),
    }
    if args.clip is not None:
        result["clip"] = real_talker(args.clip, label, args.seconds)
    about = describe()
    print_header(f"Talking portraits (sheet: {args.sheet})", about)
    before = {} if args.against is None else json.loads(args.against.read_text())
    kept = {name: before[name] for name in result if name in before}
    print(f"{'':<22}{'before':>30}{'now':>30}")
    for name, figure in result.items():
        print(f"{name:<22}{shown(kept.get(name, '')):>30}{shown(figure):>30}")
    made = {"benchmark": "quality", **result, "each": rows, **about}
    print_json(made | ({"before": kept} if kept else {}), args.out)


if __name__ == "__main__":
    main()
