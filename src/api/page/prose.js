
// A model's text as paragraphs and blocks of code; anything else in it stays the text that it is.

/** Paragraphs end at empty lines, code at its fence or, while it streams, at the end. */
function blocks(text) {
  const found = [];
  let code = null;
  let lines = [];
  const flush = () => {
    if (lines.length > 0) found.push({ kind: "p", text: lines.join("\n") });
    lines = [];
  };
  for (const line of text.split("\n")) {
    const fence = /^\s{0,3}(```+|~~~+)/.exec(line)?.[1];
    if (code !== null) {
      if (fence?.startsWith(code.fence) && line.trim() === fence) {
        found.push({ kind: "pre", text: code.lines.join("\n") });
        code = null;
      } else {
        code.lines.push(line);
      }
    } else if (fence) {
      flush();
      code = { fence, lines: [] };
    } else if (line.trim() === "") {
      flush();
    } else {
      lines.push(line);
    }
  }
  flush();
  if (code !== null) found.push({ kind: "pre", text: code.lines.join("\n") });
  return found;
}

/** Text that grows inside `element`; only blocks that changed are made anew. */
class Prose {
  constructor(element) {
    this.element = element;
    this.text = "";
    this.shown = [];
    this.due = 0;
  }

  append(piece) {
    this.text += piece;
    // Once a frame: tokens may come faster than the screen can show them.
    if (this.due === 0) this.due = setTimeout(() => this.show(), document.hidden ? 250 : 30);
  }

  show() {
    clearTimeout(this.due);
    this.due = 0;
    const now = blocks(this.text);
    let same = 0;
    while (same < now.length && now[same].kind === this.shown[same]?.kind && now[same].text === this.shown[same].text) {
      same += 1;
    }
    while (this.element.childElementCount > same) this.element.lastElementChild.remove();
    for (const block of now.slice(same)) this.element.append(drawn(block));
    this.shown = now;
  }
}

function drawn({ kind, text }) {
  if (kind === "pre") return make("pre", { tabIndex: 0, "aria-label": "Code", role: "group" }, make("code", {}, text));
  const parts = text.split(/`([^`\n]+)`/);
  return make("p", {}, ...parts.map((part, at) => (at % 2 === 1 ? make("code", {}, part) : part)));
}
