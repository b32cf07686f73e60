"""Plans inside ``torch.compile``: a knapsack solver, and a selective checkpointing policy for eager."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomKnapsackSolver, get_hash_for_files

from allocgym.envs.core.errors import AllocgymError

Priorities = Sequence[float]
FEATURES = ("log seconds per byte", "log size", "distance to the end")
DEFAULT: tuple[float, ...] = (1.0, 0.0, 0.0)
"""Most recomputation saved per byte first."""


def seconds(node: Any, compute: float = 1e11, memory: float = 2e10) -> float:
    """Roofline seconds of a node, ``max(flops / compute, bytes / memory)``.

    The estimator is ours: torch's operator cost model asserts CUDA and ends the process without one.

    Args:
        node: of the joint graph.
        compute: FLOP/s.
        memory: bytes a second.
    """
    from torch.utils.flop_counter import flop_registry

    value = node.meta.get("val")
    moved = sum(_bytes(n.meta.get("val")) for n in [node, *node.all_input_nodes])
    flops = 0.0
    packet = getattr(node.target, "overloadpacket", None)
    if packet in flop_registry:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
        flops = float(flop_registry[packet](*args, **kwargs, out_val=value))
    return max(flops / compute, moved / memory)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        try:
            return int(value.numel()) * value.element_size()
        except (TypeError, ValueError, RuntimeError):
            return 0
    return 0


def _features(time: float, memory: float, position: float) -> list[float]:
    import math

    return [math.log(time / max(memory, 1e-12) + 1e-12), math.log(max(memory, 1e-12)), position]


class PriorityKnapsack(CustomKnapsackSolver):
    """Chooses what the partitioner of ``torch.compile`` saves: by priorities, or as an agent says.

    Set it as ``torch._functorch.config.activation_memory_budget_solver``. The interface knows *save* and
    *recompute* only; a plan that offloads is refused unless ``offload="save"`` or ``"recompute"`` says
    what to make of it.

    Args:
        weights: priorities over `FEATURES`; the highest score is saved first.
        choose: instead of priorities, a callable that is handed memory fractions, seconds and the
            largest sum allowed, and returns the indices to save (an agent).
        offload: ``"refuse"``, ``"save"`` or ``"recompute"``: what becomes of offloaded items that
            ``choose`` returns as a second list.
    """

    def __init__(
        self,
        weights: Priorities = DEFAULT,
        choose: Callable[[list[float], list[float], float], Any] | None = None,
        offload: str = "refuse",
    ) -> None:
        if len(weights) != len(FEATURES):
            raise AllocgymError(f"weights: {len(FEATURES)} expected, given {len(weights)}")
        if offload not in ("refuse", "save", "recompute"):
            raise AllocgymError(f"offload: refuse, save or recompute expected, given {offload!r}")
        self.weights, self.choose, self.offload = tuple(map(float, weights)), choose, offload
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        memory: list[float],
        joint_graph: Any,
        max_memory: float,
        node_info: Any,
        all_recomputable_banned_nodes: list[Any],
    ) -> tuple[list[int], list[int]]:
        """Return indices to save and to recompute; the saved ones sum to at most ``max_memory``."""
        nodes = all_recomputable_banned_nodes
        times = [seconds(n) for n in nodes]
        if self.choose is not None:
            got = self.choose(memory, times, max_memory)
            saved = self._resolve(got)
        else:
            last = max(len(nodes) - 1, 1)
            score = [
                sum(w * f for w, f in zip(self.weights, _features(t, m, i / last), strict=True))
                for i, (t, m) in enumerate(zip(times, memory, strict=True))
            ]
            saved = sorted(range(len(nodes)), key=lambda i: -score[i])
        chosen, used = [], 0.0
        for i in saved:
            if used + memory[i] <= max_memory + 1e-12:
                chosen.append(i)
                used += memory[i]
        keep = set(chosen)
        rest = [i for i in range(len(memory)) if i not in keep]
        self.calls.append({"items": len(memory), "allowed": max_memory, "saved": used})
        return sorted(chosen), rest

    def _resolve(self, got: Any) -> list[int]:
        if not (isinstance(got, tuple) and len(got) == 2):
            return list(got)
        saved, offloaded = map(list, got)
        if offloaded and self.offload == "refuse":
            raise AllocgymError(
                f"plan: {len(offloaded)} items are offloaded; torch.compile's solver knows save and "
                "recompute only (make it with offload='save' or 'recompute')"
            )
        return saved + (offloaded if self.offload == "save" else [])

    def uuid(self) -> Any:
        """Identity for the compile cache: this file and the weights (none for a callable)."""
        if self.choose is not None:
            return None
        text = json.dumps([self.weights, self.offload])
        return get_hash_for_files((__file__,), hashlib.sha256(text.encode()).hexdigest())


def selective_contexts(save: Sequence[str]) -> Callable[[], Any]:
    """A ``context_fn`` for eager ``torch.utils.checkpoint``: save the outputs of some operators.

    Args:
        save: names such as ``"aten.addmm.default"``; everything else is recomputed.
    """
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    wanted = set(save)

    def policy(_context: Any, op: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
        hit = str(op) in wanted
        return CheckpointPolicy.MUST_SAVE if hit else CheckpointPolicy.PREFER_RECOMPUTE

    return lambda: create_selective_checkpoint_contexts(policy)


def export(path: Path, model: str, action: Sequence[int], **facts: Any) -> None:
    """Write an activation plan as JSON."""
    names = [("keep", "recompute", "offload")[int(a)] for a in action]
    path.write_text(json.dumps({"schema": 1, "model": model, "plan": names, **facts}, indent=1))


def load(path: Path) -> list[int]:
    """Read a plan that `export` wrote."""
    try:
        data = json.loads(path.read_text())
        return [("keep", "recompute", "offload").index(a) for a in data["plan"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AllocgymError(f"plan: {path} is not one ({error})") from error
