"""Instances to pack: generated with a known packing, or public; the exact evaluator as back end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.packing.problem import (
    Buffers,
    NextBuffer,
    Packing,
    PackingOutcome,
    PackingState,
    from_csv,
    look_ahead,
    place_many,
)
from allocgym.simulators.core import public_data

SCENARIOS = ("tight", "slack", "stacked", "minimalloc", "file")
INPUTS = "ABCDEFGHIJK"
CAPACITY = 2**20


def cut(seed: int, buffers: int = 48, capacity: int = CAPACITY, span: int = 1024) -> Buffers:
    """Cut the rectangle time x memory into buffers: they fill it without a gap.

    The piece of largest area is cut in two, across time or memory, until there are enough. Pieces
    keep the offset they are cut at, a packing whose height is the capacity and the peak load.

    Args:
        seed: of the cuts.
        buffers: pieces.
        capacity: bytes, a multiple of 1024 (the granule).
        span: of time.
    """
    rng = randomness.generator(seed, "packing")
    granule = 1024
    pieces = [(0, span, 0, capacity // granule)]
    while len(pieces) < buffers:
        at = max(range(len(pieces)), key=lambda i: _area(pieces[i]) * (0.5 + rng.random()))
        a, b, low, high = pieces.pop(at)
        wide, tall = b - a, high - low
        if wide < 2 and tall < 2:
            raise AllocgymError(f"buffers: at most {len(pieces) + 1} fit, given {buffers}")
        # Real buffers are long and thin or short and thick: both ways of cutting are common.
        across = rng.random() < 0.5 if wide > 1 and tall > 1 else wide > 1
        share = rng.uniform(0.15, 0.85)
        if across:
            m = a + min(max(round(wide * share), 1), wide - 1)
            pieces += [(a, m, low, high), (m, b, low, high)]
        else:
            m = low + min(max(round(tall * share), 1), tall - 1)
            pieces += [(a, b, low, m), (a, b, m, high)]
    table = np.array(pieces, np.int64)[rng.permutation(len(pieces))]
    a, b, low, high = table.T
    return Buffers(f"cut-{seed}-{buffers}", a, b, (high - low) * granule, capacity, low * granule)


def _area(piece: tuple[int, int, int, int]) -> int:
    a, b, low, high = piece
    return (b - a) * (high - low)


def generated(scenario: str, seed: int, buffers: int = 48) -> Buffers:
    """An instance of a generated scenario."""
    if scenario == "stacked":
        rng = randomness.generator(seed, "stacked")
        size = rng.integers(1, 64, buffers) * 1024
        whole = int(size.sum())
        known = size.cumsum() - size
        zero = np.zeros(buffers, np.int64)
        return Buffers(f"stacked-{seed}", zero, zero + 1, size, whole, known)
    made = cut(seed, buffers)
    if scenario == "tight":
        return made
    keep = np.sort(
        randomness.generator(seed, "slack").permutation(buffers)[: max(buffers * 5 // 6, 1)]
    )
    assert made.known is not None
    return Buffers(
        f"slack-{seed}",
        made.lower[keep],
        made.upper[keep],
        made.size[keep],
        made.capacity,
        made.known[keep],
    )


def public(name: str) -> Buffers:
    """One of MiniMalloc's inputs (A to K)."""
    if name not in INPUTS:
        raise unknown("input", name, list(INPUTS))
    file = public_data.path(f"memory/minimalloc/{name}.{CAPACITY}.csv")
    return from_csv(file.read_text(), name, CAPACITY)


