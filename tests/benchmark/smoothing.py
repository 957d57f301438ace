"""What the sequential test and adaptive draws cost on images whose true radius is known: the tables beside the choices.

    PYTHONPATH=. python tests/benchmark/smoothing.py looks
    PYTHONPATH=. python tests/benchmark/smoothing.py price

Images are simulated: a true radius in units of sigma, p = Phi(radius), and binomial counts. No network and no data set
takes part, so that nothing is chosen on images that are judged later.
"""

import sys

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom
from scipy.stats import norm as gaussian

from kdcompress.evaluation.smoothing.procedures import FIRST_LOOK, LOOKS_APART
from kdcompress.maths import draws, sequential, sequential_radius
from kdcompress.maths.sequential_radius import look, radius_test

ALPHA, N = 0.001, 100_000
GRID = [step / 2 for step in range(7)]
Array = NDArray[np.float64]


def looks(n: int) -> list[int]:
    found, at = [], 0
    while at < n:
        at = min(n, max(at + FIRST_LOOK, int(at * (1 + LOOKS_APART)) // FIRST_LOOK * FIRST_LOOK))
        found.append(at)
    return found


def by_looks(p: Array, n: int, random: np.random.Generator) -> tuple[float, Array]:
    """Mean draws, and the share certified at each radius."""
    test = radius_test(GRID, sigma=1.0, n=n, alpha=ALPHA)
    spent, certified = 0, np.zeros(len(GRID))
    for each in p:
        successes = before = passed = 0
        for at in looks(n):
            successes, before = successes + int(random.binomial(at - before, each)), at
            passed, is_over = look(test, passed, successes, at)
            if is_over:
                break
        spent += at
        certified[:passed] += 1
    return spent / len(p), certified / len(p)


def compare_looks() -> None:
    random = np.random.default_rng(0)
    p = gaussian.cdf(random.uniform(-1, 4, 3000))
    # CERTIFY's own probability of each radius, not one draw of it.
    least = [int(binom.isf(ALPHA, N, gaussian.cdf(radius))) + 1 for radius in GRID]
    fixed = np.array([binom.sf(count - 1, N, p).mean() for count in least])
    print(f"fixed n = {N}: {' '.join(f'{share:.4f}' for share in fixed)}")
    print("| prior | hopeless | n | draws | certified at 0, 1/2, ... 3 sigma, less fixed n's |")
    for prior, hopeless, n in (
        *((prior, 0.05, N) for prior in (1, 5, 20, 200, 2000)),
        *((20, hopeless, N) for hopeless in (0.001, 0.01, 0.02, 0.1)),
        *((20, hopeless, 150_000) for hopeless in (0.01, 0.05)),
    ):
        sequential.PRIOR_IMAGES, sequential_radius.HOPELESS = prior, hopeless
        spent, share = by_looks(p, n, np.random.default_rng(1))
        apart = " ".join(f"{found:+.4f}" for found in share - fixed)
        print(f"| {prior} | {hopeless} | {n} | {spent:.0f} | {apart} |", flush=True)


def radii(count: Array, n: Array) -> Array:
    low = beta.ppf(ALPHA, np.maximum(count, 1), n - count + 1)
    return np.maximum(gaussian.ppf(np.where(count > 0, low, 0.5)), 0.0)


def compare_prices() -> None:
    random = np.random.default_rng(0)
    M = 5000
    for name, true in (
        ("U(-1, 2)", random.uniform(-1, 2, M)),
        ("U(-1, 3)", random.uniform(-1, 3, M)),
        ("U(-1, 4)", random.uniform(-1, 4, M)),
        ("N(1, 1)", random.normal(1, 1, M)),
        ("N(1.5, 1.5)", random.normal(1.5, 1.5, M)),
    ):
        p = gaussian.cdf(true)

        def average(n: Array, p: Array = p) -> float:
            counts = random.binomial(n.astype(int), p)
            return float(np.where(n > 0, radii(counts.astype(float), np.maximum(n, 1)), 0.0).mean())

        whole = average(np.full(M, N, dtype=float))
        cells = []
        for draws.PRICE in (5e-7, 1e-6, 2e-6):
            pilot = random.binomial(draws.PILOT, p)
            n = np.array([draws.worthwhile_draws(int(count), draws.PILOT, N, ALPHA) for count in pilot], dtype=float)
            cells.append(f"{n.mean() + draws.PILOT:.0f} {average(n) - whole:+.4f}")
        print(f"| {name} | {' | '.join(cells)} | {average(np.full(M, N // 3, dtype=float)) - whole:+.4f} |", flush=True)


if __name__ == "__main__":
    {"looks": compare_looks, "price": compare_prices}[sys.argv[1]]()
