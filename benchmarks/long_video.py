"""A long video of the bundled portrait three ways: frame cache, progressive latent fusion, neither.

The tiny painter in torch samples the same frames with the same noise three times:

  cache     each frame sees the latents and keys/values of the one before, as live
  fusion    windows of `--window` frames, each begun from the portrait, averaged at every step with
            triangular weights where they overlap
  neither   each frame sees the portrait alone

and prints, for the painted crop (128 x 128 pixels):

  latent drift   change per minute of the distance between a frame's per-channel latent mean and
                 standard deviation and the portrait's
  colour drift   change per minute of the distance between its mean colour and that of the warped
                 portrait, of 255
  identity       SFace cosine to the portrait on every 25th whole frame, and its change per minute
  seam           change from frame to frame over the warp's own, at the borders of the windows
                 relative to elsewhere; 1 is no seam
  tLP            LPIPS between consecutive frames x 1000; the row `warp` is the moved portrait itself

Where LPIPS or SFace cannot be had, the column is empty. Needs the extra `train`. Ends with one JSON
line; pictures and numbers go to `--out`.

    python -m benchmarks.long_video --seconds 60 --audio speech.wav --out runs/long_video
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.environment import describe, print_header, print_json
from benchmarks.frames_child import voice
from engine.audio.sound_file import read_audio
from engine.avatar import AvatarEngine
from engine.backends import GraphSpec, load_backend
from engine.config import EngineConfig
from engine.diffusion.latent_fusion import LatentFusion, fusion_windows
from engine.diffusion.samplers import Denoising, SamplerSettings, sample
from engine.errors import DataError
from engine.face.image_file import decode_image
from engine.face.landmarks import apply, invert
from engine.loaders.lpips import Lpips
from engine.nets.painter import Cache, Condition, Painter
from engine.offline.video import frames_of
from engine.outputs import own_folder
from engine.render.base import FrameCondition, Portrait
from engine.render.tiny import TinyRenderer
from engine.render.tiny_face import TinyFace
from server.settings import BUNDLED_PORTRAIT

WAYS = ("cache", "fusion", "neither")
FPS = 25
IDENTITY_EVERY = 25  # frames
COLUMNS = 8  # pictures a row of the sheet


class Recorder:
    """A renderer that draws nothing and keeps what it was asked to draw."""

    carries = True

    def __init__(self, graphs: TinyRenderer) -> None:
        self.graphs, self.conditions = graphs, list[FrameCondition]()
        self.portrait: Portrait | None = None
        self.read_words, self.noise, self.cold = graphs.read_words, graphs.noise, graphs.cold
        self.pack, self.unpack = graphs.pack, graphs.unpack

    def enroll(self, portrait: Portrait) -> TinyFace:
        """Enrol, and keep the portrait."""
        self.portrait = portrait
        return self.graphs.enroll(portrait)

    def draw(self, jobs: Any) -> list[tuple[np.ndarray, Any]]:
        """Keep the conditions."""
        self.conditions += [condition for _, _, condition in jobs]
        return [(face.composite.maps.rgb, cache) for face, cache, _ in jobs]

    def draw_between(self, jobs: Any) -> list[np.ndarray]:
        """Keep the conditions."""
        return [rgb for rgb, _ in self.draw(jobs)]


class Video:
    """The frames to paint: the portrait, and what each of them shows."""

    def __init__(self, config: EngineConfig, pcm: np.ndarray) -> None:
        backend = load_backend(config.backend, threads=config.threads)

        def load(spec: GraphSpec) -> Any:
            return backend.load(spec, config.weights / f"{spec.name}.onnx")

        self.graphs = TinyRenderer(load)
        recorder = Recorder(self.graphs)
        engine = AvatarEngine.load(config, backend, recorder)
        self.identity = engine.enroll(decode_image(BUNDLED_PORTRAIT.read_bytes()))
        self.face = self.identity.face
        assert recorder.portrait is not None
        self.portrait = recorder.portrait
        for _ in frames_of(engine, self.identity, pcm):
            pass
        self.conditions = recorder.conditions[: len(pcm) // engine.config.stream.hop_samples]
        self.painter = Painter()
        weights = load_file(config.weights / "painter.safetensors")
        self.painter.load_state_dict({name: value.float() for name, value in weights.items()})
        self.painter.eval().requires_grad_(False)
        self.crop = torch.from_numpy(self.face.crop)
        self.reference = self.painter.enroll(self.crop)
        self._conditions: dict[int, Condition] = {}  # a third of a megabyte a frame

    def condition(self, row: int) -> Condition:
        """Geometry of one frame, worked out once."""
        if row not in self._conditions:
            condition = self.conditions[row]
            self._conditions[row] = self.painter.condition(
                self.crop,
                self.reference,
                torch.from_numpy(self.face.source),
                torch.from_numpy(condition.target)[None],
                torch.from_numpy(condition.placement)[None],
            )
        return self._conditions[row]

    def velocity(self, z_t: Tensor, t: Tensor, row: int, cache: Cache) -> tuple[Tensor, Cache]:
        """The painter as a model for the `flow` sampler, one frame (1, 16, 32, 32)."""
        condition = self.condition(row)
        guidance = self.painter.guide(condition, cache)
        now = t / 1000
        made = self.painter.denoise(z_t, now, guidance, self.reference, cache)
        return (z_t - made.latents) / now[:, None, None, None], made

    def decode(self, row: int, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Painted crop (1, 3, 128, 128) in [-1, 1], and its patch for the whole frame."""
        condition = self.condition(row)
        painted, trust = self.painter.decoder(latents, condition.warped, condition.opening)
        shown = trust * condition.warped + (painted - trust * condition.warped)
        return shown, torch.cat([painted - trust * condition.warped, trust], 1)

    def frame(self, row: int, patch: Tensor) -> np.ndarray:
        """The whole frame (H, W, 3) around a patch."""
        condition = self.conditions[row]
        here = replace(
            self.graphs.cold(self.face), patch=patch.numpy(), target=condition.target[None]
        )
        [frame] = self.graphs.draw_between([(self.face, here, condition)])  # from where it is
        return frame


