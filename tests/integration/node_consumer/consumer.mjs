// Reads the predictions of a topic up to its present end, checks each by the published schema, and prints a summary.
//
//   node consumer.mjs HOST:PORT TOPIC SCHEMA.json GROUP
//
// Nothing of Tailrace is used but the schema. Headers are left alone; a record without a value is a watermark.
import { readFile } from "node:fs/promises";
import Ajv from "ajv/dist/2020.js";
import kafkajs from "kafkajs";
import lz4 from "lz4js";

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const [address, topic, schemaFile, groupId] = process.argv.slice(2);
const validate = new Ajv({ allErrors: true }).compile(JSON.parse(await readFile(schemaFile, "utf8")));
const summary = { valid: [], invalid: [], watermarks: 0 };

function take(partition, { offset, value }) {
  if (value === null) {
    summary.watermarks += 1;
    return;
  }
  const errors = check(value);
  if (errors.length === 0) {
    const { prediction_id, score, decision, model_version } = JSON.parse(value);
    summary.valid.push({ prediction_id, score, decision, model_version });
  } else {
    summary.invalid.push({ partition, offset: Number(offset), errors });
  }
}

function check(value) {
  try {
    return validate(JSON.parse(value)) ? [] : validate.errors.map((e) => `${e.instancePath} ${e.message}`.trim());
  } catch (error) {
    return [error.message];
  }
}

const kafka = new Kafka({ brokers: [address], clientId: "node-consumer", logLevel: logLevel.NOTHING });
const admin = kafka.admin();
await admin.connect();
const open = new Map();
for (const { partition, high, low } of await admin.fetchTopicOffsets(topic)) {
  if (Number(high) > Number(low)) open.set(partition, Number(high));
}
await admin.disconnect();

// `readUncommitted` is false by default: records of aborted transactions are never seen.
const consumer = kafka.consumer({ groupId });
let finish;
const finished = new Promise((resolve, reject) => {
  finish = { resolve, reject };
});
// Transaction markers take offsets too, so that the end is known by what was fetched, not by the last record.
consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
  if (Number(payload.lastOffset) + 1 >= open.get(payload.partition)) open.delete(payload.partition);
  if (open.size === 0) finish.resolve();
});
consumer.on(consumer.events.CRASH, ({ payload }) => finish.reject(payload.error));
await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
await consumer.run({ eachMessage: async ({ partition, message }) => take(partition, message) });
if (open.size === 0) finish.resolve();
try {
  await finished;
} finally {
  await consumer.disconnect();
}
console.log(JSON.stringify(summary));
