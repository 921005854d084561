"""The rules that turn phones into mouths."""

import numpy as np
import pytest

pytest.importorskip("torch")

from engine.face import arkit
from engine.motion.channels import CHANNELS, spread_matrix
from engine.training.motion.rules import mouth
from engine.training.speech.phones import DIPHTHONGS, PHONES, VISEMES, Phone, from_ipa

pytestmark = pytest.mark.train


def at(track: np.ndarray, name: str) -> np.ndarray:
    return track[:, CHANNELS.index(name)]


def say(*names: str, each: float = 0.12, loud: float = 0.1) -> tuple[list[Phone], np.ndarray]:
    phones, sound, time = [], [], 0.0
    rng = np.random.default_rng(0)
    for name in ("sil", *names, "sil"):
        length = 0.4 if name == "sil" else each
        phones.append(Phone(name, time, time + length))
        level = 0 if name == "sil" else loud
        sound.append(level * rng.standard_normal(int(length * 16_000)))
        time += length
    return phones, np.concatenate(sound).astype(np.float32)


def test_every_phone_has_a_mouth_made_of_known_channels() -> None:
    assert set(VISEMES) | set(DIPHTHONGS) == set(PHONES)
    assert {v for pair in DIPHTHONGS.values() for v in pair} <= set(VISEMES)
    assert {c for v in VISEMES.values() for c in v} <= set(CHANNELS)


@pytest.mark.parametrize("closer", ["P", "B", "M"])
@pytest.mark.parametrize("vowel", ["AA", "UW", "AE"])
@pytest.mark.parametrize("each", [0.06, 0.12])
def test_lips_meet_on_p_b_m_between_any_vowels(closer: str, vowel: str, each: float) -> None:
    phones, pcm = say(vowel, closer, vowel, each=each)
    track = mouth(phones, pcm, rate=25)
    middle = (phones[2].start + phones[2].end) / 2
    frame = int(middle * 25)
    near = track[max(frame - 1, 0) : frame + 2]
    assert at(near, "jawOpen").min() < 0.05
    assert at(near, "mouthPress").max() > 0.05
    assert at(near, "mouthLowerDown").min() < 0.03


def test_the_mouth_rests_in_silence_and_opens_on_vowels() -> None:
    phones, pcm = say("AA", "AA", each=0.2)
    track = mouth(phones, pcm)
    assert np.abs(track[:10]).max() < 0.03
    assert at(track, "jawOpen").max() > 0.25


def test_lips_rest_apart_in_a_pause_and_close_in_a_silence() -> None:
    phones, pcm = say("AA", "sil", "AA", "AA", each=0.2)
    end = phones[-1].end
    phones[-1] = Phone("sil", phones[-1].start, end + 2)
    pcm = np.concatenate([pcm, np.zeros(32_000, np.float32)])
    track = mouth(phones, pcm)
    pause, silence = int((phones[2].start + phones[2].end) * 25), int((end + 1.5) * 50)
    assert 0.03 < at(track, "mouthLowerDown")[pause] < 0.15
    assert np.abs(track[silence:]).max() < 0.01


def test_a_diphthong_moves_from_its_first_vowel_to_its_second() -> None:
    phones, pcm = say("AW", each=0.3)
    track = mouth(phones, pcm)
    early, late = int((phones[1].start + 0.06) * 50), int((phones[1].end - 0.06) * 50)
    assert at(track, "jawOpen")[early] > 1.3 * at(track, "jawOpen")[late]
    assert at(track, "mouthPucker")[late] > 2 * at(track, "mouthPucker")[early]


def test_louder_vowels_open_wider() -> None:
    phones, pcm = say("AA", "K", "AA", each=0.15)
    first = slice(int(0.4 * 16_000), int(0.55 * 16_000))
    pcm[first] *= 0.2
    jaw = at(mouth(phones, pcm), "jawOpen")
    assert jaw[20:27].max() < 0.8 * jaw[33:45].max()


def test_rounding_begins_before_the_rounded_vowel() -> None:
    phones, pcm = say("T", "UW", each=0.12)
    pucker = at(mouth(phones, pcm), "mouthPucker")
    before = int((phones[2].start - 0.03) * 50)
    assert pucker[before] > 0.25 * pucker.max()


def test_the_teeth_show_on_f_with_the_lower_lip_in() -> None:
    phones, pcm = say("AH", "F", "AH", each=0.12)
    track = mouth(phones, pcm)
    middle = int((phones[2].start + 0.06) * 50)
    assert at(track, "mouthRollLower")[middle] > 0.1
    assert at(track, "mouthUpperUp")[middle] > 0.1
    assert at(track, "jawOpen")[middle] < 0.1


def test_channels_spread_to_left_and_right_alike() -> None:
    matrix = spread_matrix()
    face = np.ones(len(CHANNELS), np.float32) @ matrix
    np.testing.assert_array_equal(face[arkit.MIRROR], face)
    assert face[arkit.index("mouthSmileLeft")] == face[arkit.index("jawOpen")] == 1
    assert face[arkit.EYES].max() == 0


@pytest.mark.parametrize(
    ("ipa", "name"),
    [("ˈaɪ", "AY"), ("pʰ", "P"), ("ʧ", "CH"), ("ŋ", "NG"), ("→", None), ("ɜː", "ER")],
)
def test_ipa_finds_its_phone(ipa: str, name: str | None) -> None:
    assert from_ipa(ipa) == name
