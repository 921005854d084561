"""Phones: one small inventory for every voice, and what each phone asks of the mouth."""

from __future__ import annotations

from dataclasses import dataclass

PHONES: tuple[str, ...] = (
    *("sil", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F"),
    *("G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH"),
    *("T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH", "UE"),
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
_IPA: dict[str, str] = {
    **{"aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "ei": "EY", "oʊ": "OW", "əʊ": "OW", "ou": "OW"},
    **{"ɔɪ": "OY", "ɔø": "OY", "tʃ": "CH", "dʒ": "JH", "ts": "S", "dz": "Z", "tɕ": "CH"},
    **{"ʈʂ": "CH", "ai": "AY", "ɑu": "AW", "au": "AW", "ɪə": "IH", "eə": "EH", "ʊə": "UH"},
    **{"a": "AA", "ɑ": "AA", "ɒ": "AO", "æ": "AE", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ɔ": "AO"},
    **{"ɜ": "ER", "ɚ": "ER", "ɝ": "ER", "ɛ": "EH", "e": "EH", "ɪ": "IH", "i": "IY", "ᵻ": "IH"},
    **{"o": "OW", "ʊ": "UH", "u": "UW", "y": "UE", "ø": "UE", "œ": "UE", "ɨ": "IH", "ʏ": "UE"},
    **{"ɤ": "AH", "ɯ": "IH", "b": "B", "β": "B", "p": "P", "m": "M", "f": "F", "v": "V", "ʋ": "V"},
    **{"ɱ": "M", "d": "D", "ð": "DH", "ɾ": "D", "ɡ": "G", "g": "G", "ɣ": "G", "h": "HH", "x": "K"},
    **{"χ": "K", "ç": "HH", "k": "K", "q": "K", "l": "L", "ɫ": "L", "ʎ": "L", "ɭ": "L", "n": "N"},
    **{"ɲ": "N", "ɳ": "N", "ŋ": "NG", "r": "R", "ɹ": "R", "ɻ": "R", "ʁ": "R", "ʀ": "R", "ɽ": "R"},
    **{
        "s": "S",
        "ɕ": "SH",
        "ʂ": "SH",
        "ʃ": "SH",
        "t": "T",
        "θ": "TH",
        "w": "W",
        "ɥ": "W",
        "j": "Y",
    },
    **{"z": "Z", "ʒ": "ZH", "ʐ": "R", "ʑ": "ZH", "ʝ": "Y", "c": "K", "ɟ": "G", "ʈ": "T", "ɖ": "D"},
    **{
        "A": "EY",
        "I": "AY",
        "O": "OW",
        "W": "AW",
        "Y": "OY",
        "ʤ": "JH",
        "ʧ": "CH",
        "Q": "OW",
        "ʨ": "CH",
        "ꭧ": "CH",
        "ʦ": "S",
    },
}
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
