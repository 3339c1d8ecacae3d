
// The latest requests: who and how, never what.

/** Ends that nobody needs to look into. */
const GOOD = ["stop", "length", "ok", "hung_up"];
/** Rows before somebody asks for all. */
const FEW = 10;

function showRecent(requests) {
  byId("none").hidden = requests.length > 0;
  byId("recent").hidden = requests.length === 0;
  const body = byId("recent").tBodies[0];
  // A selection in the table would be lost with its rows.
  const selection = getSelection();
  if (!selection.isCollapsed && body.contains(selection.anchorNode)) return;
  const more = byId("more");
  const open = more.getAttribute("aria-expanded") === "true";
  more.hidden = requests.length <= FEW;
  say(more, open ? "Show fewer" : `Show all ${requests.length}`);
  body.replaceChildren(...(open ? requests : requests.slice(0, FEW)).map(row));
}

function prepareRecent() {
  byId("more").addEventListener("click", () => {
    const open = byId("more").getAttribute("aria-expanded") === "true";
    byId("more").setAttribute("aria-expanded", String(!open));
    poll();
  });
}

/** A path may be broken at its slashes. */
function breakable(path) {
  return path.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);
}

function row(request) {
  const tokens = [];
  if (request.prompt_tokens > 0) tokens.push(`${whole(request.prompt_tokens)} → ${whole(request.completion_tokens)}`);
  if (request.cached_tokens > 0) tokens.push(make("small", {}, `${whole(request.cached_tokens)} cached`));
  const cell = (kind, ...content) => make("td", { class: kind }, ...content);
  const status = request.status === null || request.status < 400 ? "" : ` ${request.status}`;
  return make(
    "tr",
    {},
    cell("", ...breakable(request.route), make("span", { class: "id code", title: request.id }, request.id)),
    cell(GOOD.includes(request.outcome) ? "" : "bad", request.outcome.replaceAll("_", " ") + status),
    cell("number", ...tokens),
    cell("number", request.ttft_ms === null ? "" : milliseconds(request.ttft_ms)),
    cell("number", milliseconds(request.total_ms)),
    cell("number", `${duration(request.age_s)} ago`),
  );
}
