"""Which bytes are the k-th sequence of a domain, and in which order domains take turns."""

from __future__ import annotations

import functools

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.data_mixing.corpora import Corpus
from allocgym.real_backend.data_mixing.generated import scored_bytes


def windows(text: np.ndarray, context: int) -> np.ndarray:
    """Cut a text into windows that do not overlap but for the last byte, which is only predicted.

    Args:
        text: uint8 bytes.
        context: bytes of input.

    Returns:
        ``(count, context + 1)`` uint8, a view.
    """
    return np.lib.stride_tricks.sliding_window_view(text, context + 1)[::context]


def scored_windows(text: np.ndarray, context: int, answers: str | None) -> np.ndarray:
    """Mark the predictions that count: ``(count, context)`` bool, one row for each window.

    All do, unless ``answers`` is given (see `Corpus`).
    """
    if answers is None:
        everything = np.ones((1, context), bool)
        return np.broadcast_to(everything, (len(windows(text, context)), context))
    return windows(scored_bytes(text.tobytes(), answers), context)[:, 1:]


class Stream:
    """A domain's training sequences in a fixed order, epoch after epoch.

    Sequence k is a function of (seed, stage, name of the domain, k) alone: it is the same whatever
    the mixture, so runs that differ in their policy are paired on data.

    Args:
        corpus: the domain.
        context: bytes of a sequence.
        seed: of the order.
        stage: ``"base"`` or ``"episode"``: they must not see the same order.
        unique: distinct windows the domain is restricted to, or None for all. Which ones does not
            depend on the seed.
    """

    def __init__(
        self, corpus: Corpus, context: int, seed: int, stage: str, unique: int | None = None
    ) -> None:
        self._windows = windows(corpus.train, context)
        self._scored = scored_windows(corpus.train, context, corpus.answers)
        if unique is not None:
            if unique > len(self._windows):
                raise AllocgymError(
                    f"unique: {corpus.name!r} has {len(self._windows)} windows, given {unique}"
                )
            order = randomness.generator(0, f"unique/{corpus.name}").permutation(len(self._windows))
            self._windows = self._windows[order[:unique]]
            self._scored = self._scored[order[:unique]]
        self.epoch = len(self._windows)
        self._order = functools.lru_cache(2)(
            lambda epoch: randomness.generator(seed, f"{stage}/{corpus.name}/{epoch}").permutation(
                self.epoch
            )
        )

    def sequence(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return sequence ``k``: ``(context + 1,)`` uint8, and which predictions are scored.

        The second is ``(context,)`` float32 weights summing to 1 (0 where nothing is scored).
        """
        epoch, place = divmod(k, self.epoch)
        index = self._order(epoch)[place]
        scored = self._scored[index].astype(np.float32)
        return self._windows[index], scored / max(scored.sum(), 1.0)


def interleave(units: np.ndarray) -> np.ndarray:
    """Spread each domain's sequences evenly over a period.

    Args:
        units: ``(n,)`` integers, sequences of each domain.

    Returns:
        ``(units.sum(),)`` int64 indices of domains, in training order.
    """
    places = [(np.arange(count) + 0.5) / count for count in units if count]
    domains = np.repeat(np.arange(len(units)), units)
    order: np.ndarray = np.argsort(np.concatenate(places), kind="stable")
    return domains[order]


def evaluation_set(
    text: np.ndarray, context: int, count: int, answers: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose windows evenly over a text.

    Args:
        text: uint8 bytes.
        context: bytes of input.
        count: windows wanted; fewer where the text has fewer.
        answers: as in `Corpus`.

    Returns:
        ``(count, context + 1)`` uint8 windows, and ``(count, context)`` bool: which of the bytes
        predicted are scored.
    """
    all_windows = windows(text, context)
    chosen = np.linspace(0, len(all_windows) - 1, min(count, len(all_windows))).astype(np.int64)
    return all_windows[chosen], scored_windows(text, context, answers)[chosen]
