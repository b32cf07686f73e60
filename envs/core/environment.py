"""A Problem and a Backend make an environment: scalar (a batch of one) and vectorised."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from allocgym.envs.core.contracts import Backend, Decision, Outcome, Problem, Record
from allocgym.envs.core.errors import AllocgymError, unknown

Observation = dict[str, np.ndarray]


class _Loop:
    """What both environments share: memory, encoding, reward."""

    def __init__(self, problem: Problem, backend: Backend) -> None:
        self.problem = problem
        self.backend = backend
        self.memory: Record | None = None
        self.outcome: Outcome | None = None

    def reset(self, seeds: np.ndarray, where: np.ndarray | None = None) -> Observation:
        self.outcome = self.backend.reset(seeds, where)
        fresh = self.problem.begin(self.outcome)
        if self.memory is None or where is None or where.all():
            self.memory = fresh
        else:
            self.memory = self.memory.where(where, fresh)
        return self.problem.encode(self.memory)

    def spend(self, decision: Decision) -> tuple[Observation, dict[str, np.ndarray], Outcome]:
        before = self.memory
        assert before is not None
        self.outcome = self.backend.spend(decision)
        self.memory = self.problem.update(before, self.outcome)
        terms = self.problem.reward(before, self.memory)
        return self.problem.encode(self.memory), terms, self.outcome


class AllocationEnv(gym.Env[Observation, np.ndarray]):
    """One allocation problem on one back end, as a `gymnasium.Env`.

    The episode terminates when its budget is spent; it is never truncated by the environment.
    ``info`` holds ``spent``, ``seconds``, ``decision`` (what was really spent) and ``reward_terms``.

    Args:
        problem: what is decided.
        backend: what it is spent on; its batch size must be 1.
        render_mode: ``None`` or ``"rgb_array"``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, problem: Problem, backend: Backend, render_mode: str | None = None) -> None:
        if backend.spec.batch_size != 1:
            raise AllocgymError(f"backend: a batch of 1 expected, given {backend.spec.batch_size}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render_mode", render_mode, self.metadata["render_modes"])
        self.problem = problem
        self.backend = backend
        self.render_mode = render_mode
        self.observation_space = problem.observation_space
        self.action_space = problem.action_space
        self._loop = _Loop(problem, backend)
        self.history: list[np.ndarray] = []
        self.returns: list[float] = []

    @property
    def outcome(self) -> Outcome:
        """The latest typed outcome (what heuristics read)."""
        if self._loop.outcome is None:
            raise AllocgymError("environment: call reset() first")
        return self._loop.outcome

    @property
    def memory(self) -> Record:
        """The problem's memory of this episode."""
        if self._loop.memory is None:
            raise AllocgymError("environment: call reset() first")
        return self._loop.memory

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of this environment's own sequence."""
        super().reset(seed=seed)
        start = seed if seed is not None else int(self.np_random.integers(2**31))
        observation = self._loop.reset(np.array([start]))
        self.history, self.returns = [], []
        return _row(observation), {"seed": start}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Spend one period's budget as ``action`` says."""
        decision = self.problem.decode(np.asarray(action)[None], self.memory)
        observation, terms, outcome = self._loop.spend(decision)
        reward = float(sum(term[0] for term in terms.values()))
        self.returns.append(reward)
        if decision.fractions is not None:
            self.history.append(decision.fractions[0])
        info = {
            "spent": int(outcome.spent[0]),
            "seconds": float(outcome.seconds[0]),
            "decision": decision,
            "reward_terms": {name: float(term[0]) for name, term in terms.items()},
        }
        return _row(observation), reward, bool(outcome.done[0]), False, info

    def render(self) -> Any:
        """Draw the allocation so far and the return; needs matplotlib, never a display."""
        if self.render_mode is None:
            return None
        from allocgym.envs.core.figures import allocation_picture

        return allocation_picture(self)

    def close(self) -> None:
        """Release the back end."""
        self.backend.close()


class AllocationVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Many environments advanced at once on a batched back end, as a native `VectorEnv`.

    Args:
        problem: what is decided.
        backend: what it is spent on; its batch size is the number of environments.
        autoreset_mode: ``"same_step"`` (the default; the step that ends an episode already
            returns the first observation of the next, the last one stands in
            ``info["final_obs"]``) or ``"next_step"`` (the step after the end resets and ignores
            its action). Either is declared in ``metadata["autoreset_mode"]``.

    Sub-environment ``i`` of ``reset(seed=s)`` equals a scalar environment reset with seed
    ``s + i``, and so does every later episode with its own seed.
    """

    def __init__(
        self,
        problem: Problem,
        backend: Backend,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
    ) -> None:
        modes = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}
        if isinstance(autoreset_mode, str):
            if autoreset_mode.lower() not in modes:
                raise unknown("autoreset_mode", autoreset_mode, modes)
            autoreset_mode = modes[autoreset_mode.lower()]
        self.problem = problem
        self.backend = backend
        self.num_envs = backend.spec.batch_size
        self.autoreset_mode = autoreset_mode
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": []}
        self.single_observation_space = problem.observation_space
        self.single_action_space = problem.action_space
        self.observation_space = batch_space(problem.observation_space, self.num_envs)
        self.action_space = batch_space(problem.action_space, self.num_envs)
        self._loop = _Loop(problem, backend)
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        self._never = np.zeros(self.num_envs, bool)

    @property
    def outcome(self) -> Outcome:
        """The latest typed outcome of the batch."""
        assert self._loop.outcome is not None, "call reset() first"
        return self._loop.outcome

    @property
    def memory(self) -> Record:
        """The problem's memory of the running episodes."""
        assert self._loop.memory is not None, "call reset() first"
        return self._loop.memory

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every environment anew; ``seed`` is one integer or one per environment."""
        one = int(seed) if isinstance(seed, (int, np.integer)) else None
        super().reset(seed=one)
        if seed is None:
            one = int(self.np_random.integers(2**31))
        self._seeds = np.array(seed, np.int64) if one is None else one + np.arange(self.num_envs)
        self._over[:] = False
        return self._loop.reset(self._seeds), {}

    def _next_seeds(self, where: np.ndarray) -> np.ndarray:
        # The next episode of sub-environment i: far from every first seed, and a function of its
        # own seed alone, so that the number of environments does not matter.
        self._seeds = np.where(where, (self._seeds * 1103515245 + 12345) % (2**31), self._seeds)
        return self._seeds

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every environment by one period."""
        if self._over.any():
            return self._step_after_end(actions)
        decision = self.problem.decode(actions, self.memory)
        observation, terms, outcome = self._loop.spend(decision)
        reward = sum(terms.values())
        done = outcome.done
        info: dict[str, Any] = {}
        if done.any():
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info = {
                    "final_obs": observation,
                    "_final_obs": done,
                    "final_info": {"objective": getattr(self.memory, "objective", None)},
                }
                done = done.copy()
                observation = self._loop.reset(self._next_seeds(done), done)
            else:
                self._over = done.copy()
        return observation, np.asarray(reward), done, self._never, info

    def _step_after_end(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Reset what ended one step ago; with a shared horizon that is everybody."""
        if not self._over.all():
            raise AllocgymError(
                "autoreset_mode: 'next_step' needs environments that end together; "
                "use 'same_step' with scenarios of varying horizon"
            )
        observation = self._loop.reset(self._next_seeds(self._over), self._over)
        self._over = np.zeros(self.num_envs, bool)
        return observation, np.zeros(self.num_envs), self._never.copy(), self._never, {}

    def close_extras(self, **kwargs: Any) -> None:
        """Release the back end (none yet where the constructor failed)."""
        if hasattr(self, "backend"):
            self.backend.close()


def _row(observation: Any) -> Any:
    if isinstance(observation, np.ndarray):
        return np.ascontiguousarray(observation[0])
    return {name: np.ascontiguousarray(value[0]) for name, value in observation.items()}
