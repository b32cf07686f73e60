"""Plays agents on the twin and sums up what the suites report."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent
from allocgym.envs.core.builder import build
from allocgym.envs.prb_slicing.records import EMBB, URLLC
from allocgym.simulators.prb_slicing import fluid


def play(
    agent: Agent | str,
    scenario: str,
    seeds: int,
    first: int = 0,
    histogram: bool = False,
    backend: str = "twin",
    **overrides: Any,
) -> dict[str, Any]:
    """Play an agent on paired seeds.

    Args:
        agent: or its name or file.
        scenario: to play.
        seeds: how many.
        first: the first of them.
        histogram: keep delays for quantiles.
        backend: ``"twin"`` or ``"simpy"``.
        **overrides: fields of the scenario.

    Returns:
        Per seed, ``(seeds,)`` each: mean scores by period, moves, URLLC's late shares (10 and
        50 ms), eMBB's delivered share and goodput in Mbit/s, drops in MB; and ``ms`` a decision,
        ``delays`` of URLLC.
    """
    made: Any = build("prb-slicing", backend, scenario, seeds, histogram=histogram, **overrides)
    one = catalogue.make(agent, made.problem) if isinstance(agent, str) else agent
    outcome = made.reset(first + np.arange(seeds))
    one.begin(made.spec, first)
    one.peek(made)
    one.tell(outcome)
    total: dict[str, Any] = {}
    deciding = 0.0

    def add(name: str, value: np.ndarray) -> None:
        total[name] = total.get(name, 0.0) + value

    while not outcome.done.all():
        begun = time.process_time()
        decision = one.ask()
        deciding += time.process_time() - begun
        outcome = made.spend(decision)
        one.tell(outcome)
        memory = one.memory
        for name in ("tractor", "qos", "sla", "moved"):
            add(name, getattr(memory, name))
        kind = outcome.instance.kind
        urgent, broad = kind == URLLC, (kind == EMBB)[:, :, None]
        for name in ("packets", "late", "late50"):
            add(name, (getattr(outcome, name) * urgent).sum(1))
        add("served", (outcome.served * broad).sum((1, 2)))
        add("offered", (outcome.arrived * broad).sum((1, 2)))
        add("dropped", outcome.dropped.sum((1, 2)))
        add("delivered", outcome.served.sum((1, 2)))
    horizon = made.spec.horizon
    seconds = horizon * outcome.instance.period / 1000
    packets = np.maximum(total["packets"], 1)
    out: dict[str, Any] = {k: total[k] / horizon for k in ("tractor", "qos", "sla", "moved")}
    out |= {
        "late10": total["late"] / packets,
        "late50": total["late50"] / packets,
        "goodput": total["served"] * 8e-6 / seconds,
        "share": total["served"] / np.maximum(total["offered"], 1),
        "drops": total["dropped"] / 1e6,
        "bytes": total["delivered"],
        "ms": deciding / horizon / seeds * 1e3,
        "name": one.name,
    }
    if histogram:
        rows = (outcome.instance.kind[0] == URLLC).nonzero()[0]
        counts = made.histogram[rows].sum((0, 1))
        out["delays"] = {f"p{q:g}": fluid.quantile(counts, q / 100) for q in (50, 99, 99.9)}
    return out
