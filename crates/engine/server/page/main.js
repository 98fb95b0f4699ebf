// Listens to the server and draws what it says.

/**
 * Milliseconds between two drawings of what changes slowly and is most of the work: the curves of a long
 * run, the pictures, the title of the window: at every second message. The page may be open on the cores
 * that train.
 */
const SLOW_PARTS_EVERY = 9000;

/** The curves of a shorter run are drawn whenever they change, and the rest with them. */
const LONG_CURVE = 60;

/** A server that cannot be reached is asked again after this, then after twice as long, up to the longest pause. */
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30000;

const run = new Run();

/** How the page stands with its server; `lost_at` and `next_at` are moments in milliseconds since 1970. */
const link = { is_over: false, lost_at: null, next_at: null, pause: FIRST_PAUSE };

let is_due = false;
let slow_parts_drawn = -Infinity;
let slow_parts_timer = null;

/** Draws before the browser next does: never while nobody looks. */
function draw() {
  if (is_due) return;
  is_due = true;
  requestAnimationFrame(() => {
    is_due = false;
    drawTop(run, link);
    drawNotice(run);
    if (!run.message) return;
    drawAgain(run, link);
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
  const rest = run.isLongAndGrowing(LONG_CURVE) && !link.is_over ? SLOW_PARTS_EVERY : 0;
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
    run.take(JSON.parse(event.data));
    Object.assign(link, { lost_at: null, next_at: null, pause: FIRST_PAUSE });
    if (run.message.is_last) leave(events);
    draw();
  };
  events.onerror = () => {
    leave(events);
    draw();
  };
}

/** The server has left, or cannot be reached: asks again later, unless there is nothing to come. */
function leave(events) {
  // A browser would ask again by itself, once a second and for ever.
  events.close();
  link.is_over = run.isAllTold();
  if (link.is_over) return;
  link.lost_at ??= Date.now();
  link.next_at = Date.now() + link.pause;
  setTimeout(listen, link.pause);
  link.pause = Math.min(2 * link.pause, LONGEST_PAUSE);
}

addHatch();
listen();