def paint(video: Video, way: str, args: argparse.Namespace) -> Iterator[Tensor]:
    """Latents (1, 16, 32, 32) of each frame, sampled one way."""
    count, cold = len(video.conditions), video.painter.cold(video.reference)
    noise = video.painter.noise(1, args.seed).expand(count, -1, -1, -1)
    settings = SamplerSettings(sampler="flow", num_inference_steps=args.steps)
    if way == "cache":
        cache = cold
        for row in range(count):
            left: list[Cache] = []  # what each step leaves; the last one is the next frame's

            def seeing(
                z_t: Tensor, t: Tensor, row: int = row, seen: Cache = cache, left: Any = left
            ) -> Tensor:
                velocity, made = video.velocity(z_t, t, row, seen)
                left.append(made)
                return velocity

            yield sample(seeing, noise[row : row + 1], settings)
            cache = left[-1]
    elif way == "neither":
        for row in range(count):
            yield sample(
                lambda z, t, row=row: video.velocity(z, t, row, cold)[0],
                noise[row : row + 1],
                settings,
            )
    else:

        def window(z_t: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            cache, out = cold, []
            for place, row in enumerate(rows.tolist()):
                one = slice(place, place + 1)
                velocity, cache = video.velocity(z_t[one], t[one], row, cache)
                out.append(velocity)
            return torch.cat(out)

        # every window begins from the portrait, whose keys every evaluation sees: that is the pin
        fusion = LatentFusion(
            lambda windows: [window(*one) for one in windows],
            Denoising(noise, settings),
            window=args.window,
            overlap=args.overlap,
            pinned=False,
        )
        with tqdm(total=fusion.total, desc="fusion, windows", leave=False, disable=None) as bar:
            while fusion.done < fusion.total:
                fusion.work()
                bar.update(fusion.done - bar.n)
        yield from fusion.latents.split(1)


def slope(values: list[float], every: int = 1) -> float:
    """Change per minute of a value taken every so many frames."""
    minutes = np.arange(len(values)) * every / FPS / 60
    return float(np.polyfit(minutes, values, 1)[0]) if len(values) > 1 else 0.0


def seam(change: np.ndarray, borders: list[int]) -> float:
    """Mean of `change` (F - 1,), frame i to i + 1, into the frames `borders` over that elsewhere."""
    into = np.array([b - 1 for b in borders if 0 < b <= len(change)], int)
    if not len(into):
        return 1.0
    elsewhere = np.delete(change, into)
    return float(np.median(change[into]) / np.median(elsewhere))


class Judge:
    """Distances to the portrait and from frame to frame, gathered while the frames pass."""

    def __init__(self, video: Video, cache: Path) -> None:
        self._video = video
        latents = video.reference.latents
        self._mean, self._std = latents.mean((2, 3)), latents.std((2, 3))
        self.lpips = _or_none(lambda: Lpips(cache))
        self.who = _or_none(lambda: _identity(cache))
        self._back = invert(video.portrait.to_crop)
        self._wanted = self._embed(video.face.composite.rgb, video.face.source[0])

    def _embed(self, rgb: np.ndarray, points: np.ndarray) -> Any:
        return None if self.who is None else self.who.embed(rgb, apply(self._back, points))

    def judge(self, way: str, latents: Iterator[Tensor], borders: list[int]) -> dict[str, Any]:
        """Figures of one way; `borders` are the first frames of windows."""
        video = self._video
        drift, colour, change, tlp, cosine = [], [], [], [], []
        pictures: list[np.ndarray] = []
        shown = set(np.linspace(0, len(video.conditions) - 1, COLUMNS).astype(int).tolist())
        before: tuple[Tensor, Tensor] | None = None
        began = time.perf_counter()
        for row, z in enumerate(
            tqdm(latents, desc=way, total=len(video.conditions), leave=False, disable=None)
        ):
            painted, patch = video.decode(row, z)
            warped = video.condition(row).warped
            drift.append(
                float(
                    (z.mean((2, 3)) - self._mean).abs().mean()
                    + (z.std((2, 3)) - self._std).abs().mean()
                )
            )
            colour.append(float((painted - warped).mean((2, 3)).norm() * 127.5))
            if before is not None:
                moved = float((warped - before[1]).abs().mean())
                change.append(float((painted - before[0]).abs().mean()) / (moved + 1e-3))
                if self.lpips is not None:
                    tlp.append(1000 * float(self.lpips(painted, before[0])))
            before = (painted, warped)
            if row in shown or row % IDENTITY_EVERY == 0:
                whole = video.frame(row, patch)
                if row % IDENTITY_EVERY == 0 and self.who is not None:
                    vector = self._embed(whole, video.conditions[row].target)
                    cosine.append(float(self._wanted @ vector))
                if row in shown:
                    pictures.append(whole[self._video.face.composite.head.box])
        return {
            "latent_drift": round(slope(drift), 4),
            "latent_distance": round(float(np.mean(drift)), 4),
            "colour_drift": round(slope(colour), 3),
            "colour_distance": round(float(np.mean(colour)), 3),
            "identity": round(float(np.mean(cosine)), 4) if cosine else None,
            "identity_drift": round(slope(cosine, IDENTITY_EVERY), 4) if cosine else None,
            "seam": round(seam(np.array(change), borders), 3),
            "tlp": round(float(np.mean(tlp)), 3) if tlp else None,
            "seconds": round(time.perf_counter() - began, 1),
            "pictures": pictures,
        }

    def warp_tlp(self) -> float | None:
        """tLP of the moved portrait itself: what motion alone costs."""
        if self.lpips is None:
            return None
        warped = [
            self._video.condition(row).warped
            for row in range(min(len(self._video.conditions), 250))
        ]
        pairs = zip(warped, warped[1:], strict=False)
        return round(1000 * float(np.mean([float(self.lpips(a, b)) for a, b in pairs])), 3)


def _identity(cache: Path) -> Any:
    from engine.evaluation.identity import IdentityScore

    return IdentityScore(cache)


def _or_none(make: Any) -> Any:
    try:
        return make()
    except (DataError, OSError, ImportError) as error:
        tqdm.write(f"left out: {error}")
        return None


def sheet(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Frames over time, one row a way."""
    rows = [np.concatenate([_small(p) for p in row["pictures"]], 1) for row in results.values()]
    Image.fromarray(np.concatenate(rows, 0)).save(path)


def _small(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((192, 192 * rgb.shape[0] // rgb.shape[1])))


def main() -> None:
    """Paint three ways, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--audio", type=Path, help="repeated to the length; default: made-up noise")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps a frame")
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--overlap", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, default=EngineConfig().weights)
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="downloaded tools")
    parser.add_argument("--out", type=Path, default=Path("runs/long_video"))
    args = parser.parse_args()
    own_folder(args.out, earlier=(args.out / "long_video.png").exists())
    torch.set_num_threads(args.threads)
    samples = int(args.seconds * 16_000)
    pcm = voice(args.seconds) if args.audio is None else np.resize(read_audio(args.audio), samples)
    config = EngineConfig(weights=args.weights, threads=args.threads, paint_every=1)
    video = Video(config, pcm.astype(np.float32))
    judge = Judge(video, args.cache)
    windows = fusion_windows(len(video.conditions), args.window, args.overlap, pinned=False)
    borders = [members[0] for members in windows[1:]]
    results = {way: judge.judge(way, paint(video, way, args), borders) for way in WAYS}
    sheet(results, args.out / "long_video.png")
    for row in results.values():
        del row["pictures"]
    about = describe()
    print_header(f"{args.seconds:g} s, {args.steps} steps a frame, windows of {args.window}", about)
    names = list(results["cache"])
    print(f"{'':<18}" + "".join(f"{way:>10}" for way in results))
    for name in names:
        print(
            f"{name:<18}"
            + "".join(
                f"{row[name] if row[name] is not None else '':>10}" for row in results.values()
            )
        )
    tlp = judge.warp_tlp()
    print(f"{'tlp of the warp':<18}{tlp if tlp is not None else '':>10}")
    print_json(
        {
            "benchmark": "long_video",
            "seconds": args.seconds,
            "steps": args.steps,
            "window": args.window,
            "overlap": args.overlap,
            "frames": len(video.conditions),
            "ways": results,
            "warp_tlp": tlp,
            **about,
        },
        args.out / "long_video.json",
    )


if __name__ == "__main__":
    main()
