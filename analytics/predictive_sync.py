"""When to sync next, learnt from when changes came before.

A change costs the time it waits for the sync that picks it up. With an expected rate of changes
r(u), the waiting expected to have accumulated at t since a sync at s is
W(s, t) = integral from s to t of r(u) (t - u) du. The policy syncs when W reaches c, and c is
steered so that the coming week uses the budget. The rate is a guarded week profile: flat, hour,
hour x weekend and hour-of-week shapes are mixed by how well each foretold the arrivals so far,
one event counts per clock hour, and no part of the week falls below a fifth of the mean. So
where nothing can be learnt the schedule stays close to a fixed interval.

Source: the waiting-cost view of Cho & Garcia-Molina, "Effective page refresh policies for web
crawlers" (TODS 2003), with a rate that varies over the week; mixing by prequential likelihood
(Dawid 1984). Measured figures and how to reproduce them: docs/analytics.md.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Policy", "Profile", "profile"]

Floats = npt.NDArray[np.float64]
HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
HOURS = 168
PARTS = 12  # five-minute parts of an hour
SLOTS = HOURS * PARTS
SLOT = HOUR / PARTS
MONDAY = 4 * DAY  # 1970-01-05 00:00 UTC as unix time
SHAPES = ("flat", "hour", "hour x weekend", "hour of week")

HALF_LIFE = 120 * DAY  # of what was learnt
SHRINK = 60.0  # events at which a finer shape weighs as much as the coarser one
FLOOR = 0.2  # least rate, as a share of the mean
STEER = 4.0  # days over which syncs saved or overspent are evened out
REPLAN = DAY / 2
VAGUE = 3 * HOUR  # a change known only to be since a sync longer ago than this has no hour


def _shapes(counts: Floats) -> Floats:
    """Four distributions over the hours of the week, shape (4, 168), each shrunk to the one before."""
    grid = counts.reshape(7, 24)
    hour = np.tile(grid.mean(axis=0), 7)
    half = np.concatenate([np.tile(grid[:5].mean(axis=0), 5), np.tile(grid[5:].mean(axis=0), 2)])
    found = [np.full(HOURS, 1 / HOURS)]
    for finer in (hour, half, counts):
        found.append((finer + SHRINK * found[-1]) / (counts.sum() + SHRINK))
    return np.array(found)


class _Learner:
    """Decayed counts of arrivals, and the evidence for each shape of the week."""

    def __init__(self) -> None:
        self.counts: Floats = np.zeros(HOURS)  # clock hours with a change, by hour of week
        self.parts: Floats = np.zeros(PARTS)  # five-minute parts with a change, by part of the hour
        self.evidence: Floats = np.zeros(len(SHAPES))  # log likelihood of the shapes
        self.part_evidence = 0.0  # log likelihood ratio: parts of the hour differ against equal
        self.volume = 0.0  # all changes, decayed to `latest`
        self.first: float | None = None
        self.latest = -math.inf

    def learn(self, times: Iterable[float]) -> None:
        """Take in arrival times (unix seconds); what is not finite or out of order by hours is left out."""
        for t in sorted(float(t) for t in times if math.isfinite(t)):
            if self.first is None:
                self.first = t
            self._fade(t)
            self.volume += 1
            if t // HOUR > self.latest // HOUR:
                self._learn_hour(int((t - MONDAY) // HOUR) % HOURS)
            if t // SLOT > self.latest // SLOT:
                self._learn_part(int(t // SLOT) % PARTS)
            self.latest = max(self.latest, t)

    def learn_between(self, since: float, until: float) -> None:
        """Take in that something changed in (since, until]: one event, shared out over its hours as foretold."""
        if self.first is None:
            self.first = until
        self._fade(until)
        self.volume += 1
        middles = np.arange(max(since, until - WEEK), until, HOUR)
        hours = ((middles - MONDAY) // HOUR).astype(np.intp) % HOURS
        foretold = (self.weights() @ _shapes(self.counts))[hours]
        np.add.at(self.counts, hours, foretold / foretold.sum())
        self.latest = max(self.latest, until)

    def _fade(self, t: float) -> None:
        if t > self.latest > -math.inf:
            kept = 0.5 ** ((t - self.latest) / HALF_LIFE)
            self.volume *= kept
            self.part_evidence *= kept
            for numbers in (self.counts, self.parts, self.evidence):
                numbers *= kept

    def _learn_hour(self, hour: int) -> None:
        self.evidence += np.log(_shapes(self.counts)[:, hour] * HOURS)
        self.counts[hour] += 1

    def _learn_part(self, part: int) -> None:
        self.part_evidence += math.log(self._part_shape()[part])
        self.parts[part] += 1

    def _part_shape(self) -> Floats:
        return np.asarray((self.parts + 1) / (self.parts.sum() + PARTS) * PARTS)

    def weights(self) -> Floats:
        """Posterior weight of each shape, shape (4,), sum 1."""
        likelihood = np.exp(self.evidence - self.evidence.max())
        return np.asarray(likelihood / likelihood.sum())

    def part_weight(self) -> float:
        """Posterior probability that the parts of the hour differ."""
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, self.part_evidence))))

    def rates(self) -> Floats:
        """Rate in each five minutes of the week relative to the mean, shape (2016,), mean 1."""
        week = self.weights() @ _shapes(self.counts)
        share = self.part_weight()
        rates = np.outer(week, (1 - share) + share * self._part_shape()).ravel()
        floored = np.maximum(rates / rates.mean(), FLOOR)
        return np.asarray(floored / floored.mean())

    def hourly(self, now: float) -> float:
        """Expected changes an hour, averaged over the week; 0 before any was seen."""
        if self.first is None:
            return 0.0
        scale = HALF_LIFE / math.log(2)
        watched = max(scale * -math.expm1(-(now - self.first) / scale), WEEK)
        return self.volume * math.exp(-max(0.0, now - self.latest) / scale) / watched * HOUR

    def state(self) -> dict[str, Any]:
        """The fields as JSON-able values."""
        fields = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in vars(self).items()}
        return fields | {"latest": None if self.first is None else self.latest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over the fields that `state` gave."""
        for name in ("counts", "parts", "evidence"):
            setattr(self, name, np.array(state[name], dtype=np.float64))
        self.part_evidence, self.volume, self.first = state["part_evidence"], state["volume"], state["first"]
        self.latest = -math.inf if state["latest"] is None else state["latest"]


