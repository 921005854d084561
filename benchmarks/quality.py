"""The talking face itself: is it the person, does the mouth close and open, what does it look like?

Every portrait of a folder says the same sound. Measured on the finished frames with the public
landmarker and a face-recognition network, neither of which the engine uses:

  identity     SFace cosine between the portrait and its talking frames
  gap_*        lip gap over face height (landmarks 13-14 over 10-152) on all frames: percentiles;
               real talkers: 2nd .0005-.002, median .003-.05, 90th .05-.08

Writes a contact sheet to look at, prints a table, then one JSON line. Needs the extras `train` and
`label`, and the file `face_landmarker.task`.

    python -m benchmarks.quality --portraits FOLDER --audio speech.wav --landmarker face_landmarker.task
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.environment import describe, print_header, print_json
from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.config import EngineConfig
from engine.errors import PortraitRefused
from engine.evaluation.identity import IdentityScore
from engine.face.image_file import decode_image
from engine.face.landmarks import lip_gap
from engine.offline.video import frames_of
from engine.training.data.labeller import Labeller


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
    still = identity.face.composite.rgb
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
    low, median, high = np.percentile(gaps, [2, 50, 90])
    row = {
        "identity": round(float(np.mean(cosines)), 3),
        "identity_worst_frame": round(float(np.min(cosines)), 3),
        "gap_p02": round(float(low), 4),
        "gap_p50": round(float(median), 4),
        "gap_p90": round(float(high), 4),
        "frames_without_face": lost,
    }
    return row, np.array(gaps), crops


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
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    chosen = {} if args.weights is None else {"weights": args.weights}
    engine = AvatarEngine.load(EngineConfig(**chosen))
    label, who = Labeller(args.landmarker), IdentityScore(args.cache)
    pcm = read_audio(args.audio)[: int(args.seconds * 16_000)]
    rows, gaps, sheet = {}, [], []
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = [f for f in sorted(args.portraits.iterdir()) if f.suffix.lower() in suffixes]
    for number, path in enumerate(tqdm(files[: args.limit], unit="portrait")):
        if (judged := judge(engine, path, pcm, label, who, args)) is not None:
            row, gap, crops = judged
            rows[f"{number:02d}"] = row
            gaps.append(gap)
            sheet.append(np.concatenate(crops, 1))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.sheet), np.concatenate(sheet)[:, :, ::-1])
    identity = [row["identity"] for row in rows.values()]
    low, median, high = np.percentile(np.concatenate(gaps), [2, 50, 90])
    result = {
        "portraits": len(rows),
        "refused": len(files[: args.limit]) - len(rows),
        "identity_mean": round(float(np.mean(identity)), 3),
        "identity_worst": round(float(np.min(identity)), 3),
        "gap_p02": round(float(low), 4),
        "gap_p50": round(float(median), 4),
        "gap_p90": round(float(high), 4),
    }
    about = describe()
    print_header(f"Talking portraits (sheet: {args.sheet})", about)
    names = list(next(iter(rows.values())))
    print("portrait  " + "  ".join(f"{name:>20}" for name in names))
    for number, row in rows.items():
        print(f"{number:<10}" + "  ".join(f"{row[name]:>20}" for name in names))
    print_json({"benchmark": "quality", **result, "each": rows, **about}, args.out)


if __name__ == "__main__":
    main()
