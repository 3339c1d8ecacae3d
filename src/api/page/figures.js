
// The server's present state in figures, gauges and a trace of the last two minutes.

const STAGES = {
  loading: "Loading the model",
  ready: "Ready",
  draining: "Shutting down: what runs may end",
  failed: "The engine has stopped; the server is about to restart",
};
const TRACE_POINTS = 120;
const trace = [];

function showStatus(status) {
  const stage = byId("stage");
  stage.dataset.stage = status.stage;
  // The percentage moves in the bar; read aloud is only the change of stage.
  say(stage, STAGES[status.stage]);
  const loading = byId("loading");
  loading.hidden = status.stage !== "loading";
  if (status.percent !== null) {
    loading.setAttribute("aria-valuenow", status.percent);
    loading.firstElementChild.style.width = `${status.percent}%`;
  }
  say(byId("model"), status.model);
  document.title = `${status.model} · llm-server`;
  const { serving } = status;
  if (serving === null) return;
  say(byId("running"), whole(serving.running));
  say(byId("sequences"), `of ${serving.sequences}`);
  say(byId("queued"), whole(serving.queued));
  say(byId("queue"), `of ${whole(serving.queue)}`);
  showRate(serving.tokens_per_second);
  level("kv", serving.kv, (used, capacity) => `${whole(used)} of ${whole(capacity)} tokens`);
  level("prefixes", serving.prefix_cache, (used, capacity) => `${size(used)} of ${size(capacity)}`);
  showCards(serving.gpus);
}

function showRate(rate) {
  say(byId("generated"), rate === null ? "–" : pace(rate.generated));
  say(byId("prompted"), rate === null ? "–" : pace(rate.prompt));
  trace.push(rate?.generated ?? 0);
  if (trace.length > TRACE_POINTS) trace.shift();
  const most = Math.max(...trace, 1);
  const peak = Math.max(...trace);
  say(byId("peak"), `tokens/s generated in the last two minutes${peak > 0 ? `, at most ${pace(peak)}` : ""}`);
  const first = TRACE_POINTS - trace.length;
  const points = trace.map((value, at) => `${first + at} ${(31 - (29 * value) / most).toFixed(2)}`);
  const line = `M${points.join("L")}`;
  const path = (name, d) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
    element.setAttribute("class", name);
    element.setAttribute("d", d);
    return element;
  };
  byId("trace").replaceChildren(path("area", `${line}L${TRACE_POINTS - 1} 32L${first} 32Z`), path("line", line));
}

/** A gauge with its amount in words; hidden where there is nothing to measure. */
function level(id, value, words) {
  const element = byId(id);
  element.hidden = value === null || value.capacity === 0;
  if (element.hidden) return;
  const text = words(value.used, value.capacity);
  say(element.querySelector(".amount"), text);
  fill(element.querySelector(".gauge"), value.used, value.capacity, text);
}

function fill(gauge, used, capacity, text) {
  gauge.setAttribute("aria-valuemax", capacity);
  gauge.setAttribute("aria-valuenow", Math.min(used, capacity));
  gauge.setAttribute("aria-valuetext", text);
  gauge.firstElementChild.style.width = `${Math.min((100 * used) / capacity, 100)}%`;
}

function showCards(gpus) {
  byId("cards").hidden = gpus !== null && gpus.length === 0;
  const cards = gpus?.map(card) ?? [make("p", { class: "quiet" }, "The driver does not answer.")];
  byId("gpus").replaceChildren(...cards);
}

function card(gpu) {
  const name = make("strong", {}, gpu.name ?? "GPU");
  if (gpu.error) return make("div", { class: "card" }, name, make("span", { class: "warm" }, gpu.error));
  const facts = [
    gpu.utilisation_percent === null ? null : `${gpu.utilisation_percent} % busy`,
    gpu.temperature_celsius === null ? null : `${gpu.temperature_celsius} °C`,
    gpu.power_watts === null ? null : `${Math.round(gpu.power_watts)}${gpu.power_limit_watts ? ` of ${Math.round(gpu.power_limit_watts)}` : ""} W`,
    gpu.clocks.sm_mhz === null ? null : `${whole(gpu.clocks.sm_mhz)} MHz`,
    gpu.pcie.generation === null ? null : `PCIe ${gpu.pcie.generation} × ${gpu.pcie.width}`,
  ];
  const words = make("div", { class: "facts" }, ...facts.filter((fact) => fact !== null).map((fact) => make("span", {}, fact)));
  const slowed = (gpu.throttled_by ?? []).filter((reason) => reason !== "idle");
  if (slowed.length > 0) words.append(make("span", { class: "warm" }, `slowed by ${slowed.join(", ").replaceAll("_", " ")}`));
  if (gpu.xid?.last) words.append(make("span", { class: "warm" }, `driver error Xid ${gpu.xid.last}`));
  const element = make("div", { class: "card" }, name);
  if (gpu.memory) {
    const text = `${size(gpu.memory.used_bytes)} of ${size(gpu.memory.total_bytes)}`;
    const gauge = make("div", { class: "gauge", role: "meter", "aria-label": `Memory of ${gpu.name ?? "the GPU"}`, "aria-valuemin": "0" }, make("span"));
    fill(gauge, gpu.memory.used_bytes, gpu.memory.total_bytes, text);
    element.append(make("span", { class: "quiet" }, text), gauge);
  }
  element.append(words);
  return element;
}

/** What does not change while a model is served. */
function showIdentity(status, props) {
  const facts = [
    ["Fingerprint", status.serving?.system_fingerprint, "code"],
    ["Version", status.version],
    ["llama.cpp", props?.version?.llama_cpp],
    ["Weights", props?.version?.model?.sha256?.slice(0, 16), "code"],
  ];
  const shown = facts.filter(([, value]) => value !== undefined && value !== null);
  byId("identity").replaceChildren(
    ...shown.map(([name, value, kind]) => make("div", {}, make("dt", {}, name), make("dd", { class: kind ?? "" }, value))),
    make("div", {}, make("dt", {}, "Up for"), make("dd", { id: "uptime" })),
  );
}
