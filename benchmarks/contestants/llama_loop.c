/* llama.cpp's own loop in C: the floor of what a runtime on llama.cpp may cost.
 *
 * cc llama_loop.c -lllama; ./llama_loop MODEL THREADS PROMPT_TOKENS NEW_TOKENS
 * Decodes greedily, as our session does: logits of one token, the largest one is next.
 */
#include "llama.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void quiet(enum ggml_log_level level, const char * text, void * data) { (void) level; (void) text; (void) data; }

static llama_token largest(const float * logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) if (logits[i] > logits[best]) best = i;
    return best;
}

int main(int argc, char ** argv) {
    if (argc != 5) return 2;
    const int threads = atoi(argv[2]), n_prompt = atoi(argv[3]), n_new = atoi(argv[4]);
    llama_log_set(quiet, NULL);
    struct llama_model_params mp = llama_model_default_params();
    mp.n_gpu_layers = 0;
    struct llama_model * model = llama_model_load_from_file(argv[1], mp);
    struct llama_context_params cp = llama_context_default_params();
    cp.n_ctx = 2048;
    cp.n_batch = cp.n_ubatch = 512;
    cp.n_threads = cp.n_threads_batch = threads;
    cp.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    struct llama_context * ctx = llama_init_from_model(model, cp);
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_token * tokens = malloc(sizeof(llama_token) * (n_prompt + 16));
    for (int i = 0; i < n_prompt + 16; i++) tokens[i] = 1000 + (i * 37) % 20000;
    double prefill_s = 0, decode_s = 0;
    /* The first round warms up. */
    for (int round = 0; round < 2; round++) {
        llama_memory_clear(llama_get_memory(ctx), true);
        double began = now_s();
        for (int at = 0; at < n_prompt; at += 512) {
            int n = n_prompt - at < 512 ? n_prompt - at : 512;
            if (llama_decode(ctx, llama_batch_get_one(tokens + at, n))) return 1;
        }
        llama_synchronize(ctx);
        prefill_s = now_s() - began;
        llama_memory_clear(llama_get_memory(ctx), true);
        if (llama_decode(ctx, llama_batch_get_one(tokens, 16))) return 1;
        llama_token next = largest(llama_get_logits_ith(ctx, -1), n_vocab);
        int n = round ? n_new : 8;
        began = now_s();
        for (int i = 0; i < n; i++) {
            if (llama_decode(ctx, llama_batch_get_one(&next, 1))) return 1;
            next = largest(llama_get_logits_ith(ctx, -1), n_vocab);
        }
        decode_s = (now_s() - began) / n;
    }
    printf("{\"decode_tokens_per_s\": %.4f, \"prefill_tokens_per_s\": %.4f}\n", 1 / decode_s, n_prompt / prefill_s);
    return 0;
}
