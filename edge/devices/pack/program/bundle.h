// A bundle's folder, opened: its model with one cache, its stop tokens, its chat template.
#pragma once

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "json.h"
#include "llama.h"
#include "refusal.h"
#include "sampling.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <sched.h>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using clock_type = std::chrono::steady_clock;

static const int BATCH = 512;  // as in edge/runtimes/engines/gguf.py: other batches round differently

static std::string last_log;

static void keep_log(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) last_log = std::string(text).substr(0, std::string(text).find('\n'));
}

static std::optional<std::string> read_file(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) return std::nullopt;
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

static double ms_since(clock_type::time_point began) {
    return std::chrono::duration<double, std::milli>(clock_type::now() - began).count();
}

struct stats_t {
    size_t prompt_tokens = 0, reused_tokens = 0, new_tokens = 0;
    double ttft_ms = 0, tokens_ms = 0, total_ms = 0;
    std::string stopped_by = "caller";

    json record() const {
        json found = {
            {"prompt_tokens", prompt_tokens}, {"reused_tokens", reused_tokens}, {"new_tokens", new_tokens},
            {"total_ms", total_ms}, {"stopped_by", stopped_by},
        };
        found["ttft_ms"] = new_tokens ? json(ttft_ms) : json(nullptr);
        found["tokens_per_second"] = new_tokens > 1 ? json(1000 * (new_tokens - 1) / tokens_ms) : json(nullptr);
        return found;
    }
};

class bundle_t {
  public:
    const std::string folder, id;
    json manifest;
    int context_length = 0;

    bundle_t(const std::string & folder, const std::string & id) : folder(folder), id(id) {
        const auto text = read_file(folder + "/edge.json");
        if (!text) throw refusal(folder + " is no bundle: it has no edge.json", "", 2);
        manifest = json::parse(*text);
    }
    ~bundle_t() {
        if (context) llama_free(context);
        if (model) llama_model_free(model);
    }

    std::string name() const { return manifest.at("name").get<std::string>(); }

    // 0 threads are as many as there are cores, 0 tokens of context the bundle's.
    void open(int threads, int wanted) {
        if (context) return;
        const int most = manifest.at("context_length").get<int>();
        if (wanted < 0 || wanted > most) {
            throw refusal(
                "a context of " + std::to_string(wanted) + " tokens was asked for; " + name() + " takes 1 to " +
                    std::to_string(most), "", 2);
        }
        context_length = wanted ? wanted : most;
        cpu_set_t mine;
        if (threads < 1) threads = sched_getaffinity(0, sizeof mine, &mine) == 0 ? std::max(1, CPU_COUNT(&mine)) : 1;
        llama_model_params how = llama_model_default_params();
        how.n_gpu_layers = 0;
        how.load_mode = LLAMA_LOAD_MODE_MMAP;
        const std::string path = folder + "/" + manifest.at("model_file").get<std::string>();
        model = llama_model_load_from_file(path.c_str(), how);
        if (!model) throw refusal("llama.cpp cannot load " + path + ": " + last_log, "export it again");
        vocab = llama_model_get_vocab(model);
        n_vocab = llama_vocab_n_tokens(vocab);
        const std::string kept_in = cache_type();
        llama_context_params params = llama_context_default_params();
        params.n_ctx = context_length;
        params.n_batch = params.n_ubatch = std::min(BATCH, context_length);
        params.n_outputs_max = 1;
        params.n_threads = params.n_threads_batch = threads;
        params.flash_attn_type = kept_in == "f32" ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.type_k = params.type_v = kept_in == "f32" ? GGML_TYPE_F32 : kept_in == "f16" ? GGML_TYPE_F16 : GGML_TYPE_Q8_0;
        params.no_perf = true;
        context = llama_init_from_model(model, params);
        if (!context) {
            throw refusal("llama.cpp cannot make a context of " + std::to_string(context_length) + " tokens: " + last_log,
                          "ask for a shorter one with --context");
        }
        for (auto & one : manifest.at("stop_ids")) stops.insert(one.get<int>());
        prepare_template();
    }

    // Ids that follow `prompt`, each given to `said`; `reading` is told how far a long prompt is. Both may stop it.
    stats_t generate(const ids_t & prompt, const sampling_t & s, const std::function<bool(size_t)> & reading,
                     const std::function<bool(llama_token)> & said) {
        if (prompt.empty()) throw refusal("there is nothing to continue: the prompt is empty", "", 2);
        for (llama_token one : prompt) {
            if (one < 0 || one >= n_vocab) throw refusal("token id " + std::to_string(one) + " is outside the vocabulary", "", 2);
        }
        if ((int) prompt.size() > context_length) {
            throw refusal("the context is full: " + std::to_string(prompt.size()) + " tokens wanted, " +
                              std::to_string(context_length) + " fit", "start a new conversation");
        }
        const auto began = clock_type::now();
        stats_t stats;
        stats.prompt_tokens = prompt.size();
        size_t at = 0;
        while (at < std::min(held.size(), prompt.size() - 1) && held[at] == prompt[at]) at++;
        stats.reused_tokens = at = cut(at);
        while (prompt.size() - at > (size_t) BATCH) {
            feed(ids_t(prompt.begin() + at, prompt.begin() + at + BATCH));
            at += BATCH;
            if (!reading(at)) return ended(stats, began);
        }
        if (s.max_tokens == 0) {
            stats.stopped_by = "length";
            return ended(stats, began);
        }
        std::mt19937_64 chance(s.seed ? *s.seed : std::random_device{}());
        feed(ids_t(prompt.begin() + at, prompt.end()));
        ids_t out;
        clock_type::time_point first;
        while (true) {
            const llama_token token = pick(llama_get_logits_ith(context, -1), n_vocab, s, out, chance);
            if (stops.count(token)) {
                stats.stopped_by = "end";
                break;
            }
            out.push_back(token);
            if (out.size() == 1) {
                first = clock_type::now();
                stats.ttft_ms = ms_since(began);
            }
            stats.tokens_ms = ms_since(first);
            stats.new_tokens = out.size();
            if (!said(token)) break;
            if ((int) out.size() >= s.max_tokens || (int) held.size() >= context_length) {
                stats.stopped_by = (int) out.size() >= s.max_tokens ? "length" : "context";
                break;
            }
            feed({token});
        }
        return ended(stats, began);
    }

