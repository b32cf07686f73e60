"""``backend="ray"``: every member is a trial of Ray Tune, on whatever node has room for it."""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import shutil
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.envs.population.problem import Population
from allocgym.real_backend.core import checkpoints, cluster
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.population.backend import RealPopulation, begin
from allocgym.real_backend.population.scenario import RealPopulationScenario
from allocgym.real_backend.population.tune import LockstepScheduler, Orders, Reports

try:
    import ray
    from ray import tune
except ImportError as error:
    raise missing_extra("ray[tune]", "ray") from error

FILE = "member.safetensors"
RETRIES = 10
"""How often a trial is started again after its worker or its node was lost."""
KNOBS = ("learning_rate", "weight_decay", "momentum")


class Member(tune.Trainable):
    """One member as a trial: a report is what it measures after ``config["steps"]`` steps.

    What it holds after a report is a function of its checkpoint and its configuration, bit for bit, so
    a trial that is lost and started again elsewhere reports the same.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin as the untrained member, or as the file ``config["start"]`` has it."""
        self.config = config
        scenario = RealPopulationScenario(**config["scenario"])
        self.device = devices.choose(config["device"])
        self.data, self.stack = begin(scenario, config["seed"], self.device)
        self.stack.keep(config["member"])
        if config["start"]:
            self.stack.load(checkpoints.load(Path(config["start"]))[0])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve another trial in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train, then measure."""
        knobs = {k: np.array([self.config[k]]) for k in KNOBS}
        with devices.threads(self.config["threads"]):
            self.stack.train(self.data.train, np.array([self.config["steps"]]), knobs)
            valid, test = (self.stack.evaluate(d)[0] for d in (self.data.valid, self.data.test))
        return {
            "valid": float(valid),
            "test": float(test),
            "finite": bool(self.stack.finite()[0]),
            "digest": self.data.digest,
            "node": ray.get_runtime_context().get_node_id(),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write weights, optimiser, cursor and stream."""
        checkpoints.save(Path(checkpoint_dir) / FILE, self.stack.state())

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Go on from what `save_checkpoint` wrote, of this member or another."""
        self.stack.load(checkpoints.load(Path(checkpoint_dir) / FILE)[0])


def quiet() -> None:
    """Let Tune neither print nor write logs of its own: reports and journals are ours."""
    for key, value in (("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"), ("RAY_AIR_NEW_OUTPUT", "0")):
        os.environ.setdefault(key, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


class _Session:
    """One Tune experiment in a thread; periods are handed to it one at a time."""

    def __init__(
        self, members: list[dict[str, Any]], storage: Path, resources: dict[str, float], stay: bool
    ) -> None:
        self._orders: queue.Queue[Orders | None] = queue.Queue()
        self._told: queue.Queue[Reports | BaseException] = queue.Queue()
        self.scheduler = LockstepScheduler(len(members), self._exchange, stay=stay)
        self._folder = storage / f"population-{uuid.uuid4().hex[:12]}"
        self._held: set[Path] = set()
        self.nodes: list[str] = []
        quiet()
        tuner = tune.Tuner(
            tune.with_resources(Member, resources),
            param_space=tune.grid_search(members),
            tune_config=tune.TuneConfig(
                scheduler=self.scheduler,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"member-{trial.config['member']}",
            ),
            run_config=tune.RunConfig(
                name=self._folder.name,
                storage_path=str(storage),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=int(stay)),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        )
        self._thread = threading.Thread(target=self._run, args=(tuner,), daemon=True)
        self._thread.start()

    def _run(self, tuner: Any) -> None:
        try:
            tuner.fit()
            self._told.put(AllocgymError("ray: the trials ended before their budget"))
        except BaseException as error:  # told to whoever waits, in the thread that waits
            self._told.put(error)

    def _exchange(self, reports: Reports) -> Orders | None:
        self._told.put(reports)
        return self._orders.get()

    def first(self) -> list[dict[str, Any]]:
        """What the members measure before any training."""
        return self._take()

    def next(self, orders: Orders) -> list[dict[str, Any]]:
        """Carry out one period."""
        self._orders.put(orders)
        return self._take()

    def _take(self) -> list[dict[str, Any]]:
        told = self._told.get()
        if isinstance(told, BaseException):
            raise AllocgymError(f"ray: {told}") from told
        reports = [r for r in told if r is not None]
        if len(reports) < len(told):
            lost = [str(t) for t, r in zip(self.scheduler.trials, told, strict=True) if r is None]
            raise AllocgymError(f"ray: trials failed {RETRIES} times: {', '.join(lost)}")
        self.nodes = [str(r["node"]) for r in reports]
        # What nobody goes on from is let go of.
        held = set(self._checkpoints())
        for path in self._held - held:
            shutil.rmtree(path, ignore_errors=True)
        self._held = held
        return reports

    def _checkpoints(self) -> list[Path]:
        latest: list[Any] = [t.latest_checkpoint_result for t in self.scheduler.trials]
        return [Path(result.checkpoint.path) for result in latest]

    def state(self) -> dict[str, torch.Tensor]:
        """The members as one stack."""
        each = [checkpoints.load(path / FILE)[0] for path in self._checkpoints()]
        return {name: torch.cat([one[name] for one in each]) for name in each[0]}

    def close(self) -> None:
        """End the experiment at the next decision and remove its files."""
        self._orders.put(None)
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)


class RayPopulation(RealPopulation):
    """The population of `RealPopulation`, one Ray Tune trial a member.

    Same scenarios, same outcomes, same checkpoint files: a run may change between the two back ends.
    Members train as stacks of one; losses agree with the stacked ones to rounding (here to the last bit).
    A member whose node is lost repeats its period on another, from the checkpoint it began it with.
    Members need a processor each; where there are fewer, they take turns, at the price of starting a
    process for every member and period.

    Args:
        problem: see `RealPopulation`.
        scenario: see `RealPopulation`.
        clock: see `RealPopulation`.
        device: of the trials.
        threads: of a trial.
        address: of a running cluster, or None: one on this machine.
        storage: folder that every node sees, where trials keep checkpoints while the run lasts; a
            temporary one of this machine by default.
        cpus: processors of a trial.
        gpus: accelerators of a trial.
    """

    name: ClassVar[str] = "ray"
    needs: ClassVar[str] = "a Ray cluster"

    def __init__(
        self,
        problem: Population,
        scenario: RealPopulationScenario,
        clock: str = "charged",
        device: str = "auto",
        threads: int = 1,
        address: str | None = None,
        storage: str | Path | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        super().__init__(problem, scenario, clock, "cpu", threads)
        self.spec = dataclasses.replace(
            self.spec, details={**self.spec.details, "device": device, "cpus": cpus, "gpus": gpus}
        )
        self._where, self._address, self._storage = device, address, storage
        self._resources = {"cpu": cpus, "gpu": gpus}
        self._session: _Session | None = None
        self._own: Path | None = None
        self._resumed: dict[str, torch.Tensor] | None = None

    @property
    def nodes(self) -> list[str]:
        """Id of the node that each member was on when it reported last."""
        if self._session is None:
            raise AllocgymError("ray: call reset() or spend() first")
        return self._session.nodes

    def close(self) -> None:
        """End the trials, let go of their files."""
        self._end()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None
        super().close()

    def _end(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _begin(self, seed: int) -> None:
        self._end()
        self._resumed = None
        super()._begin(seed)

    def _start(self) -> list[dict[str, Any]]:
        """Start the trials, untrained or where a checkpoint has them; return what they measure."""
        cluster.connect(self._address)
        if self._storage is None and self._own is None:
            self._own = Path(tempfile.mkdtemp(prefix="allocgym-population-"))
        folder = Path(self._storage or self._own or ".").resolve()
        files = [""] * self.scenario.members
        if self._resumed is not None:
            place = folder / f"start-{uuid.uuid4().hex[:12]}"
            for i in range(self.scenario.members):
                one = {name: value[i : i + 1] for name, value in self._resumed.items()}
                checkpoints.save(place / f"{i}.safetensors", one)
                files[i] = str(place / f"{i}.safetensors")
        members = [
            {
                "scenario": dataclasses.asdict(self.scenario),
                "seed": self._seed,
                "member": i,
                "device": self._where,
                "threads": self._threads,
                "start": files[i],
                "steps": 0,
                **dict.fromkeys(KNOBS, 0.0),
            }
            for i in range(self.scenario.members)
        ]
        room = ray.cluster_resources()
        stay = all(
            room.get(name.upper(), 0.0) >= count * len(members)
            for name, count in self._resources.items()
        )
        self._session = _Session(members, folder, self._resources, stay)
        reports = self._session.first()
        if {r["digest"] for r in reports} != {self.task.digest}:
            raise AllocgymError("ray: the examples on its nodes are not the ones on this machine")
        return reports

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        reports = self._start()
        return _column(reports, "valid"), _column(reports, "test")

    def _train(
        self, donor: np.ndarray, steps: np.ndarray, knobs: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._session is None:
            self._start()
        assert self._session is not None
        config = [
            {"steps": int(s), **{k: float(v[i]) for k, v in knobs.items()}}
            for i, s in enumerate(steps)
        ]
        orders = Orders(donor.tolist(), config, (steps > 0).astype(int).tolist())
        reports = self._session.next(orders)
        return tuple(_column(reports, k) for k in ("valid", "test", "finite"))  # type: ignore[return-value]

    def _state(self) -> dict[str, torch.Tensor]:
        if self._session is not None:
            return self._session.state()
        return self.stack.state() if self._resumed is None else self._resumed

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        self._resumed = state


def _column(reports: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([r[key] for r in reports])
