
// One question a second while somebody looks; less often while nobody answers.

const EVERY_MS = 1000;
const MOST_MS = 5000;

const look = { fingerprint: null, misses: 0, timer: 0 };

async function poll() {
  clearTimeout(look.timer);
  let wait = EVERY_MS;
  try {
    const status = await get("/status");
    await show(status);
    if (status.stage === "loading") wait = EVERY_MS / 2;
    look.misses = 0;
  } catch (error) {
    if (error instanceof KeyWanted) return askForKey(sessionStorage.getItem(KEY) === null ? null : error.message);
    look.misses += 1;
    missing(error);
    wait = Math.min(EVERY_MS * 2 ** (look.misses - 1), MOST_MS);
  }
  // A hidden page asks nothing; the change of visibility asks at once.
  if (!document.hidden) look.timer = setTimeout(poll, wait);
}

async function show(status) {
  byId("door").hidden = true;
  byId("house").hidden = false;
  byId("notice").hidden = true;
  byId("house").classList.remove("away");
  showStatus(status);
  showRecent(status.recent);
  allowChat(status.stage === "ready" ? status.serving : null);
  const fingerprint = status.stage === "ready" ? status.serving.system_fingerprint : null;
  if (fingerprint !== null && fingerprint !== look.fingerprint) {
    const props = await get("/props");
    showPlan(props.plan);
    showIdentity(status, props);
    look.fingerprint = fingerprint;
  } else if (byId("uptime") === null) {
    showIdentity(status, null);
  }
  say(byId("uptime"), duration(status.uptime_s));
}

function missing(error) {
  const notice = byId("notice");
  const stage = byId("stage");
  // One lost answer is no news.
  if (look.misses < 2) return;
  stage.dataset.stage = "away";
  say(stage, "No answer");
  const why = error instanceof Refused ? `The server refuses: ${error.message}.` : "The server does not answer.";
  say(notice, `${why} What is shown is from before; trying again every few seconds.`);
  notice.hidden = false;
  byId("house").classList.add("away");
  byId("send").disabled = true;
}

function askForKey(why) {
  clearTimeout(look.timer);
  sessionStorage.removeItem(KEY);
  byId("house").hidden = true;
  byId("notice").hidden = true;
  byId("stage").dataset.stage = "away";
  say(byId("stage"), "A key is needed");
  if (why !== null) say(byId("door-why"), `Not accepted: ${why}.`);
  byId("door").hidden = false;
  byId("key").focus();
}

byId("door").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  poll();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && byId("door").hidden) poll();
});
prepareRecent();
prepareChat();
poll();
