"""Prompts to the token ids of a text encoder."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from engine.errors import WeightsError

Tokenise = Callable[[Sequence[str]], Tensor]  # prompts -> token ids (B, 77)


class WordNumbers:
    """Token ids for small text encoders, which have no tokenizer: each word is hashed."""

    def __init__(self, vocabulary: int, length: int = 77) -> None:
        self._words, self._length = vocabulary - 2, length  # the last two begin and end

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, length) int64, padded with the end token, longer ones cut."""
        rows = []
        for prompt in prompts:
            words = [zlib.crc32(w.encode()) % self._words for w in prompt.lower().split()]
            row = [self._words, *words[: self._length - 2]]
            rows.append(row + [self._words + 1] * (self._length - len(row)))
        return torch.tensor(rows)


class ClipTokens:
    """Token ids of CLIP's own tokenizer.

    Args:
        folder: vocab.json and merges.txt, such as Stable Diffusion's folder `tokenizer`.

    Raises:
        WeightsError: they are not there.
    """

    def __init__(self, folder: Path, length: int = 77) -> None:
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise WeightsError(f"no file {folder / name}; see: portraittalk models")
        self._tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._length = length

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, length) int64, padded with the end token, longer ones cut."""
        out: Tensor = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self._length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return out
