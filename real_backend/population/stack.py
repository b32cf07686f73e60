"""Many small networks as one: weights stacked, one batched product for all members.

A member's weights are one row of a matrix, its optimiser's state a row of another; copying members is
indexing rows. Backpropagation through the few layers is written out, so that gradients land in rows as
well. Nothing is summed over members: one that diverges leaves the others as they are, bit for bit.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch.nn import functional

from allocgym.envs.core import randomness

Pair = tuple[torch.Tensor, torch.Tensor]


class Architecture:
    """Sizes of one member: an embedding (where inputs are indices), linear layers, ReLU between.

    Args:
        inputs: numbers the first linear layer sees.
        hidden: units of each hidden layer.
        outputs: classes, or 1 for a value (squared error).
        vocabulary: rows of the embedding table, or 0.
        context: indices in one input, where there is a vocabulary.
    """

    def __init__(
        self,
        inputs: int,
        hidden: tuple[int, ...],
        outputs: int,
        vocabulary: int = 0,
        context: int = 1,
    ) -> None:
        self.outputs, self.vocabulary = outputs, vocabulary
        sizes = (inputs, *hidden, outputs)
        self.shapes: list[tuple[int, ...]] = []
        if vocabulary:
            self.shapes.append((vocabulary, inputs // context))
        for a, b in itertools.pairwise(sizes):
            self.shapes += [(a, b), (1, b)]
        ends = np.cumsum([math.prod(s) for s in self.shapes])
        self.spans = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        self.size = int(ends[-1])

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Weights of every layer, ``(m, ...)`` each, as views of ``(m, size)``."""
        return [
            flat[:, a:b].view(len(flat), *shape)
            for (a, b), shape in zip(self.spans, self.shapes, strict=True)
        ]

    def begin(self, seed: int, members: int) -> torch.Tensor:
        """First weights ``(members, size)`` float32: each member its own (He et al. 2015, eq. 10)."""
        out = np.zeros((members, self.size), np.float32)
        for m in range(members):
            rng = randomness.generator(seed, f"weights-{m}")
            if self.vocabulary:
                a, b = self.spans[0]
                out[m, a:b] = rng.normal(size=b - a)
            for place in range(1 if self.vocabulary else 0, len(self.shapes), 2):
                a, b = self.spans[place]
                out[m, a:b] = rng.normal(size=b - a) * math.sqrt(2 / self.shapes[place][0])
        return torch.from_numpy(out)

    def forward(
        self, layers: list[torch.Tensor], x: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
        """Outputs ``(m, b, outputs)``, what each linear layer saw, and rows of the embedding used."""
        rows = None
        if self.vocabulary:
            table, layers = layers[0], layers[1:]
            m = len(table)
            offset = torch.arange(m, device=x.device)[:, None, None] * self.vocabulary
            rows = x + offset
            h = functional.embedding(rows, table.reshape(-1, table.shape[2])).flatten(2)
        else:
            h = x
        seen = []
        for i in range(0, len(layers), 2):
            seen.append(h)
            h = torch.baddbmm(layers[i + 1], h, layers[i])
            if i + 2 < len(layers):
                h = h.relu_()
        return h, seen, rows

    def losses(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean loss of each member, ``(m,)``: cross-entropy in nats, or squared error."""
        if self.outputs == 1:
            return (out[..., 0] - y).square().mean(1)
        flat = functional.cross_entropy(out.flatten(0, 1), y.reshape(-1), reduction="none")
        return flat.view(out.shape[:2]).mean(1)

    def gradient(self, flat: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Gradient of every member's own loss, ``(m, size)``."""
        grad = torch.zeros_like(flat) if self.vocabulary else torch.empty_like(flat)
        layers, slots = self.views(flat), self.views(grad)
        out, seen, rows = self.forward(layers, x)
        b = out.shape[1]
        if self.outputs == 1:
            d = (out - y[..., None]) * (2 / b)
        else:
            d = torch.softmax(out, 2)
            d.scatter_add_(2, y[..., None], torch.full_like(d[..., :1], -1.0))
            d /= b
        first = 1 if self.vocabulary else 0
        for i in range(len(seen) - 1, -1, -1):
            place = first + 2 * i
            slots[place].copy_(torch.bmm(seen[i].transpose(1, 2), d))
            torch.sum(d, 1, keepdim=True, out=slots[place + 1])
            if i or self.vocabulary:
                d = torch.bmm(d, layers[place].transpose(1, 2))
            if i:
                d = d.mul_(seen[i] > 0)
        if rows is not None:
            table = torch.zeros(len(flat) * self.vocabulary, slots[0].shape[2], device=flat.device)
            table.index_add_(0, rows.reshape(-1), d.reshape(-1, table.shape[1]))
            slots[0].copy_(table.view_as(slots[0]))
        return grad


class Stack:
    """M members in training by SGD with momentum and weight decay, each with its own of both.

    Attributes:
        weights, velocity: ``(m, size)`` float32.
        cursor: ``(m,)`` int64, minibatches the lineage has drawn.
        stream: ``(m,)`` uint64, the generator that the lineage draws them with.

    Args:
        architecture: of every member.
        seed: of first weights and of the order of data.
        members: M.
        batch: examples in a minibatch.
        device: where the members live.
    """

    def __init__(
        self, architecture: Architecture, seed: int, members: int, batch: int, device: torch.device
    ) -> None:
        self.architecture, self.batch, self.device = architecture, batch, device
        self.weights = architecture.begin(seed, members).to(device)
        self.velocity = torch.zeros_like(self.weights)
        self.cursor = np.zeros(members, np.int64)
        self.stream = randomness.stream(np.array([seed]), "minibatch", members)[:, 0].copy()

    def keep(self, member: int) -> None:
        """Let go of everybody but one member, who stays what it is."""
        only = slice(member, member + 1)
        self.weights, self.velocity = self.weights[only].clone(), self.velocity[only].clone()
        self.cursor, self.stream = self.cursor[only].copy(), self.stream[only].copy()

    def copy(self, donor: np.ndarray) -> None:
        """Make member i a copy of ``donor[i]``, all at once: weights, optimiser, generator, cursor."""
        moved = np.flatnonzero(donor != np.arange(len(donor)))
        if not len(moved):
            return
        to = torch.as_tensor(moved, device=self.device)
        source = torch.as_tensor(donor[moved], device=self.device)
        self.weights[to] = self.weights[source]
        self.velocity[to] = self.velocity[source]
        self.cursor, self.stream = self.cursor[donor], self.stream[donor]

    def train(self, data: Pair, steps: np.ndarray, knobs: dict[str, np.ndarray]) -> None:
        """Train member i for ``steps[i]`` minibatches.

        Members train together while several have steps left; one that is done is not touched.

        Args:
            data: inputs and targets to draw from, with replacement.
            steps: ``(m,)`` integers >= 0.
            knobs: learning rate, weight decay and momentum, ``(m,)`` each.
        """
        done = 0
        for until in np.unique(steps[steps > 0]).tolist():
            active = np.flatnonzero(steps >= until)
            self._together(data, active, until - done, knobs)
            done = until

    @torch.no_grad()
    def _together(
        self, data: Pair, active: np.ndarray, steps: int, knobs: dict[str, np.ndarray]
    ) -> None:
        index = torch.as_tensor(active, device=self.device)
        everyone = len(active) == len(self.weights)
        weights = self.weights if everyone else self.weights[index]
        velocity = self.velocity if everyone else self.velocity[index]
        rate, decay, momentum = (
            torch.as_tensor(knobs[k][active], dtype=torch.float32, device=self.device)[:, None]
            for k in ("learning_rate", "weight_decay", "momentum")
        )
        picks = torch.from_numpy(self._picks(active, steps, len(data[1]))).to(self.device)
        for step in range(steps):
            pick = picks[:, step]
            gradient = self.architecture.gradient(weights, data[0][pick], data[1][pick])
            gradient.addcmul_(weights, decay)
            velocity.mul_(momentum).add_(gradient)
            weights.addcmul_(velocity, rate, value=-1.0)
        if not everyone:
            self.weights[index] = weights
            self.velocity[index] = velocity
        self.cursor[active] += steps

    def _picks(self, active: np.ndarray, steps: int, examples: int) -> np.ndarray:
        """Indices of examples ``(m, steps, batch)``: functions of generator and cursor alone."""
        first = self.cursor[active] * self.batch
        counter = first[:, None] + np.arange(steps * self.batch)
        u = randomness.uniform(self.stream[active][:, None], counter)
        return (u * examples).astype(np.int64).reshape(len(active), steps, self.batch)

    @torch.no_grad()
    def evaluate(self, data: Pair, chunk: int = 512) -> np.ndarray:
        """Mean loss of each member on all examples, ``(m,)`` float64; not finite where it diverged."""
        layers = self.architecture.views(self.weights)
        m, total = len(self.weights), np.zeros(len(self.weights))
        for start in range(0, len(data[1]), chunk):
            x, y = (part[start : start + chunk] for part in data)
            out, _, _ = self.architecture.forward(layers, x.expand(m, *x.shape))
            each = self.architecture.losses(out, y.expand(m, *y.shape))
            total += each.double().cpu().numpy() * len(y)
        return total / len(data[1])

    def finite(self) -> np.ndarray:
        """``(m,)`` bool: every weight is a finite number."""
        return np.asarray(torch.isfinite(self.weights).all(1).cpu().numpy())

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that changes."""
        return {
            "weights": self.weights,
            "velocity": self.velocity,
            "cursor": torch.from_numpy(self.cursor),
            "stream": torch.from_numpy(self.stream.view(np.int64)),
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go back to a `state`."""
        self.weights = state["weights"].to(self.device)
        self.velocity = state["velocity"].to(self.device)
        self.cursor = state["cursor"].numpy().copy()
        self.stream = state["stream"].numpy().copy().view(np.uint64)
