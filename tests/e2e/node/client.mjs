// What an ordinary program in another language does, with OpenAI's own client: it prints what came of it.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "sk-any", maxRetries: 0 });
const model = "simulated";
const told = {};

const plain = await client.responses.create({ model, input: "Hello" });
told.plain = plain.output_text;

const stream = client.responses.stream({ model, input: "Hello" });
const types = [];
let deltas = "";
stream.on("event", (event) => types.push(event.type));
stream.on("response.output_text.delta", (event) => { deltas += event.delta; });
const streamed = await stream.finalResponse();
told.streamed = { text: streamed.output_text, deltas, first: types[0], last: types.at(-1) };

const again = client.responses.stream({ response_id: streamed.id, starting_after: 2 });
const numbers = [];
again.on("event", (event) => numbers.push(event.sequence_number));
told.again = { text: (await again.finalResponse()).output_text, first: numbers[0] };

const City = z.object({ name: z.string(), inhabitants: z.number().int() });
const parsed = await client.responses.parse({
  model, input: "A city, please.", text: { format: zodTextFormat(City, "city") },
});
told.parsed = parsed.output_parsed;

const tools = [{
  type: "function", name: "get_weather", strict: true, description: "The weather of a city.",
  parameters: {
    type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
  },
}];
const called = await client.responses.create({ model, input: "How is the weather?", tools });
const call = called.output.find((item) => item.type === "function_call");
const answered = await client.responses.create({
  model, tools, previous_response_id: called.id,
  input: [{ type: "function_call_output", call_id: call.call_id, output: "Sunny." }],
});
told.tool = { arguments: JSON.parse(call.arguments), text: answered.output_text };

const custom = await client.responses.create({
  model, input: "Go.", tools: [{ type: "custom", name: "sql", description: "Run SQL." }],
});
told.custom = custom.output.map((item) => [item.type, item.name, typeof item.input]);

const background = await client.responses.create({ model, input: "Hello", background: true });
let state = background;
for (let look = 0; look < 600 && ["queued", "in_progress"].includes(state.status); look += 1) {
  await new Promise((resolve) => setTimeout(resolve, 50));
  state = await client.responses.retrieve(background.id);
}
told.background = state.status;

const items = [];
for await (const item of client.responses.inputItems.list(plain.id)) items.push(item.content[0].text);
told.items = items;

told.tokens = (await client.responses.inputTokens.count({ model, input: "Hello" })).input_tokens > 0;
const compacted = await client.responses.compact({ model, input: [{ role: "user", content: "Hello" }] });
told.compacted = compacted.output.map((item) => item.type);

const conversation = await client.conversations.create({ items: [{ role: "user", content: "I am Ada." }] });
const within = await client.responses.create({ model, input: "Who am I?", conversation: conversation.id });
told.conversation = within.conversation.id === conversation.id;
const remembered = [];
for await (const item of client.conversations.items.list(conversation.id, { order: "asc" })) {
  remembered.push(item.role);
}
told.remembered = remembered;

await client.responses.delete(plain.id);
told.gone = await client.responses.retrieve(plain.id).then(() => "there", (error) => error.status);
told.refused = await client.responses.create({ model, temperature: 3 }).then(
  () => "taken", (error) => [error.status, error.param, error.code, typeof error.requestID],
);
told.models = (await client.models.list()).data.map((one) => one.id).includes(model);

console.log(JSON.stringify(told));
