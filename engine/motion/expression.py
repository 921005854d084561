"""Words to a face: "smile 0.6, brows up" -> offsets on the 52 coefficients, eased in over time.

The offsets are shown through `engine.motion.expression_shapes`. They never keep the lips apart: all of them move
both lips alike but the opening of the jaw, which rests while the portrait speaks.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Strengths
from engine.errors import PromptRefused
from engine.face import arkit

F32 = NDArray[np.float32]
_JAW = arkit.index("jawOpen")
_FIRM = 0.05  # how firmly lips are pressed when nothing else may part them
EASE_FRAMES = 8  # 320 ms from one expression to the next
MAX_PROMPT = 400  # characters
MAX_PENDING = 64  # changes of one stream that may wait for their frame

# Offsets of each word at strength 1; a name without a side means both.
WORDS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {"mouthSmile": 1.0, "cheekSquint": 0.5, "eyeSquint": 0.3},
    "sad": {
        "mouthFrown": 0.9,
        "browInnerUp": 1.0,
        "browDown": 0.25,
        "eyeSquint": 0.1,
        "mouthPucker": 0.2,
    },
    "angry": {
        "browDown": 1.2,
        "noseSneer": 0.4,
        "mouthFrown": 0.5,
        "eyeSquint": 0.5,
        "eyeBlink": 0.08,
        "mouthPucker": 0.2,
    },
    "surprised": {
        "browInnerUp": 1.0,
        "browOuterUp": 1.0,
        "eyeWide": 1.0,
        "jawOpen": 0.35,
        "mouthPucker": 0.6,
        "mouthFrown": 0.2,
    },
    "disgusted": {"noseSneer": 1.0, "browDown": 0.8, "eyeSquint": 0.7, "mouthFrown": 0.7},
    "afraid": {
        "browInnerUp": 1.0,
        "browOuterUp": 0.3,
        "eyeWide": 1.0,
        "mouthStretch": 0.6,
        "mouthFrown": 0.3,
    },
    "frown": {"mouthFrown": 0.8, "browDown": 0.8},
    "eyes closed": {"eyeBlink": 1.0},
    "eyes wide": {"eyeWide": 1.0, "browInnerUp": 0.2, "browOuterUp": 0.2},
    "squint": {"eyeSquint": 1.0, "cheekSquint": 0.5, "eyeBlink": 0.12},
    "wink left": {
        "eyeBlinkLeft": 1.0,
        "mouthSmileLeft": 0.8,
        "mouthSmileRight": 0.3,
        "cheekSquintLeft": 0.8,
        "browDownLeft": 0.2,
    },
    "wink right": {
        "eyeBlinkRight": 1.0,
        "mouthSmileRight": 0.8,
        "mouthSmileLeft": 0.3,
        "cheekSquintRight": 0.8,
        "browDownRight": 0.2,
    },
    "brows up": {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.3},
    "brows down": {"browDown": 1.3},
}
_SAME = {
    "smile": "smiling smiles happy happily joyful cheerful friendly",
    "sad": "sadness unhappy sorrowful",
    "angry": "anger mad furious",
    "surprised": "surprise surprising astonished amazed",
    "disgusted": "disgust",
    "afraid": "fear fearful scared frightened",
    "frown": "frowning frowns",
    "squint": "squinting",
    "neutral": "calm relaxed none",
}
_PHRASES = {
    "eyes closed": ("closed eyes", "eyes shut", "close eyes", "asleep", "sleeping"),
    "eyes wide": ("wide eyes", "eyes wide open"),
    "wink left": ("wink", "winking", "left wink"),
    "wink right": ("right wink",),
    "brows up": ("brow up", "raised brows", "brows raised", "raise brows"),
    "brows down": ("brow down", "lowered brows", "brows lowered", "lower brows"),
}
ALIASES: dict[str, str] = {
    **{word: word for word in WORDS},
    **{other: word for word, others in _SAME.items() for other in others.split()},
    **{other: word for word, others in _PHRASES.items() for other in others},
}
_HOW_MUCH = {
    **dict.fromkeys(("slightly", "slight", "a little", "little", "a bit", "softly", "faint"), 0.4),
    **dict.fromkeys(("very", "big", "strong", "strongly", "fully", "wide"), 1.0),
}
_NUMBER = re.compile(r"\s*[:=]?\s*(\d+(?:\.\d+)?|\.\d+)\s*(%?)$")
# What other words are about, to say in words what cannot be done.
_TOPICS = {
    "age": "age aged old older young younger child childlike teenage elderly years wrinkles baby",
    "style": "style pencil sketch painting painted oil watercolour watercolor cartoon anime comic "
    "drawing photo photograph photorealistic render statue pixel 3d black-and-white monochrome",
    "background": "background beach forest office street city sky room studio sunset indoors "
    "outdoors mountains garden space",
    "looks": "hair beard moustache mustache glasses hat makeup lipstick dress suit clothes skin "
    "bald blond blonde man woman eyes-colour",
}


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed prompt: which words, how strongly, and what they add up to."""

    words: tuple[tuple[str, float], ...]
    offsets: F32  # (52,)

    def __str__(self) -> str:
        """The prompt in its shortest form; reading it again gives the same expression."""
        return ", ".join(f"{word} {amount:g}" for word, amount in self.words) or "neutral"


