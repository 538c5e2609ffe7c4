// node transformers.mjs BUNDLE DTYPE N_NEW < [[ids], ...]   greedy continuations by transformers.js, as JSON
import {readFileSync} from "node:fs";
import {basename, dirname} from "node:path";
import {AutoModelForCausalLM, AutoTokenizer, Tensor, env} from "@huggingface/transformers";

const [folder, dtype, nNew] = process.argv.slice(2);
const prompts = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(folder) + "/";
const model = await AutoModelForCausalLM.from_pretrained(basename(folder), {dtype, device: "cpu"});
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const answers = [];
for (const prompt of prompts) {
    const shape = [1, prompt.length];
    const input_ids = new Tensor("int64", BigInt64Array.from(prompt.map(BigInt)), shape);
    const attention_mask = new Tensor("int64", new BigInt64Array(prompt.length).fill(1n), shape);
    const out = await model.generate({
        input_ids, attention_mask, do_sample: false, max_new_tokens: Number(nNew), eos_token_id: null,
    });
    answers.push(Array.from(out.data, Number).slice(prompt.length));
}
const messages = [{role: "user", content: "Hi 123 🎉"}];
const rendered = tokenizer.apply_chat_template(messages, {add_generation_prompt: true, tokenize: false});
console.log(JSON.stringify({answers, rendered, spelled: Array.from(tokenizer.encode(rendered))}));
