// Curves over the steps of the run.

const MARGIN = { left: 46, right: 14, top: 8, bottom: 24 };

/** A curve that is smoothed has at least so many points. */
const SMOOTHED_FROM = 30;

/** What is left of a value in the mean one point on: the tutorial averages its losses so. */
const SMOOTHING = 0.9;

/**
 * A curve in a card. `options`: title, height, and empty (what is said without points); value(point)
 * and tell(point) in words; range(point), the lowest and highest value, if it stands for several;
 * isSmoothed, hasDots, fromZero, axis (how numbers are written).
 */
class Chart {
  constructor(figure, options) {
    this.options = options;
    this.points = [];
    this.chosen = null;
    this.readout = element("p", { class: "readout" });
    const title = element("h2", {}, options.title);
    this.plot = svg("svg", { class: "plot", role: "img", tabindex: "0", height: options.height });
    this.empty = element("p", { class: "empty" }, options.empty);
    this.empty.style.minHeight = `${options.height}px`;
    const head = element("figcaption", { class: "card-head" }, title, this.readout);
    figure.append(head, element("div", { class: "plot-box" }, this.plot, this.empty));
    this.plot.addEventListener("pointermove", (event) => this.choose(this.nearest(event.offsetX)));
    this.plot.addEventListener("pointerleave", () => this.choose(null));
    this.plot.addEventListener("blur", () => this.choose(null));
    this.plot.addEventListener("keydown", (event) => this.walk(event));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  show(points) {
    this.points = points;
    this.draw();
  }

  draw() {
    const { points, options, plot } = this;
    plot.toggleAttribute("hidden", points.length === 0);
    this.empty.hidden = points.length > 0;
    const width = plot.clientWidth;
    if (points.length === 0 || width === 0) {
      setText(this.readout, "");
      return;
    }
    this.scale(width);
    const layers = [...this.axes(width)];
    if (options.range) layers.push(this.band());
    const values = points.map(options.value);
    const is_smoothed = options.isSmoothed && points.length >= SMOOTHED_FROM;
    if (is_smoothed) layers.push(this.path("faint", values));
    layers.push(this.path("curve", is_smoothed ? smoothed(values) : values));
    if (options.hasDots || points.length < 3) layers.push(...this.dots(values));
    this.mark = svg("g");
    plot.replaceChildren(...layers, this.mark);
    this.choose(this.chosen);
    const [first, last] = [points[0], points.at(-1)];
    setAttributes(plot, { "aria-label": `${options.title}: ${options.tell(first)}, then ${options.tell(last)}` });
  }

  /** Finds which steps and values are shown, and where. */
  scale(width) {
    const { points, options } = this;
    const steps = points.map((point) => point[POINT.step]);
    const ranges = points.flatMap(options.range ?? ((point) => [options.value(point)]));
    const values = ranges.filter((value) => value !== null && Number.isFinite(value));
    let [low, high] = extent(values);
    if (options.fromZero) low = 0;
    const room = high > low ? (high - low) * 0.06 : Math.max(Math.abs(high) * 0.1, 1e-9);
    high += room;
    low = options.fromZero || (low >= 0 && low < room) ? 0 : low - room;
    const [first, last] = [steps[0], Math.max(steps.at(-1), steps[0] + 1)];
    const right = width - MARGIN.right;
    const bottom = options.height - MARGIN.bottom;
    this.domain = { first, last, low, high, bottom, right };
    this.x = (step) => MARGIN.left + ((step - first) / Math.max(1, last - first)) * (right - MARGIN.left);
    this.y = (value) => (value === null ? NaN : bottom - ((clamp(value, low, high) - low) / (high - low)) * (bottom - MARGIN.top));
  }

  *axes(width) {
    const { first, last, low, high, bottom, right } = this.domain;
    const axis = this.options.axis ?? format.short;
    for (const value of ticks(low, high, this.options.height / 48)) {
      const y = this.y(value);
      yield svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y });
      yield svg("text", { x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, axis(value));
    }
    for (const step of ticks(first, last, width / 110).filter(Number.isInteger)) {
      const x = this.x(step);
      yield svg("text", { x, y: bottom + 18, "text-anchor": "middle" }, format.count(step));
    }
  }

