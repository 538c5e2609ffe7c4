// node llama.mjs MODEL.gguf N_NEW < [[ids], ...]   greedy continuations by node-llama-cpp, as JSON
import {readFileSync} from "node:fs";
import {availableParallelism} from "node:os";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const [path, nNew] = process.argv.slice(2);
const prompts = JSON.parse(readFileSync(0, "utf8"));
const maxThreads = availableParallelism(); // its threads spin: more than it has cores take minutes
const llama = await getLlama({gpu: false, build: "never", maxThreads, logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 512});
const sequence = context.getSequence();
const answers = [];
for (const prompt of prompts) {
    await sequence.clearHistory();
    const answer = [];
    for await (const token of sequence.evaluate(prompt, {temperature: 0})) {
        answer.push(token);
        if (answer.length == Number(nNew)) break;
    }
    answers.push(answer);
}
console.log(JSON.stringify({answers, spelled: model.tokenize("<|im_start|>user\nHi 123 🎉<|im_end|>", true)}));
process.exit(0);
