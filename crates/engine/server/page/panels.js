// Everything besides curves and lanes: the top line, numbers, parts of a step, events, pictures.

/** How each kind of event is called and marked. */
const KINDS = {
  start: ["server started", "plain"],
  rewind: ["went back", "warn"],
  joined: ["joined", "good"],
  left: ["left", ""],
  lost: ["lost", "bad"],
  overdue: ["overdue", "warn"],
  dropped: ["dropped", "warn"],
  in_doubt: ["in doubt", "bad"],
  differed: ["differed", "bad"],
  quarantined: ["quarantine", "bad"],
  checkpoint: ["checkpoint", "plain"],
  stood_still: ["stood still", "warn"],
  end: ["server left", ""],
};

const EVENTS_SHOWN = 60;

/** A server that says nothing for so long may have been killed, in microseconds. */
const SILENCE = 30e6;

/** What the top line says of the run, and in which colour. */
function stateOf(run, link) {
  const is_lost = link.lost_at !== null;
  if (!run.message) return is_lost ? ["no server", "bad"] : ["connecting", ""];
  const { state } = run.view;
  if (state === "complete") return ["complete", "complete"];
  if (state === "stopped") return ["stopped", ""];
  if (state === "diverged") return ["diverged", "bad"];
  if (is_lost) return ["no connection", "bad"];
  if (link.is_over) return ["disconnected", ""];
  if (run.message.reading !== null) return ["reading the ledger", ""];
  if (state === "empty") return ["not begun", ""];
  if (run.live) return run.active().length > 0 ? ["training", "running"] : ["waits for workers", ""];
  return run.now() - run.view.last_micros > SILENCE ? ["silent", ""] : ["running", "running"];
}

function activityOf(run, link) {
  if (link.is_over) return "server stopped";
  if (link.lost_at !== null) {
    return `no server since ${format.clock(link.lost_at * 1000)}; retrying, next at ${format.clock(link.next_at * 1000)}`;
  }
  if (!run.message) return "";
  const { view, live, message } = run;
  if (message.reading !== null) return `${Math.floor(100 * message.reading)} % of it`;
  if (run.isOver() || !live) {
    return view.last_micros > 0 ? `last update ${format.clock(view.last_micros)}` : "";
  }
  const late = run.active().filter((lane) => lane.late_with);
  if (late.length > 0) return `waits for worker ${late.map((lane) => lane.number).join(", ")}`;
  return "";
}

function drawTop(run, link) {
  const [state, kind] = stateOf(run, link);
  const pill = byId("state");
  setText(pill, state);
  setAttributes(pill, { class: `pill ${kind}` });
  setText(byId("activity"), activityOf(run, link));
  document.body.classList.toggle("complete-run", state === "complete");
  if (!run.message) return;
  const { view, live, facts } = run;
  const data = facts?.settings.find(([name]) => name === "data set")?.[1];
  setText(byId("title"), data ? `cifar-ps · ${data}` : "cifar-ps");
  const all = live?.max_steps ?? (view.state === "complete" ? view.global_step : null);
  const done = all ? Math.min(1, view.global_step / all) : 0;
  byId("progress-done").style.width = `${(100 * done).toFixed(1)}%`;
  setAttributes(byId("progress"), { "aria-valuenow": Math.round(100 * done) });
  const remaining = run.remainingMicros();
  const left = remaining === null ? "" : `, about ${format.duration(remaining)} left`;
  const steps = all ? `step ${format.count(view.global_step)} of ${format.count(all)}` : `step ${format.count(view.global_step)}`;
  setText(byId("remaining"), `${steps}${left}`);
}

/** The title of the window. A browser writes each one down in its history. */
function drawTitle({ view }) {
  const loss = view.loss === null ? "" : ` · total loss ${format.loss(view.loss)}`;
  document.title = `step ${format.count(view.global_step)}${loss} · cifar-ps`;
}

