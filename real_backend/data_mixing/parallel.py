"""``backend="ray"``: one model, several workers of a Ray cluster, each with a part of every batch."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.real_backend.core import checkpoints, cluster
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.data_mixing import corpora
from allocgym.real_backend.data_mixing.backend import Progress, RealMixing
from allocgym.real_backend.data_mixing.model import PRESETS
from allocgym.real_backend.data_mixing.scenario import RealMixingScenario
from allocgym.real_backend.data_mixing.training import BATCH, Shard, Trainer

try:
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer
except ImportError as error:
    raise missing_extra("ray[train]", "ray") from error

FILE = "state.safetensors"
RETRIES = 10
"""How often a period is begun again after a worker or its node was lost."""


def _period(config: dict[str, Any]) -> None:
    """What every worker does: load the state, train one period, let the first one report."""
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    scenario: RealMixingScenario = config["scenario"]
    device = train.torch.get_device()
    texts = [corpora.load(domain) for domain in scenario.domains]
    if {t.name: t.digest for t in texts} != config["corpora"]:
        raise AllocgymError("ray: the texts on its nodes are not the ones on the driver's")
    trainer = Trainer(
        texts,
        PRESETS[scenario.preset],
        device,
        scenario.unique,
        scenario.valid_windows,
        scenario.test_windows,
    )
    trainer.begin(0, config["seed"])
    trainer.load(checkpoints.load(Path(config["start"]))[0])
    trainer.shard = Shard(rank, world, torch.distributed.all_reduce)
    with devices.threads(config["threads"]):
        trainer.train(config["units"], config["rates"])
        if rank:
            train.report({})
            return
        metrics = {"valid": trainer.evaluate("valid").tolist()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.save(Path(folder) / FILE, trainer.state())
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))


class ParallelMixing(RealMixing):
    """`RealMixing` with data-parallel training by Ray Train: gloo on processors, nccl on CUDA.

    Every period is one job of Ray Train. Each worker computes the gradient of its part of a batch, the
    gradients are summed before they are clipped, so the step is that of one process at the same batch,
    up to the order of a sum in float32. Same settings, same outcomes, same checkpoint files: a run may
    change between the two back ends. The base model is trained by the driver. A period that loses a
    worker is begun again, on the nodes that are left, and gives the same result.

    Args:
        problem: see `RealMixing`.
        scenario: see `RealMixing`.
        clock: see `RealMixing`.
        threads: of each worker.
        cache_dir: see `RealMixing`.
        heldout: see `RealMixing`.
        progress: told after each period, not each step.
        workers: processes, 1 to the sequences in a batch (16).
        address: of a running cluster, or None: one on this machine.
        storage: folder that every node sees; a temporary one of this machine by default.
        cpus: processors of a worker.
        gpus: accelerators of a worker, 0 or 1.
    """

    name: ClassVar[str] = "ray"
    needs: ClassVar[str] = "a Ray cluster"

    def __init__(
        self,
        problem: DataMixing,
        scenario: RealMixingScenario,
        clock: str = "charged",
        threads: int = 1,
        cache_dir: str | Path | None = None,
        heldout: str = "final",
        progress: Progress | None = None,
        workers: int = 2,
        address: str | None = None,
        storage: str | Path | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        if not 1 <= workers <= BATCH:
            raise AllocgymError(f"workers: 1 to {BATCH} expected, given {workers}")
        if gpus not in (0, 1):
            raise AllocgymError(f"gpus: 0 or 1 for each worker expected, given {gpus}")
        super().__init__(
            problem,
            scenario,
            clock=clock,
            device="cpu",
            threads=threads,
            cache_dir=cache_dir,
            heldout=heldout,
            progress=progress,
        )
        details = {**self.spec.details, "workers": workers, "device": "cuda" if gpus else "cpu"}
        self.spec = dataclasses.replace(self.spec, details=details)
        self._workers, self._address, self._storage = workers, address, storage
        self._scaling = train.ScalingConfig(
            num_workers=workers,
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})},
        )
        self._own: Path | None = None

    def close(self) -> None:
        """Let go of model, data and files."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None
        super().close()

    def _train(self, units: np.ndarray, rates: np.ndarray, period: int) -> np.ndarray:
        cluster.connect(self._address)
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        if self._storage is None and self._own is None:
            self._own = Path(tempfile.mkdtemp(prefix="allocgym-mixing-"))
        folder = Path(self._storage or self._own or ".").resolve()
        name = f"mixing-{uuid.uuid4().hex[:12]}"
        start = folder / name / "start.safetensors"
        checkpoints.save(start, self.trainer.state())
        config = {
            "scenario": self.scenario,
            "corpora": self.spec.details["corpora"],
            "seed": self._seed,
            "start": str(start),
            "threads": self._threads,
            "units": units,
            "rates": rates,
        }
        try:
            result: Any = TorchTrainer(
                _period,
                train_loop_config=config,
                scaling_config=self._scaling,
                torch_config=TorchConfig(backend="nccl" if self._scaling.use_gpu else "gloo"),
                run_config=train.RunConfig(
                    name=name,
                    storage_path=str(folder),
                    failure_config=train.FailureConfig(max_failures=RETRIES),
                ),
            ).fit()
            if result.error is not None or result.checkpoint is None:
                raise AllocgymError(f"ray: the period could not be trained ({result.error})")
            state, _ = checkpoints.load(Path(result.checkpoint.path) / FILE)
            measured = np.array(result.metrics["valid"])
        finally:
            shutil.rmtree(folder / name, ignore_errors=True)
        self.trainer.load(state)
        tell = self._teller(period, len(rates), units / units.sum())
        if tell is not None:
            tell(len(rates))
        return measured
