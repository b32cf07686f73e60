"""A problem on a back end makes an environment: scalar (a batch of one) and vectorised."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Backend, Decision, Outcome
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.record import Record
from allocgym.envs.core.registry import entry

Observation = dict[str, np.ndarray]


class _Loop:
    """What both environments share: memory, encoding, reward."""

    def __init__(self, backend: Backend) -> None:
        self.problem = backend.problem
        self.backend = backend
        self.memory: Record | None = None
        self.outcome: Outcome | None = None
        self.closed = False

    def reset(self, seeds: np.ndarray, where: np.ndarray | None = None) -> Observation:
        if self.closed:
            raise AllocgymError("environment: it is closed; make a new one")
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

    def decode(self, actions: np.ndarray) -> Decision:
        if self.closed:
            raise AllocgymError("environment: it is closed; make a new one")
        return self.problem.decode(actions, self.remembered())

    def remembered(self) -> Record:
        if self.memory is None:
            raise AllocgymError("environment: call reset() first")
        return self.memory

    def told(self) -> Outcome:
        if self.outcome is None:
            raise AllocgymError("environment: call reset() first")
        return self.outcome

    def masks(self) -> np.ndarray:
        space = self.problem.action_space
        if not isinstance(space, spaces.Discrete):
            raise AllocgymError(f"action_masks: a discrete action space expected, given {space}")
        legal = self.problem.legal(self.remembered())
        return (
            np.ones((self.backend.spec.batch_size, int(space.n)), bool) if legal is None else legal
        )


class AllocationEnv(gym.Env[Observation, np.ndarray]):
    """One allocation problem on one back end, as a `gymnasium.Env`.

    The episode terminates when its budget is spent; it is never truncated by the environment.
    ``info`` holds ``spent`` and ``wasted`` (units), ``seconds`` (charged), ``decision`` (what was really
    spent), ``reward_terms`` and ``scores`` (the problem's named figures so far).

    Args:
        scenario: name of a scenario, or one made already (default: the problem's own).
        backend: name of a back end (default: the problem's first), or one made already with a batch of 1.
        render_mode: ``None`` or ``"rgb_array"``.
        arguments: of the problem, the scenario and the back end, by keyword.

    Raises:
        AllocgymError: a name that does not exist, or a value of a wrong kind or out of range.
    """

    problem_id: ClassVar[str] = ""
    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(
        self,
        scenario: Any = None,
        backend: str | Backend | None = None,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise unknown("render_mode", render_mode, self.metadata["render_modes"])
        self.backend = _made(self.problem_id, backend, scenario, 1, arguments)
        if self.backend.spec.batch_size != 1:
            raise AllocgymError(
                f"backend: a batch of 1 expected, given {self.backend.spec.batch_size}"
            )
        self.problem = self.backend.problem
        self.render_mode = render_mode
        self.observation_space = self.problem.observation_space
        self.action_space = self.problem.action_space
        self._loop = _Loop(self.backend)
        self._over = False
        self.history: list[np.ndarray] = []
        self.returns: list[float] = []

    @property
    def outcome(self) -> Outcome:
        """The latest typed outcome (what heuristics read)."""
        return self._loop.told()

    @property
    def memory(self) -> Any:
        """The problem's memory of this episode."""
        return self._loop.remembered()

    def action_masks(self) -> np.ndarray:
        """``(actions,)`` bool: which discrete actions are legal now (sb3-contrib's name)."""
        masks: np.ndarray = self._loop.masks()[0]
        return masks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; without a seed, the next one of this environment's own sequence."""
        super().reset(seed=seed)
        start = seed if seed is not None else int(self.np_random.integers(2**31))
        observation = self._loop.reset(np.array([start]))
        self._over = False
        self.history, self.returns = [], []
        return _row(observation), {"seed": start}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Spend one period's budget as ``action`` says.

        Raises:
            AllocgymError: before ``reset``, after the end, after ``close``; an unusable action.
        """
        if self._over:
            raise AllocgymError("environment: the episode is over; call reset()")
        decision = self._loop.decode(np.asarray(action)[None])
        observation, terms, outcome = self._loop.spend(decision)
        reward = float(sum(term[0] for term in terms.values()))
        self._over = bool(outcome.done[0])
        self.returns.append(reward)
        if decision.fractions is not None:
            self.history.append(decision.fractions[0])
        info = {
            "spent": int(outcome.spent[0]),
            "wasted": int(outcome.wasted[0]),
            "seconds": float(outcome.seconds[0]),
            "decision": decision,
            "reward_terms": {name: float(term[0]) for name, term in terms.items()},
            "scores": {k: float(v[0]) for k, v in self.problem.scores(self.memory).items()},
        }
        return _row(observation), reward, self._over, False, info

    def render(self) -> Any:
        """Draw the allocation so far and the return; needs matplotlib, never a display."""
        if self.render_mode is None:
            return None
        from allocgym.envs.core.figures import allocation_picture

        return allocation_picture(self)

    def close(self) -> None:
        """Release the back end (none yet where the constructor failed)."""
        if hasattr(self, "_loop"):
            self._loop.closed = True
            self.backend.close()


class AllocationVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """Many environments advanced at once on a batched back end, as a native `VectorEnv`.

    Args:
        num_envs: environments.
        scenario: as of `AllocationEnv`.
        backend: as of `AllocationEnv` (default: the problem's batched twin); one made already has as
            many environments as it has.
        autoreset_mode: ``"same_step"`` (the default; the step that ends an episode already
            returns the first observation of the next, the last one stands in
            ``info["final_obs"]``) or ``"next_step"`` (the step after the end resets and ignores
            its action). Either is declared in ``metadata["autoreset_mode"]``.
        arguments: of the problem, the scenario and the back end, by keyword.

    Sub-environment ``i`` of ``reset(seed=s)`` equals a scalar environment reset with seed
    ``s + i``, and so does every later episode with its own seed.
    """

    problem_id: ClassVar[str] = ""

    def __init__(
        self,
        num_envs: int = 1,
        scenario: Any = None,
        backend: str | Backend | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        **arguments: Any,
    ) -> None:
        modes = {"same_step": AutoresetMode.SAME_STEP, "next_step": AutoresetMode.NEXT_STEP}
        if isinstance(autoreset_mode, str):
            if autoreset_mode.lower() not in modes:
                raise unknown("autoreset_mode", autoreset_mode, modes)
            autoreset_mode = modes[autoreset_mode.lower()]
        if backend is None:
            backend = entry(self.problem_id).vector_backend
        self.backend = _made(self.problem_id, backend, scenario, num_envs, arguments)
        self.problem = self.backend.problem
        self.num_envs = self.backend.spec.batch_size
        self.autoreset_mode = autoreset_mode
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": []}
        self.single_observation_space = self.problem.observation_space
        self.single_action_space = self.problem.action_space
        self.observation_space = batch_space(self.problem.observation_space, self.num_envs)
        self.action_space = batch_space(self.problem.action_space, self.num_envs)
        self._loop = _Loop(self.backend)
        self._seeds = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, bool)
        self._never = np.zeros(self.num_envs, bool)

    @property
    def outcome(self) -> Outcome:
        """The latest typed outcome of the batch."""
        return self._loop.told()

    @property
    def memory(self) -> Any:
        """The problem's memory of the running episodes."""
        return self._loop.remembered()

    def action_masks(self) -> np.ndarray:
        """``(num_envs, actions)`` bool: which discrete actions are legal now."""
        return self._loop.masks()

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start every environment anew; ``seed`` is one integer or one per environment."""
        one = int(seed) if isinstance(seed, (int, np.integer)) else None
        super().reset(seed=one)
        if seed is None:
            one = int(self.np_random.integers(2**31))
        self._seeds = np.array(seed, np.int64) if one is None else one + np.arange(self.num_envs)
        self._over = self._never.copy()
        return self._loop.reset(self._seeds), {}

    def _next_seeds(self, where: np.ndarray) -> np.ndarray:
        # The next episode of sub-environment i: far from every first seed, and a function of its
        # own seed alone, so that the number of environments does not matter.
        self._seeds = np.where(where, (self._seeds * 1103515245 + 12345) % (2**31), self._seeds)
        return self._seeds

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every environment by one period (with ``"next_step"``, those that ended begin anew)."""
        over = self._over if self._over.any() else None
        if over is not None:
            # Those that ended begin anew; they spend a period beside the others and are then taken
            # back to their beginning, which the seed alone decides.
            seeds = self._next_seeds(over)
            self._loop.reset(seeds, over)
            actions = np.where(_wide(over, actions), self._any_action(over), actions)
        observation, terms, outcome = self._loop.spend(self._loop.decode(actions))
        reward = np.asarray(sum(terms.values()))
        done = outcome.done
        if over is not None:
            observation = self._loop.reset(seeds, over)
            reward, done = np.where(over, 0.0, reward), done & ~over
        info: dict[str, Any] = {}
        self._over = self._never
        if done.any():
            if self.autoreset_mode == AutoresetMode.SAME_STEP:
                info = {
                    "final_obs": observation,
                    "_final_obs": done,
                    "final_info": self.problem.scores(self.memory),
                }
                done = done.copy()
                observation = self._loop.reset(self._next_seeds(done), done)
            else:
                self._over = done.copy()
        return observation, reward, done, self._never.copy(), info

    def _any_action(self, over: np.ndarray) -> np.ndarray:
        """A legal action for those that just began anew: what they are told is taken back."""
        space = self.single_action_space
        legal = self.problem.legal(self.memory)
        if legal is not None:
            return legal.argmax(1).astype(space.dtype)
        return np.zeros((), space.dtype)

    def get_state(self) -> dict[str, Any]:
        """Return all that the running episodes are, copied (back ends with the capability ``"state"``).

        Raises:
            AllocgymError: before ``reset``, or the back end's state cannot be kept.
        """
        loop = self._loop
        state = {"memory": loop.remembered(), "outcome": loop.told()}
        return copy.deepcopy(
            {**state, "seeds": self._seeds, "over": self._over, "backend": self.backend.get_state()}
        )

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of an environment made alike; the next ``step`` goes on from there."""
        held = copy.deepcopy(state)
        self.backend.set_state(held["backend"])
        self._loop.memory, self._loop.outcome = held["memory"], held["outcome"]
        self._seeds, self._over = held["seeds"], held["over"]

    def close_extras(self, **kwargs: Any) -> None:
        """Release the back end (none yet where the constructor failed)."""
        if hasattr(self, "_loop"):
            self._loop.closed = True
            self.backend.close()


def _made(
    problem: str,
    backend: str | Backend | None,
    scenario: Any,
    num_envs: int,
    arguments: dict[str, Any],
) -> Backend:
    if not isinstance(backend, Backend):
        return build(problem, backend, scenario, num_envs, **arguments)
    if arguments or scenario is not None:
        named = ", ".join(["scenario"] * (scenario is not None) + sorted(arguments))
        raise AllocgymError(f"{named}: nothing beside a back end that is made already")
    return backend


def _wide(mask: np.ndarray, array: Any) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * (np.ndim(array) - 1))


def _row(observation: Any) -> Any:
    if isinstance(observation, np.ndarray):
        return np.ascontiguousarray(observation[0])
    return {name: np.ascontiguousarray(value[0]) for name, value in observation.items()}
