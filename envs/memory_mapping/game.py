"""One program's game, for searches and makers of plans: `rule`'s kernels on a board of one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from allocgym.envs.memory_mapping import rule
from allocgym.envs.memory_mapping.board import Board, arrays, pack, start
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY, Plan, Residence
from allocgym.envs.memory_mapping.program import Device, Program


class Game:
    """The state of one game.

    Args:
        program: what is mapped.
        device: what it runs on.
    """

    def __init__(self, program: Program, device: Device) -> None:
        self.program, self.device = program, device
        shape = (len(program.ops), len(program.tensors), len(program.segments))
        self.instance = pack([program], [device], shape)
        self._on = np.ones(1, bool)
        self.restart()

    def restart(self) -> None:
        """Everything in slow memory again."""
        self.board: Board = start(self.instance)
        self._arrays = arrays(self.instance, self.board)
        self._played: list[int] = []

    def play(self, segment: int, action: int) -> bool:
        """Play drop, stay or copy, or drop where that is not legal; return whether it was legal."""
        rule.play_many(*self._arrays, np.array([segment]), np.array([action]), self._on)
        self._played.append(segment)
        return bool(self.board.legal[0])

    def line(self, actions: Iterable[int]) -> float:
        """Play all segments in program order from scratch; return the fraction saved."""
        self.restart()
        for segment, action in enumerate(actions):
            self.play(segment, int(action))
        return self.saved

    def order(self, tensors: Sequence[int] | np.ndarray) -> float:
        """Place tensors greedily in an order from scratch; return the fraction saved."""
        self.restart()
        rule.place_many(*self._arrays, np.asarray(tensors, np.int64)[None], self._on)
        self._played = [s for x in tensors for s in self.program.of_tensor[int(x)]]
        return self.saved

    @property
    def seconds(self) -> float:
        """Seconds of the whole program now."""
        return float(self.board.seconds[0])

    @property
    def saved(self) -> float:
        """Fraction of the all-slow time saved so far."""
        return 1 - self.seconds / float(self.instance.all_slow[0])

    @property
    def plan(self) -> Plan:
        """Where every tensor is, when: what was played, played again with notes taken."""
        board = start(self.instance)
        inst, state = arrays(self.instance, board)
        found = rule.scratch(len(self.program.ops))
        _, _, begin, offset, parts, _ = found
        plan = Plan()
        stays: dict[int, Residence] = {}
        for segment in self._played:
            s = self.program.segments[segment]
            rule.look(inst, state, 0, segment, found)
            action = int(self.board.acted[0, segment])
            fresh = s.first and s.since >= 0
            written = parts[DROP] if action != STAY else parts[STAY]
            if written.any():
                plan.evictions[s.tensor] = _bytes(written)
            if action == STAY and not fresh:
                stays[s.tensor].end = s.use
                stays[s.tensor].uses.append(s.use)
            elif action != DROP:
                fetched = _bytes(parts[COPY] - parts[DROP]) if action == COPY else None
                stays[s.tensor] = Residence(
                    s.tensor, int(begin[action]), s.use, int(offset[action]), [s.use], fetched
                )
                plan.residences.append(stays[s.tensor])
            rule.play(inst, state, 0, segment, action, found)
        return plan


def _bytes(parts: np.ndarray) -> dict[int, int]:
    """Bytes by op, where there are any."""
    return {int(t): int(parts[t]) for t in np.flatnonzero(parts)}
