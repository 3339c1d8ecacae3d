
// Elements, and numbers for people. Text enters the page as text only.

const byId = (id) => document.getElementById(id);

/** An element with properties and children; `class` and `data-…`/`aria-…` are attributes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Writes only what changed: a screen reader or a selection is not disturbed every second. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** `10.6 GiB`: three digits, as the command line writes sizes. */
function size(bytes) {
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let scaled = bytes / 1024;
  let unit = 0;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const digits = scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  return `${bytes === 0 ? "0" : scaled.toFixed(digits)} ${units[unit]}`;
}

const whole = (number) => Math.round(number).toLocaleString("en").replaceAll(",", "\u202f");

/** Tokens per second. */
function pace(rate) {
  return rate >= 99.95 ? whole(rate) : rate === 0 ? "0" : rate.toFixed(1);
}

function milliseconds(time) {
  if (time < 999.5) return `${Math.round(time)} ms`;
  return time < 99950 ? `${(time / 1000).toFixed(1)} s` : duration(time / 1000);
}

function duration(seconds) {
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}
