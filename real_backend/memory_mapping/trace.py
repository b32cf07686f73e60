"""Records a PyTorch model as a program: ops in order, sizes, FLOPs, who shares a buffer with whom."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import flop_counter

from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.core.decoder import Decoder
from allocgym.real_backend.core.shape import MODELS

MODES = ("forward", "training")


class _Whole(nn.Module):
    """The decoder of the real back end with nothing in between its groups."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        loss: Tensor = self.model(tokens, lambda _i, group, x: group(x))
        return loss


class _Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        stride = 1 if wide == out else 2
        self.a = nn.Conv2d(wide, out, 3, stride, 1)
        self.b = nn.Conv2d(out, out, 3, 1, 1)
        self.short = nn.Identity() if wide == out else nn.Conv2d(wide, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(x))) + self.short(x))


def residual_network(width: int = 32, side: int = 56) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A small residual network and an image."""
    w = width
    parts = [
        nn.Conv2d(3, w, 3, 1, 1),
        _Residual(w, w),
        _Residual(w, 2 * w),
        _Residual(2 * w, 4 * w),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, 100)]
    return nn.Sequential(*parts, *head), (torch.zeros(1, 3, side, side),)


def decoder(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model of the real back end and its tokens."""
    m = dict(MODELS[name])
    batch = m.pop("batch")
    tokens = torch.zeros(batch, m["rows"] + 1, dtype=torch.long)
    return _Whole(Decoder(**m)), (tokens,)


BUNDLED: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    **{name: functools.partial(decoder, name) for name in MODELS},
    "residual": residual_network,
}


