"""``backend="real"``: rollouts are sampled, verified, and a policy gradient step is taken."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import FAMILIES, RolloutInstance, RolloutOutcome
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.rollout_budget import grpo, tasks
from allocgym.real_backend.rollout_budget.model import PRESETS
from allocgym.real_backend.rollout_budget.worlds import Characters, World


@dataclasses.dataclass(frozen=True)
class Setting:
    """A real run.

    Attributes:
        regime: of tasks: ``"easy"``, ``"hard-tail"``, ``"mixed-cost"``, or ``"reasoning"``: a
            Hugging Face model on tasks of reasoning-gym (see `language`).
        preset: of the character model.
        model: folder or hub name of the Hugging Face model.
        answer: most tokens of a Hugging Face model's answer.
        each: training prompts a cell (fewer than 200 invite memorisation).
        held: held-out prompts a cell.
        samples: rollouts of each held-out prompt in an evaluation.
        rows: prompts offered in an update.
        budget: rollouts of an update.
        low: least rollouts of an offered prompt.
        high: most rollouts of an offered prompt in an update.
        multiple: counts are multiples of this.
        rounds: periods in an update.
        horizon: updates.
        evaluate_every: updates between evaluations (the accuracy seen in between is the last).
        lr: learning rate of Adam.
        estimator: ``"grpo"``, ``"dr-grpo"`` or ``"rloo"``.
        loss_weight: ``"rollout"`` or ``"prompt"``.
        temperature: of sampling.
        warm_steps: supervised steps before; the result is cached.
        warm_seed: of the warm start (the same model for every seed of a run).
        retention: of beliefs from visit to visit.
        prior_strength: pseudo-rollouts of a prompt's prior, which follows its cell's running mean.
        price: accuracy that a mean update's tokens cost.
        token_seconds: charged per generated token.
        update_seconds: charged per update.
    """

    regime: str = "easy"
    preset: str = "tiny"
    model: str = ""
    answer: int = 64
    each: int = 200
    held: int = 16
    samples: int = 8
    rows: int = 64
    budget: int = 512
    low: int = 0
    high: int = 128
    multiple: int = 1
    rounds: int = 1
    horizon: int = 80
    evaluate_every: int = 10
    lr: float = 3e-4
    estimator: str = "grpo"
    loss_weight: str = "rollout"
    temperature: float = 1.0
    warm_steps: int = 800
    warm_seed: int = 0
    retention: float = 0.8
    prior_strength: float = 4.0
    price: float = 0.0
    token_seconds: float = 3e-5
    update_seconds: float = 0.1

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        if self.estimator not in grpo.ESTIMATORS:
            raise unknown("estimator", self.estimator, grpo.ESTIMATORS)
        if self.loss_weight not in grpo.WEIGHTS:
            raise unknown("loss_weight", self.loss_weight, grpo.WEIGHTS)
        if (self.regime == LANGUAGE) != bool(self.model):
            raise AllocgymError(
                f"model: the folder or hub name of a Hugging Face model goes with the regime "
                f"{LANGUAGE!r}, given {self.model!r} with {self.regime!r}"
            )
        if self.regime != LANGUAGE:
            tasks.regime_cells(self.regime)
        for name in (
            "answer",
            "each",
            "held",
            "samples",
            "rows",
            "budget",
            "high",
            "multiple",
            "rounds",
            "horizon",
            "evaluate_every",
        ):
            if getattr(self, name) < 1:
                raise AllocgymError(
                    f"{name}: an integer >= 1 expected, given {getattr(self, name)}"
                )
        if self.budget % (self.rounds * self.multiple):
            raise AllocgymError(
                f"budget: a multiple of rounds x multiple ({self.rounds * self.multiple}) "
                f"expected, given {self.budget}"
            )
        if self.high * self.rows < self.budget or self.low * self.rows * self.rounds > self.budget:
            raise AllocgymError(
                f"low, high: {self.budget} rollouts over {self.rows} prompts cannot lie between "
                f"{self.low} and {self.high} each"
            )

    def digest(self) -> str:
        """Content hash, part of a checkpoint's identity."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


LANGUAGE = "reasoning"
SCENARIOS = {name: Setting(regime=name) for name in tasks.REGIMES}
ALIASES = {"tiny": "easy", "qwen1.5b-dsr": "easy", "hetero-cost": "mixed-cost"}
"""Scenarios of the simulator whose nearest real regime has another name."""


