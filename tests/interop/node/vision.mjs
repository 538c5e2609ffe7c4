// node vision.mjs BUNDLE N_NEW < [{ids, pixels, shape, path}]   greedy continuations by transformers.js, as JSON
import {readFileSync} from "node:fs";
import {basename, dirname} from "node:path";
import {AutoModelForImageTextToText, AutoProcessor, RawImage, Tensor, env} from "@huggingface/transformers";

const [folder, nNew] = process.argv.slice(2);
const asked = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder) + "/";
const model = await AutoModelForImageTextToText.from_pretrained(basename(folder), {device: "cpu"});
const processor = await AutoProcessor.from_pretrained(basename(folder));
const answers = [], off = [];
for (const {ids, pixels, shape, path} of asked) {
    const made = (await processor.image_processor(await RawImage.read(path))).pixel_values;
    off.push(Math.max(...pixels.map((value, i) => Math.abs(value - made.data[i]))));
    const size = [1, ids.length];
    const out = await model.generate({
        input_ids: new Tensor("int64", BigInt64Array.from(ids.map(BigInt)), size),
        attention_mask: new Tensor("int64", new BigInt64Array(ids.length).fill(1n), size),
        pixel_values: new Tensor("float32", Float32Array.from(pixels), shape),
        do_sample: false, max_new_tokens: Number(nNew),
    });
    answers.push(Array.from(out.data, Number).slice(ids.length));
}
console.log(JSON.stringify({answers, off}));