function drawNotice(run) {
  const notice = byId("notice");
  const problem = run.message?.problem;
  const text = problem ? `The ledger cannot be read any further: ${problem}` : damageOf(run.message?.view?.damage);
  notice.hidden = !text;
  setText(notice, text);
}

/** What is missing on the page because lines of the ledger were skipped. */
function damageOf(damage) {
  if (!damage?.num_lines) return "";
  const { line, offset, reason } = damage.first[0];
  const lines = damage.num_lines === 1 ? "1 damaged line" : `${format.count(damage.num_lines)} damaged lines`;
  const first = `line ${format.count(line)}, at byte ${format.count(offset)}: ${reason}`;
  return `The ledger has ${lines}, and what stood there is missing here (${first}). Run cifar-ps verify to see what is proven.`;
}

/** How to see the run again, once nobody shows it here any more. */
function drawAgain(run, link) {
  const place = byId("again");
  place.hidden = !link.is_over;
  if (!link.is_over) return;
  const { host, view_command } = run.message;
  setText(byId("again-host"), host);
  setText(byId("again-command"), view_command);
}

function drawTiles(run) {
  const { view, facts } = run;
  const best = run.scores.reduce((found, score) => Math.max(found, score.precision_at_1), 0);
  const last = run.scores.at(-1);
  const workers = run.isOver() ? run.lanes.size : run.active().length;
  const stragglers = run.stragglers();
  const epoch = facts ? (view.global_step * facts.examples_per_update) / facts.num_train_examples : 0;
  const tiles = [
    ["Total loss", view.loss === null ? "–" : format.loss(view.loss), "", `with weight decay${facts ? `, epoch ${epoch.toFixed(epoch < 10 ? 2 : 1)}` : ""}`],
    ["Precision @ 1", last ? last.precision_at_1.toFixed(4) : "–", "", last ? `step ${format.count(last.global_step)}, best ${best.toFixed(4)}` : "not scored yet"],
    ["Examples per second", view.examples_per_sec > 0 ? format.count(view.examples_per_sec) : "–", "", facts ? `${format.count(facts.examples_per_update)} a step` : ""],
    ["Time of a step", run.stepMicros() === null ? "–" : format.millis(run.stepMicros()).replace(" ms", ""), run.stepMicros() === null ? "" : "ms", `trained for ${format.duration(view.trained_micros)}`],
    ["Learning rate", view.learning_rate === null ? "–" : format.short(view.learning_rate), "", view.checkpoint === null ? "no checkpoint yet" : `checkpoint of step ${format.count(view.checkpoint)}`],
    ["Workers", format.count(workers), "", run.isOver() ? "took part" : stragglerText(stragglers), stragglers.length > 0],
  ];
  const place = byId("tiles");
  while (place.children.length < tiles.length) place.append(newTile());
  tiles.forEach(([name, number, unit, aside, is_bad], index) => {
    const [dt, dd, more] = place.children[index].children;
    setText(dt, name);
    setText(dd.firstChild, number);
    setText(dd.lastChild, unit ? ` ${unit}` : "");
    setText(more, aside);
    more.classList.toggle("bad", Boolean(is_bad));
  });
}

function newTile() {
  const number = element("dd", { class: "number" }, element("span"), element("small"));
  return element("div", { class: "tile" }, element("dt"), number, element("dd", { class: "aside" }));
}

function stragglerText(stragglers) {
  if (stragglers.length === 0) return "no straggler";
  const numbers = stragglers.slice(0, 3).map((lane) => lane.number).join(", ");
  const more = stragglers.length > 3 ? ` and ${stragglers.length - 3} more` : "";
  return `${stragglers.length === 1 ? "straggler" : "stragglers"}: ${numbers}${more}`;
}

/** Who is at work in each part of a step, in the order in which the server tells them. */
const PART_KINDS = ["idle", "", "travel", "server", "server", "server", "server"];

