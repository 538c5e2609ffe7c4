// How the next token is chosen: edge/runtimes/session.py has the same rules, and says why.
#pragma once

#include "json.h"
#include "llama.h"
#include "refusal.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

using json = common_json;
using ids_t = std::vector<llama_token>;

struct sampling_t {
    double temperature = 0, top_p = 1, min_p = 0, repeat_penalty = 1;
    int top_k = 0, max_tokens = 512;
    std::optional<uint64_t> seed;
};

static sampling_t sampling_of(const json & asked) {
    sampling_t found;
    auto number = [&](const char * key, double otherwise) {
        return asked.contains(key) && asked.at(key).is_number() ? asked.at(key).get<double>() : otherwise;
    };
    found.temperature = number("temperature", 0);
    found.top_k = (int) number("top_k", 0);
    found.top_p = number("top_p", 1);
    found.min_p = number("min_p", 0);
    found.repeat_penalty = number("repeat_penalty", 1);
    found.max_tokens = (int) number("max_tokens", 512);
    if (asked.contains("seed") && asked.at("seed").is_number()) found.seed = (uint64_t) number("seed", 0);
    if (found.temperature < 0 || found.top_k < 0 || found.top_p <= 0 || found.top_p > 1 || found.min_p < 0 ||
        found.min_p >= 1 || found.repeat_penalty <= 0 || found.max_tokens < 0) {
        throw refusal("the request makes no sense: " + asked.dump_safe(), "", 2);
    }
    return found;
}

static llama_token pick(const float * given, int n, const sampling_t & s, const ids_t & said, std::mt19937_64 & chance) {
    std::vector<float> logits(given, given + n);
    if (s.repeat_penalty != 1) {
        for (llama_token id : std::set<llama_token>(said.begin(), said.end())) {
            float & value = logits[id];
            value = value > 0 ? value / (float) s.repeat_penalty : value * (float) s.repeat_penalty;
        }
    }
    for (float value : logits) {
        if (!std::isfinite(value)) throw refusal("the model returned logits that are not numbers");
    }
    const int best = (int) (std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (s.temperature == 0) return best;
    const float top = logits[best];
    std::vector<std::pair<double, llama_token>> found;
    double total = 0;
    for (int i = 0; i < n; i++) {
        found.emplace_back(std::exp((double) ((logits[i] - top) / (float) s.temperature)), i);
        total += found.back().first;
    }
    // Sorting a whole vocabulary takes longer than a small model's token: what no filter can keep goes before.
    const auto likelier = [](const auto & a, const auto & b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    if (s.top_k && s.top_k < n) {
        std::nth_element(found.begin(), found.begin() + s.top_k, found.end(), likelier);
        found.resize(s.top_k);
        total = 0;
        for (auto & one : found) total += one.first;
    } else if (s.top_p < 1 || s.min_p > 0) {
        const double least = std::max((1 - s.top_p) * total / n, s.min_p);
        found.erase(std::remove_if(found.begin(), found.end(), [&](auto & one) { return one.first < least; }), found.end());
    }
    if (s.top_k || s.top_p < 1 || s.min_p > 0) std::sort(found.begin(), found.end(), likelier);
    if (s.top_p < 1) {
        double sum = 0;
        size_t keep = 0;
        while (keep < found.size() && sum < s.top_p * total) sum += found[keep++].first;
        found.resize(std::max<size_t>(1, keep));
    }
    while (s.min_p > 0 && found.size() > 1 && found.back().first < s.min_p * found[0].first) found.pop_back();
    double sum = 0;
    for (auto & one : found) sum += one.first;
    double drawn = std::uniform_real_distribution<double>(0, sum)(chance);
    for (auto & one : found) {
        if ((drawn -= one.first) < 0) return one.second;
    }
    return found.back().second;
}
