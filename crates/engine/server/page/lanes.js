// A lane for each worker: what it did in the last steps, on one axis of time for all.

/** The time that is shown is that of so many median steps. */
const STEPS_SHOWN = 14;

/** From so many workers on the lanes are narrow, and narrower. */
const MANY = 12;
const VERY_MANY = 28;

/** Workers that are gone of which the lane is shown. */
const GONE_SHOWN = 4;

const lanes = { rows: new Map(), axis: null };

function drawLanes(run) {
  const shown = shownLanes(run);
  byId("lanes-none").hidden = shown.length > 0;
  const list = byId("lanes");
  list.classList.toggle("many", shown.length >= MANY && shown.length < VERY_MANY);
  list.classList.toggle("very-many", shown.length >= VERY_MANY);
  const window_ = timeWindow(run, shown);
  setText(byId("workers-window"), window_ ? `the last ${format.duration(window_.to - window_.from)}` : "");
  const rows = shown.map((lane) => {
    const row = lanes.rows.get(lane.id) ?? newRow(lane.id);
    drawRow(row, lane, run, window_);
    return row.item;
  });
  for (const id of lanes.rows.keys()) {
    if (!shown.some((lane) => lane.id === id)) lanes.rows.delete(id);
  }
  if (window_) rows.push(axis(window_));
  if (rows.length !== list.children.length || rows.some((row, index) => row !== list.children[index])) {
    list.replaceChildren(...rows);
  }
}

/** Those that take part, then those that went last; of a run that is over, all. */
function shownLanes(run) {
  const all = [...run.lanes.values()];
  if (run.isOver()) return all;
  const gone = all.filter((lane) => lane.state !== "active");
  return [...run.active(), ...gone.slice(-GONE_SHOWN)];
}

/** From when to when is shown. While steps come, up to the last one; where none comes, up to now. */
function timeWindow(run, shown) {
  const ends = shown.flatMap((lane) => lane.steps.slice(-2).map(arrivedAt));
  const late = shown.filter((lane) => lane.late_with);
  if (ends.length === 0 && late.length === 0) return null;
  const span = Math.max(2e5, STEPS_SHOWN * (run.stepMicros() ?? 1e5));
  const last = ends.length > 0 ? Math.max(...ends) : late[0].late_with.since_micros;
  const silence = run.now() - last;
  const is_waiting = run.live && !run.isOver() && silence > Math.max(1e6, span / 4);
  const to = is_waiting ? run.now() : last;
  return { from: to - span, to };
}

function arrivedAt(step) {
  return step[STEP.given] + step[STEP.compute] + step[STEP.push];
}

function newRow(id) {
  const row = {
    name: element("span", { class: "lane-name" }),
    host: element("bdi"),
    badge: element("span", { class: "badge" }),
    facts: element("p", { class: "lane-facts" }),
    bar: svg("svg", { class: "lane-bar", role: "img", preserveAspectRatio: "none", viewBox: "0 0 1000 20" }),
    paths: {},
  };
  for (const kind of ["wait", "push", "compute", "late", "lost"]) {
    row.paths[kind] = svg("path", { class: kind, "vector-effect": "non-scaling-stroke" });
    row.bar.append(row.paths[kind]);
  }
  row.place = element("span", { class: "lane-host" }, row.host);
  const who = element("p", { class: "lane-who" }, row.name, row.place, row.badge);
  row.item = element("li", { class: "lane" }, who, row.bar, row.facts);
  lanes.rows.set(id, row);
  return row;
}

function drawRow(row, lane, run, window_) {
  const says = badgeOf(lane, run);
  setText(row.name, `worker ${lane.number}`);
  setText(row.host, lane.name ?? "");
  setAttributes(row.place, { title: [lane.name, lane.numerics].filter(Boolean).join(" · ") });
  setText(row.badge, says);
  row.badge.hidden = says === "";
  row.item.classList.toggle("slow", says !== "" && lane.state === "active");
  row.item.classList.toggle("gone", lane.state !== "active" && !run.isOver());
  setText(row.facts, factsOf(lane));
  setAttributes(row.bar, { "aria-label": inWords(lane, says) });
  const paths = window_ ? pathsOf(lane, window_) : {};
  for (const [kind, path] of Object.entries(row.paths)) setAttributes(path, { d: paths[kind] ?? "" });
}

