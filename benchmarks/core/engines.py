"""Where cells are run: processes of this machine, or tasks of a Ray cluster.

An engine takes independent pieces of work and hands back results as they finish. Which one a suite
uses is set for the whole command (`using`), so that suites do not mention it.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from allocgym.envs.core.errors import AllocgymError, missing_extra, unknown
from allocgym.real_backend.core.cluster import connect

Work = Callable[[dict[str, Any]], dict[str, Any]]
ENGINES = ("local", "ray")
RETRIES = 5
"""How often a Ray task is tried again after its worker or its node was lost."""


class Engine(Protocol):
    """Runs one function over many descriptions."""

    def run(
        self, work: Work, cells: list[dict[str, Any]], processes: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (index of the cell, its result) in the order in which they finish."""
        ...


class Local:
    """Processes on this machine."""

    def run(
        self, work: Work, cells: list[dict[str, Any]], processes: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `Engine.run`."""
        with ProcessPoolExecutor(processes, initializer=_end_with_parent) as pool:
            waiting = {pool.submit(work, cell): index for index, cell in enumerate(cells)}
            try:
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except BrokenProcessPool as error:
                raise AllocgymError(
                    "engine: a process of this suite was killed; begin it again: cells that are "
                    "finished are kept (a smaller one may be needed where memory ran out)"
                ) from error


def _end_with_parent() -> None:
    """Make this worker end when the process that started it does, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class OnRay:
    """Tasks of a Ray cluster, tried again when a worker or a node is lost.

    Args:
        address: of a running cluster (``"auto"``, ``"ray://..."``), or None: one on this machine, or
            the one this process is connected to already.
        cpus: processors each cell is given.
    """

    def __init__(self, address: str | None = None, cpus: float = 1.0) -> None:
        self.ray = connect(address)
        self.cpus = cpus

    def run(
        self, work: Work, cells: list[dict[str, Any]], processes: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """See `Engine.run`; the cluster's resources decide how many run at once."""
        # By name: a worker imports the module as anybody would, and the task is the same bytes for
        # every cell, whichever module of the package the command was started from.
        task = self.ray.remote(num_cpus=self.cpus, max_retries=RETRIES)(_by_name)
        name = (work.__module__, work.__qualname__)
        waiting = {task.remote(name, cell): index for index, cell in enumerate(cells)}
        while waiting:
            done, _ = self.ray.wait(list(waiting), num_returns=1)
            for reference in done:
                yield waiting.pop(reference), self.ray.get(reference)


def _by_name(name: tuple[str, str], cell: dict[str, Any]) -> dict[str, Any]:
    work: Work = functools.reduce(getattr, name[1].split("."), importlib.import_module(name[0]))  # type: ignore[assignment]
    return work(cell)


@contextlib.contextmanager
def local_cluster(nodes: int = 3, cpus: int = 1) -> Iterator[str]:
    """Start a Ray cluster of a head and several nodes on this machine; give its address.

    Args:
        nodes: besides the head.
        cpus: processors each node says it has.
    """
    connectable = ("ray", "ray.cluster_utils")
    try:
        ray, utilities = (importlib.import_module(name) for name in connectable)
    except ImportError as error:
        raise missing_extra("ray", "ray") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = utilities.Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


_current: contextvars.ContextVar[Engine] = contextvars.ContextVar("engine")


def current() -> Engine:
    """The engine of this command; processes of this machine where none was set."""
    return _current.get(Local())


@contextlib.contextmanager
def using(engine: str, address: str | None = None) -> Iterator[Engine]:
    """Run what is inside on an engine.

    Args:
        engine: ``"local"`` or ``"ray"``.
        address: of a Ray cluster.

    Raises:
        AllocgymError: no engine of that name, or an address given to the local one.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    if address is not None and engine != "ray":
        raise AllocgymError(f"address: only with engine 'ray', given {address!r}")
    chosen: Engine = OnRay(address) if engine == "ray" else Local()
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)
