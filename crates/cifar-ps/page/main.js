// Listens to the server and draws what it says.

/** A long curve changes slowly, and is most of what there is to draw: milliseconds between two drawings. */
const CURVES_EVERY = 10000;

/** A shorter one is drawn whenever it changes. */
const LONG_CURVE = 60;

/** A stream that was refused is asked for again after this, in milliseconds. */
const ASK_AGAIN = 2000;

const run = new Run();
let is_connected = true;
let is_due = false;
let curves_drawn = -Infinity;
let curves_timer = null;

/** Draws before the browser next does: never while nobody looks. */
function draw() {
  if (is_due) return;
  is_due = true;
  requestAnimationFrame(() => {
    is_due = false;
    drawTop(run, is_connected);
    drawNotice(run);
    if (!run.message) return;
    drawTiles(run);
    drawCurves();
    drawPhases(run);
    drawLanes(run);
    drawEvents(run);
    drawPictures(run);
    drawSettings(run);
    document.body.dataset.drawnStep = run.view.global_step;
  });
}

function drawCurves() {
  const rest = run.isLongAndGrowing(LONG_CURVE) ? CURVES_EVERY : 0;
  const wait = curves_drawn + rest - performance.now();
  if (wait > 0) {
    // Also if nothing comes any more.
    curves_timer ??= setTimeout(draw, wait);
    return;
  }
  clearTimeout(curves_timer);
  curves_timer = null;
  curves_drawn = performance.now();
  drawCharts(run);
}

function listen() {
  const events = new EventSource("events");
  events.onmessage = (event) => {
    is_connected = true;
    run.take(JSON.parse(event.data));
    draw();
  };
  events.onerror = () => {
    is_connected = false;
    draw();
    // A browser asks again by itself unless it was refused.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, ASK_AGAIN);
  };
}

addHatch();
listen();
