"""GPUs and a model shared between them and the CPU: this machine has none, so the server's answers are given some."""

import pytest

CARD = """{uuid: 'GPU-1', name: 'NVIDIA GeForce RTX 4080 SUPER', pci_bus_id: '00000000:01:00.0',
  memory: {total_bytes: 17171480576, used_bytes: 13958643712, free_bytes: 3212836864},
  utilisation_percent: 96, memory_utilisation_percent: 61, temperature_celsius: 71, power_watts: 288.4, power_limit_watts: 320,
  pcie: {generation: 4, generation_max: 4, width: 16, width_max: 16},
  clocks: {sm_mhz: 2550, sm_max_mhz: 3105, memory_mhz: 11501, memory_max_mhz: 11501},
  throttled_by: ['power_cap'], ecc: {corrected: null, uncorrected: null}, xid: {last: null, count: 0}}"""
LOST = """{uuid: null, name: null, pci_bus_id: null, memory: null, utilisation_percent: null, memory_utilisation_percent: null,
  temperature_celsius: null, power_watts: null, power_limit_watts: null, pcie: {}, clocks: {}, throttled_by: null, ecc: {}, xid: null,
  error: 'GPU is lost'}"""
# A mixture of experts on a card of 16 GB: most experts on the CPU, a part of one layer's, the rest on the card.
AMEND = """
const ask = window.fetch;
const weights = (part) => ({attention: 0, dense: 0, experts: 0, embeddings: 0, output: 0, ...part});
const device = (name, description, total, free, part, kv, left) => ({name, description, total, free, weights: weights(part),
  kv: {keys: kv, values: kv, state: 0}, compute: 851443712, projector: 0, draft: 0, margin: 734003200, used: 0, left});
window.fetch = async (path, ...more) => {
  const answer = await ask(path, ...more);
  if (!answer.ok || !["/status", "/props"].includes(path)) return answer;
  const body = await answer.json();
  if (path === "/status" && body.serving) body.serving.gpus = GPUS;
  if (path === "/props") {
    body.plan.devices = [
      device("CUDA0", "NVIDIA GeForce RTX 4080 SUPER", 17171480576, 16640901120,
        {attention: 1169162240, dense: 421527552, experts: 7927234560, output: 417333248}, 356515840, 4144000000),
      device("host", "AMD Ryzen 9 7950X 16-Core Processor", 66571993088, 61203283968, {experts: 12570329088, embeddings: 286261248}, 0, 47000000000),
    ];
    const place = (at) => at < 24 ? "experts_on_cpu" : at === 24 ? "some_experts_on_cpu" : "gpu";
    body.plan.layers = [...Array(40).keys()].map((at) => ({name: `${at}`, device: "CUDA0", place: place(at), elsewhere: [], bytes: 1}));
    body.plan.layers.push({name: "output", device: "CUDA0", place: "gpu", elsewhere: [], bytes: 1});
  }
  return new Response(JSON.stringify(body), {headers: answer.headers});
};
"""


@pytest.fixture
def amended(browser):
    def amend(gpus):
        source = AMEND.replace("GPUS", gpus)
        added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
        identifiers.append(added["identifier"])
        browser.open()
        browser.ready()
        return browser

    identifiers = []
    yield amend
    for identifier in identifiers:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": identifier})


def test_cards_and_a_placement_on_them_are_shown(amended):
    page = amended(f"[{CARD}, {LOST}]")
    cards = page.text("#gpus")
    for part in ("RTX 4080 SUPER", "13.0 GiB of 16.0 GiB", "96 % busy", "71 °C", "288 of 320 W", "PCIe 4 × 16", "slowed by power cap", "GPU is lost"):
        assert part in cards, part
    plan = page.text("#plan")
    for part in ("CUDA0 40 layers, 0–39, output", "some experts on CPU", "experts 11.7 GiB"):
        assert part in plan, part
    page.shot("gpus-light")
    page.scheme("dark")
    page.shot("gpus-dark")
    assert page.complaints() == []


def test_a_driver_that_does_not_answer_is_said(amended):
    page = amended("null")
    assert page.text("#gpus") == "The driver does not answer."
    assert page.complaints() == []