def _offsets(word: str) -> F32:
    row = np.zeros(arkit.COUNT, np.float32)
    for name, amount in WORDS[word].items():
        for full in [name] if name in arkit.NAMES else [f"{name}Left", f"{name}Right"]:
            row[arkit.index(full)] += amount
    return row


NEUTRAL = Expression((), np.zeros(arkit.COUNT, np.float32))


def parse(prompt: str) -> tuple[Expression, tuple[str, ...]]:
    """Read a prompt.

    Args:
        prompt: words between commas, each with a strength in [0, 1] or in percent if not 1, such
            as "smile 0.6, brows up" or "slightly sad and eyes closed".

    Returns:
        the expression, and the parts that are none, in the prompt's own words.

    Raises:
        PromptRefused: the prompt is too long, or a strength is above 1.
    """
    if len(prompt) > MAX_PROMPT:
        raise PromptRefused(f"the prompt has {len(prompt)} characters; {MAX_PROMPT} at most")
    found: dict[str, float] = {}
    other = []
    for part in re.split(r"[,;.\n](?!\d)|\band\b|\bwith\b", prompt):
        text = " ".join(part.lower().replace("eyebrow", "brow").split())
        if not text:
            continue
        word, amount = _measure(text, part.strip())
        if word in ALIASES:
            found[ALIASES[word]] = amount
        else:
            other.append(part.strip())
    found.pop("neutral", None)
    offsets = sum((amount * _offsets(word) for word, amount in found.items()), NEUTRAL.offsets)
    return Expression(tuple(found.items()), np.asarray(offsets, np.float32)), tuple(other)


def _measure(text: str, said: str) -> tuple[str, float]:
    """Split a part into its word and its strength."""
    number = _NUMBER.search(text)
    if number and text[: number.start()] in ALIASES:
        amount = float(number[1]) / (100 if number[2] else 1)
        if amount > 1:
            raise PromptRefused(f"{said!r}: a strength is between 0 and 1, or a percentage")
        return text[: number.start()], amount
    for adverb, amount in _HOW_MUCH.items():
        if text not in ALIASES and text.removeprefix(f"{adverb} ") in ALIASES:
            return text.removeprefix(f"{adverb} "), amount
    return text, 1.0