function drawPhases(run) {
  const step = run.view.median_step;
  byId("phases-none").hidden = step !== null;
  setText(byId("phases-whole"), step ? `median ${format.millis(step.median_micros)}` : "");
  const place = byId("phases-list");
  const parts = step?.parts ?? [];
  while (place.children.length < parts.length) place.append(newPhase(PART_KINDS[place.children.length] ?? ""));
  parts.forEach((part, index) => {
    const share = part.median_micros / Math.max(1, step.median_micros);
    const [name, bar] = place.children[index].children;
    setText(name.firstChild, part.name);
    setText(name.lastChild, format.millis(part.median_micros));
    setAttributes(bar.lastChild, { width: Math.min(100, 100 * share).toFixed(1) });
  });
}

function newPhase(kind) {
  const bar = svg("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(svg("rect", { class: "bar-track", width: 100, height: 6 }), svg("rect", { class: `bar-part ${kind}`, height: 6, width: 0 }));
  return element("li", {}, element("p", { class: "name" }, element("span"), element("span")), bar);
}

function drawEvents(run) {
  const events = [...run.events.values()].reverse().slice(0, EVENTS_SHOWN);
  byId("events-none").hidden = events.length > 0;
  setText(byId("events-counts"), countsOf(run.view.counts));
  const place = byId("events");
  place.hidden = events.length === 0;
  const shown = events.map((event) => `${event.id}:${event.times}`).join(" ");
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  place.replaceChildren(...events.map(eventItem));
}

function eventItem(event) {
  const [name, kind] = KINDS[event.kind] ?? [event.kind, ""];
  const text = element("p", { class: "text" }, event.text);
  if (event.times > 1) text.append(" ", element("span", { class: "times" }, `× ${format.count(event.times)}`));
  const at = format.date(event.at_micros);
  const time = element("time", { datetime: at.toISOString(), title: at.toLocaleString("en-CA") }, at.toLocaleTimeString("en-GB"));
  return element("li", {}, time, element("p", { class: `kind ${kind}` }, name), text);
}

function countsOf(counts) {
  const dropped = counts.stale + counts.duplicate + counts.ahead + counts.other_state;
  const all = [[counts.accepted, "gradients counted"], [dropped, "dropped"], [counts.overdue, "overdue"], [counts.lost, "lost"]];
  return all.filter(([number], index) => index === 0 || number > 0).map(([number, what]) => `${format.count(number)} ${what}`).join(" · ");
}

function drawPictures(run) {
  const { samples, filters } = run;
  const place = byId("samples");
  while (place.children.length < samples.length) {
    place.append(element("img", { alt: `Distorted training image ${place.children.length + 1}`, hidden: "" }));
  }
  samples.forEach((src, number) => showPicture(place.children[number], src, () => {}));
  byId("samples-none").hidden = samples.some((src) => src !== null);
  byId("filters-none").hidden = filters !== null;
  const step = filters === null ? "" : `checkpoint of step ${format.count(filters.global_step)}`;
  showPicture(byId("filters"), filters?.src ?? null, () => setText(byId("filters-step"), step));
}

/** Shows a picture once the browser can draw it; until then, and if it never can, the one before stays. */
function showPicture(image, src, then) {
  if (image.dataset.wanted === (src ?? "")) return;
  image.dataset.wanted = src ?? "";
  if (src === null) {
    image.hidden = true;
    return;
  }
  const next = new Image();
  next.onload = () => {
    if (image.dataset.wanted !== src) return;
    image.src = src;
    image.hidden = false;
    then();
  };
  next.src = src;
}

function drawSettings(run) {
  const { facts } = run;
  byId("settings-none").hidden = facts !== null;
  setText(byId("version"), facts ? `cifar-ps ${facts.version}` : "");
  const place = byId("settings");
  const shown = JSON.stringify(facts?.settings ?? []);
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  const rows = (facts?.settings ?? []).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  place.replaceChildren(...rows);
}
