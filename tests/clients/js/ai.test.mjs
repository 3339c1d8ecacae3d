// What users of the AI SDK rely on, with its provider for servers like this one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, jsonSchema, streamText } from "ai";

const provider = createOpenAICompatible({
  name: "here",
  baseURL: process.env.BASE_URL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const ask = {
  model: provider(process.env.MODEL),
  prompt: "What is the capital of France? Answer in one word.",
  temperature: 0,
  maxOutputTokens: 32,
  maxRetries: 0,
};

test("a text, whole and streamed, with its usage", async () => {
  const whole = await generateText(ask);
  assert.match(whole.text, /Paris/);
  assert.equal(whole.finishReason, "stop");
  const stream = streamText(ask);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
});

test("an object of a schema", async () => {
  const schema = jsonSchema({
    type: "object",
    properties: { tame: { type: "boolean" } },
    required: ["tame"],
    additionalProperties: false,
  });
  const { object } = await generateObject({ ...ask, prompt: "Describe a cat.", schema });
  assert.equal(typeof object.tame, "boolean");
});

test("an error says what was wrong", async () => {
  await assert.rejects(generateText({ ...ask, temperature: 9 }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /^temperature: expected/);
    return true;
  });
});
