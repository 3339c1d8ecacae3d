// What users of OpenAI's JavaScript client rely on.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const model = process.env.MODEL;
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "none", maxRetries: 0 });
const messages = [
  { role: "user", content: "What is the capital of France? Answer in one word." },
];
const body = { model, messages, temperature: 0, max_tokens: 32 };

test("the capital of France is Paris, whole and streamed", async () => {
  const whole = await client.chat.completions.create(body);
  assert.match(whole.choices[0].message.content, /Paris/);
  assert.equal(whole.choices[0].finish_reason, "stop");
  const stream = client.chat.completions.stream({ ...body, stream_options: { include_usage: true } });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal((await stream.totalUsage()).completion_tokens, whole.usage.completion_tokens);
});

test("the list of models is iterated to its end", async () => {
  const ids = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  assert.deepEqual(ids, [model]);
});

test("a schema gives an object", async () => {
  const schema = {
    type: "object",
    properties: { tame: { type: "boolean" } },
    required: ["tame"],
    additionalProperties: false,
  };
  const answer = await client.chat.completions.create({
    ...body,
    response_format: { type: "json_schema", json_schema: { name: "cat", strict: true, schema } },
  });
  assert.equal(typeof JSON.parse(answer.choices[0].message.content).tame, "boolean");
});

test("errors are of the client's classes", async () => {
  await assert.rejects(client.chat.completions.create({ ...body, temperature: 9 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(
    client.chat.completions.create({ ...body, model: "none" }),
    OpenAI.NotFoundError,
  );
});

test("a stream that is given up leaves a server that answers", async () => {
  const stream = await client.chat.completions.create({ ...body, max_tokens: 400, stream: true });
  for await (const _ of stream) break;
  assert.match((await client.chat.completions.create(body)).choices[0].message.content, /Paris/);
});