class RealRollouts(Backend[RolloutOutcome, Shares]):
    """GRPO on a character transformer; a decision says how many tries each prompt gets.

    On a CPU an episode is a function of (setting, seed, decisions, threads). Rollout j of an update
    is drawn from a generator keyed by (seed, update, round), so that a run can be killed and
    restored. An update whose gradient is not finite is skipped: ``valid`` is False, ``failure`` 1.

    Args:
        problem: rollout budgets; with mode ``"bins"`` its rows are the regime's cells.
        scenario: a regime, a simulator preset with a real counterpart, or a `Setting`.
        num_envs: 1; a machine trains one model at a time.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:i"`` (the CUDA path has not been run).
        threads: processor threads.
        clock: ``"charged"`` (tokens and updates at fixed prices) or ``"wall"`` (measured).
        cache_dir: where warm starts are kept.
        progress: told (update, measured accuracy) after each update.
        overrides: fields of `Setting`, by keyword.
    """

    def __init__(
        self,
        problem: RolloutBudget,
        scenario: str | Setting = "easy",
        num_envs: int = 1,
        device: str = "auto",
        threads: int = 1,
        clock: str = "charged",
        cache_dir: str | Path | None = None,
        progress: Callable[[int, float], Any] | None = None,
        **overrides: Any,
    ) -> None:
        if num_envs != 1:
            raise AllocgymError(f"num_envs: the real back end trains 1 model, given {num_envs}")
        if clock not in ("charged", "wall"):
            raise unknown("clock", clock, ("charged", "wall"))
        if threads < 1:
            raise AllocgymError(f"threads: an integer >= 1 expected, given {threads}")
        if scenario == LANGUAGE:
            scenario = Setting(regime=LANGUAGE, model=str(overrides.get("model", "")))
        if isinstance(scenario, str):
            name = ALIASES.get(scenario, scenario)
            if name not in SCENARIOS:
                raise unknown("scenario", scenario, [*SCENARIOS, LANGUAGE])
            scenario = SCENARIOS[name]
        self.bins = problem.mode == "bins"
        if not self.bins and "rows" not in overrides and scenario.rows != problem.n_max:
            group = max(scenario.budget // scenario.rows, 1)
            overrides = {"budget": group * problem.n_max, **overrides, "rows": problem.n_max}
        self.setting = replaced(scenario, overrides, f"scenario {scenario.regime!r}")
        self._device = devices.choose(device)
        self._threads, self._progress = threads, progress
        self.world = self._make_world(cache_dir)
        self.model = self.world.model
        cells = len(self.world.names)
        if (self.bins and cells > problem.n_max) or (
            not self.bins and self.setting.rows != problem.n_max
        ):
            need = cells if self.bins else self.setting.rows
            raise AllocgymError(f"n_max: {need} rows needed, given {problem.n_max}")
        n = problem.n_max
        claimants = self.world.names if self.bins else tuple(f"row-{i}" for i in range(n))
        spec = Spec(
            problem=problem.id,
            scenario=self.setting.regime,
            backend="real",
            claimants=claimants,
            n_max=n,
            unit="rollout",
            horizon=self.setting.horizon * self.setting.rounds,
            batch_size=1,
            clock=clock,
            capabilities=frozenset({"restart"}),
            details={
                "setting": dataclasses.asdict(self.setting),
                "parameters": self.model.size(),
                "device": str(self._device),
                "threads": threads,
                "torch": torch.__version__,
            },
        )
        super().__init__(spec, problem)
        self._instance = self._make_instance()
        self._optimizer = self._fresh_optimizer()

    def _make_world(self, cache_dir: str | Path | None) -> World:
        if self.setting.regime != LANGUAGE:
            return Characters(self.setting, self._device, cache_dir)
        from allocgym.real_backend.rollout_budget.language import Language

        return Language(self.setting, self._device)

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.setting.lr)

    def _make_instance(self) -> RolloutInstance:
        made, world = self.setting, self.world
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
            self._clear()
            self._accuracy, self._families = self.evaluate()
        return self._report(0, 0.0, np.zeros(2))

    def _clear(self) -> None:
        """Offer the coming update's prompts; nothing has been tried of them."""
        self._offered = self._offer()
        m = len(self._offered)
        self._group: list[np.ndarray] = []
        self._answers: list[torch.Tensor] = []
        self._rewards: list[np.ndarray] = []
        self._tried, self._right, self._tokens = np.zeros(m), np.zeros(m), np.zeros(m)

    def _offer(self) -> np.ndarray:
        """Prompts of the coming update: all once an epoch, order by seed, whatever was decided."""
        size, rows = len(self.world.cell), self.setting.rows
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
        units = np.asarray(decision.units)[0]
        counts = self._per_prompt(units)
        begun = time.perf_counter()
        with devices.threads(self._threads):
            where = torch.as_tensor(self._offered, device=self._device)
            prompts = self.world.prompts[where]
            index = self._step * self.setting.rounds + self._round
            answers, lengths = self.model.sample(
                prompts,
                torch.as_tensor(counts, device=self._device),
                self._generator("rollout", index),
                self.setting.temperature,
            )
            group = np.repeat(np.arange(len(counts)), counts)
            rewards = self.world.verify(answers, self._offered[group])
            self._group.append(group)
            self._answers.append(answers)
            self._rewards.append(rewards)
            m = len(counts)
            tokens = np.bincount(group, lengths.cpu().numpy(), m)
            self._tried = self._tried + counts
            self._right = self._right + np.bincount(group, rewards, m)
            self._tokens = self._tokens + tokens
            last = self._round + 1 == self.setting.rounds
            failure, ratios = 0, np.zeros(2)
            if last:
                norm = grpo.update(
                    self.model,
                    self._optimizer,
                    prompts,
                    torch.cat(self._answers),
                    np.concatenate(self._group),
                    np.concatenate(self._rewards),
                    self.setting.estimator,
                    self.setting.loss_weight,
                )
                failure = int(not np.isfinite(norm))
                mixed = (self._right > 0) & (self._right < self._tried)
                ratios = np.array(
                    [
                        mixed.sum() / max((self._tried > 0).sum(), 1),
                        (self._tried * mixed).sum() / max(self._tried.sum(), 1),
                    ]
                )
            seconds = time.perf_counter() - begun
            if self.spec.clock == "charged":
                seconds = float(tokens.sum()) * self.setting.token_seconds
                seconds += self.setting.update_seconds * last
            self._sums = self._sums + np.array([tokens.sum(), counts.sum(), seconds])
            if not last:
                self._round += 1
                return self._report(int(counts.sum()), seconds, None)
            done = self._step + 1
            if done % self.setting.evaluate_every == 0 or done == self.setting.horizon:
                before = self._step
                self._step = done
                self._accuracy, self._families = self.evaluate()
                self._step = before
        return self._finish(int(counts.sum()), seconds, ratios, failure)

    def _finish(
        self, spent: int, seconds: float, ratios: np.ndarray, failure: int
    ) -> RolloutOutcome:
        tried, right, tokens, offered = self._tried, self._right, self._tokens, self._offered
        self._step, self._round = self._step + 1, 0
        self._clear()
        outcome = self._report(spent, seconds, ratios, (tried, right, tokens, offered), failure)
        if self._progress is not None:
            self._progress(self._step, float(self._accuracy))
        return outcome

    def _per_prompt(self, units: np.ndarray) -> np.ndarray:
        """Rollouts of each offered prompt; a cell's are dealt evenly over its prompts."""
        if not self.bins:
            return units.astype(np.int64)
        counts = np.zeros(len(self._offered), np.int64)
        cell = self.world.cell[self._offered]
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
        counts = torch.full((held,), self.setting.samples, device=self._device)
        answers, _ = self.model.sample(
            world.held_prompts,
            counts,
            self._generator("evaluation", self._step),
            self.setting.temperature,
        )
        which = np.repeat(np.arange(held), self.setting.samples)
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
        spent: int,
        seconds: float,
        ratios: np.ndarray | None,
        finished: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = None,
        failure: int = 0,
    ) -> RolloutOutcome:
        tried, right, tokens, offered = finished or (
            self._tried,
            self._right,
            self._tokens,
            self._offered,
        )
        mixed = ((right > 0) & (right < tried)).astype(float)
        prompts = self._rows(np.ones(len(self._offered)), self._offered)
        n = self.spec.n_max
        bins = np.arange(n)[None]
        if ratios is None:
            ratios = np.array([self.outcome.prompt_ratio[0], self.outcome.rollout_ratio[0]])
        return RolloutOutcome(
            spent=np.array([spent]),
            seconds=np.array([seconds]),
            ready=prompts > 0,
            valid=np.array([failure == 0]),
            failure=np.array([failure]),
            done=np.array([self._step >= self.setting.horizon]),
            ids=bins if self.bins else self._offered[None].copy(),
            prompts=prompts,
            last_ids=bins if self.bins else offered[None].copy(),
            tried=self._rows(tried, offered),
            right=self._rows(right, offered),
            mixed=self._rows(mixed, offered),
            effective=self._rows(tried * mixed, offered),
            tokens=self._rows(tokens, offered),
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
        """Write weights, optimiser, counters, books and the latest outcome (between updates)."""
        if self._round:
            raise AllocgymError("checkpoint: only between updates, not between rounds of one")
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for i, held in self._optimizer.state_dict()["state"].items():
            state |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in held.items()}
        data = {
            "kind": "rollout-budget",
            "setting": self.setting.digest(),
            "n_max": self.spec.n_max,
            "seed": self._seed,
            "step": self._step,
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
            AllocgymError: there is none, or it is of another setting.
        """
        state, data = checkpoints.load(path)
        mine = {
            "kind": "rollout-budget",
            "setting": self.setting.digest(),
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
        self._seed, self._step, self._round = data["seed"], data["step"], 0
        self._sums = np.array(data["sums"])
        self._accuracy, self._families = data["accuracy"], np.array(data["families"])
        self._clear()
        self.ledger.load(data["ledger"])
        self._outcome = RolloutOutcome.from_json(data["outcome"])
