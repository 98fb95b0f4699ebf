// Listens to the server and draws what it says.

/**
 * Milliseconds between two drawings of what changes slowly and is most of the work: the curves of a long
 * run, the pictures, the title of the window: at every second message. The page may be open on the cores
 * that train.
 */
const SLOW_PARTS_EVERY = 9000;

/** The curves of a shorter run are drawn whenever they change, and the rest with them. */
const LONG_CURVE = 60;

/** A stream that was refused is asked for again after this, in milliseconds. */
const ASK_AGAIN = 2000;

const run = new Run();
let is_connected = true;
let is_due = false;
let slow_parts_drawn = -Infinity;
let slow_parts_timer = null;

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
    drawPhases(run);
    drawLanes(run);
    drawEvents(run);
    drawSettings(run);
    drawSlowParts();
    document.body.dataset.drawnStep = run.view.global_step;
  });
}

function drawSlowParts() {
  const rest = run.isLongAndGrowing(LONG_CURVE) ? SLOW_PARTS_EVERY : 0;
  const wait = slow_parts_drawn + rest - performance.now();
  clearTimeout(slow_parts_timer);
  if (wait > 0) {
    // Also if nothing comes any more.
    slow_parts_timer = setTimeout(draw, wait);
    return;
  }
  slow_parts_drawn = performance.now();
  drawCharts(run);
  drawPictures(run);
  drawTitle(run);
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
