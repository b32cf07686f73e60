"""Text made by rule: unlimited, without a licence, and each kind with a skill of its own."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator

import numpy as np

from allocgym.envs.core import randomness

DEPTHS = 5
LEGO_ANSWER = r"\?[a-z]([01])"
"""What is scored in LEGO text: the answer, not the random letters around it."""

_NAMES = ("ada", "bela", "chen", "dora", "emil", "fatou", "goran", "hana", "ivan", "june")
_CITIES = ("oslo", "lima", "kyoto", "accra", "quito", "turin", "perth", "minsk")
_TABLES = ("users", "orders", "items", "events")
_COLUMNS = ("id", "name", "city", "price", "amount", "created", "status")


def arithmetic(rng: np.random.Generator) -> Iterator[str]:
    """Sums, differences and products of small numbers, one a line."""
    while True:
        block = np.stack([rng.integers(0, 1000, 4096), rng.integers(0, 1000, 4096)]).tolist()
        for a, b, kind in zip(*block, rng.integers(0, 3, 4096).tolist(), strict=True):
            if kind == 0:
                yield f"{a}+{b}={a + b}\n"
            elif kind == 1:
                yield f"{a}-{b}={a - b}\n"
            else:
                yield f"{a % 100}*{b}={a % 100 * b}\n"


def modular(rng: np.random.Generator) -> Iterator[str]:
    """Linear expressions modulo a small prime, one a line."""
    primes = (7, 11, 13, 17, 19, 23)
    while True:
        block = rng.integers(0, 100, (4096, 4)).tolist()
        for a, b, c, k in block:
            p = primes[k % len(primes)]
            yield f"({a}*{b}+{c})%{p}={(a * b + c) % p}\n"


def lego_problem(letters: str, flips: list[int], order: list[int], depth: int) -> str:
    """One chain of bits with its clauses in the order given, asking for the bit at ``depth``.

    As in Skill-It, with a byte for each of its tokens: the first variable is given a value
    (``x=1``), each other one copies (``y=x``) or negates (``z!y``) its predecessor; ``?z0`` asks
    and answers. A chain of 3 takes exactly 16 bytes and one of 5 takes 32, so that problems fill
    a sequence of 128 and none is cut in half.

    Args:
        letters: variable names, first to last of the chain.
        flips: one bit each: the first value, then whether each link negates.
        order: permutation of the clauses.
        depth: 1 (the value is stated) to the length of the chain.
    """
    clauses = [f"{letters[0]}={flips[0]}"]
    for k in range(1, len(letters)):
        clauses.append(f"{letters[k]}{'!' if flips[k] else '='}{letters[k - 1]}")
    text = ";".join(clauses[i] for i in order)
    size = 16 if len(letters) <= 3 else 32
    return f"{text}?{letters[depth - 1]}{sum(flips[:depth]) % 2}".ljust(size - 1) + "\n"


def lego(rng: np.random.Generator, depth: int | None = None, length: int = DEPTHS) -> Iterator[str]:
    """LEGO problems of one depth, or of all depths at random, on chains of ``length``."""
    size = 1024
    alphabet, clauses = np.tile(np.arange(97, 123), (size, 1)), np.arange(length)
    while True:
        letters = rng.permuted(alphabet, axis=1)[:, :length].tolist()
        flips = rng.integers(0, 2, (size, length)).tolist()
        orders = rng.permuted(np.tile(clauses, (size, 1)), axis=1).tolist()
        depths = rng.integers(1, length + 1, size).tolist()
        for names, bits, order, drawn in zip(letters, flips, orders, depths, strict=True):
            yield lego_problem("".join(map(chr, names)), bits, order, depth or drawn)


def lego_answer(problem: str) -> tuple[int, int]:
    """Solve a LEGO problem: the right answer, and the one its text gives."""
    body, question = problem.strip().split("?")
    rules = {clause[0]: clause[1:] for clause in body.split(";")}

    def solve(name: str) -> int:
        kind, argument = rules[name][0], rules[name][1]
        return int(argument) if argument.isdigit() else solve(argument) ^ (kind == "!")

    return solve(question[0]), int(question[1])


def records(rng: np.random.Generator) -> Iterator[str]:
    """JSON records of people, one a line."""
    while True:
        for n, c, a, k, i in rng.integers(0, 1000, (1024, 5)).tolist():
            tags = [_TABLES[(k + j) % len(_TABLES)] for j in range(k % 3)]
            row = {
                "id": i * 1000 + a,
                "name": _NAMES[n % len(_NAMES)],
                "age": 18 + a % 60,
                "address": {"city": _CITIES[c % len(_CITIES)], "zip": f"{c:03d}{n:03d}"},
                "tags": tags,
                "active": bool(k % 2),
            }
            yield json.dumps(row) + "\n"


def sql(rng: np.random.Generator) -> Iterator[str]:
    """SQL queries, one a line."""
    while True:
        for t, c, d, v, k in rng.integers(0, 1000, (1024, 5)).tolist():
            table, column = _TABLES[t % len(_TABLES)], _COLUMNS[c % len(_COLUMNS)]
            other = _COLUMNS[d % len(_COLUMNS)]
            tail = (
                f"WHERE {other} > {v}",
                f"ORDER BY {other} LIMIT {v % 50 + 1}",
                f"GROUP BY {other} HAVING COUNT(*) > {v % 9}",
            )[k % 3]
            yield f"SELECT {column}, {other} FROM {table} {tail};\n"


def dyck(rng: np.random.Generator) -> Iterator[str]:
    """Balanced brackets of four kinds, one word of 16 to 62 brackets a line."""
    opening, closing = "([{<", ")]}>"
    while True:
        half = int(rng.integers(8, 32))
        coins, kinds = rng.random(2 * half), rng.integers(0, 4, half).tolist()
        word: list[str] = []
        stack: list[int] = []
        for coin in coins.tolist():
            if kinds and (not stack or coin < 0.55):
                stack.append(kinds.pop())
                word.append(opening[stack[-1]])
            else:
                word.append(closing[stack.pop()])
        yield "".join(word) + "\n"


def logs(rng: np.random.Generator) -> Iterator[str]:
    """Lines of a server's access log, one request a line."""
    verbs, codes = ("GET", "POST", "PUT", "DELETE"), (200, 200, 200, 304, 404, 500)
    while True:
        clock = int(rng.integers(0, 86_400))
        for wait, v, c, t, n in rng.integers(0, 1000, (1024, 5)).tolist():
            clock = (clock + wait % 7) % 86_400
            stamp = f"{clock // 3600:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
            path = f"/{_TABLES[t % len(_TABLES)]}/{n}" if v % 3 else f"/{_TABLES[t % len(_TABLES)]}"
            yield f"[{stamp}] {verbs[v % 4]} {path} {codes[c % len(codes)]} {t * 7 + n} bytes\n"


