// Tensors by name, from and to a safetensors file: a length, a JSON header, the bytes.

import { readFileSync, writeFileSync } from "node:fs";
import { Tensor } from "onnxruntime-node";

const KINDS = {
  F32: ["float32", Float32Array],
  F64: ["float64", Float64Array],
  I64: ["int64", BigInt64Array],
};

export function readTensors(path) {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString("utf8", 8, start));
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (!(dtype in KINDS)) throw new Error(`${path}: ${name} is ${dtype}, which is not read here`);
    const [type, Values] = KINDS[dtype];
    const bytes = file.subarray(start + data_offsets[0], start + data_offsets[1]);
    const values = new Values(new Uint8Array(bytes).buffer); // a copy, aligned as Values wants it
    tensors[name] = new Tensor(type, values, shape);
  }
  return tensors;
}

export function writeTensors(path, tensors) {
  const header = {};
  const parts = [];
  let end = 0;
  for (const [name, { type, data, dims }] of Object.entries(tensors)) {
    const dtype = Object.keys(KINDS).find((kind) => KINDS[kind][0] === type);
    header[name] = { dtype, shape: dims, data_offsets: [end, (end += data.byteLength)] };
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }
  let text = JSON.stringify(header);
  text = text.padEnd(Math.ceil(Buffer.byteLength(text) / 8) * 8);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
  writeFileSync(path, Buffer.concat([length, Buffer.from(text), ...parts]));
}