/** What needs to be seen of a worker at a glance. */
function badgeOf(lane, run) {
  if (lane.state === "lost") return "lost";
  if (lane.state === "quarantined") return "in quarantine";
  if (lane.state === "left") return run.isOver() ? stragglerBadge(lane) : "left";
  if (lane.late_with && run.now() - lane.late_with.since_micros > 3e6) return "hangs";
  return stragglerBadge(lane) || (lane.late_with ? "late" : "");
}

function stragglerBadge(lane) {
  return lane.slowness?.is_straggler ? `${lane.slowness.times.toFixed(1)}× slower` : "";
}

function factsOf(lane) {
  if (lane.tower_steps === 0) return "no tower step yet";
  const held = lane.held_micros === null ? "" : `${format.millis(lane.held_micros)} · `;
  return `${held}${format.count(lane.tower_steps)} done`;
}

function inWords(lane, says) {
  const parts = [`worker ${lane.number}`];
  if (says) parts.push(says);
  if (lane.held_micros !== null) {
    parts.push(`${format.millis(lane.held_micros)} a tower step, ${format.millis(lane.compute_micros)} of it computing`);
  }
  parts.push(`${format.count(lane.tower_steps)} tower steps counted, ${format.count(lane.dropped)} did not`);
  return parts.join(", ");
}

/** The parts of a lane's tower steps, each kind as one path on a field of 1000 x 20. */
function pathsOf(lane, { from, to }) {
  const paths = { wait: "", push: "", compute: "", late: "", lost: "" };
  const add = (kind, begin, micros, top, height) => {
    const x = clamp(((begin - from) / (to - from)) * 1000, 0, 1000);
    const end = clamp(((begin + micros - from) / (to - from)) * 1000, 0, 1000);
    if (end > x) paths[kind] += `M${x.toFixed(1)} ${top}H${end.toFixed(1)}V${top + height}H${x.toFixed(1)}Z`;
  };
  for (const step of lane.steps) {
    const given = step[STEP.given];
    if (!step[STEP.counted]) {
      add("lost", given, step[STEP.compute], 2, 16);
      continue;
    }
    add("compute", given, step[STEP.compute], 0, 20);
    add("push", given + step[STEP.compute], step[STEP.push], 0, 20);
    add("wait", arrivedAt(step), step[STEP.wait], 8, 4);
  }
  if (lane.late_with) add("late", lane.late_with.since_micros, to - lane.late_with.since_micros, 1, 18);
  return paths;
}

/** The axis below the lanes: how long before its right end. */
function axis({ from, to }) {
  lanes.axis ??= element("li", { class: "lane axis", "aria-hidden": "true" }, element("span"), svg("svg", { class: "lane-axis" }), element("span"));
  const span = (to - from) / 1e6;
  const wanted = byId("lanes").clientWidth / 200;
  const marks = ticks(0, span, wanted).filter((before) => before < span * 0.97);
  const texts = marks.map((before) => {
    const anchor = before === 0 ? "end" : "middle";
    const text = before === 0 ? "0 s" : `−${Number(before.toPrecision(3))} s`;
    return svg("text", { x: `${(100 * (1 - before / span)).toFixed(1)}%`, y: 12, "text-anchor": anchor }, text);
  });
  lanes.axis.children[1].replaceChildren(...texts);
  return lanes.axis;
}

/** The pattern of what is late, for all lanes. */
function addHatch() {
  const line = svg("path", { class: "hatch", d: "M-2 2L2 -2M0 8L8 0M6 10L10 6" });
  const pattern = svg("pattern", { id: "hatch", width: 8, height: 8, patternUnits: "userSpaceOnUse" }, line);
  document.body.append(svg("svg", { class: "defs", "aria-hidden": "true" }, svg("defs", {}, pattern)));
}
