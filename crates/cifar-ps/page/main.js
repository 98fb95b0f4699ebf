// Listens to the server and draws what it says.

/** A stream that was refused is asked for again after this, in milliseconds. */
const ASK_AGAIN = 2000;

const run = new Run();
let is_connected = true;
let is_due = false;

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
    drawCharts(run);
    drawPhases(run);
    drawLanes(run);
    drawEvents(run);
    drawPictures(run);
    drawSettings(run);
    document.body.dataset.drawnStep = run.view.global_step;
  });
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
