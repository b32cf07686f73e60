"""What the members learn: handwritten digits, a synthetic teacher, the next byte of Python text."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError, missing_extra

CONTEXT = 8
"""Bytes a member of the language model sees."""
VOCABULARY = 128
EMBEDDING = 8
_TEXT = 120_000
"""Bytes of training text; half as many each for validation and test."""


@dataclasses.dataclass(frozen=True)
class Task:
    """Examples of one episode, on one device.

    Attributes:
        inputs: numbers a member's first layer sees.
        outputs: classes, or 1 where a value is predicted.
        vocabulary: rows of an embedding table that inputs index, or 0 where they are numbers.
        train, valid, test: pairs of inputs and targets; targets are int64 classes or float32 values.
        digest: hash of the examples; a checkpoint is only continued on the same ones.
    """

    inputs: int
    outputs: int
    vocabulary: int
    train: tuple[torch.Tensor, torch.Tensor]
    valid: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    digest: str


def _task(
    parts: list[tuple[np.ndarray, np.ndarray]],
    inputs: int,
    outputs: int,
    device: torch.device,
    vocabulary: int = 0,
) -> Task:
    digest = hashlib.blake2b(digest_size=8)
    for x, y in parts:
        digest.update(np.ascontiguousarray(x).tobytes() + np.ascontiguousarray(y).tobytes())
    train, valid, test = (
        (torch.as_tensor(x).to(device), torch.as_tensor(y).to(device)) for x, y in parts
    )
    return Task(inputs, outputs, vocabulary, train, valid, test, digest.hexdigest())


def digits(seed: int, valid: int, test: int, device: torch.device) -> Task:
    """1,797 images of 8 x 8 (scikit-learn's copy of the UCI set), split anew for each seed.

    Raises:
        ImportError: scikit-learn is not installed.
        AllocgymError: nothing would be left to train on.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_extra("scikit-learn", "real") from error
    images, labels = load_digits(return_X_y=True)
    left = len(labels) - valid - test
    if left < 100:
        raise AllocgymError(
            f"valid, test: at most {len(labels) - 100} together expected, given {valid + test}"
        )
    order = randomness.generator(seed, "digits").permutation(len(labels))
    x = (images[order] / 16).astype(np.float32)
    y = labels[order].astype(np.int64)
    cuts = [slice(0, left), slice(left, left + valid), slice(left + valid, None)]
    return _task([(x[c], y[c]) for c in cuts], x.shape[1], 10, device)


def teacher(seed: int, valid: int, test: int, device: torch.device) -> Task:
    """Values of a random two-layer network at normal inputs, standardised, with noise 0.1.

    Inputs have very different scales, so curvatures do too.
    """
    rng = randomness.generator(seed, "teacher")
    first, second = rng.normal(size=(16, 12)), rng.normal(size=12)
    scale = np.arange(1, 17) ** -0.5
    parts = []
    for count in (2048, valid, test):
        x = rng.normal(size=(count, 16)) * scale
        parts.append((x, np.tanh(2 * x @ first) @ second + 0.1 * rng.normal(size=count)))
    mean, spread = parts[0][1].mean(), parts[0][1].std()
    scaled = [(x.astype(np.float32), ((y - mean) / spread).astype(np.float32)) for x, y in parts]
    return _task(scaled, 16, 1, device)


@functools.cache
def _text(part: int) -> np.ndarray:
    """ASCII bytes of the standard library's modules; a module serves one part only."""
    root = Path(sysconfig.get_path("stdlib"))
    wanted = _TEXT if part == 0 else _TEXT // 2
    held, size = [], 0
    for path in sorted(root.glob("*.py")):
        share = hashlib.blake2b(path.name.encode()).digest()[1] % 4
        if (share if share < 3 else 0) != part:
            continue
        raw = np.frombuffer(path.read_bytes(), np.uint8)
        held.append(raw[raw < VOCABULARY])
        size += len(held[-1])
        if size >= wanted:
            break
    return np.concatenate(held)[:wanted]


def language(seed: int, valid: int, test: int, device: torch.device) -> Task:
    """The byte after eight others, in modules of Python's standard library."""
    rng = randomness.generator(seed, "bytes")
    parts = []
    for part, count in ((0, None), (1, valid), (2, test)):
        windows = np.lib.stride_tricks.sliding_window_view(_text(part), CONTEXT + 1)
        if count is not None:
            if count > len(windows):
                raise AllocgymError(
                    f"valid, test: at most {len(windows)} examples each expected, given {count}"
                )
            windows = windows[rng.choice(len(windows), count, replace=False)]
        whole = windows.astype(np.int64)
        parts.append((whole[:, :-1], whole[:, -1]))
    return _task(parts, CONTEXT * EMBEDDING, VOCABULARY, device, VOCABULARY)


TASKS: dict[str, Callable[[int, int, int, torch.device], Task]] = {
    "digits": digits,
    "teacher": teacher,
    "bytes": language,
}
