"""Phones: one small inventory for every voice, and what each phone asks of the mouth."""

from __future__ import annotations

from dataclasses import dataclass

PHONES: tuple[str, ...] = tuple(
    """
    sil AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH
    T TH UH UW V W Y Z ZH UE
    """.split()
)
SIL = 0
INDEX = {name: i for i, name in enumerate(PHONES)}
BILABIAL = frozenset("PBM")
LABIODENTAL = frozenset("FV")
VOWELS = frozenset(
    ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW", "UE")
)


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of the inventory with its time in seconds."""

    name: str
    start: float
    end: float


# Longest first wins. Covers what espeak-ng says in IPA for English, Mandarin and the larger
# European languages; anything unknown is dropped by `from_ipa`.
_SPELT = {  # a phone, and the IPA that stands for it
    "AY": "aɪ ai I",
    "AW": "aʊ ɑu au W",
    "EY": "eɪ ei A",
    "OW": "oʊ əʊ ou o O Q",
    "OY": "ɔɪ ɔø Y",
    "CH": "tʃ tɕ ʈʂ ʧ ʨ ꭧ",
    "JH": "dʒ ʤ",
    "S": "ts s ʦ",
    "Z": "dz z",
    "IH": "ɪə ɪ ᵻ ɨ ɯ",
    "EH": "eə ɛ e",
    "UH": "ʊə ʊ",
    "AA": "a ɑ",
    "AO": "ɒ ɔ",
    "AE": "æ",
    "AH": "ʌ ə ɐ ɤ",
    "ER": "ɜ ɚ ɝ",
    "IY": "i",
    "UW": "u",
    "UE": "y ø œ ʏ",
    "B": "b β",
    "P": "p",
    "M": "m ɱ",
    "F": "f",
    "V": "v ʋ",
    "D": "d ɾ ɖ",
    "DH": "ð",
    "G": "ɡ g ɣ ɟ",
    "HH": "h ç",
    "K": "x χ k q c",
    "L": "l ɫ ʎ ɭ",
    "N": "n ɲ ɳ",
    "NG": "ŋ",
    "R": "r ɹ ɻ ʁ ʀ ɽ ʐ",
    "SH": "ɕ ʂ ʃ",
    "T": "t ʈ",
    "TH": "θ",
    "W": "w ɥ",
    "Y": "j ʝ",
    "ZH": "ʒ ʑ",
}
_IPA = {sign: phone for phone, signs in _SPELT.items() for sign in signs.split()}
_LONGEST = sorted(_IPA, key=len, reverse=True)


def from_ipa(text: str) -> str | None:
    """Name of the phone an IPA string starts with, or None when it holds none."""
    bare = text.lstrip("ˈˌ'ˑ ")
    for symbol in _LONGEST:
        if bare.startswith(symbol):
            return _IPA[symbol]
    return None


def phones_from_ipa(text: str) -> list[str]:
    """Names of all phones of an IPA string, in order; marks and unknown signs are passed over."""
    out = []
    while text:
        symbol = next((s for s in _LONGEST if text.startswith(s)), None)
        if symbol is not None:
            out.append(_IPA[symbol])
        text = text[len(symbol or " ") :]
    return out


# How far a phone moves the mouth, in ARKit's units: peak targets, blended afterwards. `jawOpen` and the parting
# of a vowel are scaled by its energy. Lips stay apart through most consonants: what real talkers close are
# p, b, m, and hardly anything else.
_SPREAD = {"mouthStretch": 0.20, "mouthSmile": 0.15}
VISEMES: dict[str, dict[str, float]] = {
    "sil": {},
    "AA": {"jawOpen": 0.32, "mouthLowerDown": 0.20, "mouthUpperUp": 0.17},
    "AE": {"jawOpen": 0.27, "mouthStretch": 0.16, "mouthLowerDown": 0.22, "mouthUpperUp": 0.20},
    "AH": {"jawOpen": 0.17, "mouthLowerDown": 0.17, "mouthUpperUp": 0.14},
    "AO": {"jawOpen": 0.20, "mouthFunnel": 0.38, "mouthPucker": 0.18, "mouthLowerDown": 0.08},
    "EH": {"jawOpen": 0.20, "mouthStretch": 0.16, "mouthLowerDown": 0.22, "mouthUpperUp": 0.19},
    "ER": {"jawOpen": 0.10, "mouthFunnel": 0.32, "mouthPucker": 0.20, "mouthLowerDown": 0.13},
    "IH": {"jawOpen": 0.12, "mouthStretch": 0.15, "mouthLowerDown": 0.20, "mouthUpperUp": 0.17},
    "IY": {"jawOpen": 0.09, **_SPREAD, "mouthLowerDown": 0.20, "mouthUpperUp": 0.19},
    "UH": {"jawOpen": 0.09, "mouthFunnel": 0.30, "mouthPucker": 0.32, "mouthLowerDown": 0.09},
    "UW": {"jawOpen": 0.06, "mouthFunnel": 0.28, "mouthPucker": 0.56, "mouthLowerDown": 0.04},
    "UE": {"jawOpen": 0.06, "mouthFunnel": 0.30, "mouthPucker": 0.52, "mouthLowerDown": 0.09},
    "P": {"mouthPress": 0.10, "mouthRollLower": 0.09, "mouthRollUpper": 0.06, "mouthClose": 0.06},
    "B": {"mouthPress": 0.09, "mouthRollLower": 0.08, "mouthRollUpper": 0.06, "mouthClose": 0.06},
    "M": {"mouthPress": 0.09, "mouthRollLower": 0.08, "mouthRollUpper": 0.06, "mouthClose": 0.07},
    "F": {"jawOpen": 0.04, "mouthRollLower": 0.16, "mouthUpperUp": 0.19},
    "V": {"jawOpen": 0.05, "mouthRollLower": 0.14, "mouthUpperUp": 0.19},
    "W": {"jawOpen": 0.04, "mouthFunnel": 0.32, "mouthPucker": 0.66, "mouthLowerDown": 0.02},
    "R": {"jawOpen": 0.07, "mouthFunnel": 0.42, "mouthPucker": 0.38, "mouthLowerDown": 0.06},
    "SH": {"jawOpen": 0.07, "mouthFunnel": 0.44, "mouthPucker": 0.24, "mouthLowerDown": 0.13},
    "ZH": {"jawOpen": 0.07, "mouthFunnel": 0.42, "mouthPucker": 0.24, "mouthLowerDown": 0.13},
    "CH": {"jawOpen": 0.07, "mouthFunnel": 0.40, "mouthPucker": 0.22, "mouthLowerDown": 0.13},
    "JH": {"jawOpen": 0.07, "mouthFunnel": 0.38, "mouthPucker": 0.20, "mouthLowerDown": 0.13},
    "S": {"jawOpen": 0.06, "mouthStretch": 0.16, "mouthLowerDown": 0.22, "mouthUpperUp": 0.14},
    "Z": {"jawOpen": 0.06, "mouthStretch": 0.15, "mouthLowerDown": 0.22, "mouthUpperUp": 0.14},
    "T": {"jawOpen": 0.10, "mouthStretch": 0.10, "mouthLowerDown": 0.19, "mouthUpperUp": 0.13},
    "D": {"jawOpen": 0.10, "mouthStretch": 0.10, "mouthLowerDown": 0.18, "mouthUpperUp": 0.12},
    "N": {"jawOpen": 0.10, "mouthStretch": 0.08, "mouthLowerDown": 0.18, "mouthUpperUp": 0.12},
    "L": {"jawOpen": 0.14, "mouthLowerDown": 0.18, "mouthUpperUp": 0.13},
    "TH": {"jawOpen": 0.09, "mouthLowerDown": 0.19, "mouthUpperUp": 0.13, "tongueOut": 0.18},
    "DH": {"jawOpen": 0.09, "mouthLowerDown": 0.18, "mouthUpperUp": 0.12, "tongueOut": 0.14},
    "K": {"jawOpen": 0.14, "mouthLowerDown": 0.17, "mouthUpperUp": 0.12},
    "G": {"jawOpen": 0.14, "mouthLowerDown": 0.17, "mouthUpperUp": 0.12},
    "NG": {"jawOpen": 0.14, "mouthLowerDown": 0.16, "mouthUpperUp": 0.11},
    "HH": {"jawOpen": 0.15, "mouthLowerDown": 0.16, "mouthUpperUp": 0.12},
    "Y": {"jawOpen": 0.09, **_SPREAD, "mouthLowerDown": 0.19, "mouthUpperUp": 0.14},
}
# A diphthong moves from one vowel to another; the first takes `FIRST_VOWEL` of its time.
DIPHTHONGS = {
    "AY": ("AA", "IH"),
    "AW": ("AA", "UH"),
    "OW": ("AO", "UW"),
    "OY": ("AO", "IH"),
    "EY": ("EH", "IY"),
}
FIRST_VOWEL = 0.55
