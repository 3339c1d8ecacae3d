// What users of Anthropic's JavaScript client rely on.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const model = process.env.MODEL;
const baseURL = process.env.BASE_URL.replace(/\/v1$/, "");
const client = new Anthropic({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [
  { role: "user", content: "What is the capital of France? Answer in one word." },
];
const body = { model, messages, temperature: 0, max_tokens: 32 };

test("the capital of France is Paris, whole and streamed", async () => {
  const whole = await client.messages.create(body);
  assert.match(whole.content[0].text, /Paris/);
  assert.equal(whole.stop_reason, "end_turn");
  assert.match(whole._request_id, /^req_/);
  const stream = client.messages.stream(body);
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.equal(final.stop_reason, "end_turn");
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test("counted tokens are the prompt's", async () => {
  const { input_tokens } = await client.messages.countTokens({ model, messages });
  const { usage } = await client.messages.create({ ...body, max_tokens: 1 });
  assert.equal(
    input_tokens,
    usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
  );
});

test("errors are of the client's classes", async () => {
  await assert.rejects(client.messages.create({ ...body, max_tokens: 0 }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, "invalid_request_error");
    return true;
  });
  await assert.rejects(client.messages.create({ ...body, model: "none" }), Anthropic.NotFoundError);
});

test("a stream that is given up leaves a server that answers", async () => {
  const stream = await client.messages.create({ ...body, max_tokens: 400, stream: true });
  for await (const event of stream) if (event.type === "content_block_delta") break;
  assert.match((await client.messages.create(body)).content[0].text, /Paris/);
});