class PackingSimulator(Backend[PackingOutcome, NextBuffer]):
    """Places buffers.

    Args:
        problem: `Packing`.
        scenario: of `SCENARIOS`.
        num_envs: environments in the batch.
        buffers: generated instances: how many (default: 3/4 of ``n_max``).
        file, capacity: an instance of one's own (scenario ``"file"``).
    """

    changing = ("instances", "_stack")

    def __init__(
        self,
        problem: Packing,
        scenario: str = "tight",
        num_envs: int = 1,
        buffers: int | None = None,
        file: str | None = None,
        capacity: int | None = None,
    ) -> None:
        if scenario not in SCENARIOS:
            raise unknown("scenario", scenario, SCENARIOS)
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        self.buffers = buffers if buffers is not None else max(problem.n_max * 3 // 4, 1)
        if not 1 <= self.buffers <= problem.n_max:
            raise AllocgymError(f"buffers: 1 to n_max={problem.n_max} expected, given {buffers}")
        self.scenario, self._bank = scenario, []
        if scenario == "minimalloc":
            self._bank = [public(name) for name in INPUTS]
        elif scenario == "file":
            if file is None or capacity is None:
                raise AllocgymError("file: a CSV file and a capacity expected")
            try:
                self._bank = [from_csv(Path(file).read_text(), Path(file).stem, int(capacity))]
            except OSError as error:
                raise AllocgymError(f"file: {file} cannot be read ({error})") from error
        most = max((len(b.size) for b in self._bank), default=self.buffers)
        if most > problem.n_max:
            raise AllocgymError(f"n_max: {most} buffers, {problem.n_max} rows; raise n_max")
        spec = Spec(
            problem=problem.id,
            scenario=scenario,
            backend="twin",
            claimants=tuple(f"buffer-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=most,
            batch_size=num_envs,
            capabilities=frozenset({"oracle", "state"}),
            details={},
        )
        super().__init__(spec, problem)
        self.instances: list[Buffers | None] = [None] * num_envs
        n = problem.n_max
        self._state = PackingState(
            present=np.zeros((num_envs, n), bool),
            offset=np.full((num_envs, n), -1, np.int64),
            **{
                k: np.zeros((num_envs, n), np.int64)
                for k in ("lower", "upper", "size", "contention", "top", "near")
            },
            **{k: np.ones(num_envs, np.int64) for k in ("capacity", "peak", "height")},
        )
        self._stack = np.zeros((num_envs, n), np.int64)
        self._count = np.zeros(num_envs, np.int64)

    def _draw(self, seed: int) -> Buffers:
        if not self._bank:
            return generated(self.scenario, seed, self.buffers)
        drawn = randomness.uniform(randomness.stream(np.array([seed]), "input"), 0)[0, 0]
        return self._bank[int(drawn * len(self._bank))]

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> PackingOutcome:
        s = self._state.map(np.copy)
        for row in np.flatnonzero(where):
            b = self._draw(int(seeds[row]))
            self.instances[row] = b
            n = len(b.size)
            for wide, value in (
                (s.lower, b.lower),
                (s.upper, b.upper),
                (s.size, b.size),
                (s.contention, b.contention),
                (s.present, True),
            ):
                wide[row] = 0
                wide[row, :n] = value
            s.offset[row] = -1
            s.capacity[row], s.peak[row] = b.capacity, b.peak
            self._count[row] = 0
        return self._tell(s, np.zeros(len(seeds), np.int64))

    def _spend(self, decision: NextBuffer) -> PackingOutcome:
        s = self._state.map(np.copy)
        on = (self._count < s.present.sum(1)) & (decision.pick >= 0)
        place_many(decision.pick, on, s.lower, s.upper, s.size, s.offset, self._stack, self._count)
        return self._tell(s, on.astype(np.int64))

    def _tell(self, s: PackingState, spent: np.ndarray) -> PackingOutcome:
        look_ahead(
            s.lower, s.upper, s.size, s.offset, self._stack, self._count, s.present, s.top, s.near
        )
        s.height = np.where(s.offset >= 0, s.offset + s.size, 0).max(1)
        self._state = s
        batch = len(spent)
        return PackingOutcome(
            spent=spent,
            seconds=np.zeros(batch),
            ready=s.present.copy(),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64),
            done=self._count >= s.present.sum(1),
            state=s,
            step=self._count.copy(),
        )

    def _budget(self) -> np.ndarray:
        total: np.ndarray = self._state.present.sum(1)
        return total.astype(np.int64)

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Backend.set_state`; the board is the one the outcome shows."""
        super().set_state(state)
        self._state, self._count = self.outcome.state, self.outcome.step.copy()
