// What each provider's API answers: one streamed call of the tool `bash`, and after its result a streamed text.
import { crc32 } from "node:zlib";

const TEXT = ["All ", "is ", "done."];

/** The shape that a path asks for, or nothing. */
export function shapeOf(method, path) {
	const plain = path.split("?")[0];
	if (method !== "POST") return undefined;
	if (/\/codex\/responses$/.test(plain)) return "responses";
	if (/\/responses$/.test(plain)) return "responses";
	if (/\/chat\/completions$/.test(plain)) return "completions";
	if (/\/model\/[^/]+\/converse-stream$/.test(plain)) return "converse";
	if (/:streamGenerateContent$/.test(plain)) return "gemini";
	if (/^\/v1\/messages$/.test(plain) && path.includes("radius")) return "pi";
	if (/\/messages$/.test(plain)) return "messages";
	return undefined;
}

/** Whether the conversation has come back with what the tool said. */
export function hasResult(body) {
	return /"tool_result"|"role":"tool"|function_call_output|"functionResponse"|"toolResult"/.test(body);
}

/** The chunks of an answer, as the provider would send them. */
export function answer(shape, finished, command) {
	const args = JSON.stringify({ command });
	return SHAPES[shape](finished, args);
}

const sse = (event) => `data: ${JSON.stringify(event)}\n\n`;
const named = (event) => `event: ${event.type}\n${sse(event)}`;
const halves = (text) => [text.slice(0, 9), text.slice(9)];

export function responses(finished, args) {
	const item = finished
		? { type: "message", id: "msg_1", role: "assistant", status: "completed", content: [{ type: "output_text", text: TEXT.join(""), annotations: [] }] }
		: { type: "function_call", id: "fc_1", call_id: "call_1", name: "bash", arguments: args, status: "completed" };
	const usage = { input_tokens: 5, output_tokens: 5, total_tokens: 10, input_tokens_details: { cached_tokens: 0 } };
	const begun = finished ? { ...item, content: [] } : { ...item, arguments: "" };
	const events = [
		{ type: "response.created", response: { id: "resp_1", status: "in_progress" } },
		{ type: "response.output_item.added", output_index: 0, item: begun },
	];
	if (finished) {
		events.push({ type: "response.content_part.added", item_id: "msg_1", output_index: 0, content_index: 0, part: { type: "output_text", text: "", annotations: [] } });
		for (const delta of TEXT) events.push({ type: "response.output_text.delta", item_id: "msg_1", output_index: 0, content_index: 0, delta });
	} else {
		for (const delta of halves(args)) events.push({ type: "response.function_call_arguments.delta", item_id: "fc_1", output_index: 0, delta });
		events.push({ type: "response.function_call_arguments.done", item_id: "fc_1", output_index: 0, arguments: args });
	}
	events.push({ type: "response.output_item.done", output_index: 0, item });
	events.push({ type: "response.completed", response: { id: "resp_1", status: "completed", output: [item], usage } });
	return events;
}

function messages(finished, args) {
	const block = finished ? { type: "text", text: "" } : { type: "tool_use", id: "toolu_1", name: "bash", input: {} };
	const deltas = finished
		? TEXT.map((text) => ({ type: "text_delta", text }))
		: halves(args).map((part) => ({ type: "input_json_delta", partial_json: part }));
	return [
		{ type: "message_start", message: { id: "msg_1", type: "message", role: "assistant", model: "m", content: [], stop_reason: null, stop_sequence: null, usage: { input_tokens: 5, output_tokens: 1 } } },
		{ type: "content_block_start", index: 0, content_block: block },
		...deltas.map((delta) => ({ type: "content_block_delta", index: 0, delta })),
		{ type: "content_block_stop", index: 0 },
		{ type: "message_delta", delta: { stop_reason: finished ? "end_turn" : "tool_use", stop_sequence: null }, usage: { output_tokens: 5 } },
		{ type: "message_stop" },
	].map(named);
}

