// Charts from the tables below them, and news from the server. Everything else works without scripts.
"use strict";
(() => {
  const language = document.documentElement.lang;
  const locale = language === "fa" ? "fa-IR-u-ca-gregory" : "en-GB";
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const numbers = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 });
  const times = options => new Intl.DateTimeFormat(locale, { timeZone: "UTC", ...options });
  const formats = { day: times({ day: "numeric", month: "short" }), hour: times({ hour: "2-digit", minute: "2-digit" }),
    full: times({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }) };

  // Seconds in the unit that suits the longest of them.
  function lengths(most) {
    const [size, unit] = most >= 7200 ? [3600, "hour"] : most >= 120 ? [60, "minute"] : [1, "second"];
    const format = new Intl.NumberFormat(locale, { style: "unit", unit, unitDisplay: "narrow", maximumSignificantDigits: 3 });
    return v => format.format(v / size);
  }

  function read(table) {
    const heads = [...table.tHead.rows[0].cells].slice(1);
    const rows = [...table.tBodies[0].rows];
    return {
      x: rows.map(row => Number(row.dataset.time)),
      series: heads.map((head, i) => ({
        label: head.textContent.trim(), color: head.dataset.color,
        values: rows.map(row => row.cells[i + 1].dataset.value === "" ? null : Number(row.cells[i + 1].dataset.value)),
      })),
    };
  }

  function stacked(series) {
    const sums = [];
    series.forEach((one, i) => sums.push(one.values.map((v, k) => (v || 0) + (i ? sums[i - 1][k] : 0))));
    return sums;
  }

  function options(figure, found, size) {
    const bars = figure.dataset.chart === "bars";
    const hourly = figure.dataset.hourly === "yes";
    const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const stamp = v => v == null ? "–" : (hourly ? formats.full : formats.day).format(new Date(v * 1000));
    const most = Math.max(...found.series.flatMap(one => one.values));
    const write = bars ? v => numbers.format(v) : lengths(most);
    const drawn = found.series.map((one, i) => ({
      label: one.label, stroke: color(one.color), width: bars ? 0 : 2, points: { show: !bars && found.x.length < 40, size: 5 },
      fill: bars ? color(one.color) : undefined, spanGaps: true,
      paths: bars ? uPlot.paths.bars({ size: [0.72, 46] }) : undefined,
      value: (_, v, s, k) => k == null || one.values[k] == null ? "–" : write(one.values[k]),
    }));
    const step = found.x.length > 1 ? found.x[1] - found.x[0] : 86400;
    return {
      width: size, height: 200, padding: [8, 16, 0, 0], cursor: { drag: { x: false, y: false }, points: { show: !bars } },
      scales: { x: { time: true, range: (_, a, b) => [a - step * 0.6, b + step * 0.6] }, y: { range: (_, a, b) => [0, Math.max(b * 1.08, bars ? 1 : 0.001)] } },
      axes: [
        { ...axis, grid: { show: false }, space: 70, incrs: hourly ? [3600, 10800, 21600, 43200, 86400] : [1, 2, 5, 7, 14, 28, 91].map(days => days * 86400),
          size: 28,
          values: (_, splits) => splits.map(v => hourly ? formats.hour.format(new Date(v * 1000)) : stamp(v)) },
        { ...axis, size: 56, values: (_, splits) => splits.map(write), incrs: bars ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5] : undefined },
      ],
      tzDate: t => uPlot.tzDate(new Date(t * 1000), "Etc/UTC"),
      series: [{ label: figure.dataset.time, value: (_, v) => stamp(v) }, ...(bars ? drawn.reverse() : drawn)],
    };
  }

  const plots = new Map();
  function draw(figure) {
    const place = figure.querySelector(".plot");
    const found = read(figure.querySelector("details table"));
    plots.get(place)?.destroy();
    if (!place || !window.uPlot || !found.x.length) return;
    const values = figure.dataset.chart === "bars" ? stacked(found.series).reverse() : found.series.map(one => one.values);
    const made = new uPlot(options(figure, found, place.clientWidth), [found.x, ...values], place);
    plots.set(place, made);
    new ResizeObserver(() => { if (place.clientWidth) made.setSize({ width: place.clientWidth, height: 200 }); }).observe(place);
  }
  function drawAll(root) {
    for (const place of plots.keys()) if (!place.isConnected) { plots.get(place).destroy(); plots.delete(place); }
    root.querySelectorAll("figure[data-chart]").forEach(draw);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(document));

  // A hidden tab holds no connection: browsers allow only a few at once to one host.
  let known = document.body.dataset.revision, stream = null;
  function listen() {
    stream?.close();
    stream = null;
    if (document.hidden || known === undefined) return;
    stream = new EventSource("/api/v1/events?since=" + encodeURIComponent(known));
    stream.addEventListener("revision", event => {
      known = event.lastEventId;
      document.querySelectorAll("[data-newer]").forEach(one => { one.hidden = false; });
      document.body.dispatchEvent(new CustomEvent("revision"));
    });
  }
  document.addEventListener("visibilitychange", listen);
  addEventListener("pagehide", () => stream?.close());

  let opened = [];
  document.addEventListener("htmx:beforeSwap", () => { opened = [...document.querySelectorAll("details[id][open]")].map(one => one.id); });
  document.addEventListener("htmx:afterSettle", () => {
    opened.forEach(id => document.getElementById(id)?.setAttribute("open", ""));
    drawAll(document);
  });
  drawAll(document);
  listen();
})();
