"""``backend="real"``: the steps of a period train a population of networks on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan, PopulationInstance, PopulationOutcome
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.population import tasks
from allocgym.real_backend.population.scenario import DEFAULTS, SCENARIOS, RealPopulationScenario
from allocgym.real_backend.population.stack import Architecture, Stack

CLOCKS = ("charged", "wall")
WORST = 1e6
"""Loss reported for a member that has diverged."""
LARGEST = 1e3
"""A member whose loss is more than this multiple of its population's first one has diverged."""


class RealPopulation(Backend[PopulationOutcome, Plan]):
    """Trains all members in one process, weights stacked; a copy is an index copy of whole states.

    The seed of an episode decides data, first weights, first knobs and the order of minibatches. On a
    CPU an episode is a function of (scenario, seed, decisions, threads), bit for bit, through any number
    of checkpoints and processes. A member that diverges stays out of the others' arithmetic; its steps
    are spent, its loss reads `WORST`, and it lives again by copying.

    Args:
        problem: `Population`; knobs may be the learning rate, weight decay and momentum.
        scenario: what is trained, for how long.
        clock: ``"charged"`` (nominal seconds, the same everywhere) or ``"wall"`` (measured).
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:i"``.
        threads: processor threads while training.

    Raises:
        AllocgymError: a value out of range, a knob that would change nothing.
    """

    name: ClassVar[str] = "real"
    scenarios: ClassVar[Mapping[str, RealPopulationScenario]] = SCENARIOS
    batched: ClassVar[bool] = False

    def __init__(
        self,
        problem: Population,
        scenario: RealPopulationScenario,
        clock: str = "charged",
        device: str = "auto",
        threads: int = 1,
    ) -> None:
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        if threads < 1:
            raise AllocgymError(f"threads: an integer >= 1 expected, given {threads}")
        if scenario.members > problem.n_max:
            raise AllocgymError(
                f"n_max: the scenario has {scenario.members} members, given {problem.n_max}"
            )
        self._ranges = ranges = scenario.ranges()
        for knob in problem.knobs:
            if knob not in ranges:
                raise AllocgymError(
                    f"knobs: {knob!r} changes nothing in a real population; {', '.join(ranges)} do"
                )
        self.scenario = scenario
        self._threads = threads
        self._device = devices.choose(device)
        self._seed = 0
        self._stack: Stack | None = None
        self._task: tasks.Task | None = None
        details = {
            "setting": dataclasses.asdict(scenario),
            "knobs": problem.knobs,
            "device": str(self._device),
            "threads": threads,
            "torch": torch.__version__,
        }
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=self.name,
            claimants=tuple(f"member-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="optimiser step of a member",
            horizon=scenario.horizon,
            batch_size=1,
            clock=clock,
            capabilities=frozenset({"restart"}),
            details=details,
        )
        super().__init__(spec, problem)
        self.problem: Population = problem

    @classmethod
    def suits(cls, scenario: RealPopulationScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows where the scenario has more members."""
        return {"n_max": scenario.members} if scenario.members > 8 else {}

    @property
    def stack(self) -> Stack:
        """The members in training.

        Raises:
            AllocgymError: before the first ``reset`` and after ``close``.
        """
        if self._stack is None:
            raise AllocgymError("real population: call reset() first")
        return self._stack

    @property
    def task(self) -> tasks.Task:
        """The examples of the running episode."""
        if self._task is None:
            raise AllocgymError("real population: call reset() first")
        return self._task

    def checkpoint(self, path: Path) -> None:
        """Write weights, optimiser, generators, cursors, books and the latest outcome to one file."""
        data = {
            **self._identity(),
            "seed": self._seed,
            "examples": self.task.digest,
            "torch": torch.__version__,
            "limit": self._limit,
            "ledger": self.ledger.to_json(),
            "outcome": self.outcome.to_json(),
        }
        checkpoints.save(path, self._state(), data)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, here or in another process.

        Raises:
            CorruptFileError: the file is damaged.
            AllocgymError: there is none, or it is of another scenario, of other examples, knobs or n_max.
        """
        state, data = checkpoints.load(path)
        for key, mine in self._identity().items():
            found = data.get(key) if isinstance(data, dict) else None
            if found != mine:
                raise AllocgymError(
                    f"{path}: a checkpoint of another run; {key} is {found!r} there, {mine!r} here"
                )
        self._begin(data["seed"])
        if data["examples"] != self.task.digest:
            raise AllocgymError(f"{path}: its examples are not the ones found on this machine")
        self._load(state)
        self._limit = data["limit"]
        self.ledger.load(data["ledger"])
        self._latest = PopulationOutcome.from_json(data["outcome"])

    def close(self) -> None:
        """Let go of members and data."""
        self._stack = self._task = None

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": "population",
            "setting": self.scenario.digest(),
            "n_max": self.spec.n_max,
            "knobs": list(self.problem.knobs),
        }

    def _begin(self, seed: int) -> None:
        self._seed = seed
        self._task, self._stack = begin(self.scenario, seed, self._device)

    def _budget(self) -> np.ndarray:
        return self.outcome.instance.total

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> PopulationOutcome:
        n, names = self.spec.n_max, self.problem.knobs
        self._begin(int(seeds[0]))
        ranges = np.array([self._ranges[k] for k in names])
        place = np.stack(
            [randomness.uniform(randomness.stream(seeds, f"first-{k}", n), 0) for k in names]
        )
        low, high = ranges[:, 0], ranges[:, 1]
        knobs = (low[:, None, None] * (high / low)[:, None, None] ** place).transpose(2, 1, 0)
        valid, test = self._measure()
        self._limit = float(valid.max()) * LARGEST
        s = self.scenario
        instance = PopulationInstance(
            present=np.arange(n)[None] < s.members,
            low=low[None],
            high=high[None],
            interval=np.array([s.interval]),
            horizon=np.array([s.horizon]),
            hidden=np.array([float(s.hidden)]),
            edge=np.zeros(1),
            monotone=np.zeros(1, bool),
            noise=np.array([s.noise]),
            stream=randomness.stream(seeds, "resample")[0],
        )
        return PopulationOutcome(
            spent=np.zeros(1, np.int64),
            seconds=np.zeros(1),
            ready=instance.present.copy(),
            done=np.zeros(1, bool),
            scores=self._pad(valid),
            heldout=self._pad(test),
            alive=np.ones((1, n), bool),
            knobs=np.ascontiguousarray(knobs),
            donor=np.arange(n)[None],
            used=np.zeros((1, n), np.int64),
            grant=np.array([s.members * s.interval]),
            left=instance.total,
            period=np.zeros(1, np.int64),
            instance=instance,
        )

    def _spend(self, decision: Plan) -> PopulationOutcome:
        last = self.outcome
        decision.check_form(last.instance)
        m = self.scenario.members
        donor, steps = decision.donor[0, :m], decision.steps[0, :m]
        started = time.perf_counter()
        alive = last.alive[0, :m][donor]
        # Nothing is left to train where there are no numbers; the steps are spent all the same.
        valid, test, finite = self._train(
            donor, np.where(alive, steps, 0), self._full(decision.knobs)
        )
        seconds = time.perf_counter() - started
        if self.spec.clock == "charged":
            copies = int((donor != np.arange(m)).sum())
            s = self.scenario
            seconds = float(steps.max()) * s.step_seconds + copies * s.copy_seconds
        alive &= finite & np.isfinite(valid) & np.isfinite(test) & (valid < self._limit)
        everyone = np.ones_like(last.alive)
        everyone[0, :m] = alive
        spent = decision.steps.sum(1)
        left = last.left - spent
        return dataclasses.replace(
            last,
            spent=spent,
            seconds=np.array([seconds]),
            done=left <= 0,
            scores=self._pad(np.where(alive, valid, WORST)),
            heldout=self._pad(np.where(alive, test, WORST)),
            alive=everyone,
            knobs=decision.knobs,
            donor=decision.donor,
            used=np.take_along_axis(last.used, decision.donor, 1) + decision.steps,
            grant=np.minimum(m * last.instance.interval, left),
            left=left,
            period=last.period + 1,
        )

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Validation and test loss of every member as it is, ``(M,)`` each."""
        with devices.threads(self._threads):
            return self.stack.evaluate(self.task.valid), self.stack.evaluate(self.task.test)

    def _train(
        self, donor: np.ndarray, steps: np.ndarray, knobs: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copy, train, measure: validation and test losses, and whether the weights are numbers."""
        with devices.threads(self._threads):
            self.stack.copy(donor)
            self.stack.train(self.task.train, steps, knobs)
        return *self._measure(), self.stack.finite()

    def _state(self) -> dict[str, torch.Tensor]:
        """Everything of the members that changes."""
        return self.stack.state()

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        """Go back to a `_state`."""
        self.stack.load(state)

    def _full(self, knobs: np.ndarray) -> dict[str, np.ndarray]:
        """Every knob of every member: those decided, the rest where `DEFAULTS` holds them."""
        m = self.scenario.members
        out = {}
        for name, (low, high) in self._ranges.items():
            if name in self.problem.knobs:
                out[name] = knobs[0, :m, self.problem.knobs.index(name)]
            else:
                out[name] = np.full(m, DEFAULTS.get(name, float(np.sqrt(low * high))))
        return out

    def _pad(self, losses: np.ndarray) -> np.ndarray:
        """``(M,)`` to ``(1, n_max)``; padding reads 1, so that its logarithm is finite."""
        out = np.ones((1, self.spec.n_max))
        out[0, : len(losses)] = np.clip(losses, 1e-12, WORST)
        return out


def begin(
    scenario: RealPopulationScenario, seed: int, device: torch.device
) -> tuple[tasks.Task, Stack]:
    """Examples and untrained members of an episode."""
    task = tasks.TASKS[scenario.task](seed, scenario.valid, scenario.test, device)
    hidden = (scenario.width,) * scenario.layers
    architecture = Architecture(task.inputs, hidden, task.outputs, task.vocabulary, tasks.CONTEXT)
    return task, Stack(architecture, seed, scenario.members, scenario.batch, device)
