// A conversation for somebody at the device itself.
#pragma once

#include "protocol.h"

#include <csignal>
#include <cstdio>
#include <string>
#include <unistd.h>
#include <vector>

static volatile std::sig_atomic_t interrupted = 0;

// Nothing that a model writes may control the terminal, and half a character waits for its other half.
class printer_t {
  public:
    void push(const std::string & more) {
        waiting += more;
        size_t at = 0;
        while (at < waiting.size()) {
            const unsigned char lead = waiting[at];
            const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
            if (at + size > waiting.size()) break;
            uint32_t code = size == 1 ? lead : lead & (0xff >> (size + 1));
            bool whole = lead < 0x80 || lead >= 0xc0;
            for (size_t i = 1; i < size; i++) {
                whole = whole && (waiting[at + i] & 0xc0) == 0x80;
                code = code << 6 | (waiting[at + i] & 0x3f);
            }
            if (!whole) {
                std::fputs(NO_TEXT, stdout);
                at++;
            } else {
                if (shown(code)) std::fwrite(waiting.data() + at, 1, size, stdout);
                at += size;
            }
        }
        waiting.erase(0, at);
        std::fflush(stdout);
    }
    void finish() {
        std::printf("%s\n", waiting.empty() ? "" : NO_TEXT);
        std::fflush(stdout);
    }

  private:
    static constexpr const char * NO_TEXT = "\xef\xbf\xbd";  // U+FFFD
    std::string waiting;

    static bool shown(uint32_t c) {
        if (c == '\n' || c == '\t') return true;
        const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad;
        const bool format = (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f);
        return !control && !format && c != 0xfeff && (c < 0xd800 || c > 0xf8ff) && c < 0xe0000;
    }
};

static void reply(bundle_t & bundle, json & messages, const std::string & question) {
    ids_t prompt;
    messages.push_back({{"role", "user"}, {"content", question}});
    if (bundle.has_template()) {
        prompt = bundle.prompt(messages);
        while ((int) prompt.size() > bundle.context_length * 3 / 4 && messages.size() > 2) {
            messages.erase((size_t) 0);
            messages.erase((size_t) 0);
            prompt = bundle.prompt(messages);
        }
    } else {
        prompt = bundle.tokenize(question, true, false);
    }
    printer_t printer;
    std::string said;
    interrupted = 0;
    bundle.generate(prompt, {}, [](size_t) { return !interrupted; }, [&](llama_token token) {
        const std::string text = bundle.text_of(token);
        said += text;
        printer.push(text);
        return !interrupted;
    });
    printer.finish();
    messages.push_back({{"role", "assistant"}, {"content", said}});
}

static int ask(bundle_t & bundle, const std::vector<std::string> & words) {
    if (!words.empty() && words[0] == "--image") throw refusal("llama.cpp alone sees no pictures", "", 2);
    struct sigaction stop = {};
    stop.sa_handler = [](int) { interrupted = 1; };
    sigaction(SIGINT, &stop, nullptr);
    bundle.open(0, 0);
    json messages = json::array();
    if (!words.empty()) {
        std::string question = words[0];
        for (size_t i = 1; i < words.size(); i++) question += " " + words[i];
        reply(bundle, messages, question);
        return 0;
    }
    const bool person = isatty(STDIN_FILENO);
    if (person) std::fprintf(stderr, "%s; Ctrl-C stops an answer, Ctrl-D ends\n", bundle.name().c_str());
    lines_t lines;
    while (true) {
        if (person) {
            std::printf("> ");
            std::fflush(stdout);
        }
        interrupted = 0;
        const auto line = lines.next(true);
        if (!line) {
            if (!interrupted) return 0;
            lines.closed = false;
            std::printf("\n");
            continue;
        }
        if (line->find_first_not_of(" \t\r") == std::string::npos) continue;
        try {
            reply(bundle, messages, *line);
        } catch (const std::exception & err) {
            std::fprintf(stderr, "edge: %s\n", err.what());
        }
    }
}