class _Waiting:
    """W of the module's text for a week that repeats; positions and lengths are in slots."""

    grid = np.arange(2 * SLOTS + 1, dtype=np.float64)

    def __init__(self, rates: Floats) -> None:
        twice = np.concatenate([rates, rates])
        self.rates = twice
        self.arrived = np.concatenate([[0.0], np.cumsum(twice)])
        self.moment = np.concatenate([[0.0], np.cumsum(twice * (self.grid[:-1] + 0.5))])

    def gap(self, at: float, c: float) -> float:
        """Slots from `at` (0 <= at < 2016) until W reaches c; a week at most."""
        i = min(int(at), SLOTS - 1)
        arrived = self.arrived[i] + (at - i) * self.rates[i]
        moment = self.moment[i] + (at * at - i * i) / 2 * self.rates[i]
        ahead = slice(i + 1, i + SLOTS + 1)
        waited = self.grid[ahead] * (self.arrived[ahead] - arrived) - (self.moment[ahead] - moment)
        k = int(np.searchsorted(waited, c))
        if k == SLOTS:
            return float(SLOTS)
        before, since = (waited[k - 1], self.grid[i + k]) if k else (0.0, at)
        share = (c - before) / max(waited[k] - before, 1e-12)
        return float(since + (self.grid[i + 1 + k] - since) * share - at)

    def syncs(self, at: float, c: float) -> float:
        """How many syncs a week from `at` on takes, the last one in part."""
        count, t = 0, 0.0
        while True:
            gap = self.gap((at + t) % SLOTS, c)
            if t + gap >= SLOTS:
                return count + (SLOTS - t) / gap
            count, t = count + 1, t + gap

    def threshold(self, at: float, goal: float, guess: float) -> float:
        """The c that gives about `goal` syncs in the week from `at` on."""
        if goal > SLOTS:  # gaps below a slot: the rate is constant within, so gap = sqrt(2 c / r)
            return float((np.sqrt(self.rates[:SLOTS] / 2).sum() / goal) ** 2)
        c = guess
        for _ in range(8):
            count = self.syncs(at, c)
            if abs(count - goal) < 0.02 * goal:
                break
            c *= (count / goal) ** 1.7  # the count goes about with c to the power -1/2
        return c


