// What is known of the run: the first message whole, then what changes.

const POINT = { step: 0, loss: 1, lowest: 2, highest: 3, rate: 4, speed: 5, at: 6 };
const STEP = { given: 0, compute: 1, push: 2, wait: 3, step: 4, tower: 5, counted: 6 };

/** Tower steps and happenings that are kept; the server keeps no more either. */
const KEPT_STEPS = 60;
const KEPT_EVENTS = 100;

class Run {
  constructor() {
    this.message = null;
    this.points = [];
    this.lanes = new Map();
    this.events = new Map();
    this.scores = [];
    this.facts = null;
    this.samples = [];
    this.filters = null;
    this.heard = 0;
  }

  /** Takes in a message of the server. */
  take(message) {
    const { view } = message;
    if (view.is_whole) Object.assign(this, new Run());
    this.message = message;
    this.heard = performance.now();
    this.points.splice(view.curve.from, Infinity, ...view.curve.points);
    this.takeWorkers(view.workers);
    for (const event of view.happenings) {
      this.events.delete(event.id);
      this.events.set(event.id, event);
    }
    while (this.events.size > KEPT_EVENTS) this.events.delete(this.events.keys().next().value);
    this.scores = view.scores ?? this.scores;
    this.facts = view.run ?? this.facts;
    this.samples = message.samples.map((picture, number) => picture ?? this.samples[number] ?? null);
    this.filters = message.filters ?? this.filters;
  }

  takeWorkers(workers) {
    const before = this.lanes;
    this.lanes = new Map();
    for (const worker of workers) {
      const steps = [...(before.get(worker.id)?.steps ?? []), ...worker.steps];
      this.lanes.set(worker.id, { ...worker, steps: steps.slice(-KEPT_STEPS) });
    }
  }

  get view() {
    return this.message.view;
  }

  get live() {
    return this.message.live;
  }

  /** The server's time, in microseconds since 1970. */
  now() {
    return this.message.now_micros + (performance.now() - this.heard) * 1000;
  }

  isOver() {
    return ["complete", "stopped", "diverged"].includes(this.view.state);
  }

  /** Whether nothing will follow: the run has come to its end, or nobody but a viewer told of it, who has left. */
  isAllTold() {
    if (!this.message?.is_last) return false;
    return ["complete", "diverged"].includes(this.view.state) || !this.live;
  }

  isLongAndGrowing(length) {
    return !this.isOver() && this.points.length > length;
  }

  /** Workers that take part. */
  active() {
    return [...this.lanes.values()].filter((lane) => lane.state === "active");
  }

  stragglers() {
    return this.active().filter((lane) => lane.slowness?.is_straggler || lane.late_with);
  }

  /** Median time of a step in microseconds, or nothing. */
  stepMicros() {
    return this.view.median_step?.median_micros ?? null;
  }

  /** Time until the last step in microseconds, if that can be told. */
  remainingMicros() {
    const { view, live, facts } = this;
    if (!live || !facts || this.isOver() || !(view.examples_per_sec > 0)) return null;
    const steps = Math.max(0, live.max_steps - view.global_step);
    return (steps * facts.examples_per_update * 1e6) / view.examples_per_sec;
  }
}
