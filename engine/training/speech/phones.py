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


# How far a phone moves the mouth, by coefficient. `jawOpen` of a vowel is scaled by its energy.
# Numbers are peak targets; blending and the match to real statistics come afterwards.
_OPEN = {"mouthLowerDown": 0.22, "mouthUpperUp": 0.20}
_SPREAD = {"mouthStretch": 0.14, "mouthSmile": 0.10}
VISEMES: dict[str, dict[str, float]] = {
    "sil": {},
    "AA": {"jawOpen": 0.42, **_OPEN},
    "AE": {"jawOpen": 0.36, "mouthStretch": 0.12, "mouthLowerDown": 0.26, "mouthUpperUp": 0.24},
    "AH": {"jawOpen": 0.22, "mouthLowerDown": 0.18, "mouthUpperUp": 0.14},
    "AO": {"jawOpen": 0.32, "mouthFunnel": 0.38, "mouthPucker": 0.14, "mouthLowerDown": 0.12},
    "AW": {"jawOpen": 0.38, "mouthFunnel": 0.22, "mouthPucker": 0.12, **_OPEN},
    "AY": {"jawOpen": 0.36, "mouthStretch": 0.10, **_OPEN},
    "EH": {"jawOpen": 0.26, "mouthStretch": 0.12, **_OPEN},
    "EY": {"jawOpen": 0.20, **_SPREAD, **_OPEN},
    "ER": {"jawOpen": 0.16, "mouthFunnel": 0.30, "mouthPucker": 0.18, "mouthLowerDown": 0.12},
    "IH": {"jawOpen": 0.14, "mouthStretch": 0.12, **_OPEN},
    "IY": {"jawOpen": 0.10, **_SPREAD, **_OPEN},
    "OW": {"jawOpen": 0.24, "mouthFunnel": 0.34, "mouthPucker": 0.36},
    "OY": {"jawOpen": 0.28, "mouthFunnel": 0.36, "mouthPucker": 0.26},
    "UH": {"jawOpen": 0.14, "mouthFunnel": 0.30, "mouthPucker": 0.30},
    "UW": {"jawOpen": 0.10, "mouthFunnel": 0.24, "mouthPucker": 0.58},
    "UE": {"jawOpen": 0.10, "mouthFunnel": 0.30, "mouthPucker": 0.50},
    "P": {"mouthPress": 0.34, "mouthRollLower": 0.26, "mouthRollUpper": 0.18, "mouthClose": 0.05},
    "B": {"mouthPress": 0.30, "mouthRollLower": 0.24, "mouthRollUpper": 0.16, "mouthClose": 0.05},
    "M": {"mouthPress": 0.30, "mouthRollLower": 0.26, "mouthRollUpper": 0.18, "mouthClose": 0.06},
    "F": {"jawOpen": 0.05, "mouthRollLower": 0.34, "mouthUpperUp": 0.20, "mouthPress": 0.04},
    "V": {"jawOpen": 0.05, "mouthRollLower": 0.32, "mouthUpperUp": 0.18, "mouthPress": 0.04},
    "W": {"jawOpen": 0.06, "mouthFunnel": 0.22, "mouthPucker": 0.60},
    "R": {"jawOpen": 0.10, "mouthFunnel": 0.36, "mouthPucker": 0.24, "mouthLowerDown": 0.08},
    "SH": {"jawOpen": 0.07, "mouthFunnel": 0.46, "mouthPucker": 0.20, "mouthLowerDown": 0.14},
    "ZH": {"jawOpen": 0.07, "mouthFunnel": 0.44, "mouthPucker": 0.20, "mouthLowerDown": 0.14},
    "CH": {"jawOpen": 0.07, "mouthFunnel": 0.44, "mouthPucker": 0.18, "mouthLowerDown": 0.14},
    "JH": {"jawOpen": 0.07, "mouthFunnel": 0.42, "mouthPucker": 0.18, "mouthLowerDown": 0.14},
    "S": {"jawOpen": 0.05, "mouthStretch": 0.14, "mouthLowerDown": 0.22, "mouthUpperUp": 0.12},
    "Z": {"jawOpen": 0.05, "mouthStretch": 0.13, "mouthLowerDown": 0.22, "mouthUpperUp": 0.12},
    "T": {"jawOpen": 0.08, "mouthStretch": 0.08, "mouthLowerDown": 0.16, "mouthUpperUp": 0.10},
    "D": {"jawOpen": 0.08, "mouthStretch": 0.08, "mouthLowerDown": 0.16, "mouthUpperUp": 0.10},
    "N": {"jawOpen": 0.08, "mouthStretch": 0.06, "mouthLowerDown": 0.14, "mouthUpperUp": 0.08},
    "L": {"jawOpen": 0.14, "mouthLowerDown": 0.16, "mouthUpperUp": 0.12},
    "TH": {"jawOpen": 0.12, "mouthLowerDown": 0.20, "mouthUpperUp": 0.14, "tongueOut": 0.18},
    "DH": {"jawOpen": 0.12, "mouthLowerDown": 0.18, "mouthUpperUp": 0.12, "tongueOut": 0.14},
    "K": {"jawOpen": 0.14, "mouthLowerDown": 0.14, "mouthUpperUp": 0.10},
    "G": {"jawOpen": 0.14, "mouthLowerDown": 0.14, "mouthUpperUp": 0.10},
    "NG": {"jawOpen": 0.12, "mouthLowerDown": 0.12, "mouthUpperUp": 0.08},
    "HH": {"jawOpen": 0.16, "mouthLowerDown": 0.12, "mouthUpperUp": 0.10},
    "Y": {"jawOpen": 0.08, **_SPREAD, "mouthLowerDown": 0.16, "mouthUpperUp": 0.12},
}
