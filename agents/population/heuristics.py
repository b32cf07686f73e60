"""Published schedulers of populations, and single runs under a schedule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from scipy import stats

from allocgym.agents.core.agent import Agent
from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.population.problem import FACTORS, Population, ranks
from allocgym.envs.population.records import Plan, PopulationOutcome


class PopulationAgent(Agent[PopulationOutcome, Plan]):
    """A rule that names donors, knobs and weights; ranges and rounding are the problem's.

    Attributes:
        stream: what its random draws are keyed by, besides its seed (default: its name).
    """

    problem: Population
    stream: ClassVar[str] = ""

    def _start(self) -> None:
        self.rng = randomness.generator(self.seed, f"population {self.stream or self.name}")

    @property
    def rate(self) -> int:
        """Index of the learning rate among the knobs.

        Raises:
            AllocgymError: it is not decided.
        """
        if "learning_rate" not in self.problem.knobs:
            raise AllocgymError(
                f"knobs: 'learning_rate' expected by agent {self.name!r}, given {self.problem.knobs}"
            )
        return self.problem.knobs.index("learning_rate")

    @property
    def here(self) -> np.ndarray:
        """``(batch, n)`` bool: members that are present and alive."""
        return np.asarray(self.outcome.instance.present & self.outcome.alive)

    @property
    def keep(self) -> np.ndarray:
        """``(batch, n)`` own indices: nobody copies."""
        return np.tile(np.arange(self.problem.n_max), (len(self.outcome.period), 1))

    def plan(self, donor: np.ndarray, knobs: np.ndarray | None, weights: np.ndarray) -> Plan:
        """Copies first, then knobs (None: the donor's own), then steps in proportion to weights."""
        donor = np.where(self.outcome.ready, donor, self.keep)
        was = np.take_along_axis(self.outcome.knobs, donor[..., None], 1)
        new = was if knobs is None else np.where(self.outcome.ready[..., None], knobs, was)
        steps = self.problem.divide(weights * 1.0, self.memory)
        return Plan(donor, self.problem.within(new, was, self.memory), steps)

    def explored(self, knobs: np.ndarray, resample: float = 0.25) -> np.ndarray:
        """PBT's explore: each knob by 0.8 or 1.2, or drawn anew from its prior."""
        inst = self.outcome.instance
        factor = self.rng.choice([FACTORS[0], FACTORS[-1]], knobs.shape)
        low, high = inst.low[:, None], inst.high[:, None]
        fresh = low * (high / low) ** self.rng.random(knobs.shape)
        return np.where(self.rng.random(knobs.shape) < resample, fresh, knobs * factor)


class RandomSearch(PopulationAgent):
    """Every member keeps its first knobs and an equal share: the best of M is taken."""

    name = "random-search"

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        return self.plan(self.keep, None, self.here)


class RandomPlan(PopulationAgent):
    """A uniform draw from the action space every period."""

    name = "random"

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        shape = (len(self.outcome.period), self.problem.n_max)
        each = [self.rng.integers(0, c, shape) for c in self.problem.choices]
        return self.problem.decode(np.stack(each, 2).reshape(shape[0], -1), self.memory)


class PBT(PopulationAgent):
    """Population Based Training (Jaderberg et al. 2017).

    Args:
        problem: `Population`.
        every: decisions between exploits of a member.
        quantile: the worst so many copy a uniform draw from the best so many (truncation).
        test: Welch's t-test on the last reports of a random rival instead of truncation (p < 0.05).
        explore: change knobs after a copy.
        exploit: copy at all; without, members explore on their own.
    """

    def __init__(
        self,
        problem: Population,
        every: int = 2,
        quantile: float = 0.25,
        test: bool = False,
        explore: bool = True,
        exploit: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.every, self.quantile, self.test = every, quantile, test
        self.explore, self.exploit = explore, exploit
        self.name = name or ("pbt (t-test)" if test else f"pbt ({every})")

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        due = (self.memory.age >= self.every) & self.here & self.outcome.ready
        donor = self._donors(due) if self.exploit else self.keep
        # A diverged member has nothing to lose.
        donor = np.where(self.outcome.instance.present & ~self.outcome.alive, self._best(), donor)
        moved = donor != self.keep
        if not self.exploit:
            moved = due & ((self.memory.age % self.every) == 0)
        knobs = np.take_along_axis(self.outcome.knobs, donor[..., None], 1)
        if self.explore:
            knobs = np.where(moved[..., None], self.explored(knobs), knobs)
        return self.plan(donor, knobs, self.here | moved)

    def _best(self) -> np.ndarray:
        return np.where(self.here, self.memory.last, np.inf).argmin(1)[:, None]

    def _donors(self, due: np.ndarray) -> np.ndarray:
        if self.test:
            return self._by_test(due)
        count = np.maximum(self.here.sum(1), 1)
        rank = ranks(self.memory.last, self.here)
        top = np.maximum(np.floor(self.quantile * count), 1).astype(int)
        order = np.argsort(rank, axis=1)
        pick = np.floor(self.rng.random(rank.shape) * top[:, None]).astype(int)
        chosen = np.take_along_axis(order, pick, 1)
        worst = rank >= (count - top)[:, None]
        return np.where(due & worst, chosen, self.keep)

    def _by_test(self, due: np.ndarray) -> np.ndarray:
        recent = np.stack([self.memory.last, self.memory.before, self.memory.earlier])
        rival = self.rng.integers(0, self.problem.n_max, due.shape)
        theirs = np.take_along_axis(recent, rival[None], 2)
        # Before three reports the samples are equal; their spread is then the noise's.
        spread = self.outcome.instance.noise[None, :, None] * np.array([-1, 0, 1])[:, None, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            p = stats.ttest_ind(theirs + spread, recent + spread, axis=0, equal_var=False).pvalue
        better = (theirs.mean(0) < recent.mean(0)) & (p < 0.05)
        alive = np.take_along_axis(self.here, rival, 1)
        return np.where(due & better & alive, rival, self.keep)


class MFPBT(PBT):
    """MF-PBT (Doulazmi et al. 2025, arXiv 2506.03225), reduced to its idea.

    Sub-populations evolve at their own frequency (every 1, 2, 4, ... decisions); within each the worst
    quarter copies from its best; the third quarter may take over weights of the best member anywhere,
    keeping its own knobs (asymmetric migration).
    """

    def __init__(self, problem: Population, groups: int = 2) -> None:
        super().__init__(problem, name="mf-pbt")
        self.groups = groups

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        here, last = self.here, self.memory.last
        group = np.arange(self.problem.n_max) % self.groups
        donor = self.keep
        copies = np.zeros(donor.shape, bool)
        for g in range(self.groups):
            mine = here & (group == g)
            due = mine & self.outcome.ready & (self.memory.age >= 2**g)
            count = np.maximum(mine.sum(1), 1)[:, None]
            rank = ranks(last, mine)
            best = np.where(mine, last, np.inf).argmin(1)[:, None]
            worst = due & (rank >= count - np.maximum(count // 4, 1))
            third = due & ~worst & (rank >= count - 2 * np.maximum(count // 4, 1))
            migrate = third & (np.where(here, last, np.inf).min(1)[:, None] < last)
            donor = np.where(worst, best, donor)
            donor = np.where(migrate, self._best(), donor)
            copies |= worst
        lost = self.outcome.instance.present & ~self.outcome.alive
        donor, copies = np.where(lost, self._best(), donor), copies | lost
        own = self.outcome.knobs
        theirs = np.take_along_axis(own, donor[..., None], 1)
        knobs = np.where(copies[..., None], self.explored(theirs), own)
        return self.plan(donor, knobs, here | copies)


class Fire(PBT):
    """After FIRE-PBT (Dalibard and Jaderberg 2021, arXiv 2109.13800): fitness is the rate of improvement.

    Half of the members are evaluators: at every exploit they copy the best member and lower the learning
    rate (what annealing would show); the others copy the donor whose recent reports improve fastest.
    """

    def __init__(self, problem: Population) -> None:
        super().__init__(problem, name="fire-like")

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        n = self.problem.n_max
        evaluator = np.arange(n) % 2 == 1
        due = self.outcome.ready & (self.memory.age >= self.every)
        lost = self.outcome.instance.present & ~self.outcome.alive
        speed = self.memory.before - self.memory.last
        fastest = np.where(self.here & ~evaluator, speed, -np.inf).argmax(1)[:, None]
        slow = ranks(-speed, self.here & ~evaluator) >= (self.here & ~evaluator).sum(1)[:, None] - 1
        donor = np.where(due & ~evaluator & slow, fastest, self.keep)
        donor = np.where((due & evaluator) | lost, self._best(), donor)
        moved = donor != self.keep
        knobs = np.take_along_axis(self.outcome.knobs, donor[..., None], 1)
        fresh = np.where(evaluator[None, :, None], knobs * 0.5, self.explored(knobs))
        knobs = np.where(moved[..., None], fresh, knobs)
        return self.plan(donor, knobs, self.here | moved)


class ASHA(PopulationAgent):
    """Successive halving as reports come in (Li et al. 2020): only the best 1/eta of a rung go on.

    Rungs lie at ``eta^k`` decisions; all steps go to the members that are still in.
    """

    def __init__(self, problem: Population, eta: int = 3) -> None:
        super().__init__(problem)
        self.eta = eta
        self.name = f"asha ({eta})"

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        fair = (
            self.outcome.instance.interval[:, None] * self.outcome.instance.present.sum(1)[:, None]
        )
        spent = self.outcome.instance.total[:, None] * 0 + self.outcome.used.sum(1, keepdims=True)
        rung = np.floor(np.log(np.maximum(spent / fair, 1)) / np.log(self.eta)).astype(int)
        allowed = np.maximum(self.outcome.instance.present.sum(1)[:, None] // self.eta**rung, 1)
        weights = self.here & (ranks(self.memory.last, self.here) < allowed)
        return self.plan(self.keep, None, weights)


class Hyperband(PopulationAgent):
    """Hyperband (Li et al. 2018): members are dealt to brackets that halve at different speeds.

    Bracket b starts cutting after ``eta^b`` fair shares of steps, so one bracket bets on many short runs
    and another on few long ones.
    """

    def __init__(self, problem: Population, eta: int = 3, brackets: int = 2) -> None:
        super().__init__(problem)
        self.eta, self.brackets = eta, brackets
        self.name = f"hyperband ({eta})"

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        inst, here = self.outcome.instance, self.here
        bracket = np.arange(self.problem.n_max) % self.brackets
        fair = inst.interval[:, None] * np.ones(self.problem.n_max)
        weights = np.zeros(here.shape, bool)
        for b in range(self.brackets):
            mine = here & (bracket == b)
            size = np.maximum((inst.present & (bracket == b)).sum(1)[:, None], 1)
            most = np.where(mine, self.outcome.used, 0).max(1, keepdims=True) / fair[:, :1]
            rung = np.floor(np.log(np.maximum(most / self.eta**b, 1)) / np.log(self.eta)).astype(
                int
            )
            allowed = np.maximum(size // self.eta**rung, 1)
            weights |= mine & (ranks(self.memory.last, mine) < allowed)
        return self.plan(self.keep, None, weights)


Shape = Callable[[np.ndarray], np.ndarray]


def wsd(x: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Hold, then ``1 - sqrt(u)`` over the last ``share`` (Hägele et al. 2024)."""
    u = np.clip((x - (1 - share)) / share, 0, 1)
    return np.asarray(1 - np.sqrt(u))


def uba(x: np.ndarray, phi: float = 1.0) -> np.ndarray:
    """Unified budget-aware schedule with shape ``phi`` (2 is cosine, towards 0 constant).

    The formula is recalled; the text of the paper (arXiv 2505.24452) was not at hand to check it
    against. What must hold of it does: 1 at the start, 0 at the end, cosine at 2, constant towards 0.
    """
    c = np.cos(np.pi * x)
    return np.asarray(2 * (1 + c) / (2 * phi + (2 - phi) * (1 + c)))


def power(x: np.ndarray, exponent: float = -0.51, share: float = 0.1) -> np.ndarray:
    """Power scheduler (Shen et al. 2024, arXiv 2408.13359): ``x^b``, then a linear decay at the end.

    Relative to its value after a twentieth of the run, and at most 1.
    """
    held = np.minimum((np.maximum(x, 1e-9) / 0.05) ** exponent, 1.0)
    return np.asarray(held * np.clip((1 - x) / share, 0, 1))


SCHEDULES: dict[str, Shape] = {
    "constant": np.ones_like,
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + np.cos(np.pi * x)) / 2,
    "rex": lambda x: (1 - x) / (1 - x / 2),
    "wsd": wsd,
    "uba": uba,
    "power": power,
}
"""Learning rate over its peak at fraction ``x`` of the run; REX after Chen et al. 2022."""


def shaped(low: np.ndarray, peak: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """A schedule never falls below the knob's range."""
    return np.maximum(peak * factor, low)


class OneRun(PopulationAgent):
    """One member gets all the steps, under a schedule of the learning rate.

    Args:
        problem: `Population`, with a learning rate among its knobs.
        schedule: a key of `SCHEDULES`.
        place: peak rate between the ends of its prior range, 0 to 1 on the log scale; where the edge
            of stability is told, the peak is half of it instead.
        assumed: periods the schedule is laid out for where the horizon is hidden.
    """

    def __init__(
        self, problem: Population, schedule: str = "wsd", place: float = 0.5, assumed: int = 20
    ) -> None:
        super().__init__(problem)
        self.schedule, self.place, self.assumed = schedule, place, assumed
        self.name = f"one run ({schedule})"

    def peak(self) -> np.ndarray:
        """``(batch,)`` peak learning rate."""
        inst = self.outcome.instance
        k = self.rate
        guess = inst.low[:, k] * (inst.high[:, k] / inst.low[:, k]) ** self.place
        return np.where(inst.edge > 0, np.minimum(inst.edge / 2, inst.high[:, k]), guess)

    def progress(self) -> np.ndarray:
        """Fraction of the run that will be done after the coming period, ``(batch,)``."""
        inst = self.outcome.instance
        done = inst.total - self.outcome.left + self.outcome.grant
        assumed = inst.present.sum(1) * inst.interval * self.assumed
        return np.minimum(done / np.where(inst.hidden > 0, assumed, inst.total), 1.0)

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        k = self.rate
        inst = self.outcome.instance
        factor = SCHEDULES[self.schedule](self.progress())
        knobs = self.outcome.knobs.copy()
        rate = shaped(inst.low[:, k], self.peak(), factor)
        knobs[:, 0, k] = rate
        weights = np.zeros(self.here.shape)
        weights[:, 0] = 1
        return self.plan(self.keep, knobs, weights)
