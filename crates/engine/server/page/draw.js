// Elements, and what charts are made of. Text is always set as text: nothing that a worker calls
// itself can become markup.

const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);

/** An element with attributes and children, which are elements or text. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Sets the text of an element if it is another than before: a page at rest is not drawn anew. */
function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function setAttributes(place, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (place.getAttribute(key) !== String(value)) place.setAttribute(key, value);
  }
}

/** About so many round numbers from low to high. */
function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const found = [];
  // Counted: adding to a number of more than 16 digits may leave it as it is.
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  for (let more = 0; more <= last - first; more += 1) {
    found.push(Number(((first + more) * step).toPrecision(12)));
  }
  return found;
}

/** A path through points; where a number is missing it is interrupted. */
function pathThrough(points) {
  let path = "";
  let is_interrupted = true;
  for (const [x, y] of points) {
    if (Number.isFinite(y)) {
      path += `${is_interrupted ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      is_interrupted = false;
    } else {
      is_interrupted = true;
    }
  }
  return path;
}
