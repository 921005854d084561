"""The columns of the tables: how each measure is called, in what unit, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["pose-given", "free"]
Better = Literal["higher", "lower", "near"]  # near: to the value of the real clip


@dataclass(frozen=True, slots=True)
class Column:
    """One measure.

    Attributes:
        name: its key in `Measured.values`, or in what `measure_set` gives.
        title: as the papers print it.
        protocol: in which it is told; None: in both.
        about: one sentence for who reads the table.
    """

    name: str
    title: str
    unit: str
    better: Better
    protocol: Protocol | None
    about: str = ""


_ALL = (
    Column("psnr", "PSNR", "dB", "higher", "pose-given", "uint8 RGB, mean over frames"),
    Column("ssim", "SSIM", "", "higher", "pose-given", "Gaussian 11 x 11, sigma 1.5, RGB"),
    Column("lpips_alex", "LPIPS", "", "lower", "pose-given", "v0.1, AlexNet"),
    Column("lpips_vgg", "LPIPS (VGG)", "", "lower", "pose-given", "v0.1, VGG16, of the frames that the notes name"),
    Column("m_lmd", "M-LMD", "px at 256", "lower", "pose-given", "mouth: points 49-68 of 68"),
    Column("f_lmd", "F-LMD", "px at 256", "lower", "pose-given", "all 68 points"),
    Column("m_lmd_centred", "M-LMD, centred", "px at 256", "lower", None, "each mouth about its own mean"),
    Column("f_lmd_centred", "F-LMD, centred", "px at 256", "lower", None, "each face about its own mean"),
    Column("m_lmd_iod", "M-LMD / eyes", "%", "lower", "pose-given", "of the outer eye corners' distance"),
    Column("f_lmd_iod", "F-LMD / eyes", "%", "lower", "pose-given", "of the outer eye corners' distance"),
    Column("fid", "FID", "", "lower", None, "standard Inception (2015-12-05), pool3, all frames"),
    Column("kid", "KID x 1000", "", "lower", None, "unbiased, cubic kernel, same features"),
    Column("sync_c", "Sync-C", "", "higher", "free", "public SyncNet v2"),
    Column("sync_d", "Sync-D", "", "lower", "free", "public SyncNet v2"),
    Column("sync_offset", "AV offset", "frames", "near", "free", "public SyncNet v2"),
    Column("own_sync_c", "Own sync, confidence", "", "higher", "free", "this project's audio-lip expert; no SyncNet"),
    Column("own_sync_d", "Own sync, distance", "", "lower", "free", "this project's audio-lip expert; no SyncNet"),
    Column("own_sync_offset", "Own sync, offset", "frames", "near", "free", "positive: lips late; this project's expert"),
    Column("csim", "CSIM", "", "higher", None, "SFace embeddings, against the portrait"),
    Column("adfd", "ADFD", "", "higher", None, "sound reading: cosine moved to [0, 1], mean over points"),
    Column("adfd_spatial", "ADFD, place", "", "higher", None, "its first factor"),
    Column("adfd_motion", "ADFD, motion", "", "higher", None, "its second factor; falls with detector jitter"),
    Column("adfd_paper", "ADFD as printed", "", "near", None, "formula (3) to the letter; not bounded"),
    Column("tlpips", "tLPIPS", "", "near", None, "AlexNet LPIPS of frames that follow each other"),
    Column("tlpips_excess", "tLPIPS less real", "", "near", None, "that of the real clip taken off; 0 is best"),
    Column("flicker", "Flicker", "levels", "near", None, "second difference in time of the luma"),
    Column("drift_identity", "Identity drift", "1/min", "near", None, "slope of CSIM"),
    Column("drift_colour", "Colour drift", "levels/min", "near", None, "slope of the face's Lab distance to its start"),
    Column("drift_features", "Drift of features", "1/min", "near", None, "slope of Inception features' distance to their start"),
    Column("drift_latent_mean", "Drift of latents' mean", "1/min", "near", None, "tiny's codec, rms of its channels' slopes"),
    Column("drift_latent_spread", "Drift of latents' spread", "1/min", "near", None, "the same of their standard deviation"),
    Column("found", "Face found", "share", "higher", None, "of all frames"),
    Column("lip_gap_r", "Lip gap, r", "", "higher", "free", "with the real lips, at the best lag"),
    Column("lip_gap_lag_ms", "Lip gap, lag", "ms", "near", "free", "positive: later than the real lips"),
    Column("lip_width_r", "Mouth width, r", "", "higher", "free", "at the lag of the gap"),
    Column("lip_gap_spread", "Lip gap, spread", "x real", "near", "free", "standard deviation over the real one"),
    Column("lip_closed", "Lips closed", "share", "near", "free", "of all frames"),
    Column("lip_closed_real", "Lips closed, real", "share", "near", "free", "of all frames of the real clip"),
    Column("closure_pbm", "p, b, m closed", "share", "higher", "free", "of those said, by forced alignment"),
    Column("n_pbm", "p, b, m said", "", "near", "free", "how many there are"),
    Column("lip_offset_ms", "Lips late on p, b, m", "ms", "near", "free", "when lips meet, against when it is said"),
    Column("blink_rate", "Blinks", "1/min", "near", "free", "people in conversation: 10 to 40"),
    Column("blink_ms", "Blink length", "ms", "near", "free", "median, at half depth; people: 80 to 300"),
    Column("head_std", "Head, spread", "degrees", "near", "free", "yaw, pitch and roll together; talking people: 3 to 13"),
    Column("head_speed", "Head, speed", "degrees/s", "near", "free", "rms, yaw, pitch and roll together; talking people: 8 to 32"),
)  # fmt: skip

COLUMNS: Mapping[str, Column] = {column.name: column for column in _ALL}
