
// What lies where: a bar of memory for each device, a cell for each layer; the data of `llm-server plan`.

const PLACES = {
  gpu: "on GPU",
  some_experts_on_cpu: "some experts on CPU",
  experts_on_cpu: "experts on CPU",
  mixed: "other tensors on CPU",
  cpu: "on CPU",
};

function showPlan(plan) {
  byId("placement").hidden = plan === null;
  if (plan === null) return;
  const facts = [
    `${size(plan.model.weight_bytes)} of weights`,
    `${whole(plan.context)} tokens × ${plan.parallel}`,
    `KV cache ${plan.kv.k}/${plan.kv.v}`,
    plan.threads === 1 ? "1 thread" : `${plan.threads} threads`,
  ];
  byId("plan").replaceChildren(
    make("p", { class: "quiet" }, facts.join(" · ")),
    ...plan.devices.map(deviceBar),
    ...layerCells(plan),
  );
}

/** Class, name and bytes of what takes memory, in the order of the bar. */
function partsOf(device) {
  const { weights, kv } = device;
  const parts = [
    ["attention", "attention", weights.attention],
    ["dense", "dense", weights.dense],
    ["experts", "experts", weights.experts],
    ["embeddings", "embeddings", weights.embeddings],
    ["output", "output", weights.output],
    ["kv", "KV cache", kv.keys + kv.values + kv.state],
    ["compute", "compute buffers", device.compute],
    ["projector", "projector", device.projector],
    ["draft", "draft", device.draft],
    ["margin", "margin", device.margin],
    ["left", "left free", Math.max(device.left, 0)],
    ["others", "in use by others", device.total - device.free],
  ];
  return parts.filter(([, , bytes]) => bytes > 0);
}

function deviceBar(device) {
  const parts = partsOf(device);
  const legend = parts.map(([kind, name, bytes]) => make("li", { class: kind }, `${name} ${size(bytes)}`));
  if (device.left < 0) legend.push(make("li", { class: "missing" }, `${size(-device.left)} missing`));
  const bar = make("div", { class: "stack", "aria-hidden": "true" });
  for (const [kind, name, bytes] of parts) {
    const part = make("span", { class: kind, title: `${name} ${size(bytes)}` });
    part.style.flexGrow = String(bytes);
    bar.append(part);
  }
  return make(
    "div",
    { class: "device" },
    make(
      "div",
      { class: "head" },
      make("span", {}, make("strong", {}, device.name), make("span", { class: "quiet" }, ` ${device.description}`)),
      make("span", { class: "quiet" }, `${size(device.free)} of ${size(device.total)} were free`),
    ),
    bar,
    make("ul", { class: "legend" }, ...legend),
  );
}

function layerCells(plan) {
  const used = Object.keys(PLACES).filter((place) => plan.layers.some((layer) => layer.place === place));
  const rows = plan.devices.map((device) => {
    const own = plan.layers.filter((layer) => layer.device === device.name);
    if (own.length === 0) return null;
    const numbered = own.filter((layer) => /^\d+$/.test(layer.name));
    const others = own.filter((layer) => !/^\d+$/.test(layer.name)).map((layer) => layer.name);
    const range = numbered.length > 0 ? [`${numbered.length} layers, ${ranges(numbered)}`] : [];
    const cells = own.map((layer, at) =>
      make("span", {
        class: `${layer.place}${at % 10 === 9 ? " tenth" : ""}`,
        title: `${layer.name}: ${layer.device}, ${PLACES[layer.place]}`,
      }),
    );
    return make(
      "div",
      {},
      make("div", { class: "head" }, make("strong", {}, device.name), make("span", { class: "quiet" }, ` ${[...range, ...others].join(", ")}`)),
      make("div", { class: "layers", "aria-hidden": "true" }, ...cells),
    );
  });
  const legend = used.map((place) => make("li", { class: place }, PLACES[place]));
  return [...rows.filter((row) => row !== null), make("ul", { class: "legend" }, ...legend)];
}

/** `0–3, 8` of layers in rising order. */
function ranges(layers) {
  const found = [];
  for (const number of layers.map((layer) => Number(layer.name))) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}
