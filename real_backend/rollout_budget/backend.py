"""``backend="real"``: rollouts are sampled, verified, and a policy gradient step is taken."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import FAMILIES, RolloutInstance, RolloutOutcome
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.rollout_budget import grpo
from allocgym.real_backend.rollout_budget.attempts import Attempts
from allocgym.real_backend.rollout_budget.scenario import (
    ALIASES,
    LANGUAGE,
    SCENARIOS,
    RealRolloutScenario,
)
from allocgym.real_backend.rollout_budget.worlds import Characters, World

CLOCKS = ("charged", "wall")


class RealRollouts(Backend[RolloutOutcome, Shares]):
    """GRPO on a character transformer; a decision says how many tries each prompt gets.

    On a CPU an episode is a function of (scenario, seed, decisions, threads). Rollout j of an update
    is drawn from a generator keyed by (seed, update, round), so that a run can be killed and
    restored. An update whose gradient is not finite is skipped: ``valid`` is False, ``failure`` 1.

    Args:
        problem: rollout budgets; with mode ``"bins"`` its rows are the regime's cells. Else so many
            prompts are offered and the budget follows, unless the scenario was asked for others.
        scenario: what is trained on what, for how long.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:i"`` (the CUDA path has not been run).
        threads: processor threads, 1 to 1024.
        clock: ``"charged"`` (tokens and updates at fixed prices) or ``"wall"`` (measured).
        cache_dir: where warm starts are kept.
        progress: told (update, measured accuracy) after each update.

    Raises:
        AllocgymError: a value out of range, rows that do not hold the cells or the prompts.
    """

    scenarios: ClassVar[Mapping[str, RealRolloutScenario]] = SCENARIOS
    batched: ClassVar[bool] = False
    trial: ClassVar[Mapping[str, Any]] = {
        "rows": 8,
        "budget": 32,
        "high": 16,
        "warm_steps": 12,
        "each": 8,
        "held": 2,
        "samples": 2,
        "horizon": 3,
        "device": "cpu",
    }

    def __init__(
        self,
        problem: RolloutBudget,
        scenario: RealRolloutScenario,
        device: str = "auto",
        threads: int = 1,
        clock: str = "charged",
        cache_dir: str | Path | None = None,
        progress: Callable[[int, float], Any] | None = None,
    ) -> None:
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        if not 1 <= threads <= 1024:
            raise AllocgymError(f"threads: an integer from 1 to 1024 expected, given {threads}")
        if not isinstance(cache_dir, (str, Path, type(None))):
            raise AllocgymError(f"cache_dir: a folder expected, given {cache_dir!r}")
        if progress is not None and not callable(progress):
            raise AllocgymError(f"progress: something to call expected, given {progress!r}")
        if scenario.regime == LANGUAGE and not scenario.model:
            raise scenario.no_model()
        self.bins = problem.mode == "bins"
        self.scenario = scenario if self.bins else scenario.offering(problem.n_max)
        self._device = devices.choose(device)
        self._threads, self._progress = threads, progress
        self.world = self._make_world(cache_dir)
        self.model = self.world.model
        cells = len(self.world.names)
        if self.bins and cells > problem.n_max:
            raise AllocgymError(f"n_max: {cells} rows needed, given {problem.n_max}")
        n = problem.n_max
        claimants = self.world.names if self.bins else tuple(f"row-{i}" for i in range(n))
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend="real",
            claimants=claimants,
            n_max=n,
            unit="rollout",
            horizon=self.scenario.horizon * self.scenario.rounds,
            batch_size=1,
            clock=clock,
            capabilities=frozenset({"restart"}),
            details={
                "setting": dataclasses.asdict(self.scenario),
                "parameters": self.model.size(),
                "device": str(self._device),
                "threads": threads,
                "torch": torch.__version__,
            },
        )
        super().__init__(spec, problem)
        self._instance = self._make_instance()
        self._optimizer = self._fresh_optimizer()

    @classmethod
    def choose(cls, scenario: Any, changes: Mapping[str, Any]) -> Any:
        """See `Backend.choose`: a simulator's scenario is taken for its nearest real run."""
        return super().choose(
            ALIASES.get(scenario, scenario) if isinstance(scenario, str) else scenario, changes
        )

    @classmethod
    def suits(cls, scenario: RealRolloutScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: a row for every prompt that is offered."""
        return {"n_max": scenario.rows, "mode": "per_prompt"}

    def _make_world(self, cache_dir: str | Path | None) -> World:
        if self.scenario.regime != LANGUAGE:
            return Characters(self.scenario, self._device, cache_dir)
        from allocgym.real_backend.rollout_budget.language import Language

        return Language(self.scenario, self._device)

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.scenario.lr)

    def _make_instance(self) -> RolloutInstance:
        made, world = self.scenario, self.world
        items = self.spec.n_max if self.bins else len(world.cell)
        family, category = np.zeros((2, items), np.int64)
        if self.bins:
            family[: len(world.family)] = world.family
        else:
            family, category = world.family[world.cell], world.cell
        one = np.ones(1)
        whole = np.ones(1, np.int64)
        return RolloutInstance(
            family=family[None],
            families=whole * len(world.families),
            category=category[None],
            pooled=one * (not self.bins),
            prior_a=np.full((1, items), 0.4 * made.prior_strength),
            prior_b=np.full((1, items), 0.6 * made.prior_strength),
            retention=one * made.retention,
            budget=whole * (made.budget // made.rounds),
            low=whole * made.low,
            high=whole * made.high,
            multiple=whole * made.multiple,
            horizon=whole * made.horizon,
            rounds=whole * made.rounds,
            group=one * made.budget / made.rows,
            price=one * made.price,
            nominal=one * made.budget * world.mean_tokens,
        )

    def _budget(self) -> np.ndarray:
        inst = self._instance
        return inst.budget * inst.horizon * inst.rounds

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> RolloutOutcome:
        if not where[0]:
            return self.outcome
        self._seed = int(seeds[0])
        with devices.threads(self._threads):
            self.world.start(self.model)
            self._optimizer = self._fresh_optimizer()
            self._step = self._round = 0
            self._sums = np.zeros(3)
            self._update = Attempts(self._offer())
            self._accuracy, self._families = self.evaluate()
        return self._report(self._update, 0, 0.0, np.zeros(2))

    def _offer(self) -> np.ndarray:
        """Prompts of the coming update: all once an epoch, order by seed, whatever was decided."""
        size, rows = len(self.world.cell), self.scenario.rows
        start = self._step * rows
        out: list[int] = []
        epoch = start // size
        while len(out) < rows:
            order = randomness.generator(self._seed * 1009 + epoch, "order").permutation(size)
            begin = max(start - epoch * size, 0)
            out += order[begin : begin + rows - len(out)].tolist()
            epoch += 1
        return np.array(out)

    def _generator(self, purpose: str, index: int) -> torch.Generator:
        bits = randomness.stream(np.array([self._seed * 65_536 + index]), purpose)[0, 0]
        return torch.Generator(self._device).manual_seed(int(bits >> np.uint64(2)))

    def _spend(self, decision: Shares) -> RolloutOutcome:
        made, update = self.scenario, self._update
        counts = self._per_prompt(np.asarray(decision.units)[0])
        last = self._round + 1 == made.rounds
        begun = time.perf_counter()
        with devices.threads(self._threads):
            prompts = self.world.prompts[torch.as_tensor(update.offered, device=self._device)]
            answers, lengths = self.model.sample(
                prompts,
                torch.as_tensor(counts, device=self._device),
                self._generator("rollout", self._step * made.rounds + self._round),
                made.temperature,
            )
            rewards = self.world.verify(answers, np.repeat(update.offered, counts))
            update.add(counts, answers, lengths.cpu().numpy(), rewards)
            failure = 0
            if last:
                group, answers, rewards = update.joined()
                norm = grpo.update(
                    self.model,
                    self._optimizer,
                    prompts,
                    answers,
                    group,
                    rewards,
                    made.estimator,
                    made.loss_weight,
                )
                failure = int(not np.isfinite(norm))
        seconds = time.perf_counter() - begun
        tokens = float(lengths.sum())
        if self.spec.clock == "charged":
            seconds = tokens * made.token_seconds + made.update_seconds * last
        spent = int(counts.sum())
        self._sums = self._sums + np.array([tokens, spent, seconds])
        if not last:
            self._round += 1
            return self._report(update, spent, seconds)
        self._step, self._round = self._step + 1, 0
        if self._step % made.evaluate_every == 0 or self._step == made.horizon:
            with devices.threads(self._threads):
                self._accuracy, self._families = self.evaluate()
        self._update = Attempts(self._offer())
        outcome = self._report(update, spent, seconds, update.ratios(), failure)
        if self._progress is not None:
            self._progress(self._step, float(self._accuracy))
        return outcome

    def _per_prompt(self, units: np.ndarray) -> np.ndarray:
        """Rollouts of each offered prompt; a cell's are dealt evenly over its prompts."""
        if not self.bins:
            return units.astype(np.int64)
        counts = np.zeros(len(self._update.offered), np.int64)
        cell = self.world.cell[self._update.offered]
        for c in np.flatnonzero(units):
            mine = np.flatnonzero(cell == c)
            if not len(mine):
                raise AllocgymError(f"units: row {c} has no prompt in this update")
            each, rest = divmod(int(units[c]), len(mine))
            counts[mine] = each
            counts[mine[:rest]] += 1
        return counts

    def evaluate(self) -> tuple[float, np.ndarray]:
        """Held-out accuracy over all cells, and by family ``(8,)``; draws keyed by the update."""
        world, held = self.world, len(self.world.held_cell)
        counts = torch.full((held,), self.scenario.samples, device=self._device)
        answers, _ = self.model.sample(
            world.held_prompts,
            counts,
            self._generator("evaluation", self._step),
            self.scenario.temperature,
        )
        which = np.repeat(np.arange(held), self.scenario.samples)
        right = world.verify(answers, which, held=True)
        by_cell = right.reshape(len(world.names), -1).mean(1)
        self.cell_accuracy = by_cell
        families = np.zeros(FAMILIES)
        for f in range(len(world.families)):
            families[f] = by_cell[world.family == f].mean()
        return float(by_cell.mean()), families

    def _rows(self, values: np.ndarray, offered: np.ndarray) -> np.ndarray:
        """Sums of per-prompt values by row, ``(1, n)``."""
        if not self.bins:
            return values[None].astype(float)
        cell = self.world.cell[offered]
        return np.bincount(cell, values, self.spec.n_max)[None]

    def _report(
        self,
        update: Attempts,
        spent: int,
        seconds: float,
        ratios: np.ndarray | None = None,
        failure: int = 0,
    ) -> RolloutOutcome:
        """The outcome of a round of ``update``; without ``ratios``, those before it still hold."""
        coming, offered = self._update.offered, update.offered
        prompts = self._rows(np.ones(len(coming)), coming)
        bins = np.arange(self.spec.n_max)[None]
        if ratios is None:
            ratios = np.array([self.outcome.prompt_ratio[0], self.outcome.rollout_ratio[0]])
        return RolloutOutcome(
            spent=np.array([spent]),
            seconds=np.array([seconds]),
            ready=prompts > 0,
            valid=np.array([failure == 0]),
            failure=np.array([failure]),
            done=np.array([self._step >= self.scenario.horizon]),
            ids=bins if self.bins else coming[None].copy(),
            prompts=prompts,
            last_ids=bins if self.bins else offered[None].copy(),
            tried=self._rows(update.tried, offered),
            right=self._rows(update.right, offered),
            mixed=self._rows(update.mixed * 1.0, offered),
            effective=self._rows(update.tried * update.mixed, offered),
            tokens=self._rows(update.tokens, offered),
            step=np.array([self._step]),
            round=np.array([self._round]),
            accuracy=np.array([self._accuracy]),
            heldout=np.array([self._accuracy]),
            family_accuracy=self._families[None].copy(),
            prompt_ratio=ratios[:1].copy(),
            rollout_ratio=ratios[1:].copy(),
            all_tokens=self._sums[:1].copy(),
            all_rollouts=self._sums[1:2].copy(),
            all_seconds=self._sums[2:].copy(),
            instance=self._instance,
        )

    def checkpoint(self, path: Path) -> None:
        """Write weights, optimiser, the rounds of this update, books and the latest outcome."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, held in self._optimizer.state_dict()["state"].items():
            state |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in held.items()}
        state |= self._update.state()
        data = {
            "kind": "rollout-budget",
            "setting": self.scenario.digest(),
            "n_max": self.spec.n_max,
            "seed": self._seed,
            "step": self._step,
            "round": self._round,
            "sums": self._sums.tolist(),
            "accuracy": self._accuracy,
            "families": self._families.tolist(),
            "ledger": self.ledger.to_json(),
            "outcome": self.outcome.to_json(),
        }
        checkpoints.save(path, state, data)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, here or in another process.

        Raises:
            CorruptFileError: the file is damaged.
            AllocgymError: there is none, or it is of another scenario.
        """
        state, data = checkpoints.load(path)
        mine = {
            "kind": "rollout-budget",
            "setting": self.scenario.digest(),
            "n_max": self.spec.n_max,
        }
        for key, value in mine.items():
            found = data.get(key) if isinstance(data, dict) else None
            if found != value:
                raise AllocgymError(
                    f"{path}: a checkpoint of another run; {key} is {found!r} there, {value!r} here"
                )
        self.model.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("model.")})
        self._optimizer = self._fresh_optimizer()
        adam: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, i, key = name.split(".")
                adam.setdefault(int(i), {})[key] = value
        whole = self._optimizer.state_dict()
        whole["state"] = adam
        self._optimizer.load_state_dict(whole)
        # Older files were written between updates only and hold no round.
        self._seed, self._step, self._round = data["seed"], data["step"], data.get("round", 0)
        self._sums = np.array(data["sums"])
        self._accuracy, self._families = data["accuracy"], np.array(data["families"])
        self._update = Attempts(self._offer())
        self._update.load(state, self._device)
        self.ledger.load(data["ledger"])
        self._latest = RolloutOutcome.from_json(data["outcome"])
