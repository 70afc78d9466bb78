// Node's fetch as a client: one JSON command a line on stdin, one JSON answer a line on stdout.
// {method, url, headers, body (base64 or null), chunked, abortAfter} -> {status, headers, size, body (base64)} or {error}
import { createInterface } from "node:readline";

function streamed(bytes) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.subarray(at, at + 65536));
      at += 65536;
    },
  });
}

async function ask({ method, url, headers, body, chunked, abortAfter }) {
  const abort = new AbortController();
  const bytes = body === null ? undefined : Buffer.from(body, "base64");
  const content = bytes && chunked ? streamed(bytes) : bytes;
  const answer = await fetch(url, { method, headers, body: content, duplex: "half", signal: abort.signal });
  const parts = [];
  let size = 0;
  try {
    for await (const part of answer.body ?? []) {
      parts.push(part);
      size += part.length;
      if (abortAfter && size >= abortAfter) abort.abort();
    }
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  }
  const told = { status: answer.status, headers: Object.fromEntries(answer.headers), size };
  return { ...told, body: Buffer.concat(parts).toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await ask(JSON.parse(line)).catch((error) => ({ error: String(error.cause ?? error) }));
  process.stdout.write(JSON.stringify(answer) + "\n");
}
