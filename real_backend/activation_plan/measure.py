"""Measures plans in a process of its own: peak memory, step time, gradients against keep-all.

``python -m allocgym.real_backend.activation_plan.measure`` reads a request as JSON from standard input
and prints one JSON object. `measure` starts it with the allocator settings that make the peak of the
resident set repeatable (they have to be in the environment before the process starts).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from allocgym.envs.core.errors import AllocgymError, missing_extra, unknown
from allocgym.real_backend.core.shape import MODELS

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}


def measure(
    model: str,
    plans: Sequence[Sequence[int]],
    repeats: int = 3,
    rate: float = 2e9,
    device: str = "cpu",
    seed: int = 0,
    timeout: float = 1800.0,
) -> dict[str, Any]:
    """Execute plans for real.

    Args:
        model: name in `MODELS`.
        plans: keep (0), recompute (1) or offload (2) per group; plan 0 of the run is always keep-all.
        repeats: steps per plan, interleaved so that a busy machine slows all plans alike.
        rate: bytes a second of the slow tier on CPU.
        device: ``"cpu"`` or ``"cuda"``.
        seed: of weights and data.
        timeout: seconds.

    Returns:
        ``groups`` (bytes per group), ``plans`` with ``peak`` (bytes above the start), ``seconds`` (CPU
        time of a step and time the slow tier was paced), ``wall``, ``moved``, ``equal`` (gradients equal
        keep-all's to the bit) and ``gap`` (largest difference).

    Raises:
        AllocgymError: the process failed, or a plan's gradients differ.
    """
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    groups = 2 * MODELS[model]["layers"]
    for plan in plans:
        if len(plan) != groups or any(a not in (0, 1, 2) for a in plan):
            raise AllocgymError(f"plan: {groups} actions from 0 to 2 expected, given {list(plan)}")
    request = {
        "model": MODELS[model],
        "plans": [list(map(int, p)) for p in plans],
        "repeats": repeats,
        "rate": rate,
        "device": device,
        "seed": seed,
    }
    done = subprocess.run(
        [sys.executable, "-m", "allocgym.real_backend.activation_plan.measure"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={
            **os.environ,
            **ALLOCATOR,
            "OMP_NUM_THREADS": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        },
    )
    if done.returncode:
        raise AllocgymError(f"measurement failed: {done.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    wrong = [i for i, p in enumerate(result["plans"]) if not p["equal"]]
    if wrong:
        raise AllocgymError(f"gradients of plans {wrong} differ from keep-all's")
    return result


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise AllocgymError(f"/proc/self/status: no {field}")


def _clear_peak() -> None:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main() -> None:
    """Answer one request."""
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "real") from error
    from allocgym.real_backend.activation_plan.executor import Executor, SlowTier, group_bytes
    from allocgym.real_backend.core.decoder import Decoder

    request = json.loads(sys.stdin.read())
    torch.set_num_threads(1)
    torch.manual_seed(request["seed"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    m, device = dict(request["model"]), torch.device(request["device"])
    batch = m.pop("batch")
    model = Decoder(**m).to(device)
    tokens = torch.randint(0, m["vocabulary"], (batch, m["rows"] + 1), device=device)
    groups = group_bytes(model, tokens)
    tier = SlowTier(device, request["rate"], 2 * sum(g["size"] for g in groups))
    plans = [[0] * len(model.groups), *request["plans"]]
    found: list[dict[str, Any]] = [
        {"seconds": [], "wall": [], "peak": [], "equal": True, "gap": 0.0} for _ in plans
    ]
    Executor(model, plans[0], tier).step(tokens)
    reference = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    cuda = device.type == "cuda"
    # Where kernels are not deterministic, two runs that keep everything differ; plans may as much.
    spread = 0.0
    if cuda:
        Executor(model, plans[0], tier).step(tokens)
        again = [p.grad for p in model.parameters() if p.grad is not None]
        pairs = list(zip(again, reference, strict=True))
        spread = max(float((a - b).abs().max()) for a, b in pairs)
    for repeat in range(request["repeats"]):
        for plan, entry in zip(plans, found, strict=True):
            executor = Executor(model, plan, tier)
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                start = torch.cuda.memory_allocated()
            else:
                _clear_peak()
                start = _status("VmRSS")
            wall, used = time.perf_counter(), time.process_time()
            executor.step(tokens)
            if cuda:
                torch.cuda.synchronize()
            wall, used = time.perf_counter() - wall, time.process_time() - used
            peak = torch.cuda.max_memory_allocated() if cuda else _status("VmHWM")
            entry["peak"].append(peak - start)
            entry["seconds"].append(wall if cuda else used + tier.paced)
            entry["wall"].append(wall)
            entry["moved"] = tier.moved
            if repeat == 0:
                grads = [p.grad for p in model.parameters() if p.grad is not None]
                pairs = list(zip(grads, reference, strict=True))
                entry["gap"] = max(float((a - b).abs().max()) for a, b in pairs)
                entry["equal"] = all(torch.equal(a, b) for a, b in pairs) or (
                    cuda and entry["gap"] <= spread
                )
    times = forward_times(model, tokens, request["repeats"])
    out = [
        {
            "plan": plan,
            "peak": sorted(e["peak"])[len(e["peak"]) // 2],
            "peaks": e["peak"],
            "seconds": min(e["seconds"]),
            "wall": min(e["wall"]),
            "moved": e["moved"],
            "equal": e["equal"],
            "gap": e["gap"],
        }
        for plan, e in zip(plans, found, strict=True)
    ]
    name = torch.cuda.get_device_name(device) if cuda else "cpu"
    print(json.dumps({"groups": groups, "forward": times, "plans": out, "machine": name}))


def forward_times(model: Any, tokens: Any, repeats: int) -> list[float]:
    """Seconds of each group's forward pass (CPU time, the least of some)."""
    best = [float("inf")] * len(model.groups)

    def run(i: int, group: Any, x: Any) -> Any:
        begun = time.process_time()
        out = group(x)
        best[i] = min(best[i], time.process_time() - begun)
        return out

    for _ in range(max(repeats, 3)):
        model(tokens, run)
    return best


if __name__ == "__main__":
    main()
