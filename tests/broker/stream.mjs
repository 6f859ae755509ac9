// How late each chunk of a stream arrives, through the broker and directly, in milliseconds.
//
// Usage: stream.mjs BROKER:PORT COUNT < summary.json
import http from "node:http";
import https from "node:https";
import { readFileSync } from "node:fs";

const [broker, count] = process.argv.slice(2);
const placeholder = JSON.parse(readFileSync(0, "utf8")).routes.find((one) => one.provider === "anthropic").placeholder;
const headers = { "x-api-key": placeholder, "x-want-chunks": count, "content-length": 2 };
const through = () => http.request(`http://${broker}/anthropic/api.anthropic.com/v1/messages`, { method: "POST", headers });
const direct = () => https.request("https://api.anthropic.com/v1/messages", { method: "POST", headers });

function delays(request) {
	return new Promise((done, failed) => {
		request.on("error", failed);
		request.on("response", (response) => {
			const late = [];
			let together = 0;
			response.setEncoding("utf8");
			response.on("data", (data) => {
				const sent = [...data.matchAll(/data: ([\d.]+)/g)].map((found) => Number(found[1]));
				if (sent.length > 1) together += sent.length - 1;
				for (const at of sent) late.push(performance.timeOrigin + performance.now() - at);
			});
			response.on("end", () => done({ late, together, status: response.statusCode }));
		});
		request.end("{}");
	});
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const result = { through: [], direct: [], together: { through: 0, direct: 0 } };
// By turns, so that a busy moment hits both.
for (let round = 0; round < 4; round++) {
	for (const [name, ask] of [["direct", direct], ["through", through]]) {
		const { late, together } = await delays(ask());
		result[name].push(...late);
		result.together[name] += together;
	}
}
const summary = Object.fromEntries(["direct", "through"].map((name) => [name, { chunks: result[name].length, median: median(result[name]), worst: Math.max(...result[name]) }]));
process.stdout.write(`${JSON.stringify({ ...summary, together: result.together, added: summary.through.median - summary.direct.median })}\n`);
