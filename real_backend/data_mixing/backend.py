"""``backend="real"``: the tokens of a period train a GPT on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingInstance, MixingOutcome
from allocgym.envs.data_mixing.schedules import step_rates
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.data_mixing import corpora
from allocgym.real_backend.data_mixing.base import base_weights
from allocgym.real_backend.data_mixing.model import PRESETS
from allocgym.real_backend.data_mixing.scenario import SCENARIOS, RealMixingScenario
from allocgym.real_backend.data_mixing.training import Trainer

Progress = Callable[[int, int, int, np.ndarray], Any]
CLOCKS = ("charged", "wall")
HELDOUT = ("final", "every")


class RealMixing(Backend[MixingOutcome, Shares]):
    """Trains a byte-level GPT; a decision says how many sequences of each domain come next.

    The seed of an episode decides the order of each domain's sequences (and the base model where
    ``base_seed`` is None). On a CPU, an episode is a function of (scenario, seed, decisions,
    threads), bit for bit, through any number of checkpoints and processes. A period that ends in
    NaN is undone: its tokens are wasted, weights and losses are those before it, ``valid`` is
    False and ``failure`` 1.

    Args:
        problem: data mixing; ``problem.n_max`` rows must hold the scenario's domains.
        scenario: what is trained on what, for how long.
        clock: ``"charged"`` (nominal seconds of steps and evaluated bytes, the same everywhere) or
            ``"wall"`` (measured).
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:i"``.
        threads: processor threads while training.
        cache_dir: where base models are kept; see `envs.core.cache.cache_folder`.
        heldout: ``"final"`` measures test losses at the start and the end of an episode and
            repeats the last known ones in between; ``"every"`` measures them each period.
        progress: told (period, step, steps of the period, shares) after each step; period -1 is
            the base model.

    Raises:
        AllocgymError: a value out of range, a domain that is not there.
    """

    name: ClassVar[str] = "real"
    scenarios: ClassVar[Mapping[str, RealMixingScenario]] = SCENARIOS
    batched: ClassVar[bool] = False
    trial: ClassVar[Mapping[str, Any]] = {
        "steps": 4,
        "horizon": 2,
        "valid_windows": 2,
        "test_windows": 2,
        "device": "cpu",
    }

    def __init__(
        self,
        problem: DataMixing,
        scenario: RealMixingScenario,
        clock: str = "charged",
        device: str = "auto",
        threads: int = 1,
        cache_dir: str | Path | None = None,
        heldout: str = "final",
        progress: Progress | None = None,
    ) -> None:
        if clock not in CLOCKS:
            raise unknown("clock", clock, CLOCKS)
        if heldout not in HELDOUT:
            raise unknown("heldout", heldout, HELDOUT)
        if threads < 1:
            raise AllocgymError(f"threads: an integer >= 1 expected, given {threads}")
        self.scenario = scenario
        names = self.scenario.names
        if len(names) > problem.n_max:
            raise AllocgymError(
                f"n_max: {len(names)} domains ({', '.join(names)}), {problem.n_max} rows"
            )
        self._threads, self._cache_dir, self._heldout = threads, cache_dir, heldout
        self._progress = progress
        self._device = devices.choose(device)
        config = PRESETS[self.scenario.preset]
        texts = [corpora.load(domain) for domain in self.scenario.domains]
        self._trainer: Trainer | None = Trainer(
            texts,
            config,
            self._device,
            self.scenario.unique,
            self.scenario.valid_windows,
            self.scenario.test_windows,
        )
        self._rates = step_rates(self.scenario.schedule, self.scenario.steps, self.scenario.warmup)
        self._seed = 0
        details = {
            "setting": dataclasses.asdict(self.scenario),
            "corpora": {text.name: text.digest for text in texts},
            "parameters": self._trainer.model.size(),
            "device": str(self._device),
            "threads": threads,
            "torch": torch.__version__,
        }
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend=self.name,
            claimants=names,
            n_max=problem.n_max,
            unit=f"sequence of {config.context} tokens",
            horizon=self.scenario.horizon,
            batch_size=1,
            clock=clock,
            capabilities=frozenset({"restart"}),
            details=details,
        )
        super().__init__(spec, problem)
        self._instance = self._make_instance()

    @classmethod
    def suits(cls, scenario: RealMixingScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows where the scenario has more domains."""
        return {"n_max": len(scenario.domains)} if len(scenario.domains) > 8 else {}

    @property
    def trainer(self) -> Trainer:
        """The model in training.

        Raises:
            AllocgymError: after `close`.
        """
        if self._trainer is None:
            raise AllocgymError("real back end: closed")
        return self._trainer

    def checkpoint(self, path: Path) -> None:
        """Write weights, optimiser, data cursors, books and the latest outcome to one file."""
        data = {
            "kind": "data-mixing",
            "setting": self.scenario.digest(),
            "n_max": self.spec.n_max,
            "corpora": self.spec.details["corpora"],
            "torch": torch.__version__,
            "seed": self._seed,
            "ledger": self.ledger.to_json(),
            "outcome": self.outcome.to_json(),
        }
        checkpoints.save(path, self.trainer.state(), data)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, here or in another process.

        Raises:
            CorruptFileError: the file is damaged.
            AllocgymError: there is none, or it is of another setting, of other texts or n_max.
        """
        state, data = checkpoints.load(path)
        mine = {
            "kind": "data-mixing",
            "setting": self.scenario.digest(),
            "n_max": self.spec.n_max,
            "corpora": self.spec.details["corpora"],
        }
        for key, value in mine.items():
            found = data.get(key) if isinstance(data, dict) else None
            if found != value:
                raise AllocgymError(
                    f"{path}: a checkpoint of another run; {key} is {found!r} there, {value!r} here"
                )
        self._seed = data["seed"]
        # A fresh run first: streams are keyed by the seed, and an untouched optimiser is empty.
        self.trainer.begin(0, self._seed)
        self.trainer.load(state)
        self.ledger.load(data["ledger"])
        self._latest = MixingOutcome.from_json(data["outcome"])

    def close(self) -> None:
        """Let go of model and data."""
        self._trainer = None

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> MixingOutcome:
        if not where[0]:
            return self.outcome
        self._seed = int(seeds[0])
        base = self.scenario.base_seed
        with devices.threads(self._threads):
            weights = base_weights(
                self.scenario,
                self.trainer,
                self._seed if base is None else base,
                self._cache_dir,
                self._teller(-1, self.scenario.base_steps, self._source_shares()),
            )
            self.trainer.begin(0, self._seed, weights=weights)
            valid, test = self.trainer.evaluate("valid"), self.trainer.evaluate("test")
        none = np.zeros((1, self.spec.n_max), np.int64)
        return self._report(self._pad(valid), self._pad(test), none, none, 0, 0.0)

    def _spend(self, decision: Shares) -> MixingOutcome:
        last, trainer = self.outcome, self.trainer
        units = np.asarray(decision.units)
        self._check(units)
        period = int(last.period[0])
        steps = self.scenario.steps // self.scenario.horizon
        present = units[0, : len(self.scenario.names)]
        rates = self._rates[period * steps : (period + 1) * steps] * self.scenario.peak_lr
        before = trainer.state()
        start = time.perf_counter()
        measured = self._train(present, rates, period)
        seconds = time.perf_counter() - start
        if self.spec.clock == "charged":
            seconds = steps * self.scenario.step_seconds
            seconds += trainer.evaluation_bytes("valid") * self.scenario.byte_seconds
        valid = bool(np.isfinite(measured).all())
        if not valid:
            # The tokens are gone all the same: only the cursors stay where they are.
            before["cursors"] = torch.from_numpy(trainer.cursors)
            trainer.load(before)
        losses = self._pad(measured) if valid else last.losses
        heldout = last.heldout
        if self._heldout == "every" or period + 1 == self.scenario.horizon:
            with devices.threads(self._threads):
                heldout = self._pad(trainer.evaluate("test"))
        return self._report(
            losses, heldout, units.astype(np.int64), last.seen + units, period + 1, seconds, valid
        )

    def _train(self, units: np.ndarray, rates: np.ndarray, period: int) -> np.ndarray:
        """Train one period, ``(K,)`` sequences; return the validation losses, ``(K,)``."""
        with devices.threads(self._threads):
            self.trainer.train(units, rates, self._teller(period, len(rates), units / units.sum()))
            return self.trainer.evaluate("valid")

    def _budget(self) -> np.ndarray:
        return self._instance.budget * self._instance.horizon

    def _check(self, units: np.ndarray) -> None:
        """Refuse what cannot be trained; whether it is allowed is the problem's to say."""
        if units.shape != (1, self.spec.n_max) or not np.issubdtype(units.dtype, np.integer):
            raise AllocgymError(
                f"units: integers of shape {(1, self.spec.n_max)} expected, "
                f"given {units.dtype} of shape {units.shape}"
            )
        padding = units[0, len(self.scenario.names) :]
        if (units < 0).any() or padding.any() or units.sum() != self.scenario.budget:
            raise AllocgymError(
                f"units: {self.scenario.budget} sequences over {len(self.scenario.names)} domains "
                f"expected, given {units[0].tolist()}"
            )

    def _report(
        self,
        losses: np.ndarray,
        heldout: np.ndarray,
        units: np.ndarray,
        seen: np.ndarray,
        period: int,
        seconds: float,
        valid: bool = True,
    ) -> MixingOutcome:
        steps = self.scenario.steps // self.scenario.horizon
        rest = self._rates[period * steps :]
        none = units.sum(1) * 0
        return MixingOutcome(
            spent=units.sum(1) if valid else none,
            wasted=none if valid else units.sum(1),
            seconds=np.array([seconds]),
            ready=self._instance.present.copy(),
            valid=np.array([valid]),
            failure=np.array([int(not valid)]),
            done=np.array([period == self.scenario.horizon]),
            losses=losses,
            heldout=heldout,
            units=units,
            seen=seen,
            period=np.array([period]),
            lr=np.array([rest[:steps].mean() if len(rest) else 0.0]),
            lr_left=np.array([rest.mean() if len(rest) else 0.0]),
            instance=self._instance,
        )

    def _make_instance(self) -> MixingInstance:
        scenario, n = self.scenario, self.spec.n_max
        k = len(scenario.names)
        graph = np.zeros((1, n, n))
        if scenario.graph is not None:
            graph[0, :k, :k] = scenario.graph

        def row(values: np.ndarray, padding: float = 0.0) -> np.ndarray:
            out = np.full((1, n), padding, dtype=np.asarray(values).dtype)
            out[0, :k] = values
            return out

        return MixingInstance(
            present=row(np.ones(k, bool)),
            prior=row(scenario.prior_shares()),
            weight=row(scenario.objective_weights()),
            source=row(np.isin(scenario.names, scenario.source)),
            # Padding is divided by, then masked: 1 keeps it finite.
            unique=row(self.trainer.epochs.astype(float), 1.0),
            limit=row(scenario.limits(), 1),
            floor=row(np.full(k, int(scenario.floor * scenario.budget))),
            graph=graph,
            budget=np.array([scenario.budget]),
            horizon=np.array([scenario.horizon]),
            effort=np.array([scenario.steps / scenario.horizon / 100]),
            noise=np.array([scenario.noise]),
            epsilon=np.array([np.inf if scenario.epsilon is None else scenario.epsilon]),
            penalty=np.array([float(scenario.penalty)]),
            worst=np.array([float(scenario.objective == "worst")]),
            hidden=np.array([float(scenario.hidden)]),
        )

    def _pad(self, losses: np.ndarray) -> np.ndarray:
        """``(K,)`` to ``(1, n_max)``; padding gets the mean, so that its logarithm is finite."""
        out = np.full((1, self.spec.n_max), losses.mean())
        out[0, : len(losses)] = losses
        return out

    def _source_shares(self) -> np.ndarray:
        known = np.isin(self.scenario.names, self.scenario.source)
        return known / max(known.sum(), 1)

    def _teller(self, period: int, steps: int, shares: np.ndarray) -> Callable[[int], Any] | None:
        tell = self._progress
        if tell is None:
            return None
        return lambda step: tell(period, step, steps, shares)
