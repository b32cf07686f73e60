"""Fits of the rollout simulator: ``python -m allocgym.simulators.rollout_budget.calibration``.

Three fits, three small JSON files under ``fits/``: item-response parameters from public per-prompt
trajectories, the update law from recorded runs of the tiny real back end, and step times from
published tables. Each carries its source, its error and its error on what was held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special

from allocgym.envs.core.journal import write_json
from allocgym.simulators.rollout_budget import recorded

FITS = Path(__file__).parent / "fits"
GROUP = 8
SAMPLES = 160.0
"""Held-out rollouts behind each recorded cell accuracy."""


def beta_binomial(k: np.ndarray, n: int) -> tuple[float, float]:
    """Maximum-likelihood Beta(a, b) of success rates behind counts ``k`` of ``n``."""

    def cost(x: np.ndarray) -> float:
        a, b = np.exp(x)
        return -float((special.betaln(k + a, n - k + b) - special.betaln(a, b)).sum())

    a, b = np.exp(optimize.minimize(cost, [-0.5, -0.5], method="Nelder-Mead").x)
    return float(a), float(b)


def fit_items(k: np.ndarray, n: int, gain: float, gain_sd: float, base_sd: float = 3.0) -> Any:
    """MAP of ``logit p_i(tau) = base_i + gain_i tau`` for each prompt (Newton, two parameters).

    Args:
        k: ``(prompts, visits)`` successes; tau runs from 0 to 1 over the columns.
        n: rollouts of a visit.
        gain: prior mean of the gains.
        gain_sd: prior standard deviation of the gains.
        base_sd: prior standard deviation of the bases around -1.

    Returns:
        ``(prompts,)`` bases and gains.
    """
    tau = np.linspace(0, 1, k.shape[1])[None]
    base, slope = np.full(len(k), -1.0), np.full(len(k), gain)
    for _ in range(60):
        p = special.expit(base[:, None] + slope[:, None] * tau)
        res, w = k - n * p, n * p * (1 - p)
        g0 = res.sum(1) - (base + 1) / base_sd**2
        g1 = (res * tau).sum(1) - (slope - gain) / gain_sd**2
        h00 = w.sum(1) + 1 / base_sd**2
        h01 = (w * tau).sum(1)
        h11 = (w * tau**2).sum(1) + 1 / gain_sd**2
        det = h00 * h11 - h01**2
        base += np.clip((h11 * g0 - h01 * g1) / det, -1, 1)
        slope += np.clip((h00 * g1 - h01 * g0) / det, -1, 1)
    return base, slope


def trajectories() -> dict[str, Any]:
    """Fit the item-response population on two thirds of the prompts; report the third held out."""
    acc = recorded.trajectories()
    k = np.rint(acc * GROUP)
    held = np.arange(len(k)) % 3 == 2
    train = k[~held]
    a, b = beta_binomial(train[:, :3].sum(1), 3 * GROUP)
    gain, sd = 1.0, 0.6
    for _ in range(12):
        base, slope = fit_items(train, GROUP, gain, sd)
        mean = train.mean(1) / GROUP
        informative = (mean > 0.05) & (mean < 0.95)
        gain = float(np.mean(slope[informative]))
        # Shrinkage hides part of the spread: it is put back by the share of posterior variance.
        p = special.expit(base[:, None] + slope[:, None] * np.linspace(0, 1, k.shape[1])[None])
        w = (GROUP * p * (1 - p) * (np.linspace(0, 1, k.shape[1])[None] - 0.5) ** 2).sum(1)
        post = 1 / (w + 1 / sd**2)
        sd = float(np.sqrt(slope[informative].var() + post[informative].mean()))
    early = 8
    weights = joint(train)
    predicted = posterior(k[held], early, weights)[0]
    truth = acc[held][:, early:].mean(0)
    naive = np.full_like(truth, acc[held][:, :early].mean())
    return {
        "source": "One-Shot-RLVR @ 21ed529 (arXiv 2504.20571), Apache-2.0: 900 prompts, groups of 8, "
        "Qwen2.5-Math-1.5B, GRPO, 500 steps",
        "prompts fitted": int((~held).sum()),
        "prompts held out": int(held.sum()),
        "visits": int(k.shape[1]),
        "steps": 500,
        "initial beta": [round(a, 4), round(b, 4)],
        "gain": round(gain, 4),
        "gain sd": round(sd, 4),
        "fit rmse of the mean curve": round(
            float(
                np.sqrt(
                    np.mean(
                        (
                            special.expit(
                                base[:, None] + slope[:, None] * np.linspace(0, 1, k.shape[1])[None]
                            ).mean(0)
                            - acc[~held].mean(0)
                        )
                        ** 2
                    )
                )
            ),
            5,
        ),
        "held-out rmse of the mean curve": round(
            float(np.sqrt(np.mean((predicted.mean(0) - truth) ** 2))), 5
        ),
        "held-out rmse, early mean": round(float(np.sqrt(np.mean((naive - truth) ** 2))), 5),
    }


BASES = np.linspace(-9.0, 9.0, 61)
GAINS = np.linspace(-3.0, 6.0, 11)
"""Grid of a prompt's initial logit and its gain; chosen by cross-validation inside the fitted prompts."""