def sorting(rng: np.random.Generator) -> Iterator[str]:
    """Short lists of numbers and the same list in order, one a line."""
    while True:
        for size in rng.integers(3, 8, 1024).tolist():
            numbers = rng.integers(0, 100, size).tolist()
            yield f"{' '.join(map(str, numbers))} -> {' '.join(map(str, sorted(numbers)))}\n"


def numeral(number: int) -> str:
    """Write 1 to 3999 as a Roman numeral."""
    values = (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1)
    signs = ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I")
    text = ""
    for value, sign in zip(values, signs, strict=True):
        text += sign * (number // value)
        number %= value
    return text


def roman(rng: np.random.Generator) -> Iterator[str]:
    """Sums of whole numbers in Roman numerals, one a line."""
    while True:
        for a, b in rng.integers(1, 2000, (1024, 2)).tolist():
            yield f"{numeral(a)} + {numeral(b)} = {numeral(a + b)}\n"


def markup(rng: np.random.Generator) -> Iterator[str]:
    """Nested elements with attributes, one small document a line."""

    def element(depth: int) -> str:
        tag = _COLUMNS[int(rng.integers(len(_COLUMNS)))]
        name = _NAMES[int(rng.integers(len(_NAMES)))]
        if depth == 0:
            return f"<{tag}>{name}</{tag}>"
        inside = "".join(element(depth - 1) for _ in range(int(rng.integers(1, 4))))
        return f'<{tag} ref="{int(rng.integers(100))}">{inside}</{tag}>'

    while True:
        yield element(int(rng.integers(1, 4))) + "\n"


GENERATORS: dict[str, Callable[[np.random.Generator], Iterator[str]]] = {
    "arithmetic": arithmetic,
    "modular": modular,
    "json": records,
    "sql": sql,
    "dyck": dyck,
    "logs": logs,
    "sorting": sorting,
    "roman": roman,
    "markup": markup,
    "lego": lego,
    **{f"lego-{k}": functools.partial(lego, depth=k) for k in range(1, DEPTHS + 1)},
    **{f"lego3-{k}": functools.partial(lego, depth=k, length=3) for k in (1, 2, 3)},
}


def documents(name: str, size: int) -> list[bytes]:
    """Return at least ``size`` bytes of documents of one kind, the same ones every time.

    Args:
        name: a key of `GENERATORS`.
        size: bytes wanted.
    """
    source = GENERATORS[name](randomness.generator(0, f"corpus/{name}"))
    made, total = [], 0
    while total < size:
        made.append(next(source).encode())
        total += len(made[-1])
    return made


def scored_bytes(text: bytes, pattern: str) -> np.ndarray:
    """Mark the bytes that group 1 of ``pattern`` matches: bool, one entry a byte."""
    mask = np.zeros(len(text), bool)
    for match in re.finditer(pattern.encode(), text):
        mask[match.start(1) : match.end(1)] = True
    return mask
