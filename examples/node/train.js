// Trains a portable bundle without Python: npm install --ignore-scripts, then
//   node train.js BUNDLE DATA.safetensors TUNED.safetensors EPOCHS LEARNING_RATE
// DATA holds the model's inputs and `targets`, of a cross-entropy without class weights. The samples
// are taken in their order. What the graphs take and give is in docs/bundle.md.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { readTensors, writeTensors } from "./safetensors.js";

const [bundle, dataPath, out, epochs, learningRate] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf8"));
const { batch, micro_batch: microBatch, optimizer } = manifest.plan;
const load = (name) => InferenceSession.create(join(bundle, name));
const features = existsSync(join(bundle, "features.onnx")) ? await load("features.onnx") : null;
const gradients = await load("gradients.onnx");
const update = await load("update.onnx");

const float64 = (number) => new Tensor("float64", [number], []);
const only = (session, tensors) =>
  Object.fromEntries(session.inputNames.map((name) => [name, tensors[name]]));

/** Zeros for those of a graph's inputs whose names start with `prefix`. */
function zeros(session, prefix) {
  const wanted = session.inputMetadata.filter(({ name }) => name.startsWith(prefix));
  const size = (shape) => shape.reduce((product, length) => product * length, 1);
  return Object.fromEntries(
    wanted.map(({ name, shape }) => [name, new Tensor("float32", new Float32Array(size(shape)), shape)]),
  );
}

/** Writes each `next:NAME` of a graph's results over NAME in `state`; returns the results. */
async function run(session, feeds, state) {
  const results = await session.run(only(session, { ...feeds, ...state }));
  for (const name of Object.keys(results)) {
    if (name.startsWith("next:")) state[name.slice("next:".length)] = results[name];
  }
  return results;
}

/** The rows of every tensor, in a new tensor. */
function take(tensors, rows) {
  const taken = {};
  for (const [name, { type, data, dims }] of Object.entries(tensors)) {
    const width = data.length / dims[0];
    const values = new data.constructor(rows.length * width);
    rows.forEach((row, i) => values.set(data.subarray(row * width, (row + 1) * width), i * width));
    taken[name] = new Tensor(type, values, [rows.length, ...dims.slice(1)]);
  }
  return taken;
}

const data = readTensors(dataPath);
const count = data.targets.dims[0];
const state = { ...readTensors(join(bundle, "state.safetensors")), ...zeros(update, "slot:") };
const trainable = manifest.plan.selection.trainable;
let step = 0;
for (let epoch = 0; epoch < Number(epochs); epoch++) {
  let loss = 0;
  for (let start = 0; start < count; start += batch) {
    const end = Math.min(start + batch, count);
    const accumulated = zeros(gradients, "accumulated:");
    for (let first = start; first < end; first += microBatch) {
      const rows = Array.from({ length: microBatch }, (_, i) => first + i);
      // Rows beyond the batch only fill up: any sample, with scale 0.
      const samples = take(data, rows.map((row) => (row < end ? row : start)));
      const scales = Float32Array.from(rows, (row) => (row < end ? 1 / (end - start) : 0));
      const scale = new Tensor("float32", scales, [microBatch]);
      const seen = features ? await features.run(only(features, samples)) : {};
      const found = await run(gradients, { ...samples, ...seen, ...state, scale }, accumulated);
      loss += (found.loss.data[0] * (end - start)) / count;
    }
    const numbers = { learning_rate: Number(learningRate), step: ++step, clip_norm: Infinity };
    for (const [name, value] of Object.entries({ ...optimizer, ...numbers })) {
      if (typeof value === "number") numbers[name] = float64(value);
    }
    await run(update, { ...accumulated, ...numbers }, state);
  }
  console.log(`epoch ${epoch + 1}: loss ${loss.toFixed(6)}, ${step} updates`);
}
writeTensors(out, Object.fromEntries(trainable.map((name) => [name, state[name]])));
