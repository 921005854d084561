"""Measures the painter on held-out people: figures, and an image sheet to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from torch import nn

from engine.nets.painter import Painter
from engine.training.mouth_crop import mouth_crop
from engine.training.painter.loss import MOUTH_SIDE
from engine.training.painter.pairs import Triple


@torch.no_grad()
def evaluate(
    net: Painter, triple: Triple, lpips: nn.Module, steps: tuple[int, ...] = (1, 2, 4, 25)
) -> dict[str, dict[str, float]]:
    """LPIPS and PSNR of the crop and LPIPS of the mouth crop on held-out people."""
    reference = net.enroll(triple.reference)
    condition = net.condition(
        triple.reference,
        reference,
        triple.reference_landmarks,
        triple.target_landmarks,
        triple.target_placement,
    )
    rows = {"warp alone": condition.warped}
    noise = net.noise(1).expand(len(triple.target), -1, -1, -1)
    for count in steps:
        torch.manual_seed(0)
        rows[f"{count} step"] = net.sample(condition, reference, net.cold(reference), noise, count)[
            0
        ]
    rows["codec bound"] = net.decoder(
        net.encoder(triple.target), condition.warped, condition.opening
    )[0]
    table = {}
    for name, made in rows.items():
        mouth, wanted = (
            mouth_crop(x, triple.target_landmarks, MOUTH_SIDE) for x in (made, triple.target)
        )
        error = ((mouth - wanted) / 2).square().mean((1, 2, 3))
        table[name] = {
            "lpips": round(float(lpips(made, triple.target).mean()), 4),
            "mouth_lpips": round(float(lpips(mouth, wanted).mean()), 4),
            "mouth_psnr": round(float((-10 * error.log10()).mean()), 2),
        }
    return table


@torch.no_grad()
def sheet(net: Painter, triple: Triple, path: Path, rows: int = 10) -> None:
    """Write an image to look at: reference, warp, one step, two steps, target, a person a row."""
    part = triple.rows(rows)
    reference = net.enroll(part.reference)
    condition = net.condition(
        part.reference,
        reference,
        part.reference_landmarks,
        part.target_landmarks,
        part.target_placement,
    )
    noise = net.noise(1).expand(len(part.target), -1, -1, -1)
    made = [net.sample(condition, reference, net.cold(reference), noise, n)[0] for n in (1, 2)]
    columns = torch.cat([part.reference, condition.warped, *made, part.target], 3)
    rgb = columns.permute(0, 2, 3, 1).reshape(-1, columns.shape[3], 3)
    cv2.imwrite(str(path), ((rgb.clamp(-1, 1) + 1) * 127.5).byte().numpy()[:, :, ::-1])