def _likelihood(k: np.ndarray, visits: int) -> np.ndarray:
    """Log-likelihood ``(prompts, grid)`` of the first columns of ``k`` in a run of ``visits``."""
    tau = np.linspace(0, 1, visits)[: k.shape[1]]
    x = (BASES[:, None, None] + GAINS[None, :, None] * tau).reshape(-1, k.shape[1])
    return np.asarray(-(k @ np.logaddexp(0, -x).T) - (GROUP - k) @ np.logaddexp(0, x).T)


def joint(k: np.ndarray, rounds: int = 60) -> np.ndarray:
    """Distribution over the grid behind the prompts of ``k``: nonparametric maximum likelihood (EM).

    A Beta distribution is too smooth at its ends: never-solved and always-solved prompts are many.
    """
    ll = _likelihood(k, k.shape[1])
    like = np.exp(ll - ll.max(1, keepdims=True))
    weights = np.full(like.shape[1], 1 / like.shape[1])
    for _ in range(rounds):
        w = like * weights
        w /= w.sum(1, keepdims=True)
        # A hundredth of a prompt everywhere: nothing is impossible.
        weights = w.sum(0) + 0.01
        weights /= weights.sum()
    return np.asarray(weights)


def cross_fitted(
    k: np.ndarray, early: int, group: int = GROUP, folds: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """`posterior` of every prompt, its distribution fitted to the other folds' prompts."""
    place = np.arange(len(k)) % folds
    p = np.empty((len(k), k.shape[1] - early))
    mixed = np.empty_like(p)
    for fold in range(folds):
        weights = joint(k[place != fold])
        p[place == fold], mixed[place == fold] = posterior(k[place == fold], early, weights, group)
    return p, mixed


def posterior(
    k: np.ndarray, early: int, weights: np.ndarray, group: int = GROUP
) -> tuple[np.ndarray, np.ndarray]:
    """Success rates and chances of a mixed group after a prompt's first ``early`` visits.

    Args:
        k: ``(prompts, visits)`` successes of `GROUP`; only the first ``early`` columns are read.
        early: visits known.
        weights: of the grid (`joint`), from other prompts.
        group: rollouts of the group in question.

    Returns:
        ``(prompts, visits - early)`` posterior means of both.
    """
    visits = k.shape[1]
    ll = _likelihood(k[:, :early], visits) + np.log(weights)
    w = np.exp(ll - ll.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    tau = np.linspace(0, 1, visits)[early:]
    p = special.expit((BASES[:, None, None] + GAINS[None, :, None] * tau).reshape(-1, len(tau)))
    mixed = 1 - p**group - (1 - p) ** group
    return w @ p, w @ mixed


def signals(run: recorded.Run, loss_by_prompt: bool | None = None) -> tuple[Any, Any]:
    """Per-step family signals ``(steps, families)`` and both noises ``(steps, 2)`` of a run."""
    by_prompt = run.by_prompt if loss_by_prompt is None else loss_by_prompt
    n, k = run.tried, run.right
    rate = k / np.maximum(n, 1)
    spread = np.sqrt(rate * (1 - rate))
    mixed = (k > 0) & (k < n)
    families = np.array(run.families)[run.cell]
    if by_prompt:
        w = (n > 0) / np.maximum((n > 0).sum(1, keepdims=True), 1)
    else:
        w = n / n.sum(1, keepdims=True)
    s = w * spread
    parts = np.stack([(s * (families == f)).sum(1) for f in range(max(run.families) + 1)], 1)
    within_ = (w * w / np.maximum(n, 1) * mixed).sum(1)
    return parts, np.stack([within_, (s * s).sum(1)], 1)


def ability(
    parts: np.ndarray, noise: np.ndarray, eta: float, own: float, v: float, k: float, limit: float
) -> np.ndarray:
    """Abilities ``(steps + 1, families)`` of a run whose signals are given (see `law`)."""
    steps, count = parts.shape
    theta = np.zeros((steps + 1, count))
    shared, mine = 0.0, np.zeros(count)
    for t in range(steps):
        s = parts[t].sum()
        size = np.sqrt(s * s + v * noise[t, 0] + k * noise[t, 1]) or 1.0
        room = np.maximum(1 - (shared + mine) / limit, 0)
        step = eta * (1 - own) * s / size * max(1 - shared / limit, 0)
        mine = mine + eta * own * count * parts[t] / size * room
        shared += step
        theta[t + 1] = shared + mine
    return theta


def regress(
    runs: list[recorded.Run], paths: list[np.ndarray], ridge: float = 3.0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Slopes and difficulties of every cell by weighted regression of logit accuracy on ability."""
    cells = runs[0].cells.shape[1]
    fam = np.array(runs[0].families)
    slope, base = np.zeros(cells), np.zeros(cells)
    cost = 0.0
    for c in range(cells):
        x = np.concatenate(
            [path[run.logged][:, fam[c]] for run, path in zip(runs, paths, strict=True)]
        )
        acc = np.concatenate([run.cells[:, c] for run in runs])
        k, n = acc * SAMPLES + 0.5, SAMPLES + 1.0
        y = np.log(k / (n - k))
        w = k * (n - k) / n
        # Ridge: slopes near 1 unless the cell says otherwise.
        a11, a12, a22 = (w * x * x).sum() + ridge, (w * x).sum(), w.sum()
        b1, b2 = (w * x * y).sum() + ridge, (w * y).sum()
        det = a11 * a22 - a12**2
        slope[c] = (b1 * a22 - b2 * a12) / det
        base[c] = (a11 * b2 - a12 * b1) / det
        slope[c] = max(slope[c], 0.02)
        base[c] = (w * (y - slope[c] * x)).sum() / w.sum()
        p = special.expit(base[c] + slope[c] * x)
        cost += float(((acc - p) ** 2).sum())
    return slope, base, cost


def fit_runs(runs: list[recorded.Run], held: list[recorded.Run], source: str) -> dict[str, Any]:
    """Fit own share, noise and limit (outer) and the cells (inner) to calibration runs."""
    ready = [signals(run) for run in runs]

    def paths(x: np.ndarray) -> list[np.ndarray]:
        return [ability(p, s, 0.02, *natural(x)) for p, s in ready]

    def curve(run: recorded.Run, path: np.ndarray, slope: Any, base: Any) -> np.ndarray:
        fam = np.array(run.families)
        return np.asarray(special.expit(base + slope * path[run.logged][:, fam]).mean(1))

    def cost(x: np.ndarray) -> float:
        found = paths(x)
        slope, base, _ = regress(runs, found)
        error = sum(
            float(((curve(r, p, slope, base) - r.accuracy) ** 2).sum())
            for r, p in zip(runs, found, strict=True)
        )
        cells = regress(runs, found)[2] / runs[0].cells.shape[1]
        # Weak priors: own share about a fifth, v and the limit within a factor of ten.
        prior = ((x[0] + 1.4) / 1.0) ** 2 + ((x[3] - 1.0) / 1.0) ** 2
        prior += ((x[1] - 2.0) / 2.3) ** 2 + ((x[2] - 2.0) / 2.3) ** 2
        return error / 2e-5 + cells / 1e-3 + prior

    best = min(
        (
            optimize.minimize(cost, start, method="Nelder-Mead", options={"maxiter": 400})
            for start in ([-1.4, 1.0, 4.0, 1.0], [-1.4, 3.0, 1.0, 1.0])
        ),
        key=lambda r: r.fun,
    )
    own, v, between, limit = natural(best.x)
    slope, base, _ = regress(runs, paths(best.x))
    scale = float(np.median(slope))

    def rmse(group: list[recorded.Run]) -> float:
        errors = []
        for run in group:
            path = ability(*signals(run), 0.02, own, v, between, limit)
            errors.append(np.mean((curve(run, path, slope, base) - run.accuracy) ** 2))
        return float(np.sqrt(np.mean(errors)))

    naive = [np.mean((r.accuracy - np.mean([q.accuracy for q in runs], 0)) ** 2) for r in held]
    flat = [np.mean((r.accuracy - r.accuracy[0]) ** 2) for r in held]
    return {
        "source": source,
        "calibration runs": [f"{r.name} {r.seed}" for r in runs],
        "held-out runs": len(held),
        "eta": round(0.02 * scale, 6),
        "own": round(float(own), 4),
        "noise": round(float(v), 4),
        "between": round(float(between), 4),
        "limit": round(float(limit * scale), 4),
        "steps": len(runs[0].tried),
        "slope": (slope / scale).round(4).tolist(),
        "base": base.round(4).tolist(),
        "families": list(runs[0].families),
        "within": round(within(runs), 4),
        "fit rmse of accuracy": round(rmse(runs), 5),
        "held-out rmse of accuracy": round(rmse(held), 5) if held else None,
        "held-out rmse, mean of the calibration runs": round(float(np.sqrt(np.mean(naive))), 5)
        if held
        else None,
        "held-out rmse, no change": round(float(np.sqrt(np.mean(flat))), 5) if held else None,
    }


def natural(x: np.ndarray) -> tuple[float, float, float, float]:
    """Own share, v, k and limit from the search's unbounded coordinates."""
    return (
        float(special.expit(x[0])),
        float(np.exp(x[1])),
        float(np.exp(x[2])),
        float(1.0 + np.exp(x[3])),
    )


def within(runs: list[recorded.Run], steps: int = 30) -> float:
    """Standard deviation of prompt logits within a cell, by the excess variance of counts."""
    excess, scale = 0.0, 0.0
    for run in runs:
        n, k, cell = run.tried[:steps].ravel(), run.right[:steps].ravel(), run.cell[:steps].ravel()
        for c in range(len(run.families)):
            mine = (cell == c) & (n >= 4)
            if mine.sum() < 20:
                continue
            rate = k[mine] / n[mine]
            p = k[mine].sum() / n[mine].sum()
            if not 0.05 < p < 0.95:
                continue
            size = n[mine].mean()
            floor = p * (1 - p) / size
            excess += (rate.var() - floor) / (1 - 1 / size)
            scale += (p * (1 - p)) ** 2
    return float(np.sqrt(max(excess / scale, 0.0))) if scale else 0.5


def step_times() -> dict[str, Any]:
    """Throughput and update time per token from published step times.

    Reinforce-Ada (arXiv 2510.04996), table 2: 102 s (1.5B) and 236 s (7B) a step of 2,048 rollouts
    on 8 H100, of which about 70 % is generation. Lengths: median 500 tokens, 99th percentile 5,000
    (s about 1). Two figures fix two parameters for each model; the token time of a lone rollout is
    set so that the longest of 2,048 takes 60 % of the generation (assumed, not measured).
    """
    out: dict[str, Any] = {
        "source": "Reinforce-Ada (arXiv 2510.04996), table 2; generation share: RollPacker, by review",
        "lanes": 8,
        "spread": 1.0,
        "mean length": round(500 * float(np.exp(0.5)), 1),
    }
    tokens = 2048 * 500 * np.exp(0.5)
    overhead = 3.0
    for name, seconds in (("1.5B", 102.0), ("7B", 236.0)):
        generation, update = 0.7 * seconds, 0.3 * seconds - overhead
        longest = 500 * np.exp(np.sqrt(2 * np.log(2048)))
        out[name] = {
            "tokens_per_second": round(float(tokens / (8 * generation)), 2),
            "train_seconds": float(f"{update / tokens:.4g}"),
            "token_seconds": round(float(0.6 * generation / longest), 6),
            "overhead_seconds": overhead,
        }
    return out


def main() -> None:
    """Refit everything that public data allows and write the JSON files."""
    write_json(FITS / "items.json", trajectories())
    runs = recorded.tiny_runs()
    chosen = [
        r
        for r in runs
        if (r.policy == "uniform" and r.seed < 2) or (r.policy == "anti" and r.seed == 0)
    ]
    held = [r for r in runs if not any(r is c for c in chosen)]
    source = (
        "recorded GRPO runs of a 105k-parameter character transformer (own, public data folder)"
    )
    write_json(FITS / "tiny.json", fit_runs(chosen, held, source))
    write_json(FITS / "cost.json", step_times())


if __name__ == "__main__":
    main()