def find(model: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """Build a model from a bundled name or ``module:callable``.

    Raises:
        AllocgymError: neither, or the callable does not return (model, example inputs).
    """
    if model in BUNDLED:
        return BUNDLED[model]()
    module, sep, name = model.partition(":")
    if not sep:
        raise AllocgymError(
            f"model: module:callable or one of {', '.join(BUNDLED)} expected, given {model!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise AllocgymError(f"model: {model} cannot be imported ({error})") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise AllocgymError(f"model: {model} has to return (nn.Module, example inputs)")
    given = made[1]
    return made[0], tuple(given) if isinstance(given, (tuple, list)) else (given,)


class _Loss(nn.Module):
    """Any model with a scalar at the end: its own, or the sum of the means of what it returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> tuple[Tensor]:
        out = self.model(*inputs)
        leaves = [x for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, Tensor)]
        floats = [x for x in leaves if x.is_floating_point()]
        if not floats:
            raise AllocgymError("model: returns no floating-point tensor to train on")
        if len(floats) == 1 and floats[0].dim() == 0:
            return (floats[0],)
        return (torch.stack([x.float().mean() for x in floats]).sum(),)


def graph(model: nn.Module, inputs: tuple[Any, ...], mode: str) -> torch.fx.Graph:
    """The model's graph of ATen operators.

    Args:
        model: what is traced.
        inputs: positional example inputs.
        mode: ``"forward"`` (``torch.export``), or ``"training"``: AOTAutograd's joint graph of forward
            and backward pass.
    """
    if mode not in MODES:
        raise AllocgymError(f"mode: {' or '.join(MODES)} expected, given {mode!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own trees
        if mode == "forward":
            return torch.export.export(model.eval(), inputs).run_decompositions().graph
        from torch._functorch.aot_autograd import aot_export_module

        whole = _Loss(model.train())
        made, _ = aot_export_module(whole, inputs, trace_joint=True, output_loss_index=0)
    found: torch.fx.Graph = made.graph  # type: ignore[union-attr]
    return found


def _tensors(value: Any) -> list[Tensor | None]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [x if isinstance(x, Tensor) else None for x in value]
    return []


def _size(value: Tensor) -> int:
    return max(int(value.numel()) * value.element_size(), 1)


def _shares(node: torch.fx.Node) -> torch.fx.Node | None:
    """The argument whose storage the node's result shares, by the operator's schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or len(schema.returns) != 1 or schema.returns[0].alias_info is None:
        return None
    sets = schema.returns[0].alias_info.before_set
    for argument, given in zip(schema.arguments, node.args, strict=False):
        info = argument.alias_info
        if info is not None and info.before_set & sets and isinstance(given, torch.fx.Node):
            return given
    return None


def _flops(node: torch.fx.Node) -> float:
    """Torch's own count for products and convolutions; else an operation per element written."""
    value = node.meta.get("val")
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
    packet = getattr(node.target, "overloadpacket", None)
    name = str(node.target)
    if packet in flop_counter.flop_registry:
        return float(flop_counter.flop_registry[packet](*args, **kwargs, out_val=value))
    if "scaled_dot_product" in name:  # the CPU kernels are not in torch's table
        shapes = [tuple(x.shape) for x in args if isinstance(x, Tensor)]
        if "backward" in name:
            return float(flop_counter.sdpa_backward_flop_count(*shapes[:4]))
        return float(flop_counter.sdpa_flop_count(*shapes[:3]))
    return float(sum(x.numel() for x in _tensors(value) if x is not None))


def program(model: nn.Module, inputs: tuple[Any, ...], mode: str = "forward") -> dict[str, Any]:
    """Trace a model into what `allocgym.envs.memory_mapping.program.from_trace` reads.

    Views and in-place results are aliases of the tensor whose storage they share, and no ops; bytes
    are as the model has them. Lifetimes follow from the order of the ops.

    Returns:
        ``ops`` (name, flops, ins, outs), ``tensors`` (size), ``alias``, ``outputs``, ``mode``.
    """
    nodes = list(graph(model, inputs, mode).nodes)
    sizes: dict[str, dict[str, int]] = {}
    alias: dict[str, str] = {}
    ops: list[dict[str, Any]] = []
    parts: dict[str, list[str | None]] = {}
    outputs: list[str] = []

    def names(of: Sequence[torch.fx.Node]) -> list[str]:
        found = [name for n in of for name in parts.get(n.name, ()) if name is not None]
        return list(dict.fromkeys(found))

    for node in nodes:
        if node.op == "output":
            outputs = names(node.all_input_nodes)
            continue
        if node.op not in ("placeholder", "call_function", "get_attr"):
            raise AllocgymError(f"trace: node {node.name} ({node.op}) is not understood")
        values = _tensors(node.meta.get("val"))
        if getattr(node.target, "__name__", "") == "getitem":
            source, index = node.args
            whole = parts.get(getattr(source, "name", ""), [])
            parts[node.name] = [whole[index]] if isinstance(index, int) and whole else []
            continue
        mine = [node.name] if len(values) == 1 else [f"{node.name}.{i}" for i in range(len(values))]
        kept = [n if v is not None else None for n, v in zip(mine, values, strict=True)]
        parts[node.name] = list(kept)
        for name, value in zip(mine, values, strict=True):
            if value is not None:
                sizes[name] = {"size": _size(value)}
        if node.op != "call_function" or not values:
            continue
        base = _shares(node)
        shared = parts.get(base.name, []) if base is not None else []
        if shared and shared[0] is not None:
            alias[node.name] = shared[0]
            if not str(node.target).split(".")[-2].endswith("_"):
                continue
        ops.append(
            {
                "name": node.name,
                "flops": _flops(node),
                "ins": names(node.all_input_nodes),
                "outs": [n for n in kept if n is not None],
            }
        )
    return {
        "ops": ops,
        "tensors": sizes,
        "alias": alias,
        "outputs": outputs,
        "mode": mode,
        "torch": torch.__version__,
    }


def record(model: str, mode: str = "forward") -> dict[str, Any]:
    """Trace a model by name (see `find`)."""
    made, inputs = find(model)
    return {"model": model, **program(made, inputs, mode)}
