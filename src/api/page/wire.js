
// Asking the server: its key, its errors, and answers that come in events.

const KEY = "llm-server-key";
const PATIENCE_MS = 8000;

/** The server wants a key, or another one. */
class KeyWanted extends Error {}
/** The server answered and said no, in its own words. */
class Refused extends Error {}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key === null ? {} : { authorization: `Bearer ${key}` };
}

async function checked(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const why = body?.error?.message ?? `the server answered with status ${response.status}`;
  throw response.status === 401 ? new KeyWanted(why) : new Refused(why);
}

async function get(path) {
  const answer = fetch(path, { headers: headers(), cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  return (await checked(await answer)).json();
}

/** The events of a stream as they come, and the request's id. */
async function stream(path, body, signal) {
  const response = await checked(
    await fetch(path, {
      method: "POST",
      headers: { ...headers(), "content-type": "application/json" },
      body: JSON.stringify(body),
      signal,
    }),
  );
  return { id: response.headers.get("x-request-id"), events: events(response.body) };
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (!line.startsWith("data: ")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Refused(event.error.message);
      yield event;
    }
  }
  throw new Refused("the answer broke off: the connection was closed");
}
