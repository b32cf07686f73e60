"""Verifiable tasks of graded difficulty, written in a few characters.

Six families: addition, multiplication, remainder, sorting, reversal, countdown. A cell is a family at
a level. Every prompt has a verifier; countdown accepts any expression that reaches its target.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown

ALPHABET = "0123456789+-*%,>=amosrc"
PAD, END = len(ALPHABET), len(ALPHABET) + 1
VOCABULARY = len(ALPHABET) + 2
PROMPT = 14
FAMILY_NAMES = ("addition", "multiplication", "remainder", "sorting", "reversal", "countdown")
LEVELS = {
    "addition": (1, 2, 3, 4),
    "multiplication": (1, 2, 3),
    "remainder": (2, 3),
    "sorting": (3, 4, 5, 6, 7, 8),
    "reversal": (3, 4, 5, 6, 7, 8),
    "countdown": (2, 3),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A family at a level.

    Attributes:
        family: one of `FAMILY_NAMES`.
        level: digits (countdown: numbers).
        noise: share of warm-start labels that are corrupted, so that the model knows the task but
            answers rightly only sometimes.
        copies: times the answer has to be written (dear rollouts).
    """

    family: str
    level: int
    noise: float
    copies: int = 1

    def __post_init__(self) -> None:
        if self.family not in LEVELS:
            raise unknown("family", self.family, LEVELS)
        if self.level not in LEVELS[self.family]:
            raise AllocgymError(
                f"level: one of {LEVELS[self.family]} for {self.family}, given {self.level}"
            )
        if not 0 <= self.noise < 1 or self.copies < 1:
            raise AllocgymError(
                f"noise, copies: 0 <= noise < 1 and copies >= 1 expected, given {self.noise}, "
                f"{self.copies}"
            )


@dataclasses.dataclass(frozen=True)
class Task:
    """One prompt: its text, one right answer, and the cell it belongs to."""

    prompt: str
    answer: str
    cell: int


def make_task(cell: Cell, index: int, rng: np.random.Generator) -> Task:
    """Draw one prompt of a cell."""
    n = cell.level
    low, high = (10 ** (n - 1) if n > 1 else 0), 10**n

    def digits() -> str:
        return "".join(str(d) for d in rng.integers(0, 10, n))

    if cell.family == "addition":
        a, b = (int(v) for v in rng.integers(low, high, 2))
        prompt, answer = f"a{a}+{b}=", str(a + b)[::-1]
    elif cell.family == "multiplication":
        a, b = int(rng.integers(low, high)), int(rng.integers(2, 10))
        prompt, answer = f"m{a}*{b}=", str(a * b)[::-1]
    elif cell.family == "remainder":
        a, b = int(rng.integers(low, high)), int(rng.integers(3, 10))
        prompt, answer = f"o{a}%{b}=", str(a % b)
    elif cell.family == "sorting":
        text = digits()
        prompt, answer = f"s{text}=", "".join(sorted(text))
    elif cell.family == "reversal":
        text = digits()
        prompt, answer = f"r{text}=", text[::-1]
    else:
        numbers = [int(v) for v in rng.integers(1, 10, n)]
        order = rng.permutation(n)
        answer = str(numbers[order[0]])
        for j in order[1:]:
            answer += "+-*"[int(rng.integers(3))] + str(numbers[j])
        prompt = f"c{','.join(map(str, numbers))}>{evaluate(answer)}="
    return Task(prompt, answer * cell.copies, index)


def evaluate(expression: str) -> int | None:
    """Value of digits joined by + - *, from left to right; None where it is no such expression."""
    if len(expression) % 2 == 0 or not expression or not expression[0].isdigit():
        return None
    value = int(expression[0])
    for op, digit in zip(expression[1::2], expression[2::2], strict=True):
        if not digit.isdigit() or op not in "+-*":
            return None
        value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[op]
    return value


def verify(task: Task, cell: Cell, answer: str) -> bool:
    """Whether an answer is right."""
    if answer == task.answer:
        return True
    if cell.family != "countdown":
        return False
    left, _, target = task.prompt[1:-1].partition(">")
    once, rest = divmod(len(answer), cell.copies)
    if rest or answer != answer[:once] * cell.copies or not once:
        return False
    used = sorted(answer[:once][::2])
    return used == sorted(left.split(",")) and evaluate(answer[:once]) == int(target)


def corrupt(answer: str, cell: Cell, rng: np.random.Generator) -> str:
    """Change one digit of an answer (the same in each copy)."""
    once = answer[: len(answer) // cell.copies]
    places = [i for i, c in enumerate(once) if c.isdigit()]
    i = int(rng.choice(places))
    other = str((int(once[i]) + int(rng.integers(1, 10))) % 10)
    return (once[:i] + other + once[i + 1 :]) * cell.copies


def encode(text: str) -> list[int]:
    """Characters to token numbers."""
    return [ALPHABET.index(c) for c in text]


def encode_prompt(text: str) -> list[int]:
    """A prompt padded on the left to `PROMPT` tokens."""
    codes = encode(text)
    return [PAD] * (PROMPT - len(codes)) + codes


def decode(codes: list[int]) -> str:
    """Token numbers up to the end mark, as text."""
    out = []
    for code in codes:
        if code >= len(ALPHABET):
            break
        out.append(ALPHABET[code])
    return "".join(out)


def pool(cells: tuple[Cell, ...], each: int, seed: int, held: bool) -> list[Task]:
    """Draw ``each`` distinct prompts a cell (as far as a small cell has them), by cell.

    Args:
        cells: what to draw from.
        each: prompts a cell.
        seed: of the draw; training and held-out prompts of one seed do not overlap.
        held: draw the held-out split.
    """
    out: list[Task] = []
    for index, cell in enumerate(cells):
        rng = np.random.default_rng([seed, index])
        seen: set[str] = set()
        mine: list[Task] = []
        for _ in range(60 * each):
            task = make_task(cell, index, rng)
            # A fifth of all prompts, by a checksum of their text, are held out.
            if task.prompt in seen or (sum(map(ord, task.prompt)) * 7919 % 5 == 0) != held:
                continue
            seen.add(task.prompt)
            mine.append(task)
            if len(mine) == each:
                break
        if not mine:
            raise AllocgymError(f"prompts: none found for {cell}")
        out += [mine[i % len(mine)] for i in range(each)]
    return out


def _standard(family: str, level: int) -> float:
    return min(0.15 + 0.12 * (level - LEVELS[family][0] + 1), 0.85)


def regime_cells(regime: str) -> tuple[Cell, ...]:
    """The cells of a named regime.

    ``"easy"``: every family, success from 5 % to 90 %. ``"hard-tail"``: half of the cells answered
    rightly in about 1 % of tries. ``"mixed-cost"``: sorting and reversal are written twice: rollouts
    of 2 to 17 tokens.
    """
    # Sums of three and four digits are out of reach of the tiny model: no try succeeds.
    cells = [
        Cell(f, n, _standard(f, n))
        for f in FAMILY_NAMES
        for n in LEVELS[f]
        if not (f == "addition" and n > 2)
    ]
    if regime == "easy":
        return tuple(cells)
    if regime == "hard-tail":
        return tuple(
            dataclasses.replace(c, noise=0.988) if i % 2 else c for i, c in enumerate(cells)
        )
    if regime == "mixed-cost":
        return tuple(
            dataclasses.replace(c, copies=2) if c.family in ("sorting", "reversal") else c
            for c in cells
        )
    raise unknown("regime", regime, REGIMES)


REGIMES = ("easy", "hard-tail", "mixed-cost")
