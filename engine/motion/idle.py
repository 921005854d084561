"""Life that does not come from the words: sway, breath, blinks, glances, brows and nods.

Head placement is explicit state: a pose is six numbers that others draw and feed as tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import FPS
from engine.face import arkit
from engine.motion import head

F32 = NDArray[np.float32]
# Radians, inter-ocular distances, and 1 = as in the portrait. Positive: the face turns towards the image's
# right, looks down, tilts clockwise as seen, moves right, moves down, comes nearer.
POSE = ("yaw", "pitch", "roll", "x", "y", "scale")
_CLOSE, _OPEN = 0.10, 0.20  # s a blink takes to close and to open again
_BLINK_EVERY = (2.0, 6.0)  # s
_GLANCE_EVERY = (1.2, 4.5)
_BROW_EVERY = (3.0, 9.0)
_BREATH_S = 4.2

# Sway of each pose number: a sum of waves of random frequency (Hz) and phase, this large in all.
_SIZE = np.array([0.045, 0.024, 0.020, 0.020, 0.015, 0.006])
_BANDS = ((0.03, 0.09, 0.6), (0.09, 0.22, 0.5), (0.22, 0.45, 0.3), (0.5, 1.0, 0.10))

_BLINK = arkit.indices("eyeBlinkLeft", "eyeBlinkRight")
_SQUINT = arkit.indices("eyeSquintLeft", "eyeSquintRight")
_DOWN = arkit.indices("eyeLookDownLeft", "eyeLookDownRight")
_UP = arkit.indices("eyeLookUpLeft", "eyeLookUpRight")
_TO_LEFT = arkit.indices("eyeLookOutLeft", "eyeLookInRight")  # the person's own left
_TO_RIGHT = arkit.indices("eyeLookInLeft", "eyeLookOutRight")
_INNER = arkit.index("browInnerUp")
_OUTER = arkit.indices("browOuterUpLeft", "browOuterUpRight")


@dataclass(slots=True)
class IdleState:
    """Where the life of one stream stands; times in seconds since its start."""

    rng: np.random.Generator
    frame: int
    waves: NDArray[np.float64]  # (bands, 6, 2) frequency and phase of the sway
    blink_at: float
    blink_depth: float
    blink_lag: float  # the right eye trails by this much
    again: bool  # a second blink follows at once
    glance_at: float
    gaze: F32  # (2,) where the eyes rest: left, up
    gaze_to: F32
    brow_at: float
    brow: float
    brow_to: float
    nod: float  # pitch of the running nod
    nod_speed: float
    loud: float  # slow mean of the energy
    breath: float  # phase of the breath at the start
    head: head.HeadState


class IdleLife:
    """Draws pose and coefficients of a living face from a seed, frame by frame.

    Args:
        calm: the head sways and nods a little, as at rest, while it speaks; else it moves as the heads of
            people who speak do.

    Law:
        The frames depend on the seed and the energies before them, never on how many are drawn
        in one call.
    """

    def __init__(self, seed: int = 0, *, calm: bool = False) -> None:
        self._seed, self._calm = seed, calm

    def start(self, seed: int | None = None) -> IdleState:
        """State of a new stream."""
        seed = self._seed if seed is None else seed
        rng = np.random.default_rng(seed)
        nothing = np.zeros(2, np.float32)
        return IdleState(
            rng=rng,
            frame=0,
            waves=_waves(rng),
            blink_at=float(rng.uniform(0.8, 3.0)),
            blink_depth=0.95,
            blink_lag=0.0,
            again=False,
            glance_at=float(rng.uniform(*_GLANCE_EVERY)),
            gaze=nothing,
            gaze_to=nothing.copy(),
            brow_at=float(rng.uniform(*_BROW_EVERY)),
            brow=0.0,
            brow_to=0.0,
            nod=0.0,
            nod_speed=0.0,
            loud=0.0,
            breath=float(rng.uniform(0, 2 * np.pi)),
            head=head.HeadState(np.random.default_rng([seed, 1])),  # eyes are those of the calm one
        )

    def step(self, state: IdleState, n: int, energy: F32 | None = None) -> tuple[F32, F32]:
        """Draw the next `n` frames.

        Args:
            energy: how strongly each frame is spoken (n,) in [0, 1]; silence when not given.

        Returns:
            pose (n, 6) in the order of `POSE` and coefficients (n, 52) in [0, 1], mouth at 0.

        Raises:
            ValueError: `energy` is not of shape (n,).
        """
        spoken = np.zeros(n, np.float32) if energy is None else energy
        if spoken.shape != (n,):
            raise ValueError(f"wants energy of shape ({n},), got {spoken.shape}")
        pose = np.zeros((n, 6), np.float32)
        face = np.zeros((n, arkit.COUNT), np.float32)
        for i in range(n):
            time = state.frame / FPS
            pose[i] = self._pose(state, time, float(spoken[i]))
            _eyes(state, time, face[i])
            _brows(state, time, float(spoken[i]), face[i])
            state.frame += 1
        return pose, np.clip(face, 0, 1)

    def _pose(self, state: IdleState, time: float, energy: float) -> F32:
        angle = 2 * np.pi * (time * state.waves[..., 0] + state.waves[..., 1])
        parts = np.array([size for _, _, size in _BANDS])[:, None] * np.sin(angle)
        sway = (0.8 + 0.9 * state.loud) * _SIZE * parts.sum(0)
        breath = np.sin(2 * np.pi * time / _BREATH_S + state.breath)
        _nod(state, energy)
        pose = np.asarray(sway, np.float32)
        if self._calm:
            pose[1] += state.nod
        else:
            pose += head.step(state.head, energy)
        pose[4] += 0.006 * breath
        pose[5] = 1 + pose[5] + 0.0015 * breath
        return pose


def _waves(rng: np.random.Generator) -> NDArray[np.float64]:
    low, high, _ = np.array(_BANDS).T
    frequency = rng.uniform(low[:, None], high[:, None], (len(_BANDS), 6))
    return np.stack([frequency, rng.uniform(0, 1, frequency.shape)], -1)


def _nod(state: IdleState, energy: float) -> None:
    """A stressed syllable pushes the head down a little; it swings back like a damped spring."""
    stress = max(energy - state.loud - 0.12, 0.0)
    state.loud += 0.04 * (energy - state.loud)
    state.nod_speed += (0.55 * stress - 30.0 * state.nod - 9.0 * state.nod_speed) / FPS
    state.nod += state.nod_speed / FPS


def _eyes(state: IdleState, time: float, face: F32) -> None:
    if time >= state.glance_at:
        home = state.rng.random() < 0.6
        aim = state.rng.normal(0, (0.10, 0.06)) * (0.25 if home else 1.0)
        state.gaze_to = np.clip(aim, -0.25, 0.25).astype(np.float32)
        state.glance_at = time + float(state.rng.uniform(*_GLANCE_EVERY))
    state.gaze = state.gaze + np.float32(0.6) * (state.gaze_to - state.gaze)
    left, up = (float(v) for v in state.gaze)
    face[_TO_LEFT], face[_TO_RIGHT] = max(left, 0), max(-left, 0)
    face[_UP], face[_DOWN] = max(up, 0), max(-up, 0)
    for eye, index in enumerate(_BLINK):
        shut = _lid(time - state.blink_at - (state.blink_lag if eye else 0)) * state.blink_depth
        face[index] = shut + (1 - shut) * 0.25 * max(-up, 0)
        face[_DOWN[eye]] += 0.15 * shut
        face[_SQUINT[eye]] = 0.10 * shut
    if time > state.blink_at + _CLOSE + _OPEN + 0.1:
        _next_blink(state, time)


def _lid(since: float) -> float:
    """How far the lid is down `since` seconds after a blink began: fast down, slow up."""
    if 0 <= since < _CLOSE:
        return float(np.sin(np.pi / 2 * since / _CLOSE) ** 2)
    if _CLOSE <= since < _CLOSE + _OPEN:
        return float((0.5 + 0.5 * np.cos(np.pi * (since - _CLOSE) / _OPEN)) ** 1.3)
    return 0.0


def _next_blink(state: IdleState, time: float) -> None:
    double = not state.again and state.rng.random() < 0.12
    wait = 0.1 if double else float(state.rng.uniform(*_BLINK_EVERY))
    state.again = double
    state.blink_at = time + wait
    state.blink_depth = float(state.rng.uniform(0.85, 1.0))
    state.blink_lag = float(state.rng.uniform(0, 0.02))


def _brows(state: IdleState, time: float, energy: float, face: F32) -> None:
    if time >= state.brow_at:
        state.brow_to = float(state.rng.uniform(0, 0.18)) if state.brow_to == 0 else 0.0
        state.brow_at = time + float(state.rng.uniform(*_BROW_EVERY))
    aim = state.brow_to + 0.25 * max(energy - state.loud - 0.2, 0.0)
    state.brow += 0.22 * (aim - state.brow)
    face[_INNER] = state.brow
    face[_OUTER] = 0.6 * state.brow
