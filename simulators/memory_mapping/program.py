"""Bundled programs: forward passes of five families of networks, by shape.

Bytes at two per element, FLOPs of the matrix products and convolutions; the elementwise ops that a
compiler would fuse are fused. Sizes are the only arguments, so that a family has as many programs
as one likes; `scenario` names the ones used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from allocgym.envs.core.errors import AllocgymError, FileNeededError, unknown
from allocgym.envs.core.untrusted import loads
from allocgym.envs.memory_mapping.program import Device, Program, build, from_trace
from allocgym.simulators.memory_mapping.scenario import MappingScenario

BYTES = 2


class Graph:
    """Collects ops and tensors."""

    def __init__(self) -> None:
        self.ops: list[tuple[str, float, list[str], list[str]]] = []
        self.sizes: dict[str, int] = {}

    def data(self, name: str, elements: int) -> str:
        """Declare a parameter or input."""
        self.sizes[name] = elements * BYTES
        return name

    def op(self, name: str, flops: float, reads: list[str], elements: int) -> str:
        """Add an op; return the name of what it writes."""
        label = f"{name}.{len(self.ops)}"
        self.sizes[label] = elements * BYTES
        self.ops.append((label, flops, reads, [label]))
        return label

    def linear(self, name: str, x: str, rows: int, wide: int, out: int) -> str:
        """A matrix product with a weight of its own."""
        w = self.data(f"w.{len(self.ops)}", wide * out)
        return self.op(name, 2.0 * rows * wide * out, [x, w], rows * out)

    def conv(self, name: str, x: str, side: int, wide: int, out: int, kernel: int = 3) -> str:
        """A convolution that writes ``side`` x ``side``."""
        w = self.data(f"w.{len(self.ops)}", wide * out * kernel**2)
        flops = 2.0 * side * side * wide * out * kernel**2
        return self.op(name, flops, [x, w], side * side * out)

    def done(self, name: str, last: str) -> Program:
        """Make the program."""
        return build(name, self.ops, self.sizes, [last])


def attention(g: Graph, x: str, rows: int, d: int, heads: int) -> str:
    """Pre-norm attention; scores are materialised, as in the recorded traces."""
    n = g.op("norm", 8.0 * rows * d, [x], rows * d)
    qkv = g.linear("qkv", n, rows, d, 3 * d)
    scores = g.op("scores", 2.0 * rows * rows * d, [qkv], heads * rows * rows)
    soft = g.op("softmax", 5.0 * heads * rows * rows, [scores], heads * rows * rows)
    mixed = g.op("mix", 2.0 * rows * rows * d, [soft, qkv], rows * d)
    out = g.linear("project", mixed, rows, d, d)
    return g.op("add", rows * d, [out, x], rows * d)


def feed_forward(g: Graph, x: str, rows: int, d: int) -> str:
    """Pre-norm two-layer network."""
    n = g.op("norm", 8.0 * rows * d, [x], rows * d)
    up = g.linear("up", n, rows, d, 4 * d)
    act = g.op("gelu", 8.0 * rows * 4 * d, [up], rows * 4 * d)
    down = g.linear("down", act, rows, 4 * d, d)
    return g.op("add", rows * d, [down, x], rows * d)


def gpt(d: int = 512, layers: int = 4, rows: int = 256, vocabulary: int = 0) -> Program:
    """A decoder; ``vocabulary`` adds the output layer."""
    g = Graph()
    x = g.data("x", rows * d)
    for _ in range(layers):
        x = feed_forward(g, attention(g, x, rows, d, max(d // 64, 1)), rows, d)
    x = g.op("norm", 8.0 * rows * d, [x], rows * d)
    if vocabulary:
        x = g.linear("head", x, rows, d, vocabulary)
    return g.done(f"gpt-d{d}-L{layers}-T{rows}", x)


def moe(d: int = 256, layers: int = 2, rows: int = 256, experts: int = 4) -> Program:
    """A decoder whose feed-forward part is ``experts`` networks, each with its share of rows."""
    g = Graph()
    x = g.data("x", rows * d)
    part = max(2 * rows // experts, 1)
    for _ in range(layers):
        x = attention(g, x, rows, d, max(d // 64, 1))
        n = g.op("norm", 8.0 * rows * d, [x], rows * d)
        gate = g.linear("gate", n, rows, d, experts)
        outs = []
        for _e in range(experts):
            mine = g.op("dispatch", part * d, [n, gate], part * d)
            up = g.linear("up", mine, part, d, 4 * d)
            outs.append(g.linear("down", up, part, 4 * d, d))
        x = g.op("combine", 2.0 * rows * d, [*outs, gate, x], rows * d)
    return g.done(f"moe-d{d}-L{layers}-T{rows}-E{experts}", x)


def resnet(side: int = 56, width: int = 64, stages: int = 4, blocks: int = 2) -> Program:
    """Basic residual blocks; the side halves and the width doubles from stage to stage."""
    g = Graph()
    x = g.conv("stem", g.data("x", side * side * 3), side, 3, width)
    wide = width
    for stage in range(stages):
        out = width * 2**stage
        if stage:
            side = max(side // 2, 1)
        for _ in range(blocks):
            a = g.conv("conv", x, side, wide, out)
            a = g.op("relu", side * side * out, [a], side * side * out)
            b = g.conv("conv", a, side, out, out)
            short = x if wide == out else g.conv("short", x, side, wide, out, 1)
            x = g.op("add", 2.0 * side * side * out, [b, short], side * side * out)
            wide = out
    x = g.op("pool", side * side * wide, [x], wide)
    return g.done(
        f"resnet-s{side * 2 ** (stages - 1)}-w{width}-b{blocks}", g.linear("head", x, 1, wide, 1000)
    )


def unet(side: int = 64, width: int = 32, depth: int = 3) -> Program:
    """Down and up again, with a skip connection at each level."""
    g = Graph()
    start = side
    x = g.conv("stem", g.data("x", side * side * 4), side, 4, width)
    wide, skips = width, []
    for _ in range(depth):
        a = g.conv("conv", x, side, wide, wide)
        x = g.op("silu", 4.0 * side * side * wide, [a], side * side * wide)
        skips.append((x, wide, side))
        side //= 2
        x = g.conv("down", x, side, wide, 2 * wide)
        wide *= 2
    x = g.conv("middle", x, side, wide, wide)
    x = g.op("silu", 4.0 * side * side * wide, [x], side * side * wide)
    for skip, narrow, larger in reversed(skips):
        up = g.conv("up", x, larger, wide, narrow, 2)
        both = g.op(
            "concat", 2.0 * larger * larger * narrow, [up, skip], 2 * larger * larger * narrow
        )
        a = g.conv("conv", both, larger, 2 * narrow, narrow)
        x = g.op("silu", 4.0 * larger * larger * narrow, [a], larger * larger * narrow)
        side, wide = larger, narrow
    return g.done(f"unet-s{start}-w{width}-D{depth}", g.conv("head", x, side, wide, 4))


def vit(d: int = 384, layers: int = 4, patches: int = 196) -> Program:
    """An encoder over patches."""
    g = Graph()
    x = g.linear("patch", g.data("x", patches * 768), patches, 768, d)
    for _ in range(layers):
        x = feed_forward(g, attention(g, x, patches, d, max(d // 64, 1)), patches, d)
    x = g.op("pool", patches * d, [x], d)
    return g.done(f"vit-d{d}-L{layers}-P{patches}", g.linear("head", x, 1, d, 1000))


FAMILIES: dict[str, Callable[..., Program]] = {
    "gpt": gpt,
    "moe": moe,
    "resnet": resnet,
    "unet": unet,
    "vit": vit,
}


@functools.cache
def bundled(name: str) -> Program:
    """Build a program from its name, family and sizes, such as ``"gpt-256-2-256"``.

    Raises:
        AllocgymError: no family of that name.
    """
    family, *sizes = name.split("-")
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    return FAMILIES[family](*map(int, sizes))


def device(program: Program, fraction: float, compute: float = 138e12) -> Device:
    """A TPU-v4i-like machine whose fast memory is a fraction of the program's peak.

    138 TFLOP/s, 614 GB/s, fast memory ten times that: the nominal figures that the page names; no
    such machine was measured.
    """
    if not fraction > 0:
        raise AllocgymError(f"fraction: a number > 0 expected, given {fraction}")
    return Device(compute=compute, capacity=max(int(program.peak * fraction), 4096))


def instances(scenario: MappingScenario) -> tuple[tuple[Program, Device], ...]:
    """Every program of a scenario on every machine of it.

    Raises:
        AllocgymError: no program is named, or a recorded one cannot be read.
    """
    if scenario.trace is not None:
        programs = [recorded(scenario.trace)]
    else:
        programs = [bundled(name) for name in scenario.programs]
    if not programs:
        raise FileNeededError("trace: the file of a recorded program expected")
    return tuple((p, device(p, f, scenario.compute)) for p in programs for f in scenario.fractions)


def recorded(path: str) -> Program:
    """Read a program that ``allocgym trace`` has written.

    Raises:
        AllocgymError: no such file, or not a program.
    """
    try:
        data = loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise AllocgymError(f"trace: {path} cannot be read ({error})") from error
    return from_trace(data, Path(path).stem)
