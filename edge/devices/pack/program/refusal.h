// What cannot be done, in words for whoever asked.
#pragma once

#include <stdexcept>
#include <string>

// What a person can do stands in `hint`; `code` is edge's exit code.
struct refusal : std::runtime_error {
    std::string hint;
    int code;
    refusal(const std::string & message, std::string hint = "", int code = 1)
        : std::runtime_error(message), hint(std::move(hint)), code(code) {}
};