def refuse_words(others: tuple[str, ...]) -> None:
    """Say in words what a prompt asks for that expressions alone cannot show.

    Raises:
        PromptRefused: there is any such part.
    """
    if not others:
        return
    said = []
    for part in others:
        words = set(re.findall(r"[\w-]+", part.lower()))
        topic = next((t for t, known in _TOPICS.items() if words & set(known.split())), None)
        near = difflib.get_close_matches(part.lower(), ALIASES, n=1, cutoff=0.75)
        hint = f" (did you mean {near[0]!r}?)" if near and not topic else ""
        said.append(f"change {topic} ({part!r})" if topic else f"show {part!r}{hint}")
    raise PromptRefused(
        f"the tiny profile cannot {' or '.join(said)}; use --profile sd15 for that. "
        f"It knows: {', '.join(WORDS)}, each with a strength, such as 'smile 0.6'"
    )


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine made of a prompt; ready to be shown by any of its streams."""

    expression: Expression = NEUTRAL
    words: Any = None  # the renderer's encoding of the whole text; None where it has none
    strengths: Strengths | None = None  # of full-size conditions; None: as they are

    def __str__(self) -> str:
        """The prompt's expression in its shortest form."""
        return str(self.expression)


Change = Prompt | Strengths  # what can be asked of a stream; either leaves the other as it is


@dataclass(slots=True)
class ExpressionState:
    """Where the expression of one stream stands."""

    before: F32  # (52,) offsets when the last change began
    prompt: Prompt  # the goal
    since: int  # the frame of that change
    silence: float = 1.0  # how long nothing was said, 0 to 1: what opens the jaw
    pending: deque[tuple[int, Prompt]] = field(default_factory=deque)  # by frame

    @classmethod
    def start(cls) -> ExpressionState:
        """State of a new stream: neutral."""
        return cls(NEUTRAL.offsets, Prompt(), -EASE_FRAMES)

    @property
    def goal(self) -> Prompt:
        """The prompt of the last change, whether or not its frame is there."""
        return self.pending[-1][1] if self.pending else self.prompt

    def change(self, prompt: Change, at: int, drawn: int) -> None:
        """Head for `prompt` from frame `at` on; one of the first frame is there at once.

        Args:
            drawn: frames drawn so far.

        Raises:
            ValueError: frame `at` was drawn already, lies before a change that waits, or too many
                changes wait.
        """
        if at < drawn or (self.pending and at < self.pending[-1][0]):
            raise ValueError(f"a change at frame {at} comes too late: {drawn} frames are drawn")
        if isinstance(prompt, Strengths):
            prompt = replace(self.goal, strengths=prompt)
        elif prompt.strengths is None:
            prompt = replace(prompt, strengths=self.goal.strengths)
        if self.pending and self.pending[-1][0] == at:
            self.pending.pop()
        if len(self.pending) >= MAX_PENDING:
            raise ValueError(f"{MAX_PENDING} changes already wait for their frame")
        self.pending.append((at, prompt))

    def step(self, frame: int, energy: float, pressed: float) -> F32:
        """The offsets (52,) of frame `frame`; called once for each frame, in order.

        Args:
            energy: how strongly the frame is spoken, in [0, 1].
            pressed: how firmly speech presses the lips together, in [0, 1].
        """
        while self.pending and self.pending[0][0] <= frame:
            at, prompt = self.pending.popleft()
            if prompt.expression is not self.prompt.expression:
                self.before = prompt.expression.offsets if at == 0 else self._at(at - 1)
                self.since = at
            self.prompt = prompt
        speaks = energy > 0.02
        self.silence = max(0.0, self.silence - 0.5) if speaks else min(1.0, self.silence + 0.08)
        shown = self._at(frame)
        shown[_JAW] *= self.silence * (1 - min(1.0, pressed / _FIRM))
        return shown

    def _at(self, frame: int) -> F32:
        part = np.clip((frame - self.since + 1) / EASE_FRAMES, 0, 1)
        eased = np.float32(part * part * (3 - 2 * part))
        shown: F32 = self.before + eased * (self.prompt.expression.offsets - self.before)
        return shown
