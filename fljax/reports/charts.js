
// Lets charts be asked: hides lines, shows values, changes an axis, looks closer.
// Sizes, marks and classes are those of drawing.py and ticks.py.
(() => {
  "use strict";
  const WIDTH = 560, HEIGHT = 320, LEFT = 76, RIGHT = 14, TOP = 10, BOTTOM = 46;
  const ACROSS = WIDTH - LEFT - RIGHT, DOWN = HEIGHT - TOP - BOTTOM;
  const FEW_POINTS = 40, MOST_VALUES = 10;

  function add(parent, name, attributes = {}, text = "") {
    const svg = parent.namespaceURI.endsWith("svg") && name !== "button";
    const made = svg ? document.createElementNS(parent.namespaceURI, name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return parent.appendChild(made);
  }

  function linearTicks(low, high, most = 6) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10, 20].map(f => f * power).find(s => s >= rough);
    const marks = [];
    for (let n = Math.ceil(low / step - 1e-9); n <= Math.floor(high / step + 1e-9); n++)
      marks.push(Number((n * step).toPrecision(12)));
    return marks;
  }

  function logTicks(low, high, most = 6) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const factors = Math.log10(high / low) < 2.5 ? [1, 2, 5] : [1];
    const every = factors.length > 1 ? 1 : Math.max(1, Math.ceil((last - first) / most));
    const marks = [];
    for (let power = first; power <= last; power++)
      if (power % every === 0) for (const f of factors) marks.push(Number(`${f}e${power}`));
    const found = marks.filter(m => m >= low * (1 - 1e-9) && m <= high * (1 + 1e-9));
    return found.length ? found : [low, high];
  }

  function written(value, step) {
    if (value === 0) return "0";
    if (step < 1e-4 || Math.abs(value) >= 1e6) return String(Number(value.toPrecision(3)));
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const scaled = step * 10 ** decimals;
    const more = Math.abs(scaled - Math.round(scaled)) > 1e-6 ? 1 : 0;
    return value.toLocaleString("en", {minimumFractionDigits: decimals + more,
      maximumFractionDigits: decimals + more});
  }

  const figures = value => Number(value.toPrecision(4)).toLocaleString("en",
    {maximumSignificantDigits: 4});

  function extent(arrays) {
    let low = Infinity, high = -Infinity;
    for (const array of arrays) for (const value of array || []) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  function interactive(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const whole = figure.querySelector("svg.whole"), plot = figure.querySelector("svg.plot");
    const axes = figure.querySelector("g.axes");
    const state = {hidden: new Set(), log: false, x: data.x};
    const shown = () => data.lines.filter((_, number) => !state.hidden.has(number));
    let scale = {};

    function limits() {
      if (!state.hidden.size && !state.log && state.x === data.x) return data.y;
      const inside = shown().flatMap(line => {
        const keep = (_, n) => line.x[n] >= state.x[0] && line.x[n] <= state.x[1];
        return [line.y, line.low, line.high].map(side => side && side.filter(keep));
      });
      if (data.target !== null) inside.push([data.target]);
      let [low, high] = extent(inside.map(side => side && side.filter(v => !state.log || v > 0)));
      if (!(low <= high)) return state.log ? [0.1, 1] : data.y;
      if (state.log) return high > low ? [low / 1.1, high * 1.1] : [low / 2, high * 2];
      if (data.fromZero) low = Math.min(low, 0);
      const margin = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
      return [data.fromZero && low === 0 ? 0 : low - margin, high + margin];
    }

    function draw() {
      const y = limits(), value = state.log ? Math.log10 : v => v;
      scale = {
        x: v => (v - state.x[0]) / (state.x[1] - state.x[0]) * ACROSS,
        back: p => state.x[0] + p / ACROSS * (state.x[1] - state.x[0]),
        y: v => state.log && v <= 0 ? DOWN + 9
          : DOWN - (value(v) - value(y[0])) / (value(y[1]) - value(y[0])) * DOWN,
      };
      axes.replaceChildren();
      plot.replaceChildren();
      plot.classList.toggle("closer", state.log || state.x !== data.x);
      const xs = linearTicks(...state.x), ys = state.log ? logTicks(...y) : linearTicks(...y);
      for (const mark of xs) {
        const x = (LEFT + scale.x(mark)).toFixed(1), step = xs[1] - xs[0] || 1;
        add(axes, "path", {d: `M${x} ${TOP}v${DOWN}`});
        add(axes, "text", {class: "x", x, y: HEIGHT - BOTTOM + 17}, written(mark, step));
      }
      for (const mark of ys) {
        const at = TOP + scale.y(mark), step = state.log ? mark : ys[1] - ys[0] || 1;
        add(axes, "path", {d: `M${LEFT} ${at.toFixed(1)}h${ACROSS}`});
        add(axes, "text", {class: "y", x: LEFT - 6, y: (at + 4.5).toFixed(1)}, written(mark, step));
      }
      for (const line of shown()) drawLine(line, y);
      if (data.target !== null)
        add(plot, "path", {class: "target", d: `M0 ${scale.y(data.target).toFixed(1)}H${ACROSS}`});
    }

    function drawLine(line, y) {
      const group = add(plot, "g", {class: line.style});
      const at = side => line.x.map((x, n) => `${scale.x(x).toFixed(1)} ${scale.y(side[n]).toFixed(1)}`);
      if (line.low)
        add(group, "path", {class: "band",
          d: `M${[...at(line.high), ...at(line.low).reverse()].join("L")}Z`});
      const points = at(line.y), path = `M${points.join("L")}`;
      if (line.area) {
        const floor = state.log ? DOWN : scale.y(y[0]);
        const ends = [line.x[line.x.length - 1], line.x[0]].map(x => `L${scale.x(x).toFixed(1)} ${floor}`);
        add(group, "path", {class: "area", d: `${path}${ends.join("")}Z`});
      }
      add(group, "path", {class: "line", d: path});
      if (points.length <= FEW_POINTS && !line.area)
        add(group, "path", {class: "dots", d: points.map(point => `M${point}h0`).join("")});
    }

    // what stands at a place of x
    const tip = add(figure, "output", {class: "tip", "aria-live": "polite", hidden: ""});
    let cursor = null;
    function forget() {
      tip.hidden = true;
      if (cursor) cursor.remove();
      cursor = null;
    }
    function tell(x, y = null) {
      const near = shown().map(line => {
        let best = 0;
        line.x.forEach((v, n) => { if (Math.abs(v - x) < Math.abs(line.x[best] - x)) best = n; });
        return {line, n: best, far: Math.abs(scale.x(line.x[best]) - scale.x(x))};
      });
      const least = Math.min(...near.map(found => found.far));
      if (!(least < ACROSS)) return forget();
      const spot = near.find(found => found.far === least).line.x[near.find(f => f.far === least).n];
      let told = near.filter(found => Math.abs(scale.x(found.line.x[found.n]) - scale.x(spot)) < 6);
      if (y !== null) told.sort((a, b) =>
        Math.abs(scale.y(a.line.y[a.n]) - y) - Math.abs(scale.y(b.line.y[b.n]) - y));
      told = told.slice(0, MOST_VALUES);
      forget();
      const at = scale.x(spot);
      cursor = add(plot, "path", {class: "cursor", d: `M${at.toFixed(1)} 0V${DOWN}`});
      tip.replaceChildren();
      add(tip, "span", {}, `${data.xName}: ${figures(spot)}`);
      for (const {line, n} of told) {
        const entry = add(tip, "span", {class: line.style});
        add(entry, "i");
        const sd = line.low ? ` ± ${figures((line.high[n] - line.low[n]) / 2)}` : "";
        entry.append(`${line.label}: ${figures(line.y[n])}${sd}`);
      }
      tip.hidden = false;
      const ratio = whole.clientWidth / WIDTH, left = (LEFT + at) * ratio;
      // SVG knows no offset
      const above = whole.getBoundingClientRect().top - figure.getBoundingClientRect().top;
      tip.style.top = `${above + 14}px`;
      const right = left + 12 + tip.offsetWidth > figure.clientWidth;
      tip.style.left = `${Math.max(0, right ? left - tip.offsetWidth - 12 : left + 12)}px`;
    }

    // tools and legend
    const tools = add(figure, "div", {class: "tools"});
    const reset = add(tools, "button", {type: "button", class: "tool", hidden: ""}, "whole");
    const log = add(tools, "button", {type: "button", class: "tool", "aria-pressed": "false"}, "log");
    if (!data.lines.some(line => line.y.some(v => v > 0))) log.hidden = true;
    log.setAttribute("aria-label", "logarithmic axis");
    reset.setAttribute("aria-label", "show the whole curves");
    log.addEventListener("click", () => {
      state.log = !state.log;
      log.setAttribute("aria-pressed", state.log);
      forget();
      draw();
    });
    function zoom(ends) {
      state.x = ends;
      reset.hidden = ends === data.x;
      forget();
      draw();
    }
    reset.addEventListener("click", () => zoom(data.x));
    const entries = [...figure.querySelectorAll("ul.legend li:not(.fixed)")];
    const buttons = entries.map((entry, number) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Hides or shows this line; with Shift, shows it alone";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", event => {
        const others = entries.map((_, n) => n).filter(n => n !== number);
        if (event.shiftKey) {
          const alone = others.every(n => state.hidden.has(n)) && !state.hidden.has(number);
          state.hidden = new Set(alone ? [] : others);
        } else if (!state.hidden.delete(number)) state.hidden.add(number);
        buttons.forEach((b, n) => b.setAttribute("aria-pressed", !state.hidden.has(n)));
        forget();
        draw();
      });
      return button;
    });

    // pointer and keys
    const place = event => {
      const box = whole.getBoundingClientRect(), ratio = WIDTH / box.width;
      return [(event.clientX - box.left) * ratio - LEFT, (event.clientY - box.top) * ratio - TOP];
    };
    const within = x => Math.min(Math.max(x, 0), ACROSS);
    let start = null, box = null;
    plot.style.cursor = "crosshair";
    // neither the focus nor a selection of texts, which belong to keys and to pages
    whole.addEventListener("mousedown", event => event.preventDefault());
    whole.addEventListener("pointerdown", event => {
      if (event.button === 0 && event.pointerType !== "touch") start = within(place(event)[0]);
    });
    whole.addEventListener("pointermove", event => {
      const [x, y] = place(event);
      if (start !== null && Math.abs(x - start) > 8) {
        event.preventDefault();
        if (!box) { forget(); box = add(plot, "rect", {class: "zoom", y: 0, height: DOWN}); }
        box.setAttribute("x", Math.min(start, within(x)));
        box.setAttribute("width", Math.abs(within(x) - start));
      } else if (x < -8 || x > ACROSS + 8) forget();
      else tell(scale.back(within(x)), y);
    });
    window.addEventListener("pointerup", event => {
      if (box) {
        const ends = [start, within(place(event)[0])].sort((a, b) => a - b).map(scale.back);
        box = null;
        if (ends[1] > ends[0]) zoom(ends);
      }
      start = null;
    });
    whole.addEventListener("pointerleave", () => { if (start === null) forget(); });
    whole.addEventListener("dblclick", () => zoom(data.x));
    whole.setAttribute("tabindex", "0");
    let step = null;
    whole.addEventListener("keydown", event => {
      const by = {ArrowLeft: -1, ArrowRight: 1}[event.key], line = shown()[0];
      if (event.key === "Escape") { forget(); zoom(data.x); }
      if (!by || !line) return;
      event.preventDefault();
      step = step === null ? 0 : Math.min(Math.max(step + by, 0), line.x.length - 1);
      tell(line.x[step]);
    });
    whole.addEventListener("blur", forget);
    draw();
  }

  for (const figure of document.querySelectorAll("figure.chart")) {
    const folded = figure.closest("details");
    if (folded) folded.addEventListener("toggle", () => interactive(figure), {once: true});
    else interactive(figure);
  }
  // paper shows what is folded on the screen
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach(part => { part.open = true; });
  });
  window.addEventListener("afterprint", () => folded.forEach(part => { part.open = false; }));
})();
