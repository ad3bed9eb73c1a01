"""The report's charts as SVG: what a colour says, a place, a shape or a word says too.

The colours are Okabe and Ito's, which colour-blind people tell apart. Numbers and dates are
words of the report's language before they reach the chart. At most 62 days and 30 sources.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from autosync.attention import source_status
from reports.report_values import Day, ReportValues
from reports.signs import clean
from reports.words import NOTHING, Language, Words

__all__ = ["FONTS", "chart_names", "chart_titles", "charts"]

FONTS = Path(__file__).parent / "fonts"
FONT = "Vazirmatn"
MOST_DAYS, MOST_SOURCES, MOST_NAME = 62, 30, 28
WIDTH, HEIGHT = 640, 200
BLUE, SKY, ORANGE, RED, GREEN, INK, GREY = "#0072B2", "#8CC8EA", "#E69F00", "#B2400A", "#007A5A", "#24292F", "#6E7781"
OUTCOMES = {"unchanged": SKY, "changed": BLUE, "refused": ORANGE, "failed": RED}
OPS = {"inserted": BLUE, "updated": SKY, "deleted": RED}
BAR = "M-0.15,-1.1L0.15,-1.1L0.15,1.1L-0.15,1.1Z"
MARKS = {
    "ok": (GREEN, "circle"),
    "unknown": (GREY, "square"),
    "warning": (ORANGE, "triangle-up"),
    "error": (RED, "diamond"),
    "limit_warn": (ORANGE, BAR),
    "limit_error": (RED, BAR),
}
TICKS = (1, 10, 60, 600, 3600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)

Chart = Any  # Altair's chart classes share no base that types help with


def chart_names(values: ReportValues) -> tuple[str, ...]:
    """The charts that these values give."""
    names: tuple[str, ...] = ()
    if any(facts.success_age is not None for facts in values.states):
        names = ("freshness",)
    if any(day.runs for day in values.days):
        names += ("runs", "durations", "changes")
    return names


def chart_titles(values: ReportValues, language: Language) -> dict[str, str]:
    """What each chart shows, in a sentence for those who don't see it."""
    say = Words(language)
    days = values.days[-MOST_DAYS:]
    titles = {name: say(f"chart_{name}") for name in chart_names(values)}
    if "runs" not in titles:
        return titles
    span = say("to", a=say.day(days[0].start), b=say.day(days[-1].start))
    bad, runs = (say.number(sum(counts)) for counts in zip(*((day.bad, day.runs) for day in days), strict=True))
    told = {"runs": say("not_good", n=bad, all=runs), "durations": say("chart_lines"), "changes": say("change_count")}
    return titles | {name: f"{titles[name]}, {span}: {text}" for name, text in told.items()}


def charts(values: ReportValues, language: Language = "en") -> dict[str, bytes]:
    """The charts that these values give, by name, as SVG; equal values give equal bytes."""
    say = Words(language)
    draw: dict[str, Callable[[ReportValues, Words], Chart]] = {
        "freshness": _freshness,
        "runs": _runs,
        "durations": _durations,
        "changes": _changes,
    }
    return {name: _svg(draw[name](values, say)) for name in chart_names(values)}


@lru_cache(maxsize=1)
def _register_fonts() -> None:
    import vl_convert

    vl_convert.register_font_directory(str(FONTS))


def _svg(chart: Chart) -> bytes:
    import vl_convert

    _register_fonts()
    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": INK, "titleColor": INK}
    config = {
        "font": FONT,
        "background": "white",
        "view": {"stroke": None},
        "axis": text | {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "gridColor": "#E6E8EB"},
        "legend": text | {"orient": "top", "title": None, "labelFontSize": 12, "symbolSize": 110, "columnPadding": 18},
        "text": {"font": FONT, "fill": INK},
    }
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict() | {"config": config}, allowed_base_urls=[])
    return svg.encode()


def _shown(values: ReportValues) -> tuple[Day, ...]:
    return values.days[-MOST_DAYS:]


def _data(rows: list[dict[str, Any]]) -> Any:
    import altair as alt

    make: Any = alt.Data
    return make(values=rows)


