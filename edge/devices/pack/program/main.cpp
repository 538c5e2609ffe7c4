// llama.cpp alone: what edge/runtimes/worker.py does for a GGUF bundle, in one program that needs no library, no
// Python and no file beside the bundle's. It speaks the worker's protocol, which is described there.
//
//   edge-llama FOLDER ID serve             answers requests, a line of JSON each: ids in, ids out
//   edge-llama FOLDER ID selftest          loads it, compares the first tokens, and says what it took
//   edge-llama FOLDER ID ask [WORDS]...    for who sits at the device: edge-chat
//
// What it does not do: see pictures, act, measure, listen. A drawn answer (temperature above 0) has the same
// distribution as the worker's, but another generator: the same seed gives other words.

#include "person.h"
#include "protocol.h"

#include <cstdio>
#include <string>
#include <vector>

int main(int argc, char ** argv) {
    const std::vector<std::string> words(argv + 1, argv + argc);
    const std::string verb = words.size() > 2 ? words[2] : "";
    llama_log_set(keep_log, nullptr);
    try {
        if (words.size() < 3) throw refusal("wanted: edge-llama FOLDER ID serve|selftest|ask", "", 2);
        bundle_t bundle(words[0], words[1]);
        if (verb == "serve") return serve(bundle);
        if (verb == "selftest") return selftest(bundle);
        if (verb == "ask") return ask(bundle, {words.begin() + 3, words.end()});
        const bool acts = verb == "act" || verb == "alone";
        const std::string what = verb == "bench" ? "measure itself" : verb == "listen" ? "serve" : acts ? "act" : "know '" + verb + "'";
        throw refusal("llama.cpp alone does not " + what, "flash the bundle without --runner", 2);
    } catch (const std::exception & err) {
        const json found = error_of(err);
        if (verb == "ask" || verb == "listen" || verb == "alone") std::fprintf(stderr, "edge: %s\n", err.what());
        else say(found);
        return found.at("code").get<int>();
    }
}
