// What an engine hands over as the kernel takes it, and what is refused.
#include "operator.hpp"

#include <cmath>

namespace polyprompt {

namespace {

constexpr int64_t LARGEST = INT32_MAX;  // of a size, so that no product of two overflows
constexpr int64_t RANKS[INPUTS] = {2, 2, 3, 3, 1, 1, 1, 1};

std::string text(const std::vector<int64_t>& shape) {
    std::string found;
    for (int64_t size : shape) found += (found.empty() ? "" : ", ") + std::to_string(size);
    return "[" + found + "]";
}

std::vector<int64_t> read(const Tensor& tensor) {
    const auto count = size_t(tensor.shape[0]);
    if (!count) return {};
    if (!tensor.narrow) {
        const auto* from = static_cast<const int64_t*>(tensor.data);
        return {from, from + count};
    }
    const auto* from = static_cast<const int32_t*>(tensor.data);
    return {from, from + count};
}

}  // namespace

std::string Call::take(const Tensor (&inputs)[INPUTS], Type type, int64_t heads, float scale) {
    for (int i = 0; i < INPUTS; i++)
        if (int64_t(inputs[i].shape.size()) != RANKS[i])
            return std::string(NAMES[i]) + " has rank " + std::to_string(inputs[i].shape.size()) + ", not " +
                   std::to_string(RANKS[i]);
    for (int i = 0; i < INPUTS; i++)
        for (int64_t size : inputs[i].shape)
            if (size < 0 || size > LARGEST) return std::string(NAMES[i]) + " is too large: " + text(inputs[i].shape);
    const auto& prefix = inputs[PREFIX_KEY].shape;
    const int64_t hidden = prefix[2], rows = inputs[PROMPT].shape[0];
    auto wrong = [&](Input input, const std::string& wanted) {
        return std::string(NAMES[input]) + " has shape " + text(inputs[input].shape) + "; wanted is " + wanted;
    };
    if (inputs[PREFIX_VALUE].shape != prefix) return wrong(PREFIX_VALUE, "that of prefix_key, " + text(prefix));
    if (heads < 1 || hidden < 1 || hidden % heads)
        return "heads do not divide the hidden size: " + std::to_string(heads) + " and " + std::to_string(hidden);
    if (inputs[QUERY].shape[1] < hidden)
        return wrong(QUERY, "at least " + std::to_string(hidden) + " columns, as prefix_key has");
    if (inputs[KEY_VALUE].shape[1] < 2 * hidden)
        return wrong(KEY_VALUE, "at least " + std::to_string(2 * hidden) + " columns, twice what prefix_key has");
    if (inputs[PROMPT_LENGTHS].shape[0] != prefix[0])
        return wrong(PROMPT_LENGTHS, "[" + std::to_string(prefix[0]) + "], one a prompt of prefix_key");
    for (Input starts : {QUERY_STARTS, KEY_STARTS})
        if (inputs[starts].shape[0] != rows + 1)
            return wrong(starts, "[" + std::to_string(rows + 1) + "], one more than prompt");
    if (!std::isfinite(scale)) return "scale is no number";
    for (int i = FIRST_INTEGERS; i < INPUTS; i++) integers_[i - FIRST_INTEGERS] = read(inputs[i]);

    queries_ = inputs[QUERY].shape[0];
    const int64_t size = type == Type::f32 ? 4 : 2;
    auto integers = [&](Input input) { return integers_[input - FIRST_INTEGERS].data(); };
    Attention& a = attention_;
    a = {};
    a.type = type, a.rows = rows, a.heads = heads, a.width = hidden / heads, a.slots = prefix[1];
    a.query = inputs[QUERY].data, a.query_stride = inputs[QUERY].shape[1];
    a.key_stride = inputs[KEY_VALUE].shape[1];
    const auto* own = static_cast<const char*>(inputs[KEY_VALUE].data);
    if (own) {
        a.key = own + (a.key_stride - 2 * hidden) * size;
        a.value = own + (a.key_stride - hidden) * size;
    }
    a.prefix_key = inputs[PREFIX_KEY].data, a.prefix_value = inputs[PREFIX_VALUE].data;
    a.banks = prefix[0], a.bank_stride = a.slots * hidden, a.head_stride = a.width, a.slot_stride = hidden;
    a.bank_slots = integers(PROMPT_LENGTHS);
    a.query_starts = integers(QUERY_STARTS), a.key_starts = integers(KEY_STARTS), a.bank = integers(PROMPT);
    a.scale = scale;
    const char* reason = refused(a, queries_, inputs[KEY_VALUE].shape[0]);
    return reason ? reason : "";
}

void Call::run(void* output, const Parallel& parallel) {
    if (!queries_) return;
    attention_.mixed = output;
    forward(attention_, parallel);
}

}  // namespace polyprompt

// Other instructions from here on, for tests; false where the processor lacks them.
extern "C" __attribute__((visibility("default"))) bool polyprompt_use(const char* instructions) {
    return polyprompt::use(instructions);
}
// Those that are used.
extern "C" __attribute__((visibility("default"))) const char* polyprompt_instructions() {
    return polyprompt::instructions();
}
