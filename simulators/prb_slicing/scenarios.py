"""Named scenarios of radio slicing: which carrier, users, traffic, channel."""

from __future__ import annotations

import dataclasses
from typing import Any

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.prb_slicing.carriers import Carrier, carrier
from allocgym.envs.prb_slicing.records import KINDS
from allocgym.simulators.prb_slicing import traffic

SCHEDULERS = ("rr", "wf", "softmax", "pf")
TRACTOR_MIXES = ("012", "022", "112", "114", "121", "123", "125", "134", "323")
"""Users of (mMTC, URLLC, eMBB) in TRACTOR's nine published test mixes."""
MIXES = ("112", "123", "134", "222", "323", "243", "331", "145")
FINE_TARGET = 50.0
"""Slices with a delay target up to this many ms are simulated at 1 ms, others at 10 ms."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What an episode is drawn from.

    Attributes:
        name: of the scenario.
        slices: kind of each slice, in the order of their masks.
        mixes: digits are users per slice; an episode draws one of them.
        source: ``"generated"``, ``"recorded"`` or ``"3gpp"`` traffic.
        split: of the traces: ``"all"``, ``"train"`` or ``"test"``.
        load: multiplies every packet's size; a pair is a range to draw from (log-uniform).
        control: True gives every user the same constant traffic and channel.
        width: of the carrier: MHz (LTE) or resource blocks (NR).
        technology: ``"lte"`` or ``"nr"``.
        numerology: NR's mu.
        schedulers: within each slice: ``"rr"``, ``"wf"``, ``"softmax"`` (SCOPE's) or ``"pf"``.
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
        period: ms between decisions.
        horizon: periods in an episode.
    """

    name: str
    slices: tuple[str, ...] = KINDS
    mixes: tuple[str, ...] = MIXES
    source: str = "generated"
    split: str = "all"
    load: tuple[float, float] = (1.0, 1.0)
    control: bool = False
    width: float = 10.0
    technology: str = "lte"
    numerology: int = 0
    schedulers: tuple[str, ...] = ("wf",)
    targets: tuple[float, float, float] = (300.0, 10.0, 300.0)
    borrow: bool = False
    pool: bool = False
    channel: str = "user"
    harq: float = 0.0
    whole_blocks: bool = False
    rate: str = "closed-form"
    queue: float = 190_000.0
    fixed: float = 0.0
    period: float = 250.0
    horizon: int = 480

    def __post_init__(self) -> None:
        for kind in self.slices:
            if kind not in KINDS:
                raise unknown("slices", kind, KINDS)
        if not 2 <= len(self.slices) <= 16:
            raise AllocgymError(f"slices: 2 to 16 expected, given {len(self.slices)}")
        for mix in self.mixes:
            users = self.counts(mix)
            if len(users) != len(self.slices) or min(users) < 0 or max(users) > 32:
                raise AllocgymError(
                    f"mixes: {len(self.slices)} counts of 0 to 32 users expected, given {mix!r}"
                )
        for scheduler in self.schedulers:
            if scheduler not in SCHEDULERS:
                raise unknown("schedulers", scheduler, SCHEDULERS)
        if len(self.schedulers) not in (1, len(self.slices)):
            raise AllocgymError(
                f"schedulers: 1 or {len(self.slices)} expected, given {len(self.schedulers)}"
            )
        if self.source not in traffic.SOURCES:
            raise unknown("source", self.source, traffic.SOURCES)
        if self.split not in traffic.SPLITS:
            raise unknown("split", self.split, traffic.SPLITS)
        if self.channel not in ("user", "slice"):
            raise unknown("channel", self.channel, ("user", "slice"))
        if self.rate not in ("closed-form", "tbs"):
            raise unknown("rate", self.rate, ("closed-form", "tbs"))
        if not 0 < self.load[0] <= self.load[1] <= 64:
            raise AllocgymError(f"load: within (0, 64] expected, given {self.load}")
        if not 0 <= self.harq < 0.9:
            raise AllocgymError(f"harq: 0 to 0.9 expected, given {self.harq}")
        if self.period < 10 or self.period % 10 or self.horizon < 1 or self.queue < 2000:
            raise AllocgymError(
                "period: a multiple of 10 ms, horizon >= 1, queue >= 2000 bytes expected, "
                f"given {self.period}, {self.horizon}, {self.queue}"
            )
        if self.carrier.groups < len(self.slices):
            raise AllocgymError(
                f"width: at least {len(self.slices)} groups, one per slice, expected, "
                f"given {self.carrier.groups}"
            )

    @staticmethod
    def counts(mix: str) -> list[int]:
        """Users of each slice: digits, or numbers separated by dashes."""
        try:
            return [int(c) for c in (mix.split("-") if "-" in mix else mix)]
        except ValueError as error:
            raise AllocgymError(f"mixes: digits expected, given {mix!r}") from error

    @property
    def carrier(self) -> Carrier:
        """The carrier."""
        return carrier(self.width, self.technology, self.numerology)

    @property
    def users(self) -> int:
        """Rows for users in a slice: the most any mix has."""
        return max(max(self.counts(mix)) for mix in self.mixes)

    def scheduler(self, row: int) -> str:
        """The scheduler within slice ``row``."""
        return self.schedulers[row if len(self.schedulers) > 1 else 0]

    def target(self, row: int) -> float:
        """Delay target of slice ``row``, ms."""
        return self.targets[KINDS.index(self.slices[row])]


SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario("generated"),
        Scenario("tractor", mixes=TRACTOR_MIXES, source="recorded"),
        Scenario("traces", source="recorded", split="train", load=(1.0, 8.0)),
        Scenario("3gpp", source="3gpp"),
        Scenario("control", mixes=("333",), control=True),
    )
}


def make(name: str | Scenario, **overrides: Any) -> Scenario:
    """Return a named scenario, with fields replaced by keyword (``mix`` sets a single mix).

    Raises:
        AllocgymError: no scenario or no field of that name, or a value out of range.
    """
    if isinstance(name, Scenario):
        base = name
    elif name in SCENARIOS:
        base = SCENARIOS[name]
    else:
        raise unknown("scenario", name, SCENARIOS)
    changes = dict(overrides)
    if "mix" in changes:
        changes["mixes"] = (str(changes.pop("mix")),)
    if isinstance(changes.get("schedulers"), str):
        changes["schedulers"] = (changes["schedulers"],)
    if "slices" in changes and "mixes" not in changes:
        changes["mixes"] = ("-".join(["2"] * len(changes["slices"])),)
    return replaced(base, changes, f"scenario {base.name!r}", ["mix"])
