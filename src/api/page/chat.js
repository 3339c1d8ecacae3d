
// A conversation with the served model. It lives in this page and ends with it.

const chat = { messages: [], running: null };

function prepareChat() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = byId("question");
    const text = question.value.trim();
    if (text === "" || chat.running !== null || byId("send").disabled) return;
    question.value = "";
    answer(text);
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("ask").requestSubmit();
  });
  byId("chat").addEventListener("keydown", (event) => {
    if (event.key === "Escape") chat.running?.abort();
  });
  byId("stop").addEventListener("click", () => chat.running?.abort());
  byId("anew").addEventListener("click", () => {
    chat.running?.abort();
    chat.messages = [];
    for (const turn of byId("talk").querySelectorAll(".turn")) turn.remove();
    byId("empty").hidden = false;
    byId("anew").disabled = true;
    byId("question").focus();
  });
}

/** Only a model that generates can be talked to, and only once it is loaded. */
function allowChat(serving) {
  const mute = serving !== null && serving.kind !== "chat";
  say(byId("mute"), mute ? `This model does not generate text (${serving.kind}): there is nobody to talk to.` : "");
  byId("mute").hidden = !mute;
  byId("talk").hidden = byId("ask").hidden = mute;
  byId("send").disabled = serving === null;
}

function turn(role, name) {
  const element = make("article", { class: `turn ${role}` }, make("h3", {}, name));
  byId("empty").hidden = true;
  byId("talk").append(element);
  return element;
}

async function answer(question) {
  const body = { messages: [], stream: true, stream_options: { include_usage: true } };
  const system = byId("system").value.trim();
  if (system !== "") body.messages.push({ role: "system", content: system });
  const temperature = byId("temperature").valueAsNumber;
  if (!Number.isNaN(temperature)) body.temperature = temperature;
  const most = byId("most").valueAsNumber;
  if (!Number.isNaN(most)) body.max_tokens = most;

  const asked = { role: "user", content: question };
  const own = make("div", { class: "prose" });
  turn("user", "You").append(own);
  const prose = new Prose(own);
  prose.append(question);
  prose.show();
  const view = new Answer(turn("assistant", byId("model").textContent));
  const past = chat.messages;
  body.messages.push(...past, asked);

  chat.running = new AbortController();
  busy(true);
  announce("Answering.");
  let failure = null;
  try {
    const { id, events } = await stream("/v1/chat/completions", body, chat.running.signal);
    view.id = id;
    for await (const event of events) view.take(event);
  } catch (error) {
    failure = error;
  }
  const stopped = chat.running.signal.aborted;
  chat.running = null;
  busy(false);
  announce(view.close(failure, stopped));
  if (failure instanceof KeyWanted) askForKey(failure.message);
  // What was said before "New chat" belongs to no conversation any more; what failed unanswered is not repeated.
  if (chat.messages === past && view.text !== "") {
    chat.messages = [...past, asked, { role: "assistant", content: view.text }];
  }
}

/** One answer as it grows. */
class Answer {
  constructor(element) {
    this.element = element;
    this.began = performance.now();
    this.body = make("div", { class: "prose" });
    element.append(this.body);
    element.setAttribute("aria-busy", "true");
    this.prose = new Prose(this.body);
    this.finish = null;
    this.timings = null;
    follow(() => {});
  }

  get text() {
    return this.prose.text.trim();
  }

  take(event) {
    const [choice] = event.choices;
    this.timings = event.timings ?? this.timings;
    if (!choice) return;
    this.finish = choice.finish_reason ?? this.finish;
    const { content, reasoning_content: reasoning } = choice.delta;
    follow(() => {
      if (reasoning) this.think(reasoning);
      if (content) {
        this.thought();
        // Templates leave empty lines before the answer.
        this.prose.append(this.prose.text === "" ? content.trimStart() : content);
      }
    });
  }

  think(piece) {
    if (!this.reasoning) {
      const inside = make("div", { class: "prose" });
      this.summary = make("summary", {}, "Reasoning …");
      this.body.before(make("details", { class: "reasoning" }, this.summary, inside));
      this.reasoning = new Prose(inside);
    }
    this.reasoning.append(this.reasoning.text === "" ? piece.trimStart() : piece);
  }

  thought() {
    if (!this.reasoning || this.reasoned) return;
    this.reasoned = true;
    this.reasoning.show();
    say(this.summary, `Reasoned for ${milliseconds(performance.now() - this.began)}`);
  }

  /** What is to be announced. */
  close(failure, stopped) {
    follow(() => {
      this.thought();
      this.prose.show();
    });
    this.element.removeAttribute("aria-busy");
    const speed = this.timings?.predicted_per_second;
    const parts = [
      stopped ? "stopped" : failure ? `failed: ${failure.message}` : this.finish === "length" ? "cut at the most tokens" : null,
      this.timings ? `${whole(this.timings.predicted_n)} tokens` : null,
      Number.isFinite(speed) ? `${pace(speed)} tokens/s` : null,
      this.id ?? null,
    ].filter((part) => part !== null);
    const end = make("p", { class: failure && !stopped ? "end bad" : "end" }, parts.join(" · "));
    follow(() => this.element.append(end));
    return stopped ? "Stopped." : failure ? `Failed: ${failure.message}` : "Answer complete.";
  }
}

function busy(running) {
  const focus = document.activeElement;
  const hadFocus = focus === byId("send") || focus === byId("stop");
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  byId("anew").disabled = false;
  // A focus must not fall off the page with its button.
  if (hadFocus) (running ? byId("stop") : byId("question")).focus();
}

function announce(text) {
  say(byId("said"), text);
}

/** Stays at the end of the conversation if the reader is there. */
function follow(change) {
  const talk = byId("talk");
  const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 60;
  change();
  if (atEnd) requestAnimationFrame(() => talk.scrollTo(0, talk.scrollHeight));
}
