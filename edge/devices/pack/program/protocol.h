// The worker's protocol over standard input and output: edge/runtimes/worker.py describes it.
#pragma once

#include "bundle.h"

#include <optional>
#include <poll.h>
#include <string>
#include <sys/resource.h>
#include <unistd.h>

static void say(const json & record) {
    const std::string line = record.dump_safe() + "\n";
    for (size_t done = 0; done < line.size();) {
        const ssize_t n = write(STDOUT_FILENO, line.data() + done, line.size() - done);
        if (n <= 0) std::exit(0);  // the other end is gone
        done += n;
    }
}

// Lines of standard input, as they come.
class lines_t {
  public:
    // The next line, when there is one or it may wait for it.
    std::optional<std::string> next(bool wait) {
        while (true) {
            const size_t end = buffer.find('\n');
            if (end != std::string::npos) {
                const std::string line = buffer.substr(0, end);
                buffer.erase(0, end + 1);
                return line;
            }
            pollfd ready = {STDIN_FILENO, POLLIN, 0};
            if (closed || (!wait && poll(&ready, 1, 0) <= 0)) return std::nullopt;
            char more[65536];
            const ssize_t n = read(STDIN_FILENO, more, sizeof more);
            if (n > 0) buffer.append(more, n);
            else closed = true;
        }
    }
    bool closed = false;

  private:
    std::string buffer;
};

static json request_of(const std::string & line) {
    const json found = json::parse_no_throw(line);
    return found.is_discarded() || !found.is_object() ? json::object() : found;
}

static std::string verb_of(const json & request) {
    return request.contains("do") && request.at("do").is_string() ? request.at("do").get<std::string>() : "";
}

static void answer(bundle_t & bundle, const json & request, lines_t & lines) {
    const auto wanted = [&] {
        while (const auto line = lines.next(false)) {
            if (verb_of(request_of(*line)) == "stop") return false;
        }
        return !lines.closed;
    };
    if (request.contains("pictures") && !request.at("pictures").empty()) {
        throw refusal("llama.cpp alone sees no pictures", "flash the bundle without --runner", 2);
    }
    ids_t prompt;
    for (auto & one : request.at("ids")) prompt.push_back(one.get<int>());
    const sampling_t sampling = sampling_of(request.contains("sampling") ? request.at("sampling") : json::object());
    const auto reading = [&](size_t done) {
        say({{"read", json::array({done, prompt.size()})}});
        return wanted();
    };
    const stats_t stats = bundle.generate(prompt, sampling, reading, [&](llama_token token) {
        say({{"id", token}});
        return wanted();
    });
    say({{"stats", stats.record()}});
}

static json error_of(const std::exception & err) {
    const auto * known = dynamic_cast<const refusal *>(&err);
    json found = {{"error", std::string(err.what())}, {"code", known ? known->code : 1}};
    found["hint"] = known && !known->hint.empty() ? json(known->hint) : json(nullptr);
    return found;
}

static int serve(bundle_t & bundle) {
    lines_t lines;
    bool open = false;
    while (const auto line = lines.next(true)) {
        const json request = request_of(*line);
        const std::string wanted = verb_of(request);
        try {
            if (wanted == "open") {
                const auto number = [&](const char * key) {
                    return request.contains(key) && request.at(key).is_number() ? request.at(key).get<int>() : 0;
                };
                bundle.open(number("threads"), number("context"));
                open = true;
                say({{"protocol", 1}, {"bundle", bundle.id}, {"context_length", bundle.context_length},
                     {"threads", number("threads")}, {"pid", (int) getpid()}});
            } else if (wanted == "generate") {
                if (!open) throw refusal("nothing is open yet", "", 2);
                answer(bundle, request, lines);
            } else if (wanted != "stop") {
                throw refusal("the runner knows no request '" + wanted + "'", "", 2);
            }
        } catch (const std::exception & err) {
            say(error_of(err));
        }
    }
    return 0;
}

static int selftest(bundle_t & bundle) {
    bundle.open(0, 0);
    ids_t prompt, wanted, found;
    if (bundle.manifest.contains("selftest") && bundle.manifest.at("selftest").is_object()) {
        const json & test = bundle.manifest.at("selftest");
        if (test.contains("prompt")) for (auto & one : test.at("prompt")) prompt.push_back(one.get<int>());
        if (test.contains("tokens")) for (auto & one : test.at("tokens")) wanted.push_back(one.get<int>());
    }
    if (prompt.empty()) prompt = bundle.tokenize("Hello", true, false);
    sampling_t sampling;
    sampling.max_tokens = wanted.empty() ? 4 : wanted.size();
    bundle.generate(prompt, sampling, [](size_t) { return true; }, [&](llama_token token) {
        found.push_back(token);
        return true;
    });
    if (!wanted.empty() && found != wanted) {
        throw refusal(bundle.name() + " says other tokens here than when it was proven",
                      "this device, or the runtime on it, computes something else: the bundle must not run there");
    }
    rusage used = {};
    getrusage(RUSAGE_SELF, &used);
    say({{"bundle", bundle.id}, {"tokens", found}, {"compared", wanted.size()},
         {"peak_rss_bytes", (int64_t) used.ru_maxrss * 1024}});
    return 0;
}