  path(kind, values) {
    const places = values.map((value, index) => [this.x(this.points[index][POINT.step]), this.y(value)]);
    return svg("path", { class: kind, d: pathThrough(places) });
  }

  band() {
    const places = (of) => this.points.map((point) => [this.x(point[POINT.step]), this.y(this.options.range(point)[of])]);
    const [lowest, highest] = [places(0), places(1)].map((all) => all.filter(([, y]) => Number.isFinite(y)));
    const around = pathThrough([...highest, ...lowest.reverse()]);
    return svg("path", { class: "band", d: around ? `${around}Z` : "" });
  }

  dots(values) {
    return values.map((value, index) => {
      const [x, y] = [this.x(this.points[index][POINT.step]), this.y(value)];
      return svg("circle", { class: "dot", r: 4, cx: x, cy: Number.isFinite(y) ? y : -9 });
    });
  }

  nearest(x) {
    let best = 0;
    this.points.forEach((point, index) => {
      const distance = (of) => Math.abs(this.x(of[POINT.step]) - x);
      if (distance(point) < distance(this.points[best])) best = index;
    });
    return best;
  }

  walk(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined || this.points.length === 0) return;
    event.preventDefault();
    const from = this.chosen ?? this.points.length - 1;
    this.choose(clamp(from + by, 0, this.points.length - 1));
  }

  /** Tells of one point: the one that is pointed at, else the last. */
  choose(index) {
    this.chosen = index === null ? null : Math.min(index, this.points.length - 1);
    const point = this.points[this.chosen ?? this.points.length - 1];
    if (!point) return;
    setText(this.readout, this.options.tell(point));
    this.mark.replaceChildren();
    if (this.chosen === null) return;
    const [x, y] = [this.x(point[POINT.step]), this.y(this.options.value(point))];
    this.mark.append(svg("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: this.domain.bottom }));
    if (Number.isFinite(y)) this.mark.append(svg("circle", { class: "shown", r: 4.5, cx: x, cy: y }));
  }
}

/** Moving means from both ends, so that what is smoothed does not lag behind what it is of. */
function smoothed(values) {
  const from_right = movingMeans(values.toReversed()).reverse();
  return movingMeans(values).map((mean, index) => (mean === null ? null : (mean + from_right[index]) / 2));
}

function movingMeans(values) {
  const first = values.filter((value) => value !== null).slice(0, 3);
  let mean = first.reduce((sum, value) => sum + value, 0) / Math.max(1, first.length);
  return values.map((value) => {
    if (value === null) return null;
    mean = SMOOTHING * mean + (1 - SMOOTHING) * value;
    return mean;
  });
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [0, 1];
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** Scores have the form of points here: step and value stand where those of the curve do. */
const scorePoint = (score) => [score.global_step, score.precision_at_1];

const charts = {
  loss: new Chart(byId("loss"), {
    title: "Total loss, weight decay included",
    height: 268,
    empty: "The curve begins with the first step",
    value: (point) => point[POINT.loss],
    range: (point) => [point[POINT.lowest], point[POINT.highest]],
    isSmoothed: true,
    tell: (point) => `step ${format.count(point[POINT.step])}: ${format.loss(point[POINT.loss])}`,
  }),
  precision: new Chart(byId("precision"), {
    title: "Precision @ 1",
    height: 168,
    empty: "No checkpoint has been scored yet",
    value: (point) => point[1],
    hasDots: true,
    tell: (point) => `step ${format.count(point[0])}: ${point[1].toFixed(4)}`,
  }),
  speed: new Chart(byId("speed"), {
    title: "Examples per second",
    height: 168,
    empty: "Measured from the first step on",
    value: (point) => point[POINT.speed],
    isSmoothed: true,
    fromZero: true,
    tell: (point) => `step ${format.count(point[POINT.step])}: ${format.count(point[POINT.speed])}`,
  }),
  rate: new Chart(byId("rate"), {
    title: "Learning rate",
    height: 168,
    empty: "Known after the first step",
    value: (point) => point[POINT.rate],
    fromZero: true,
    tell: (point) => `step ${format.count(point[POINT.step])}: ${format.short(point[POINT.rate])}`,
  }),
};

function drawCharts(run) {
  charts.loss.show(run.points);
  charts.speed.show(run.points);
  charts.rate.show(run.points);
  charts.precision.show(run.scores.map(scorePoint));
}
