// Examples to rows of pieces, as harness.features makes them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "tokenizer.hpp"

namespace polyprompt {

struct Example {
    std::string id, text;
    std::optional<std::string> pair;
    std::vector<std::string> choices, tokens;
    std::optional<int> marked;
    bool cloze = false;  // its accepted choices are texts
};

struct Feature {
    size_t example = 0;
    std::vector<int> ids, types;
    std::vector<int> words, positions;        // tagging: which words are read in this row, and where
    std::vector<std::pair<int, int>> places;  // span extraction: of each piece in the context; -1: elsewhere
};

constexpr const char* placeholder = "@placeholder";

// Rows of all examples, in order. Throws Error: a row has no room for what each window repeats.
std::vector<Feature> features(Tokenizer& tokenizer, const Card& card, const Task& task, const std::vector<Example>& examples);

}  // namespace polyprompt
