"""One score for how well the automation serves the people who work beside it.

F = 100 * 2^(-sum over signals of w * r / h), where r is the posterior mean bad rate of a signal:
r = (10 * prior + bad) / (10 + total), that is a Beta prior of weight 10. h is the bad rate at
which a signal alone would take its share w of one halving. F is in (0, 100], falls with every
bad event and rises with every good one, whatever the other signals are.

Source: exponential desirability (Harrington 1965) over Beta-binomial rates; the weights, half
rates and priors are the project's own choice and are listed in docs/analytics.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

__all__ = ["SIGNALS", "Contribution", "Count", "Feedback", "Signal", "analyze"]

PRIOR_WEIGHT = 10.0
DRAWS = 10_000
SEED = 0


@dataclass(frozen=True)
class Signal:
    """weight: share in the exponent. half: bad rate that takes the whole share. prior: rate assumed at first."""

    weight: float
    half: float
    prior: float
    meaning: str


SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        "reverted": Signal(0.30, 0.05, 0.02, "automatic commits that were reverted"),
        "hand_fixed": Signal(0.25, 0.15, 0.05, "automatic commits fixed by hand within 24 hours"),
        "failed_run": Signal(0.20, 0.05, 0.02, "runs that failed"),
        "alert_ignored": Signal(0.10, 0.50, 0.20, "alerts that nobody acknowledged"),
        "negative_comment": Signal(0.15, 0.35, 0.10, "comments that were negative"),
    }
)


@dataclass(frozen=True)
class Count:
    """`bad` events out of `total`. Raises ValueError unless 0 <= bad <= total."""

    bad: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bad <= self.total:
            raise ValueError(f"bad must be between 0 and total: {self.bad} of {self.total}")


@dataclass(frozen=True)
class Contribution:
    """What one signal does to the score.

    rate: posterior mean bad rate, 0 to 1. halvings: w * r / h. points: what the score would
    gain if this signal alone were perfect (r = 0), in points of the score.
    """

    count: Count
    rate: float
    halvings: float
    points: float


@dataclass(frozen=True)
class Feedback:
    """The score (0 to 100), its central 95 % credible interval, and each signal's part."""

    score: float
    low: float
    high: float
    contributions: Mapping[str, Contribution]


def analyze(counts: Mapping[str, Count]) -> Feedback:
    """The score of `counts` (signal name to events); a signal left out counts as no events.

    With no data at all this is 77.6 [42, 96]. The 95 % interval comes from 10,000 fixed-seed draws
    of the posteriors, so equal counts give equal intervals; its ends are good to about a point.
    Raises ValueError for an unknown signal.
    """
    unknown = sorted(set(counts) - set(SIGNALS))
    if unknown:
        raise ValueError(f"unknown signals {unknown}; known are {sorted(SIGNALS)}")
    full = {name: counts.get(name, Count()) for name in SIGNALS}
    halvings = {name: _halvings(name, count) for name, count in full.items()}
    score = _score(sum(halvings.values()))
    contributions = {
        name: Contribution(count, _rate(name, count), halvings[name], score * (2 ** halvings[name] - 1))
        for name, count in full.items()
    }
    low, high = _interval(full)
    return Feedback(score, low, high, MappingProxyType(contributions))


def _rate(name: str, count: Count) -> float:
    return (PRIOR_WEIGHT * SIGNALS[name].prior + count.bad) / (PRIOR_WEIGHT + count.total)


def _halvings(name: str, count: Count) -> float:
    return SIGNALS[name].weight * _rate(name, count) / SIGNALS[name].half


def _score(halvings: float) -> float:
    return float(100 * 2**-halvings)


def _interval(counts: Mapping[str, Count]) -> tuple[float, float]:
    """2.5 % and 97.5 % quantiles of F over draws of every signal's Beta posterior."""
    rng = np.random.default_rng(SEED)
    halvings = np.zeros(DRAWS)
    for name, count in counts.items():
        signal = SIGNALS[name]
        bad = PRIOR_WEIGHT * signal.prior + count.bad
        good = PRIOR_WEIGHT * (1 - signal.prior) + count.total - count.bad
        halvings += signal.weight / signal.half * rng.beta(bad, good, DRAWS)
    low, high = np.quantile(100 * 2.0**-halvings, [0.025, 0.975])
    return float(low), float(high)
