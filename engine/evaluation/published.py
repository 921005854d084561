"""The numbers that PortraitTalk prints, in its columns and order. Other data: nothing here is measured by us."""

from __future__ import annotations

PAPER = "PortraitTalk"
TABLE_1_COLUMNS = ("psnr", "ssim", "m_lmd", "f_lmd", "fid", "sync_c", "adfd")
TABLE_2_COLUMNS = ("psnr", "ssim", "fid", "sync_c", "adfd")
_HDTF = """
MakeItTalk 21.985 .709 2.395 2.182 18.730 4.753 .726
Wav2Lip 22.323 .727 1.759 2.002 22.397 9.032 .699
Audio2Head 21.608 .702 1.983 2.060 29.385 7.076 .835
SadTalker 21.701 .702 1.995 2.147 14.261 7.414 .726
IP-LAP 22.615 .731 1.951 1.938 19.281 3.456 .633
TalkLip 22.241 .730 1.976 1.937 23.850 1.076 .518
EAMM 19.866 .626 2.910 2.937 41.200 4.445 .839
EDTalk 25.156 .811 1.676 1.315 13.785 7.642 .722
PortraitTalk 27.495 .846 1.157 1.017 11.753 8.381 .835
"""
_MEAD = """
MakeItTalk 19.442 .614 2.541 2.309 37.917 5.176 .693
Wav2Lip 19.875 .633 1.438 2.138 44.510 8.774 .584
Audio2Head 18.764 .586 2.053 2.293 27.236 6.494 .725
SadTalker 19.042 .606 2.038 2.335 39.308 7.065 .761
IP-LAP 19.832 .627 2.140 2.116 46.502 4.156 .527
TalkLip 19.492 .623 1.951 2.204 41.066 5.724 .548
EAMM 18.867 .610 2.543 2.413 31.268 1.762 .847
EDTalk 21.628 .722 1.537 1.290 17.698 8.115 .715
PortraitTalk 23.097 .873 1.206 1.385 17.351 8.916 .816
"""
_ABLATION = """
unified-attention 9.430 .278 12.794 .0412 .024
without-face-encoder 13.457 .490 15.794 2.912 .386
one-reference 16.296 .593 14.551 2.714 .582
without-placement-guidance 24.725 .748 13.821 6.264 .683
without-temporal-attention 26.951 .796 12.381 7.486 .765
full 27.495 .846 11.753 8.381 .835
"""


def rows(table: str, columns: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Numbers of each row of a printed table, by our names of its columns."""
    found = {}
    for line in table.strip().splitlines():
        name, *numbers = line.split()
        found[name] = {c: float(n) for c, n in zip(columns, numbers, strict=True)}
    return found


TABLE_1 = {"MEAD": rows(_MEAD, TABLE_1_COLUMNS), "HDTF": rows(_HDTF, TABLE_1_COLUMNS)}
TABLE_2 = {"HDTF": rows(_ABLATION, TABLE_2_COLUMNS)}


def printed(value: float) -> str:
    """A number of a table with the digits that it has there."""
    return f"{value:.3f}" if round(value, 3) == value else f"{value:.4f}"


def words(name: str) -> str:
    """A row's name as it is read: the ablations have names without blanks."""
    return name.replace("-", " ") if name in TABLE_2["HDTF"] else name
