"""A Hugging Face causal language model on reasoning-gym's tasks: the same run, for GPUs.

Prompts come from reasoning-gym's generators (seven families, two or three levels each), answers are
scored by their own verifiers, sampling is the library's ``generate`` with its key-value cache. The
optimiser and the policy gradient are those of the character model, so nothing here is fast: sharded
training is what verl and TRL are for, and the allocators plug into those.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.real_backend.rollout_budget.worlds import World

LEVELS: dict[str, tuple[dict[str, Any], ...]] = {
    "chain_sum": tuple(
        {"min_terms": n, "max_terms": n, "min_digits": d, "max_digits": d}
        for n, d in ((2, 1), (3, 2), (4, 3))
    ),
    "products": tuple({"min_digits": d, "max_digits": d} for d in (1, 2, 3)),
    "gcd": tuple({"max_value": most} for most in (50, 1000)),
    "letter_counting": tuple({"min_words": n, "max_words": n} for n in (4, 12)),
    "spell_backward": tuple(
        {"min_word_len": low, "max_word_len": high} for low, high in ((3, 4), (5, 7), (8, 10))
    ),
    "number_sorting": tuple(
        {"min_numbers": n, "max_numbers": n, "max_decimals": 0} for n in (3, 6)
    ),
    "countdown": tuple({"min_numbers": n, "max_numbers": n} for n in (3, 4)),
}
"""Settings of each family's generator, level after level."""
RIGHT = 0.99
"""Score from which an answer counts as right (some verifiers give part marks)."""


@dataclasses.dataclass(frozen=True)
class Item:
    """A prompt, and what its verifier needs."""

    entry: dict[str, Any]
    cell: int


