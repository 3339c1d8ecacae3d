// Tool calls that are demanded, with a template that has them and shows examples of calls one to three.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const model = process.env.MODEL;
const baseURL = process.env.BASE_URL;
const schema = {
  type: "object",
  properties: { state: { enum: ["on", "off"] } },
  required: ["state"],
  additionalProperties: false,
};
const messages = [{ role: "user", content: "Use tool four." }];

test("OpenAI's client streams a call whose arguments are JSON", async () => {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const stream = client.chat.completions.stream({
    model,
    messages,
    temperature: 0,
    max_tokens: 100,
    tools: [{ type: "function", function: { name: "light", parameters: schema } }],
    tool_choice: "required",
    parallel_tool_calls: false,
  });
  const { choices } = await stream.finalChatCompletion();
  assert.equal(choices[0].finish_reason, "tool_calls");
  const [call] = choices[0].message.tool_calls;
  assert.equal(call.function.name, "light");
  assert.ok(["on", "off"].includes(JSON.parse(call.function.arguments).state));
});

test("Anthropic's client streams a call with its input", async () => {
  const client = new Anthropic({
    baseURL: baseURL.replace(/\/v1$/, ""),
    apiKey: "none",
    maxRetries: 0,
  });
  const stream = client.messages.stream({
    model,
    messages,
    temperature: 0,
    max_tokens: 100,
    tools: [{ name: "light", input_schema: schema }],
    tool_choice: { type: "any", disable_parallel_tool_use: true },
  });
  const message = await stream.finalMessage();
  assert.equal(message.stop_reason, "tool_use");
  const call = message.content.at(-1);
  assert.match(call.id, /^toolu_/);
  assert.ok(["on", "off"].includes(call.input.state));
});

const provider = createOpenAICompatible({ name: "here", baseURL, includeUsage: true });
const light = (ran) =>
  tool({
    inputSchema: jsonSchema(schema),
    execute: async ({ state }) => {
      ran.push(state);
      return "done";
    },
  });

test("the AI SDK runs a tool and sends its result", async () => {
  const ran = [];
  const { steps } = await generateText({
    model: provider(model),
    messages,
    temperature: 0,
    maxOutputTokens: 100,
    maxRetries: 0,
    tools: { light: light(ran) },
    // The small model need not find its way back to a call.
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    stopWhen: stepCountIs(2),
  });
  assert.equal(steps.length, 2);
  assert.ok(ran.length >= 1 && ran.every((state) => ["on", "off"].includes(state)));
  assert.ok(steps[1].usage.inputTokens > steps[0].usage.inputTokens);
});

test("the AI SDK streams a tool's call", async () => {
  const ran = [];
  const { fullStream } = streamText({
    model: provider(model),
    messages,
    temperature: 0,
    maxOutputTokens: 100,
    maxRetries: 0,
    tools: { light: light(ran) },
    toolChoice: "required",
  });
  const kinds = new Set();
  for await (const part of fullStream) {
    assert.notEqual(part.type, "error", String(part.error));
    kinds.add(part.type);
  }
  for (const kind of ["tool-input-delta", "tool-call", "tool-result", "finish"]) {
    assert.ok(kinds.has(kind), kind);
  }
});
