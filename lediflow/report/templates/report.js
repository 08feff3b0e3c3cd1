// The interactive part of the page: curves (drawn by uPlot), and the switch of colours. Needs no network.
(() => {
  "use strict";
  const page = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map(); // figure -> state of its chart
  const HEIGHT = 250;
  const AT_ONCE = 8; // charts that are drawn when the page opens
  const FEW = 12; // a chart whose curves all have at most this many points has a mark at each
  const OUTLIERS = 0.005; // share of values at either end that an axis may leave out
  const MUCH = 4; // ... where they would make it this many times as long

  // --- texts ---

  const colour = (name) => getComputedStyle(page).getPropertyValue(name).trim();
  const variable = (line) => (line.colour ? `--series-${line.colour}` : "--muted");
  const seriesColour = (line) => colour(variable(line));

  function numberText(value) {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e6 || size < 1e-4)) return String(Number(value.toPrecision(3)).toExponential()).replace("e+", "e").replace("-", "−");
    return String(Number(value.toPrecision(4))).replace("-", "−");
  }

  function placeText(value) {
    const [unit, letter] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : value >= 1e4 ? [1e3, "k"] : [1, ""];
    return `${Number((value / unit).toPrecision(4))}${letter}`;
  }

  // --- data ---

  // Columns of all lines over one axis, and which line each column belongs to.
  function columns(chart, isLog, isLogX) {
    const tables = [];
    const owners = [];
    const keep = (x, y) => {
      const kept = [[], []];
      x.forEach((place, index) => {
        if (isLogX && place <= 0) return;
        kept[0].push(place);
        kept[1].push(isLog && y[index] <= 0 ? null : y[index]);
      });
      return kept;
    };
    for (const line of chart.lines) {
      tables.push(keep(line.x, line.y));
      owners.push({ line, isSmooth: false });
      if (line.smooth) {
        tables.push(keep(...line.smooth));
        owners.push({ line, isSmooth: true });
      }
    }
    return { data: uPlot.join(tables), owners };
  }

  // The values that an axis shows at first: without rare outliers that would flatten the rest.
  function usualValues(chart) {
    const values = chart.lines.flatMap((line) => line.y.filter((value) => value != null)).sort((a, b) => a - b);
    if (values.length < 1 / OUTLIERS) return null;
    const cut = Math.floor(values.length * OUTLIERS);
    const [low, high] = [values[cut], values[values.length - 1 - cut]];
    const whole = values[values.length - 1] - values[0];
    return high > low && whole > MUCH * (high - low) ? [low, high] : null;
  }

  function valueRange(low, high, isLog) {
    if (low == null || !isFinite(low)) return isLog ? [0.1, 1] : [0, 1];
    if (isLog) {
      const margin = high > low ? (high / low) ** 0.06 : 1.7;
      return [low / margin, high * margin];
    }
    const margin = 0.08 * (high - low) || 0.5 * Math.abs(low) || 0.5;
    return [low - margin, high + margin];
  }

  function nearest(values, index) {
    for (let distance = 0; distance < values.length; distance++) {
      if (values[index - distance] != null) return index - distance;
      if (values[index + distance] != null) return index + distance;
    }
    return index;
  }

  // --- drawing ---

  function seriesOf(owner, chart) {
    const { line, isSmooth } = owner;
    const isFaint = !isSmooth && line.smooth;
    const areFew = chart.lines.every((other) => other.y.length <= FEW);
    const isFew = line.y.length === 1 || (areFew && line.colour);
    const isolated = (plot, index) => {
      const values = plot.data[index];
      const places = [...values.keys()].filter((place) => values[place] != null);
      const gap = (from, to) => values.slice(from + 1, to).includes(null);
      return places.filter(
        (place, order) =>
          (order === 0 || gap(places[order - 1], place)) &&
          (order === places.length - 1 || gap(place, places[order + 1])),
      );
    };
    return {
      label: line.name,
      stroke: () => seriesColour(line) + (isFaint ? "59" : ""),
      width: isFaint ? 1 : 2,
      dash: line.dashed && !isFaint ? [7, 4] : undefined,
      points: isSmooth
        ? { show: false }
        : { show: isFew, filter: isFew ? undefined : isolated, size: 7, fill: () => seriesColour(line) },
    };
  }

  // Rings at the lowest held-out loss, crosses where a value is no finite number, arrows at what lies outside.
  function drawMarks(plot, state) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    const [left, top, bottom] = [bbox.left, bbox.top, bbox.top + bbox.height];
    const isInside = (x) => x >= left - 1 && x <= left + bbox.width + 1;
    ctx.save();
    for (const line of state.chart.lines.filter((line) => !state.hidden.has(line))) {
      ctx.strokeStyle = ctx.fillStyle = seriesColour(line);
      ctx.lineWidth = 2 * ratio;
      for (const [place, value] of line.rings) {
        const [x, y] = [plot.valToPos(place, "x", true), plot.valToPos(value, "y", true)];
        if (!isInside(x)) continue;
        ctx.beginPath();
        ctx.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
        ctx.stroke();
      }
      (line.margins || []).forEach((margin, index) => {
        const [low, high] = [line.y[index] - margin, line.y[index] + margin];
        const x = plot.valToPos(line.x[index], "x", true);
        if (!isInside(x) || !margin) return;
        ctx.globalAlpha = 0.6;
        ctx.beginPath();
        ctx.moveTo(x, state.isLog && low <= 0 ? bottom : Math.min(bottom, plot.valToPos(low, "y", true)));
        ctx.lineTo(x, Math.max(top, plot.valToPos(high, "y", true)));
        ctx.stroke();
        ctx.globalAlpha = 1;
      });
      const { min, max } = plot.scales.y;
      line.x.forEach((place, index) => {
        const value = line.y[index];
        if (value == null || (value >= min && value <= max)) return;
        const x = plot.valToPos(place, "x", true);
        if (!isInside(x) || (state.isLog && value <= 0)) return;
        const [edge, size] = value > max ? [top, 6 * ratio] : [bottom, -6 * ratio];
        ctx.beginPath();
        ctx.moveTo(x, edge);
        ctx.lineTo(x - 4 * ratio, edge + size);
        ctx.lineTo(x + 4 * ratio, edge + size);
        ctx.fill();
      });
      ctx.strokeStyle = colour("--fault");
      for (const [place] of line.faults) {
        const [x, y, size] = [plot.valToPos(place, "x", true), bottom - 8 * ratio, 4 * ratio];
        if (!isInside(x)) continue;
        ctx.beginPath();
        ctx.moveTo(x - size, y - size);
        ctx.lineTo(x + size, y + size);
        ctx.moveTo(x + size, y - size);
        ctx.lineTo(x - size, y + size);
        ctx.stroke();
      }
    }
    ctx.restore();
  }

  // Round places on a logarithmic axis: decades, with 2 and 5 of each where there are few; none where two would not fit.
  function logTicks(low, high) {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const step = Math.ceil((last - first) / 8);
    const digits = last - first <= 4 ? [1, 2, 5] : [1];
    const ticks = [];
    for (let decade = first; decade <= last; decade += step) {
      digits.forEach((digit) => ticks.push(Number(`${digit}e${decade}`)));
    }
    const inside = ticks.filter((tick) => tick >= low && tick <= high);
    const linear = [0, 1, 2, 3, 4].map((part) => Number((low + ((high - low) * (part + 0.5)) / 5).toPrecision(2)));
    return inside.length > 1 ? inside : linear;
  }

  function axis(isLog, more) {
    const own = isLog ? { splits: (plot, index, low, high) => logTicks(low, high), filter: (plot, ticks) => ticks } : {};
    return {
      stroke: () => colour("--muted"),
      grid: { stroke: () => colour("--rule"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
      ...own,
      ...more,
    };
  }

  function plotOptions(state, owners, width) {
    const { chart, isLog, isLogX } = state;
    const usual = state.showsAll ? null : usualValues(chart);
    state.isClipped = usual != null && !isLog;
    const inUsual = (low, high) => (state.isClipped ? [Math.max(low, usual[0]), Math.min(high, usual[1])] : [low, high]);
    const isTick = (low, high) => chart.ticks.filter((tick) => tick >= low && tick <= high);
    const measured = chart.ticks.length ? { splits: (plot, index, low, high) => isTick(low, high) } : {};
    const group = state.figure.closest("details, section");
    return {
      width,
      height: HEIGHT,
      padding: [10, 12, 0, 0],
      legend: { show: false },
      cursor: {
        drag: { x: true, y: false, dist: 5 },
        sync: { key: group ? group.id : "page", setSeries: false },
        dataIdx: (plot, series, index) => (series ? nearest(plot.data[series], index) : index),
        points: { size: 7 },
      },
      scales: {
        x: {
          time: false,
          distr: isLogX ? 3 : 1,
          range: (plot, low, high) =>
            isLogX || !chart.fromZero ? valueRange(low, high, isLogX) : [0, high > 0 ? high : 1],
        },
        y: { distr: isLog ? 3 : 1, range: (plot, low, high) => valueRange(...inUsual(low, high), isLog) },
      },
      axes: [
        axis(isLogX, { ...measured, label: chart.axis, labelSize: 20, labelFont: "12px system-ui, sans-serif", size: 28, space: 60,
               values: (plot, places) => places.map((place) => (place == null ? null : placeText(place))) }),
        axis(isLog, { size: 58, space: 32,
               values: (plot, values) => values.map((value) => (value == null ? null : numberText(value))) }),
      ],
      series: [{}, ...owners.map((owner) => seriesOf(owner, chart))],
      hooks: {
        draw: [(plot) => drawMarks(plot, state)],
        setCursor: [(plot) => showValues(plot, state)],
      },
    };
  }

  // The values at the cursor, or the last ones, in the keys below the plot.
  function showValues(plot, state) {
    const index = plot.cursor.idx;
    const shown = (place) => state.chart.place.replace("{}", place.toLocaleString("en"));
    state.place.textContent = index == null ? "" : `at ${shown(plot.data[0][index])}`;
    state.owners.forEach((owner, number) => {
      if (owner.isSmooth) return;
      const column = plot.data[number + 1];
      const found = index == null ? nearest(column, column.length - 1) : plot.cursor.idxs[number + 1];
      state.values.get(owner.line).textContent = numberText(column[found]);
    });
  }

  function draw(state) {
    const zoom = state.plot ? { min: state.plot.scales.x.min, max: state.plot.scales.x.max } : null;
    if (state.plot) state.plot.destroy();
    const { data, owners } = columns(state.chart, state.isLog, state.isLogX);
    state.owners = owners;
    state.plot = new uPlot(plotOptions(state, owners, state.canvas.clientWidth), data, state.canvas);
    owners.forEach((owner, number) => {
      if (state.hidden.has(owner.line)) state.plot.setSeries(number + 1, { show: false });
    });
    if (zoom && state.isZoomed && !state.isLogX) state.plot.setScale("x", zoom);
    showValues(state.plot, state);
    for (const [name, button] of Object.entries(state.buttons)) {
      if (name in state) button.setAttribute("aria-pressed", state[name]);
    }
    state.buttons.showsAll.hidden = !state.isClipped && !state.showsAll;
  }

  // --- controls ---

  function element(tag, attributes = {}, text = "") {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.textContent = text;
    return made;
  }

  function toolbar(state) {
    const bar = element("div", { class: "tools", role: "group", "aria-label": "Axes and zoom" });
    const add = (name, label, title, action) => {
      state.buttons[name] = element("button", { type: "button", title }, label);
      state.buttons[name].addEventListener("click", action);
      bar.append(state.buttons[name]);
    };
    const toggle = (name) => () => {
      state[name] = !state[name];
      draw(state);
    };
    const zoom = (factor) => () => {
      const { min, max } = state.plot.scales.x;
      const [middle, half] = [(min + max) / 2, ((max - min) / 2) * factor];
      const last = state.plot.data[0][state.plot.data[0].length - 1];
      state.isZoomed = true;
      state.plot.setScale("x", { min: Math.max(0, middle - half), max: Math.min(last, middle + half) });
    };
    add("isLog", "log y", "logarithmic axis of values", toggle("isLog"));
    add("isLogX", "log x", `logarithmic axis of ${state.chart.axis}`, toggle("isLogX"));
    add("showsAll", "spikes", "show outliers whole, not as arrows at the edge", toggle("showsAll"));
    add("closer", "+", "zoom in; or drag over the plot", zoom(0.5));
    add("farther", "−", "zoom out", zoom(2));
    add("reset", "reset", "show everything; or double-click the plot", () => {
      state.isZoomed = false;
      draw(state);
    });
    state.buttons.isLog.disabled = !state.chart.lines.some((line) => line.y.some((value) => value > 0));
    return bar;
  }

  function keys(state) {
    const list = element("div", { class: "keys" });
    for (const line of state.chart.lines) {
      const button = element("button", { type: "button", "aria-pressed": "true", title: "show or hide" });
      const mark = element("span", { class: line.dashed ? "mark dashed" : "mark", "aria-hidden": "true" });
      mark.style.color = `var(${variable(line)})`;
      const value = element("output");
      button.append(mark, element("span", {}, line.name), value);
      button.addEventListener("click", () => {
        const isHidden = !state.hidden.delete(line) && Boolean(state.hidden.add(line));
        button.setAttribute("aria-pressed", !isHidden);
        draw(state);
      });
      state.values.set(line, value);
      list.append(button);
    }
    state.place = element("span", { class: "place" });
    list.append(state.place);
    return list;
  }

  function begin(figure) {
    if (drawn.has(figure)) return;
    const chart = charts[Number(figure.dataset.chart)];
    const state = {
      figure, chart, isLog: chart.log, isLogX: chart.logX, showsAll: false, isZoomed: false,
      hidden: new Set(), values: new Map(), buttons: {}, canvas: element("div", { class: "canvas" }),
    };
    drawn.set(figure, state);
    figure.querySelectorAll("svg, noscript").forEach((old) => old.remove());
    figure.prepend(state.canvas, keys(state));
    const head = element("div", { class: "head" });
    figure.before(head);
    const title = head.previousElementSibling;
    if (title && title.matches("h3")) head.append(title);
    head.append(toolbar(state));
    draw(state);
    state.plot.over.addEventListener("mousedown", () => (state.isZoomed = true));
    new ResizeObserver(() => {
      const width = state.canvas.clientWidth;
      if (width && width !== state.plot.width) state.plot.setSize({ width, height: HEIGHT });
    }).observe(state.canvas);
  }

  const figures = document.querySelectorAll("figure[data-chart]");
  const watcher = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => begin(entry.target)),
    { rootMargin: "300px" },
  );
  figures.forEach((figure) => watcher.observe(figure));
  // the first ones at once, the others while nothing else is to do; those in closed parts when these open
  const waiting = [...figures].filter((figure) => !figure.closest("details:not([open])"));
  waiting.splice(0, AT_ONCE).forEach(begin);
  const idle = window.requestIdleCallback || setTimeout;
  const drawNext = () => {
    const figure = waiting.shift();
    if (!figure) return;
    begin(figure);
    idle(drawNext);
  };
  idle(drawNext);
  addEventListener("beforeprint", () => {
    figures.forEach((figure) => figure.closest("details:not([open])") || begin(figure));
  });

  // --- light and dark ---

  const redraw = () => drawn.forEach((state) => state.plot.redraw(false));
  const choices = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  function choose(theme) {
    if (theme === "auto") delete page.dataset.theme;
    else page.dataset.theme = theme;
    button.textContent = `colours: ${theme}`;
    button.dataset.choice = theme;
    try {
      localStorage.setItem("lediflow-theme", theme);
    } catch {} // a page from a file may store nothing
    redraw();
  }
  let stored = "auto";
  try {
    stored = localStorage.getItem("lediflow-theme") || "auto";
  } catch {}
  button.hidden = false;
  button.addEventListener("click", () => choose(choices[(choices.indexOf(button.dataset.choice) + 1) % 3]));
  choose(choices.includes(stored) ? stored : "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
