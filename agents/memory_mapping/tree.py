"""Tree search in the mapping game: the exact rules as model, a trained policy as prior and value.

A beam instead of a Monte-Carlo tree: every line of play has the same length and the model is exact and
deterministic, so that states of one depth can be compared by what they saved plus what the value
network expects of the rest (the guidance of AlphaZero, Silver et al. 2018, arXiv 1712.01815).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import Plan
from allocgym.envs.memory_mapping.problem import MappingMemory, MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program

WIDTHS = (1, 4, 16, 64, 256)
PRIOR = 3e-3
"""Fraction of the all-slow time that a unit of log-probability weighs."""


def beam(
    program: Program, device: Device, policy: Any, width: int, seconds: float = float("inf")
) -> np.ndarray | None:
    """Search with a beam.

    Args:
        program: what is mapped.
        device: what it runs on.
        policy: a `SegmentPolicy` (or anything with its ``look``).
        width: states kept at each depth.
        seconds: CPU time.

    Returns:
        ``(segments,)`` drop, stay or copy, or None where the time was over.
    """
    begun = time.process_time()
    shape = (len(program.ops), len(program.tensors), len(program.segments))
    one = boards.pack([program], [device], shape)
    problem = MemoryMapping()
    whole = float(one.all_slow[0])
    total = len(program.segments)

    def look(
        inst: boards.MappingInstance, board: boards.Board, at: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Legal actions, what they save, their log-probabilities; the value of each row."""
        memory = _memory(inst, board, at)
        return memory.legal, memory.gain, *policy.look(problem.encode(memory))

    board, inst = boards.start(one), one
    prior, played = np.zeros(1), np.zeros((1, 0), np.int8)
    legal, gain, logs, _ = look(inst, board, 0)
    for at in range(total):
        if time.process_time() - begun > seconds:
            return None
        row, action = np.nonzero(legal)
        odds = prior[row] + logs[row, action]
        # Before the model is asked: the likeliest and the most saving children, a few times the width.
        rough = (gain / whole)[row, action] - board.seconds[row] / whole + PRIOR * odds
        few = np.argsort(-rough, kind="stable")[: max(3 * width, 1)]
        row, action, odds = row[few], action[few], odds[few]
        board, inst = board.rows(row), one.rows(np.zeros(len(row), np.int64))
        boards.play(inst, board, np.full(len(row), at), action, np.ones(len(row), bool))
        played = np.concatenate([played[row], action[:, None].astype(np.int8)], 1)
        prior = odds
        if at + 1 == total:
            break
        legal, gain, logs, value = look(inst, board, at + 1)
        score = -board.seconds / whole + value + PRIOR * prior
        keep = np.argsort(-score, kind="stable")[:width]
        board, inst = board.rows(keep), inst.rows(keep)
        prior, played = prior[keep], played[keep]
        legal, gain, logs = legal[keep], gain[keep], logs[keep]
    best: np.ndarray = played[int(board.seconds.argmin())].astype(np.int64)
    return best


def greedy(program: Program, device: Device, policy: Any) -> np.ndarray:
    """``(segments,)`` the likeliest legal action at every step."""
    shape = (len(program.ops), len(program.tensors), len(program.segments))
    inst = boards.pack([program], [device], shape)
    problem, board = MemoryMapping(), boards.start(inst)
    on = np.ones(1, bool)
    played = np.zeros(shape[2], np.int64)
    for at in range(shape[2]):
        memory = _memory(inst, board, at)
        played[at] = int(policy.look(problem.encode(memory))[0].argmax())
        boards.play(inst, board, np.array([at]), played[at : at + 1], on)
    return played


def _memory(inst: boards.MappingInstance, board: boards.Board, at: int) -> MappingMemory:
    """What the problem remembers of boards on which segment ``at`` is to be decided."""
    step = np.full(len(board.seconds), at)
    legal, gain = boards.look(inst, board, step)
    saved = 1 - board.seconds / inst.all_slow
    return MappingMemory(step, saved, legal, gain, step < 0, inst, board)


def play(program: Program, device: Device, actions: np.ndarray) -> tuple[float, Plan]:
    """The fraction saved and the plan of a line of play."""
    game = Game(program, device)
    return game.line(actions), game.plan


def search(
    program: Program, device: Device, policy: Any, seconds: float, start: tuple[float, Plan]
) -> tuple[float, Plan]:
    """Ever wider beams until the CPU time is over; the best line, or ``start`` where none is better."""
    begun = time.process_time()
    best = start
    for width in WIDTHS:
        left = seconds - (time.process_time() - begun)
        actions = beam(program, device, policy, width, left) if left > 0 else None
        if actions is None:
            break
        best = max(best, play(program, device, actions), key=lambda found: found[0])
    return best
