"""Train a small GPT under ``torch.compile`` at three memory budgets, our solver beside torch's own.

Run: ``python examples/compile_with_learned_plan.py [--backend inductor] [--steps 5]``. Prints the bytes
saved for the backward pass and the CPU time of a step. The default backend partitions exactly as
Inductor does and then runs eagerly; ``inductor`` also generates code (it needs a C++ compiler and takes
minutes to compile on a slow machine).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch._functorch import config

from allocgym.agents.activation_plan.rule import choose_saved
from allocgym.real_backend.activation_plan.compiled import PriorityKnapsack
from allocgym.real_backend.core.decoder import Decoder

BUDGETS = (0.2, 0.5, 0.8)


def saved_bytes(step: Any) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters left out."""
    seen: dict[int, int] = {}
    alive = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.nn.Parameter):
            storage = x.untyped_storage()
            seen[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        step()
    return sum(seen.values())


def run(solver: Any, budget: float, backend: str, steps: int, layers: int) -> dict[str, Any]:
    """Train ``steps`` steps; return bytes, seconds and the losses."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = Decoder(128, layers, 256, 64)
    tokens = torch.randint(0, 256, (4, 65))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return model(batch, lambda _i, group, x: group(x))

    with config.patch(activation_memory_budget=budget, activation_memory_budget_solver=solver):
        compiled = torch.compile(loss, backend=backend)
        begun = time.process_time()
        compiled(tokens).backward()
        compiling = time.process_time() - begun
        kept = saved_bytes(lambda: compiled(tokens))
        spent, losses = [], []
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            begun = time.process_time()
            value = compiled(tokens)
            value.backward()
            spent.append(time.process_time() - begun)
            optimiser.step()
            losses.append(float(value.detach()))
    return {"bytes": kept, "seconds": min(spent), "compile": compiling, "losses": losses}


def main() -> None:
    """Compare at three budgets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="aot_eager_decomp_partition")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--layers", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{'budget':>6} {'solver':>10} {'saved MB':>9} {'ms/step':>8} {'compile s':>9} {'loss':>8}"
    )
    for budget in BUDGETS:
        learned = PriorityKnapsack(choose=choose_saved, offload="recompute")
        for name, solver in (
            ("torch dp", "dp"),
            ("ours", PriorityKnapsack()),
            ("learned", learned),
        ):
            r = run(solver, budget, given.backend, given.steps, given.layers)
            print(
                f"{budget:6.1f} {name:>10} {r['bytes'] / 1e6:9.2f} {1e3 * r['seconds']:8.1f} "
                f"{r['compile']:9.1f} {r['losses'][-1]:8.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
