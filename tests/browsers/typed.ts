// Checked by TypeScript against fingerpost.d.ts; not run.
import { Client, FingerpostError, type StreamAnswer } from "fingerpost-client";

const client = new Client(["http://a:12480", "http://b:12480"], { key: "k", timeoutMs: 1000 });

export async function labels(files: File[]): Promise<string[]> {
  const found: string[] = [];
  for await (const { result, error } of client.stream("flowers", files, { concurrency: 4 })) {
    if (error instanceof FingerpostError && !error.retryable) throw error;
    const label: string | undefined = result?.predictions[0]?.label;
    if (label) found.push(label);
  }
  return found;
}

export async function one(image: Uint8Array): Promise<number> {
  const { predictions, version, attempts } = await client.classify("flowers@stable", image, { top: 1 });
  const answer: StreamAnswer = { index: 0, key: version, result: undefined };
  return (predictions[0]?.score ?? 0) + attempts + answer.index;
}

// @ts-expect-error a path is no image
void client.classify("flowers", "image.png");
// @ts-expect-error there is no such option
void client.classify("flowers", new Blob([]), { labels: 3 });
