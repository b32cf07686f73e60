"""Who decides: ``begin``, ``tell``, ``ask``, batched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from allocgym.envs.core.contracts import Decision, Outcome, Problem, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record

O = TypeVar("O", bound=Outcome)
D = TypeVar("D", bound=Decision)


class Agent(ABC, Generic[O, D]):
    """Decides for a batch of episodes that start together.

    An agent is a pure function of (spec, seed, what it was told): to bring one back after a crash,
    begin it again and tell it what the journal holds.

    Attributes:
        name: shown in tables.
        clairvoyant: it looks at the simulator's true law (see `peek`); an upper bound, not a rival.
        plays: arguments of the problem it is made for, where the defaults are not those.
        settled: names of attributes that nothing the agent is told changes; what a long run keeps of
            an agent (see `allocgym.agents.core.agent_state`) leaves them out.
    """

    name: str = "agent"
    clairvoyant: bool = False
    plays: Mapping[str, Any] = {}
    settled: ClassVar[tuple[str, ...]] = ("problem", "spec")

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._memory: Record | None = None
        self._outcome: O | None = None
        self.seed = 0

    @property
    def memory(self) -> Any:
        """The problem's memory of this episode."""
        if self._memory is None:
            raise AllocgymError(f"agent {self.name!r}: tell() it an outcome before ask()")
        return self._memory

    @property
    def outcome(self) -> O:
        """What it was told last."""
        if self._outcome is None:
            raise AllocgymError(f"agent {self.name!r}: tell() it an outcome before ask()")
        return self._outcome

    def begin(self, spec: Spec, seed: int = 0) -> None:
        """Forget everything and get ready for new episodes on a back end."""
        if spec.problem != self.problem.id:
            raise AllocgymError(
                f"agent {self.name!r} decides {self.problem.id!r}, the back end is {spec.problem!r}"
            )
        self.spec = spec
        self.seed = seed
        self._memory = None
        self._outcome = None
        self._start()

    def tell(self, outcome: O) -> None:
        """Take in what came back: first the outcome of ``reset``, then of every ``spend``."""
        self._outcome = outcome
        if self._memory is None:
            self._memory = self.problem.begin(outcome)
        else:
            self._memory = self.problem.update(self._memory, outcome)
        self._heard()

    @abstractmethod
    def ask(self) -> D:
        """Decide the coming period."""

    def peek(self, backend: Any) -> None:
        """Look into the back end, after ``begin`` and before ``tell``.

        Clairvoyant agents look at the true law; others may look at what is theirs to see, such as
        the model they train.
        """

    def _start(self) -> None: ...

    def _heard(self) -> None: ...


class Predictor(Protocol):
    """What Stable-Baselines3 and RLlib modules look like from outside."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Return actions and the next state."""
        ...


class PolicyAgent(Agent[Any, Any]):
    """Turns anything with ``predict`` into an agent, through the problem's encode and decode."""

    settled: ClassVar[tuple[str, ...]] = (*Agent.settled, "policy")

    def __init__(
        self, problem: Problem, policy: Predictor, name: str = "learned", deterministic: bool = True
    ) -> None:
        super().__init__(problem)
        self.policy = policy
        self.name = name
        self.deterministic = deterministic
        self._state: Any = None

    def _start(self) -> None:
        self._state = None
        self._first = True

    def ask(self) -> Any:
        """Decide from the encoded memory.

        Raises:
            AllocgymError: the policy returned NaN or a wrong shape.
        """
        observation = self.problem.encode(self.memory)
        batch = len(observation["present"])
        action, self._state = self.policy.predict(
            observation, self._state, np.full(batch, self._first), self.deterministic
        )
        self._first = False
        return self.problem.decode(np.asarray(action), self.memory)


def rollout(agent: Agent, backend: Any, seeds: np.ndarray, seed: int = 0) -> list[Any]:
    """Run one batch of episodes and return every outcome, the first from ``reset``."""
    outcome = backend.reset(seeds)
    agent.begin(backend.spec, seed)
    agent.peek(backend)
    agent.tell(outcome)
    outcomes = [outcome]
    while not outcome.done.all():
        outcome = backend.spend(agent.ask())
        agent.tell(outcome)
        outcomes.append(outcome)
    return outcomes