@dataclass(frozen=True)
class Profile:
    """What was learnt, for people.

    hourly: expected changes in each hour of the week, 168 values from Monday 00:00 UTC.
    weights: shape of the week to its weight, sum 1. minutes_weight: 0 to 1, how sure it is that
    some five-minute parts of the hour get more changes. next_syncs: unix times, ascending.
    changes_per_day: the mean over the week. events: decayed number of clock hours with a change.
    """

    hourly: tuple[float, ...]
    weights: Mapping[str, float]
    minutes_weight: float
    next_syncs: tuple[float, ...]
    changes_per_day: float
    events: float


class Policy:
    """Chooses sync times within a budget; deterministic, and defined for any history, an empty one too."""

    def __init__(self, budget_per_day: float, history: Floats, start: float) -> None:
        """budget_per_day: mean syncs a day; below 1/7 it still syncs weekly. history: change times in
        unix seconds, any order, shape (n,). start: unix time at which the budget begins to count.

        Raises ValueError when the budget is not positive or a number is not finite.
        """
        if not (math.isfinite(budget_per_day) and budget_per_day > 0 and math.isfinite(start)):
            raise ValueError(f"the budget must be positive and the start finite: {budget_per_day}, {start}")
        self.budget, self.start, self.used = float(budget_per_day), float(start), 0
        self._learner = _Learner()
        self._learner.learn(np.asarray(history, dtype=np.float64))
        self._c = 0.5 * (SLOTS / (7 * self.budget)) ** 2  # exact for a flat week
        self._planned: float | None = None
        self._last = self.start
        self._waiting: _Waiting | None = None

    def next(self, now: float) -> float:
        """Unix time of the next sync after a sync (or the start) at `now`; always finite and later.

        Raises ValueError when `now` is not finite.
        """
        if not math.isfinite(now):
            raise ValueError(f"now must be finite: {now}")
        waiting = self._waiting or _Waiting(self._learner.rates())
        self._waiting = waiting
        at = _position(now)
        if self._planned is None or not 0 <= now - self._planned <= REPLAN:
            self._c = waiting.threshold(at, self._goal(now), self._c)
            self._planned = now
        return now + max(1.0, waiting.gap(at, self._c) * SLOT)

    def observe(self, now: float, changes: Floats) -> None:
        """Record a sync at `now` and the times of the changes it found (or [now] when only that is known)."""
        self.used += 1
        if len(changes) == 1 and changes[0] == now > self._last + VAGUE:
            self._learner.learn_between(self._last, now)
        elif len(changes):
            self._learner.learn(np.asarray(changes, dtype=np.float64))
        self._waiting = None if len(changes) else self._waiting
        self._last = now

    def _goal(self, now: float) -> float:
        """Syncs for the coming week: the budget, plus or minus what was saved or overspent."""
        surplus = self.budget * (now - self.start) / DAY - self.used
        return 7 * self.budget * min(1.5, max(0.5, 1 + surplus / (self.budget * STEER)))

    def profile(self, now: float, syncs: int = 10) -> Profile:
        """What was learnt by `now`, and the next syncs if no change were found; changes nothing."""
        learner, ahead, at = self._learner, Policy.from_state(self.state()), now
        times: list[float] = []
        for _ in range(syncs):
            at = ahead.next(at)
            ahead.used += 1
            times.append(at)
        mean = learner.hourly(now)
        hours = learner.rates().reshape(HOURS, PARTS).mean(axis=1)
        weights = {name: float(w) for name, w in zip(SHAPES, learner.weights(), strict=True)}
        events = float(learner.counts.sum())
        hourly = tuple(float(h) for h in hours * mean)
        return Profile(hourly, weights, learner.part_weight(), tuple(times), 24 * mean, events)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later, as JSON-able values; see `from_state`."""
        own = {"budget": self.budget, "start": self.start, "used": self.used, "c": self._c, "planned": self._planned}
        return own | {"last": self._last, "learner": self._learner.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Policy":
        """The policy that gave `state`: it chooses the same times. Raises KeyError for another mapping."""
        one = cls(state["budget"], np.zeros(0), state["start"])
        one.used, one._c, one._planned, one._last = state["used"], state["c"], state["planned"], state["last"]
        one._learner.restore(state["learner"])
        return one


def profile(history: Floats, budget_per_day: float, now: float, syncs: int = 10) -> Profile:
    """What `history` (change times, unix seconds, shape (n,)) teaches, and the syncs from `now` on."""
    return Policy(budget_per_day, history, now).profile(now, syncs)


def _position(now: float) -> float:
    """Place in the week, in slots from Monday 00:00 UTC: 0 <= position < 2016."""
    return (now - MONDAY) % WEEK / SLOT