function completions(finished, args) {
	const chunk = (delta, finish_reason = null) =>
		sse({ id: "c_1", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason }] });
	const call = (part) => ({ tool_calls: [{ index: 0, ...part }] });
	const begun = call({ id: "call12345", type: "function", function: { name: "bash", arguments: "" } });
	const deltas = finished
		? TEXT.map((content) => ({ content }))
		: [begun, ...halves(args).map((part) => call({ function: { arguments: part } }))];
	return [
		chunk({ role: "assistant", content: "" }),
		...deltas.map((delta) => chunk(delta)),
		chunk({}, finished ? "stop" : "tool_calls"),
		sse({ id: "c_1", object: "chat.completion.chunk", created: 1, model: "m", choices: [], usage: { prompt_tokens: 5, completion_tokens: 5, total_tokens: 10 } }),
		"data: [DONE]\n\n",
	];
}

function gemini(finished, args) {
	const parts = finished
		? TEXT.map((text) => ({ text }))
		: [{ functionCall: { name: "bash", args: JSON.parse(args) } }];
	const usageMetadata = { promptTokenCount: 5, candidatesTokenCount: 5, totalTokenCount: 10 };
	return parts.map((part, at) => sse({
		candidates: [{ index: 0, content: { role: "model", parts: [part] }, ...(at === parts.length - 1 ? { finishReason: "STOP" } : {}) }],
		usageMetadata,
	}));
}

function pi(finished, args) {
	const usage = { input: 5, output: 5, cacheRead: 0, cacheWrite: 0, totalTokens: 10, cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, total: 0 } };
	const toolCall = { type: "toolCall", id: "call_1", name: "bash", arguments: JSON.parse(args) };
	const middle = finished
		? [{ type: "text_start", contentIndex: 0 }, ...TEXT.map((delta) => ({ type: "text_delta", contentIndex: 0, delta })), { type: "text_end", contentIndex: 0, content: TEXT.join("") }]
		: [{ type: "toolcall_start", contentIndex: 0, id: "call_1", toolName: "bash" }, ...halves(args).map((delta) => ({ type: "toolcall_delta", contentIndex: 0, delta })), { type: "toolcall_end", contentIndex: 0, toolCall }];
	return [{ type: "start" }, ...middle, { type: "done", reason: finished ? "stop" : "toolUse", usage, responseId: "r_1" }].map(sse);
}

function converse(finished, args) {
	const delta = (part) => frame("contentBlockDelta", { contentBlockIndex: 0, delta: part });
	const start = finished
		? []
		: [frame("contentBlockStart", { contentBlockIndex: 0, start: { toolUse: { toolUseId: "tool_1", name: "bash" } } })];
	const deltas = finished ? TEXT.map((text) => delta({ text })) : halves(args).map((input) => delta({ toolUse: { input } }));
	return [
		frame("messageStart", { role: "assistant" }),
		...start,
		...deltas,
		frame("contentBlockStop", { contentBlockIndex: 0 }),
		frame("messageStop", { stopReason: finished ? "end_turn" : "tool_use" }),
		frame("metadata", { usage: { inputTokens: 5, outputTokens: 5, totalTokens: 10 }, metrics: { latencyMs: 1 } }),
	];
}

/** One message of AWS's event stream: lengths and checksums around headers and JSON. */
function frame(type, payload) {
	const header = (name, value) => {
		const length = Buffer.alloc(2);
		length.writeUInt16BE(Buffer.byteLength(value));
		return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), Buffer.from([7]), length, Buffer.from(value)]);
	};
	const headers = Buffer.concat([header(":message-type", "event"), header(":event-type", type), header(":content-type", "application/json")]);
	const body = Buffer.from(JSON.stringify(payload));
	const message = Buffer.alloc(16 + headers.length + body.length);
	message.writeUInt32BE(message.length, 0);
	message.writeUInt32BE(headers.length, 4);
	message.writeUInt32BE(crc32(message.subarray(0, 8)), 8);
	headers.copy(message, 12);
	body.copy(message, 12 + headers.length);
	message.writeUInt32BE(crc32(message.subarray(0, message.length - 4)), message.length - 4);
	return message;
}

const SHAPES = {
	responses: (finished, args) => responses(finished, args).map(named),
	messages,
	completions,
	gemini,
	pi,
	converse,
};