def _day_axis(days: tuple[Day, ...], say: Words) -> Any:
    import altair as alt

    axis = alt.Axis(title=None, labelAngle=0, labelOverlap="greedy", labelSeparation=8, ticks=False, domainColor=GREY)
    return alt.X("day:N", sort=[say.day(day.start) for day in days], axis=axis, scale=alt.Scale(paddingInner=0.25))


def _count_axis(field: str, top: float, say: Words, bottom: float = 0) -> Any:
    """A vertical axis of whole numbers, its ticks in the language's digits."""
    import altair as alt

    step = _step(max(top, -bottom, 1) / 4)
    ticks = [n * step for n in range(-int(-bottom // step) if bottom else 0, int(top // step) + 1)]
    axis = alt.Axis(title=None, values=ticks, labelExpr=_labels({t: say.number(abs(t)) for t in ticks}), domain=False)
    return alt.Y(f"{field}:Q", axis=axis, scale=alt.Scale(domain=[bottom, max(top, 1)], nice=False), stack=None)


def _step(rough: float) -> int:
    """1, 2 or 5 times a power of ten, the first that is not below `rough`."""
    return next(int(s * 10**p) for p in range(16) for s in (1, 2, 5) if s * 10**p >= rough)


def _labels(texts: dict[Any, str]) -> str:
    """A Vega expression that gives each tick its text; the texts are numbers in words, never data."""
    pairs = ", ".join(f"'{value}': '{text}'" for value, text in texts.items())
    return f"({{{pairs}}})[datum.value]"


def _runs(values: ReportValues, say: Words) -> Chart:
    """Stacked bars, worst on top, with the number of unsuccessful runs written above."""
    import altair as alt

    days = _shown(values)
    rows = _stacked([(day, {name: getattr(day, name) for name in OUTCOMES}) for day in days], say)
    top = max(day.runs for day in days) * 1.12
    bars = _bars(rows, OUTCOMES, days, say, _count_axis("from", top, say))
    bad = [day for day in days if day.bad]
    marks = [{"day": say.day(day.start), "from": day.runs, "text": f"✕{say.number(day.bad)}"} for day in bad]
    if not marks or len(days) > 31:
        return bars
    text = alt.Chart(_data(marks)).mark_text(dy=-7, fontSize=10, fill=RED)
    return alt.layer(bars, text.encode(x="day:N", y="from:Q", text="text:N")).properties(width=WIDTH, height=HEIGHT)


def _stacked(days: list[tuple[Day, dict[str, int]]], say: Words) -> list[dict[str, Any]]:
    rows, below = [], 0
    for day, counts in days:
        below = 0
        for name, count in counts.items():
            if count:
                rows.append({"day": say.day(day.start), "kind": say(name), "from": below, "upto": below + count})
            below += count
    return rows


def _bars(rows: list[dict[str, Any]], kinds: dict[str, str], days: tuple[Day, ...], say: Words, y: Any) -> Chart:
    import altair as alt

    names = [say(name) for name in kinds]
    color = alt.Color("kind:N", scale=alt.Scale(domain=names, range=list(kinds.values())), sort=names)
    bars = alt.Chart(_data(rows)).mark_bar(stroke="white", strokeWidth=1)
    return bars.encode(x=_day_axis(days, say), y=y, y2="upto:Q", color=color).properties(width=WIDTH, height=HEIGHT)


def _changes(values: ReportValues, say: Words) -> Chart:
    """What came in above the line, what was deleted below it."""
    days = _shown(values)
    rows = _stacked([(day, {"inserted": day.inserted, "updated": day.updated}) for day in days], say)
    rows += [
        {"day": say.day(day.start), "kind": say("deleted"), "from": -day.deleted, "upto": 0}
        for day in days
        if day.deleted
    ]
    top = max(day.inserted + day.updated for day in days)
    y = _count_axis("from", top * 1.05, say, bottom=-1.05 * max(day.deleted for day in days))
    return _bars(rows, OPS, days, say, y)


def _durations(values: ReportValues, say: Words) -> Chart:
    """Two lines told apart by colour, dash and the shape of their points; lengths by their power of ten."""
    import altair as alt

    days = _shown(values)
    kinds = {"p50": (BLUE, "circle", [1, 0]), "p95": (RED, "triangle-up", [5, 3])}
    rows = [
        {"day": say.day(day.start), "kind": say(name), "seconds": max(length, 0.001)}
        for day in days
        for name in kinds
        if (length := getattr(day, name)) is not None
    ]
    lengths = [row["seconds"] for row in rows]
    names = [say(name) for name in kinds]
    colors, shapes, dashes = (list(part) for part in zip(*kinds.values(), strict=True))
    lines = alt.Chart(_data(rows)).mark_line(point=alt.OverlayMarkDef(size=36, filled=True), strokeWidth=2)
    return lines.encode(
        x=_day_axis(days, say),
        y=_length_axis(alt.Y, "seconds", min(lengths), max(lengths), say),
        color=alt.Color("kind:N", scale=alt.Scale(domain=names, range=colors)),
        shape=alt.Shape("kind:N", scale=alt.Scale(domain=names, range=shapes)),
        strokeDash=alt.StrokeDash("kind:N", scale=alt.Scale(domain=names, range=dashes)),
    ).properties(width=WIDTH, height=HEIGHT)


def _length_axis(channel: Any, field: str, low: float, high: float, say: Words) -> Any:
    """An axis of lengths of time by their power of ten, with ticks that people know."""
    import altair as alt

    known = (0.001, 0.01, 0.1, *TICKS)
    first = max((t for t in known if t <= low), default=known[0])
    last = min((t for t in known if t >= high), default=max(high, known[-1]))
    ticks = [t for t in known if first <= t <= last]
    axis = alt.Axis(title=None, values=ticks, labelExpr=_labels({t: say.duration(t) for t in ticks}), domain=False)
    scale = alt.Scale(type="log", domain=[first, max(last, first * 10)], nice=False)
    return channel(f"{field}:Q", axis=axis, scale=scale)


def _freshness(values: ReportValues, say: Words) -> Chart:
    """A line from nothing to each source's age, the stalest on top, and bars at its limits."""
    import altair as alt

    rows, names = _ages(values, say)
    times = [row["seconds"] for row in rows]
    present = [kind for kind in MARKS if any(row["kind"] == say(kind) for row in rows)]
    kinds = alt.Scale(domain=[say(kind) for kind in present], range=[MARKS[kind][0] for kind in present])
    shapes = alt.Scale(domain=[say(kind) for kind in present], range=[MARKS[kind][1] for kind in present])
    x = _length_axis(alt.X, "seconds", min(times), max(times), say)
    axis = alt.Axis(title=None, ticks=False, domain=False, labelLimit=190, labelFontSize=12)
    base = alt.Chart(_data(rows)).encode(x=x, y=alt.Y("source:N", sort=names, axis=axis))
    ages = base.transform_filter("datum.text != null")
    start = x.to_dict()["scale"]["domain"][0]
    lines = ages.mark_rule(strokeWidth=2, color="#C4CAD0").encode(x2=alt.datum(start))
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        color=alt.Color("kind:N", scale=kinds), shape=alt.Shape("kind:N", scale=shapes)
    )
    text = ages.mark_text(dy=-10, fontSize=11).encode(text="text:N")
    height = max(70, 34 * len(names))
    return alt.layer(lines, points, text).properties(width=WIDTH - 130, height=height)


def _ages(values: ReportValues, say: Words) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each source's age and each of its limits; the sources' names, the stalest first."""
    known = [(facts.success_age, facts) for facts in values.states if facts.success_age is not None]
    known.sort(key=lambda row: -row[0])
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for age, facts in known[:MOST_SOURCES]:
        name = clean(facts.source or NOTHING, MOST_NAME)
        names.append(name if name not in names else f"{name} ({len(names)})")
        for kind, limit in zip(("limit_warn", "limit_error"), values.limits.get(facts.source, ()), strict=False):
            if limit is not None and limit > 0:
                rows.append({"source": names[-1], "kind": say(kind), "seconds": limit, "text": None})
        kind = source_status(facts)
        rows.append({"source": names[-1], "kind": say(kind), "seconds": max(age, 1), "text": say.duration(age)})
    return rows, names
