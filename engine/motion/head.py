"""How a head moves while its owner speaks: turns and tilts that follow phrases, nods on stress.

All of it comes from the energy of the speech so far. A phrase gives the head somewhere to turn and tilt to,
and now and then somewhere else; it is held higher while it speaks and sinks where speech rests; stressed
syllables make it nod and all of them make it sway; at the end it comes home. How far and how fast is as measured
on filmed speech (`python -m engine.evaluation.head`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.config import FPS

F64 = NDArray[np.float64]

VOICED = 0.12  # energy over which a frame is spoken
_PAUSE = 8  # frames without a voice that end a phrase
_QUIET = 25  # frames without a voice after which the head no longer awaits the next word

_AIM = np.radians([2.5, 6.9, 5.6])  # spread of the places a phrase turns to
_HELD = (0.7, 2.4)  # s until it turns elsewhere within a phrase
_TILTS = 0.45  # how often the tilt changes with it
_HASTE = np.array([14.0, 10.0, 4.5])  # 1/s, of the turn to a place
_LIFT_HASTE = 6.5
_LOUD = 0.4  # energy over which a syllable is stressed and lifts it no further
_LIFT = np.radians(46.0)
_USUAL = 0.25  # energy of speech as it begins to be known
_STRESS = 0.14  # energy over its slow mean that makes a nod,
_NOD_EVERY = 12  # frames from one to the next at least
_NOD = np.radians([6.0, 12.0])
_NOD_LASTS = 4  # frames
_NOD_HASTE = 9.0
_BEAT = np.radians([21.0, 13.0, 4.0])  # spread of the sway for each unit of energy
_BEAT_HASTE = 13.0
_EASE = 0.5  # of the way to a new aim in a frame, so that nothing starts at once
_LEAN = 0.9  # eye distances that the head shifts for each radian of tilt: it tilts from the neck
_NEAR = 0.08  # log scale for each radian of pitch: a head that nods comes nearer
# Radians, and eye distances to the side: as far as hair, neck and background bear.
LIMIT = np.radians([8.0, 12.0, 7.0])
LEAN_LIMIT = 0.12


@dataclass(slots=True)
class HeadState:
    """How the head of one stream moves; angles in radians in the order yaw, pitch, roll."""

    rng: np.random.Generator
    fast: float = 0.0  # means of the energy over some 60 ms,
    slow: float = 0.0  # half a second,
    usual: float = _USUAL  # and the spoken part of some seconds
    awake: float = 0.0  # whether it speaks at all, in [0, 1], eased
    phrase: bool = False
    quiet: int = _QUIET  # frames since the last voice
    until: int = 0  # frames until it turns elsewhere
    since_nod: int = _NOD_EVERY
    nod: float = 0.0  # of the running nod
    aim: F64 = field(default_factory=lambda: np.zeros(3))
    # each, its speed, and its eased aim
    place: F64 = field(default_factory=lambda: np.zeros((3, 3)))
    nodded: F64 = field(default_factory=lambda: np.zeros(3))  # pitch
    lifted: F64 = field(default_factory=lambda: np.zeros(3))  # pitch, upwards
    # what this phrase sways by for each unit of energy
    beat: F64 = field(default_factory=lambda: np.zeros(3))
    swayed: F64 = field(default_factory=lambda: np.zeros((3, 3)))  # by it


def step(state: HeadState, energy: float) -> F64:
    """Pose (6,) that the next frame adds, in the order of `engine.motion.idle.POSE`, scale as its log.

    Args:
        energy: how strongly the frame is spoken, in [0, 1].
    """
    _hear(state, energy)
    _turn(state)
    _nod(state)
    _beat(state)
    angles = state.place[0] + state.swayed[0]
    angles[1] += state.nodded[0] - state.lifted[0]
    angles = LIMIT * np.tanh(angles / LIMIT)
    lean = LEAN_LIMIT * np.tanh(_LEAN * state.place[0, 2] / LEAN_LIMIT)
    return np.array([*angles, lean, 0.0, _NEAR * angles[1]])


def _hear(state: HeadState, energy: float) -> None:
    voiced = energy > VOICED
    state.quiet = 0 if voiced else state.quiet + 1
    state.fast += 0.45 * (energy - state.fast)
    state.slow += 0.08 * (energy - state.slow)
    if voiced:
        state.usual += 0.01 * (min(state.slow, _LOUD) - state.usual)
    state.awake += 0.08 * ((state.quiet < _QUIET) - state.awake)
    level = min(energy, _LOUD)
    lift = state.awake * _LIFT * (level - state.usual)
    state.lifted = _follow(state.lifted, lift, _LIFT_HASTE)


def _turn(state: HeadState) -> None:
    """Choose where to turn, and turn there like a critically damped spring."""
    state.until -= 1
    if not state.phrase and state.quiet == 0:
        state.phrase = True
        state.beat = state.rng.normal(0, _BEAT)
        _aim(state, np.ones(3, bool))
    elif state.phrase and state.quiet >= _PAUSE:
        state.phrase = False
        state.aim = 0.4 * state.aim
    elif state.phrase and state.until <= 0:
        _aim(state, np.array([True, True, state.rng.random() < _TILTS]))
    elif state.quiet == _QUIET:
        state.aim = np.zeros(3)
    state.place = _follow(state.place, state.aim, _HASTE)


def _aim(state: HeadState, axes: NDArray[np.bool_]) -> None:
    state.aim = np.where(axes, state.rng.normal(0, _AIM), state.aim)
    state.until = int(FPS * state.rng.uniform(*_HELD))


def _nod(state: HeadState) -> None:
    """A stressed syllable pushes the head down for a moment."""
    state.since_nod += 1
    if state.since_nod >= _NOD_EVERY and state.fast - state.slow > _STRESS:
        state.since_nod = 0
        state.nod = float(state.rng.uniform(*_NOD))
    aim = state.nod if state.since_nod < _NOD_LASTS else 0.0
    state.nodded = _follow(state.nodded, aim, _NOD_HASTE)


def _beat(state: HeadState) -> None:
    """Every syllable moves the head a little, each phrase in its own way."""
    aim = state.beat * (state.fast - state.slow)
    state.swayed = _follow(state.swayed, aim, _BEAT_HASTE)


def _follow(moving: F64, aim: F64 | float, haste: F64 | float) -> F64:
    """A place, its speed and its eased aim (3, ...) a frame later: a critically damped spring."""
    place, speed, eased = moving
    eased = eased + _EASE * (aim - eased)
    speed = speed + haste * (haste * (eased - place) - 2 * speed) / FPS
    return np.array([place + speed / FPS, speed, eased])