    ids_t tokenize(const std::string & text, bool add_special, bool parse_special) const {
        ids_t found(text.size() + 8);
        const int n = llama_tokenize(vocab, text.data(), text.size(), found.data(), found.size(), add_special, parse_special);
        if (n < 0) throw refusal("the text cannot be turned into tokens");
        found.resize(n);
        return found;
    }

    std::string text_of(llama_token token) const {
        std::string found(256, '\0');
        int n = llama_token_to_piece(vocab, token, found.data(), found.size(), 0, false);
        if (n < 0) {
            found.resize(-n);
            n = llama_token_to_piece(vocab, token, found.data(), found.size(), 0, false);
        }
        found.resize(std::max(0, n));
        return found;
    }

    bool has_template() const { return !template_source.empty(); }

    // What the template makes of `messages`. Control tokens count where the template wrote them, not a person.
    ids_t prompt(const json & messages) const {
        jinja::context values(template_source);
        json given = special;
        given["messages"] = messages;
        given["tools"] = nullptr;
        given["documents"] = nullptr;
        given["add_generation_prompt"] = true;
        jinja::global_from_json(values, given, true);
        jinja::runtime runtime(values);
        ids_t found;
        std::string ours;
        const auto flush = [&](bool parse) {
            const ids_t more = tokenize(ours, false, parse);
            found.insert(found.end(), more.begin(), more.end());
            ours.clear();
        };
        const auto parts = jinja::runtime::gather_string_parts(runtime.execute(program));
        for (const auto & part : parts->val_str.parts) {
            // Words that spell no control token belong to the text around them: tokens may span the two.
            if (part.is_input && tokenize(part.val, false, true) != tokenize(part.val, false, false)) {
                flush(true);
                ours = part.val;
                flush(false);
            } else {
                ours += part.val;
            }
        }
        flush(true);
        return found;
    }

  private:
    llama_model * model = nullptr;
    llama_context * context = nullptr;
    const llama_vocab * vocab = nullptr;
    int n_vocab = 0;
    std::set<llama_token> stops;
    ids_t held;  // what the cache holds
    std::string template_source;
    jinja::program program;
    json special = json::object();  // bos_token and the like, which templates may name

    static stats_t ended(stats_t & stats, clock_type::time_point began) {
        stats.total_ms = ms_since(began);
        return stats;
    }

    std::string cache_type() const {
        if (manifest.contains("plan") && manifest.at("plan").contains("kv_cache")) {
            const json & asked = manifest.at("plan").at("kv_cache");
            if (asked.is_object() && asked.contains("type") && asked.at("type").is_string()) return asked.at("type").get<std::string>();
        }
        return manifest.at("quantization").get<std::string>() == "f32" ? "f32" : "f16";
    }

    // Keep the first `n` tokens of the cache; how many are left, for some memories can only be emptied.
    size_t cut(size_t n) {
        if (n < held.size() && !llama_memory_seq_rm(llama_get_memory(context), 0, n, -1)) {
            llama_memory_clear(llama_get_memory(context), true);
            n = 0;
        }
        held.resize(n);
        return n;
    }

    void feed(ids_t tokens) {
        if ((int) (held.size() + tokens.size()) > context_length) throw refusal("the context is full", "start a new conversation");
        const int code = llama_decode(context, llama_batch_get_one(tokens.data(), tokens.size()));
        if (code != 0) {
            cut(held.size());
            throw refusal("llama.cpp failed at token " + std::to_string(held.size()) + " (" + std::to_string(code) + ")");
        }
        held.insert(held.end(), tokens.begin(), tokens.end());
    }

    void prepare_template() {
        const auto config = read_file(folder + "/tokenizer_config.json");
        if (config) {
            const json found = json::parse(*config);
            for (const char * name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
                if (!found.contains(name)) continue;
                const json & token = found.at(name);
                if (token.is_string()) special[name] = token;
                if (token.is_object() && token.contains("content")) special[name] = token.at("content");
            }
            if (found.contains("chat_template") && found.at("chat_template").is_string()) {
                template_source = found.at("chat_template").get<std::string>();
            }
        }
        if (const auto text = read_file(folder + "/chat_template.jinja")) template_source = *text;
        if (!has_template()) return;
        jinja::lexer lexer;
        program = jinja::parse_from_tokens(lexer.tokenize(template_source));
    }
};
