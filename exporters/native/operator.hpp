// The operator PackedPrefixAttention of the domain `polyprompt`, version 1, as every engine registers it.
//
// Inputs: query [queries, >= hidden], whose first `hidden` columns ask; key_value [pieces, >= 2 * hidden], whose last
// columns are keys, then values: one tensor of queries, keys and values side by side serves as both;
// prefix_key and prefix_value [prompts, slots, hidden]; query_starts and key_starts [rows + 1]; prompt [rows], a row of
// the prefixes; prompt_lengths [prompts], slots in use. Attributes: heads, scale. Output: [queries, hidden].
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention.hpp"

namespace polyprompt {

enum Input { QUERY, KEY_VALUE, PREFIX_KEY, PREFIX_VALUE, QUERY_STARTS, KEY_STARTS, PROMPT, PROMPT_LENGTHS, INPUTS };
constexpr int FIRST_INTEGERS = QUERY_STARTS;  // and all behind it

constexpr const char* NAMES[INPUTS] = {
    "query", "key_value", "prefix_key", "prefix_value", "query_starts", "key_starts", "prompt", "prompt_lengths"};

struct Tensor {
    const void* data;
    std::vector<int64_t> shape;
    bool narrow;  // of integers: 32 bits in place of 64
};

// One call of the operator. It keeps the integers; the numbers stay where the engine has them.
class Call {
public:
    // Returns why it cannot be computed; empty where it can be.
    std::string take(const Tensor (&inputs)[INPUTS], Type type, int64_t heads, float scale);
    int64_t queries() const { return queries_; }
    int64_t hidden() const { return attention_.heads * attention_.width; }
    void run(void* output, const Parallel& parallel);

private:
    Attention attention_{};
    int64_t queries_ = 0;
    std::vector<int64_t> integers_[INPUTS - FIRST_INTEGERS];
};

}  // namespace polyprompt