class CausalLM(nn.Module):
    """Samples from a causal language model, and scores answers.

    Args:
        model: a ``transformers`` causal language model.
        pad: token that fills prompts on the left.
        end: token that ends an answer.
        answer: most tokens of an answer.
    """

    def __init__(self, model: Any, pad: int, end: int, answer: int) -> None:
        super().__init__()
        self.model, self.pad, self.end, self.answer = model, pad, end, answer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        found: torch.device = self.model.device
        return found

    def size(self) -> int:
        """Count the parameters."""
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def sample(
        self, prompts: Tensor, counts: Tensor, generator: torch.Generator, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Sample answers, ``(n, answer)`` with -1 after the end, and their ``(n,)`` tokens.

        Args:
            prompts: ``(m, length)`` tokens, padded on the left.
            counts: ``(m,)`` rollouts of each.
            generator: its seed seeds the draws.
            temperature: of the softmax.
        """
        rows = prompts.repeat_interleave(counts, 0)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(generator.initial_seed())
            whole = self.model.generate(
                rows,
                attention_mask=(rows != self.pad).long(),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=temperature,
                max_new_tokens=self.answer,
                pad_token_id=self.pad,
                eos_token_id=self.end,
            )
        made = whole[:, rows.shape[1] :]
        out = torch.full((len(rows), self.answer), -1, dtype=torch.long, device=self.device)
        out[:, : made.shape[1]] = made
        ends = out == self.end
        place = torch.arange(self.answer, device=self.device)
        last = torch.where(ends.any(1), ends.int().argmax(1), self.answer - 1)
        return out.where(place <= last[:, None], torch.full_like(out, -1)), last + 1

    def log_probs(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """Summed log-probability of each answer, ``(n,)``; prompts ``(n, length)``."""
        there = answers >= 0
        whole = torch.cat([prompts, answers.clamp_min(0)], 1)
        mask = torch.cat([prompts != self.pad, there], 1).long()
        logits = self.model(whole, attention_mask=mask, position_ids=_places(mask)).logits
        logits = logits[:, prompts.shape[1] - 1 : -1]
        picked = logits.log_softmax(-1).gather(2, answers.clamp_min(0)[..., None])[..., 0]
        summed: Tensor = (picked * there).sum(1)
        return summed


def _places(mask: Tensor) -> Tensor:
    """Positions that count from the first token, not from the padding, as ``generate`` does."""
    return (mask.cumsum(1) - 1).clamp_min(0)


class Language(World):
    """A pretrained model and reasoning-gym's prompts.

    Args:
        scenario: names the model (a folder, or a name on the hub), prompts a cell, longest answer.
        device: of the model.

    Raises:
        ImportError: transformers or reasoning-gym is not installed.
        AllocgymError: the model cannot be loaded.
    """

    def __init__(self, scenario: Any, device: torch.device) -> None:
        try:
            import reasoning_gym
            import transformers
        except ImportError as error:
            raise missing_extra(str(error.name), "language") from error
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(scenario.model)
            network = transformers.AutoModelForCausalLM.from_pretrained(scenario.model)
        except (OSError, ValueError) as error:
            raise AllocgymError(f"model: {scenario.model!r} cannot be loaded ({error})") from error
        self.tokenizer = tokenizer
        end = tokenizer.eos_token_id
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        self.model = CausalLM(network.eval().to(device), pad, end, scenario.answer)
        self._first = {k: v.cpu().clone() for k, v in self.model.state_dict().items()}
        self.families = tuple(LEVELS)
        cells = [(f, level) for f in LEVELS for level in range(len(LEVELS[f]))]
        self.names = tuple(f"{f}-{level + 1}" for f, level in cells)
        self.family = np.array([self.families.index(f) for f, _ in cells])
        self._score: list[Any] = []
        self._items: tuple[list[Item], list[Item]] = ([], [])
        for number, (family, level) in enumerate(cells):
            wanted = scenario.each + scenario.held
            data = reasoning_gym.create_dataset(
                family, size=4 * wanted, seed=0, **LEVELS[family][level]
            )
            entries = list({entry["question"]: entry for entry in data}.values())
            held, rest = entries[: scenario.held], entries[scenario.held :]
            if not rest:
                raise AllocgymError(
                    f"held: {family} has {len(entries)} prompts at this level, {scenario.held} held out"
                )
            self._score.append(data.score_answer)
            for mine, some, count in zip(
                self._items, (rest, held), (scenario.each, scenario.held), strict=True
            ):
                mine += [Item(some[i % len(some)], number) for i in range(count)]
        self.cell, self.held_cell = (np.array([i.cell for i in pool]) for pool in self._items)
        self.prompts, self.held_prompts = (self._encode(pool, device) for pool in self._items)
        right = [i.entry["answer"] for i in self._items[0]]
        self.mean_tokens = float(np.mean([len(t) + 1 for t in tokenizer(right)["input_ids"]]))

    def _encode(self, items: list[Item], device: torch.device) -> Tensor:
        codes = []
        for item in items:
            text = item.entry["question"]
            if self.tokenizer.chat_template:
                said = [{"role": "user", "content": text + " Say nothing but the answer."}]
                text = self.tokenizer.apply_chat_template(
                    said, tokenize=False, add_generation_prompt=True
                )
            else:
                text += "\nAnswer: "
            codes.append(self.tokenizer(text)["input_ids"])
        most = max(map(len, codes))
        return torch.tensor([[self.model.pad] * (most - len(c)) + c for c in codes], device=device)

    def start(self, model: Any) -> None:
        """See `World.start`: the pretrained weights."""
        model.load_state_dict(self._first)

    def verify(self, answers: Tensor, which: np.ndarray, held: bool = False) -> np.ndarray:
        """See `World.verify`: by reasoning-gym's own scores."""
        rewards = np.zeros(len(which))
        for k, (codes, i) in enumerate(zip(answers.tolist(), which, strict=True)):
            item = self._items[held][i]
            said = [c for c in codes if c not in (-1, self.model.end)]
            text = str(self.tokenizer.decode(said, skip_special_tokens=True)).strip()
            rewards[k] = float(self._score[item.cell](text, item.entry) >= RIGHT)
        return rewards

    def hidden(self, model: Any, which: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `World.hidden`."""
        tokens = self.prompts[torch.as_tensor(which, device=self.prompts.device)]
        there = tokens != model.pad
        mask = there.long()
        states = model.model(
            tokens, attention_mask=mask, position_ids=_places(mask), output_hidden_states=True
        ).hidden_states[-1]
        return states, there.float()
