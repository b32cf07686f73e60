"""Named scenarios of radio slicing: which carrier, users, traffic, channel. Simulated and live alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within
from allocgym.envs.prb_slicing.carriers import Carrier, carrier
from allocgym.envs.prb_slicing.records import KINDS

SOURCES = ("generated", "recorded", "3gpp")
SPLITS = ("all", "train", "test")
SCHEDULERS = ("rr", "wf", "softmax", "pf")
TRACTOR_MIXES = ("012", "022", "112", "114", "121", "123", "125", "134", "323")
"""Users of (mMTC, URLLC, eMBB) in TRACTOR's nine published test mixes."""
MIXES = ("112", "123", "134", "222", "323", "243", "331", "145")
MOST_SLICES, MOST_USERS, MOST_MIXES = 16, 32, 1000
"""Slices of a cell, users of a slice, mixes to draw from."""


@dataclasses.dataclass(frozen=True)
class SlicingScenario(Scenario):
    """What an episode is drawn from.

    Attributes:
        slices: kind of each slice, in the order of their masks, 2 to 16.
        mixes: users per slice (0 to 32 each) as digits, or as numbers with dashes between them
            (``"10-2-12"``); an episode draws one of them.
        mix: the one mix to play, instead of those; a number's digits stand for it.
        source: ``"generated"``, ``"recorded"`` or ``"3gpp"`` traffic.
        split: of the traces: ``"all"``, ``"train"`` or ``"test"``.
        load: multiplies every packet's size; a pair is a range to draw from (log-uniform).
        control: True gives every user the same constant traffic and channel.
        width: of the carrier: MHz (LTE) or resource blocks (NR).
        technology: ``"lte"`` or ``"nr"``.
        numerology: NR's mu.
        schedulers: within each slice: ``"rr"``, ``"wf"``, ``"softmax"`` (SCOPE's) or ``"pf"``; one
            stands for all slices.
        targets: delay target of each kind (mMTC, URLLC, eMBB) in ms.
        borrow: unused blocks are lent to other slices.
        pool: no slicing: every user shares every block (a bound, not a policy).
        channel: ``"user"`` (each its own) or ``"slice"`` (the users of a slice share one).
        harq: share of transmissions that fail and are repeated.
        whole_blocks: SimPy hands out whole blocks only (the twin and the live data plane have no
            such rounding).
        rate: ``"closed-form"`` (136 x efficiency) or ``"tbs"`` (36.213's table; needs public data).
        queue: bytes a user's queue holds.
        fixed: ms every delivered packet takes beside waiting and transmission.
        period: ms between decisions, a multiple of 10.
        horizon: periods in an episode.
    """

    slices: tuple[str, ...] = KINDS
    mixes: tuple[str, ...] = MIXES
    mix: str | None = None
    source: str = "generated"
    split: str = "all"
    load: tuple[float, float] = within((1.0, 1.0), 1e-3, 64.0)
    control: bool = False
    width: float = within(10.0, 1.0, 275.0)
    technology: str = "lte"
    numerology: int = within(0, 0, 4)
    schedulers: tuple[str, ...] = ("wf",)
    targets: tuple[float, float, float] = within((300.0, 10.0, 300.0), 0.1, 1e5)
    borrow: bool = False
    pool: bool = False
    channel: str = "user"
    harq: float = within(0.0, 0.0, 0.9)
    whole_blocks: bool = False
    rate: str = "closed-form"
    queue: float = within(190_000.0, 2000.0, 1e8)
    fixed: float = within(0.0, 0.0, 1e4)
    period: float = within(250.0, 10.0, 5000.0)
    horizon: int = within(480, 1, 100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("source", SOURCES),
            ("split", SPLITS),
            ("channel", ("user", "slice")),
            ("rate", ("closed-form", "tbs")),
        )
        for field, allowed in choices:
            if getattr(self, field) not in allowed:
                raise unknown(field, getattr(self, field), allowed)
        if not 2 <= len(self.slices) <= MOST_SLICES:
            raise AllocgymError(f"slices: 2 to {MOST_SLICES} expected, given {len(self.slices)}")
        if len(self.schedulers) not in (1, len(self.slices)):
            raise AllocgymError(
                f"schedulers: 1 or {len(self.slices)} expected, given {len(self.schedulers)}"
            )
        for one in self.slices:
            if one not in KINDS:
                raise unknown("slices", one, KINDS)
        for one in self.schedulers:
            if one not in SCHEDULERS:
                raise unknown("schedulers", one, SCHEDULERS)
        self._check_mixes()
        if self.period % 10:
            raise AllocgymError(f"period: a multiple of 10 ms expected, given {self.period}")
        if self.carrier.groups < len(self.slices):
            raise AllocgymError(
                f"width: at least {len(self.slices)} groups, one per slice, expected, "
                f"given {self.carrier.groups}"
            )

    def _check_mixes(self) -> None:
        if not 1 <= len(self.drawn) <= MOST_MIXES:
            raise AllocgymError(f"mixes: 1 to {MOST_MIXES} expected, given {len(self.drawn)}")
        for mix in self.drawn:
            users = self.counts(mix)
            if len(users) != len(self.slices) or max(users) > MOST_USERS:
                raise AllocgymError(
                    f"mixes: {len(self.slices)} counts of 0 to {MOST_USERS} users expected, "
                    f"given {mix[:40]!r}"
                )
        if self.users == 0:
            raise AllocgymError(f"mixes: a user in one of them expected, given {self.drawn}")

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`: what a number or one name stands for, and users of other slices."""
        changes = dict(changes)
        if isinstance(changes.get("mix"), int) and not isinstance(changes["mix"], bool):
            changes["mix"] = str(changes["mix"])
        if isinstance(changes.get("schedulers"), str):
            changes["schedulers"] = (changes["schedulers"],)
        if isinstance(changes.get("slices"), (tuple, list)):
            changes.setdefault("mixes", ("-".join(["2"] * len(changes["slices"])),))
        return changes

    @property
    def drawn(self) -> tuple[str, ...]:
        """The mixes an episode is drawn from."""
        return self.mixes if self.mix is None else (self.mix,)

    @staticmethod
    def counts(mix: str) -> list[int]:
        """Users of each slice: digits, or numbers separated by dashes."""
        parts = mix.split("-") if "-" in mix else mix
        if not mix.isascii() or not all(p.isdigit() and len(p) < 4 for p in parts) or not mix:
            raise AllocgymError(f"mixes: digits expected, given {mix[:40]!r}")
        return [int(p) for p in parts]

    @property
    def carrier(self) -> Carrier:
        """The carrier."""
        return carrier(self.width, self.technology, self.numerology)

    @property
    def users(self) -> int:
        """Rows for users in a slice: the most any mix has."""
        return max(max(self.counts(mix)) for mix in self.drawn)

    def scheduler(self, row: int) -> str:
        """The scheduler within slice ``row``."""
        return self.schedulers[row if len(self.schedulers) > 1 else 0]

    def target(self, row: int) -> float:
        """Delay target of slice ``row``, ms."""
        return self.targets[KINDS.index(self.slices[row])]

    @property
    def claimants(self) -> tuple[str, ...]:
        """Names of the slices; a second one of a kind gets a number."""
        names: list[str] = []
        for kind in self.slices:
            count = sum(name.split("-")[0] == kind for name in names)
            names.append(kind if count == 0 else f"{kind}-{count + 1}")
        return tuple(names)

    def first_split(self, n_max: int) -> np.ndarray:
        """``(n_max,)`` groups before the first decision: TRACTOR's (3, 5, 9), elsewhere equal."""
        n, groups = len(self.slices), self.carrier.groups
        units = np.zeros(n_max, np.int64)
        if n == 3 and groups == 17:
            units[:3] = (3, 5, 9)
        else:
            units[:n] = groups // n
            units[: groups % n] += 1
        return units

    @property
    def suited(self) -> dict[str, int]:
        """Arguments of the problem that fit: a row for each slice, the carrier's groups."""
        return {"n_max": len(self.slices), "groups": self.carrier.groups}


SCENARIOS: dict[str, SlicingScenario] = {
    s.name: s
    for s in (
        SlicingScenario("generated"),
        SlicingScenario("tractor", mixes=TRACTOR_MIXES, source="recorded"),
        SlicingScenario("traces", source="recorded", split="train", load=(1.0, 8.0)),
        SlicingScenario("3gpp", source="3gpp"),
        SlicingScenario("control", mixes=("333",), control=True),
    )
}
