"""Plans, their exact price, and a validator that shares no code with whoever made the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping.program import PAGES, Device, Program

DROP, STAY, COPY = 0, 1, 2
ACTIONS = ("drop", "stay", "copy")


@dataclasses.dataclass
class Residence:
    """A tensor's stay in fast memory.

    Attributes:
        tensor: index.
        start, end: first and last op during which the granules are taken.
        offset: first granule.
        uses: ops that read it from there.
        traffic: bytes fetched during each op, or None where the tensor was written there.
    """

    tensor: int
    start: int
    end: int
    offset: int
    uses: list[int]
    traffic: dict[int, int] | None


@dataclasses.dataclass
class Plan:
    """Where every tensor is, when.

    Attributes:
        residences: stays in fast memory; uses outside them read slow memory.
        evictions: for tensors written to fast memory, bytes written back during each op.
    """

    residences: list[Residence] = dataclasses.field(default_factory=list)
    evictions: dict[int, dict[int, int]] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return lists and numbers."""
        return {
            "residences": [dataclasses.asdict(r) for r in self.residences],
            "evictions": {str(k): v for k, v in self.evictions.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from `to_json`."""

        def numbers(d: Any) -> dict[int, int]:
            return {int(k): int(v) for k, v in d.items()}

        try:
            stays = [
                Residence(
                    **{**r, "traffic": None if r["traffic"] is None else numbers(r["traffic"])}
                )
                for r in data["residences"]
            ]
            return cls(stays, {int(k): numbers(v) for k, v in data["evictions"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AllocgymError(f"plan: not a plan ({error})") from error


def traffic(program: Program, plan: Plan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(ops,)`` int64 bytes of each op: operands in slow and in fast memory, and copied meanwhile."""
    slow = program.traffic.copy()
    fast, copied = np.zeros_like(slow), np.zeros_like(slow)
    for r in plan.residences:
        x = program.tensors[r.tensor]
        for t in list(r.uses) if r.traffic is not None else [x.born, *r.uses]:
            slow[t] -= x.size
            fast[t] += x.size
    fetched = [r.traffic for r in plan.residences if r.traffic is not None]
    for parts in [*fetched, *plan.evictions.values()]:
        for t, size in parts.items():
            copied[t] += size
    return slow, fast, copied


def op_times(program: Program, device: Device, plan: Plan) -> np.ndarray:
    """Seconds of each op: ``max(comp, (slow + copy) / Bs + fast / Bf)``, bytes counted exactly.

    The form conserves the slow memory's bandwidth: a copy is hidden only in what the op leaves idle.
    Operand placement follows XLA's memory-space assignment (openxla/xla, cost_analysis.cc).
    """
    slow, fast, copied = traffic(program, plan)
    return np.maximum(program.compute(device), (slow + copied) / device.slow + fast / device.fast)


def price(program: Program, device: Device, plan: Plan) -> float:
    """Seconds of the whole program under a plan."""
    return float(op_times(program, device, plan).sum())


def saved(program: Program, device: Device, plan: Plan) -> float:
    """Fraction of the all-slow time that a plan saves."""
    return 1 - price(program, device, plan) / program.all_slow(device)


def validate(program: Program, device: Device, plan: Plan) -> None:
    """Check every rule of the game from the plan alone.

    Raises:
        AllocgymError: naming the first rule that is broken.
    """
    taken = np.full((len(program.ops), PAGES), -1)
    read: dict[int, list[int]] = {}
    made: dict[int, Residence] = {}
    for number, r in enumerate(plan.residences):
        x = program.tensors[r.tensor]
        who = f"tensor {x.name}"
        size = device.pages(x.size)
        if r.offset < 0 or r.offset + size > PAGES:
            raise AllocgymError(f"{who}: granules {r.offset}+{size} outside the {PAGES} there are")
        area = taken[r.start : r.end + 1, r.offset : r.offset + size]
        if area.shape != (r.end + 1 - r.start, size) or (area >= 0).any():
            raise AllocgymError(f"{who}: shares granules with another buffer")
        area[:] = number
        if not r.uses or r.end != r.uses[-1] or any(u not in x.uses for u in r.uses):
            raise AllocgymError(f"{who}: a residence has to end with a use of it")
        first = x.uses.index(r.uses[0])
        if list(x.uses[first : first + len(r.uses)]) != list(r.uses):
            raise AllocgymError(f"{who}: a residence skips a use")
        read.setdefault(r.tensor, []).extend(r.uses)
        if r.traffic is None:
            if x.born < 0 or r.start != x.born or first != 0 or r.tensor in made:
                raise AllocgymError(f"{who}: is in fast memory without a copy or its birth there")
            made[r.tensor] = r
            continue
        before = x.uses[first - 1] if first else x.born
        ops = sorted(r.traffic)
        if sum(r.traffic.values()) != x.size or min(r.traffic.values()) < 1:
            raise AllocgymError(f"{who}: a copy of {sum(r.traffic.values())} of {x.size} bytes")
        if ops[0] < r.start or r.start <= before or ops[-1] >= r.uses[0]:
            raise AllocgymError(f"{who}: copied outside the time between two of its uses")
    for tensor, used in read.items():
        if len(used) != len(set(used)):
            raise AllocgymError(f"tensor {program.tensors[tensor].name}: one use, two residences")
    for tensor, r in made.items():
        x = program.tensors[tensor]
        parts = plan.evictions.get(tensor)
        if x.output or len(r.uses) < len(x.uses):
            if parts is None or sum(parts.values()) != x.size:
                raise AllocgymError(f"tensor {x.name}: needed in slow memory, never written back")
            if min(parts) <= x.born or max(parts) > r.end or min(parts.values()) < 1:
                raise AllocgymError(f"tensor {x.name}: written back while it is not there")
    for tensor in plan.evictions:
        if tensor not in made:
            raise AllocgymError(
                f"tensor {program.tensors[tensor].name}: evicted, never made in fast"
            )
