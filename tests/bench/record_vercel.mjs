// One recording of Vercel's AI SDK, for `tests/infra/traces/recordings`; the LM is scripted, without a server.
// npm install ai zod @opentelemetry/sdk-trace-node, then: node record_vercel.mjs > vercel.json
import { generateText, stepCountIs, tool } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { z } from "zod";

const exporter = new InMemorySpanExporter();
new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();

const usage = {
  inputTokens: { total: 11, noCache: 11, cacheRead: 0, cacheWrite: 0 },
  outputTokens: { total: 7, text: 7, reasoning: 0 },
};
const call = (n) => ({
  type: "tool-call", toolCallId: `call_${n}`, toolName: "find_order", input: JSON.stringify({ number: n }),
});
const answers = [
  { content: [call(17), call(18)], finishReason: { unified: "tool-calls", raw: "tool_calls" } },
  { content: [{ type: "text", text: "Order 17 is on its way and order 18 is late." }], finishReason: { unified: "stop", raw: "stop" } },
];
await generateText({
  model: new MockLanguageModelV3({
    modelId: "scripted",
    doGenerate: async () => ({ ...answers.shift(), usage, warnings: [] }),
  }),
  system: "You answer questions about orders.",
  prompt: "Where are my orders 17 and 18?",
  stopWhen: stepCountIs(3),
  tools: {
    find_order: tool({
      description: "Find an order by its number.",
      inputSchema: z.object({ number: z.number() }),
      execute: async ({ number }) => `order ${number}: ${number === 17 ? "on its way" : "late"}`,
    }),
  },
  experimental_telemetry: { isEnabled: true, functionId: "support", metadata: { sessionId: "session-7", userId: "ada" } },
});

const nano = ([seconds, nanos]) => `${BigInt(seconds) * 1000000000n + BigInt(nanos)}`;
const value = (one) =>
  Array.isArray(one) ? { arrayValue: { values: one.map(value) } }
  : typeof one === "number" ? (Number.isInteger(one) ? { intValue: `${one}` } : { doubleValue: one })
  : typeof one === "boolean" ? { boolValue: one } : { stringValue: `${one}` };
const spans = exporter.getFinishedSpans().map((s) => ({
  traceId: s.spanContext().traceId, spanId: s.spanContext().spanId, parentSpanId: s.parentSpanContext?.spanId,
  name: s.name, startTimeUnixNano: nano(s.startTime), endTimeUnixNano: nano(s.endTime),
  attributes: Object.entries(s.attributes).map(([key, one]) => ({ key, value: value(one) })),
}));
console.log(JSON.stringify({ resourceSpans: [{ scopeSpans: [{ scope: { name: "ai" }, spans }] }] }, null, 1));
