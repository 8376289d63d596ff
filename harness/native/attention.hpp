// Attention of packed rows that share prefixes, forward and back: what is computed, and for whom.
#pragma once

#include <cstdint>
#include <functional>

namespace polyprompt {

enum class Type : int { f32 = 0, bf16 = 1, f16 = 2 };

// Runs work(data) on each thread of a pool at once, or as often as it likes one after the other; empty: no pool.
using Parallel = std::function<void(void (*work)(void*), void* data)>;

// Rows lie one behind another without padding. Row r asks with the queries from query_starts[r] to query_starts[r + 1]
// and sees the keys from key_starts[r] to key_starts[r + 1], behind the keys of prefix bank[r].
// A query, key or value of a head is `width` numbers; heads lie side by side, and `*_stride` numbers lie between pieces.
struct Attention {
    Type type;
    int64_t rows, heads, width, slots;
    const void *query, *key, *value;  // [queries, heads * width], [keys, heads * width] twice
    int64_t query_stride, key_stride;
    const void *prefix_key, *prefix_value;  // `banks` of up to `slots` keys, heads and slots so far apart; null without
    int64_t banks, bank_stride, head_stride, slot_stride;
    const int64_t* bank_slots;  // [banks]: how many of a bank's slots are in use; null: all
    const int64_t *query_starts, *key_starts;  // [rows + 1] each
    const int64_t* bank;                       // [rows]
    float scale;
    void* mixed;   // [queries, heads * width]: softmax(scale * query key^T) value
    float* logsum; // [heads, queries]: log of the sum of exp(scale * query key); null where nobody goes back
};

// The way back, in fp32 and bf16: the gradients of what entered, from that of `mixed`.
struct Gradient {
    const void* mixed;                 // [queries, heads * width]
    void *query, *key, *value;         // like those that entered
    int64_t query_stride, key_stride;
    float* prefix;                     // [2, bank, head, slot, width], added to; null without slots
};

// Why the rows cannot be computed, null where they can be.
const char* refused(const Attention& attention, int64_t queries, int64_t keys);

void forward(const Attention& attention, const Parallel& parallel);
void backward(const Attention& attention, const Gradient& gradient, const Parallel& parallel);

// The instructions that are used: "avx512bf16", "avx512", "avx2" or "portable"; at first the fastest that are there.
const char* instructions();
// Use others from here on, for tests; false where the processor lacks them.
bool use(const char* instructions);

}  // namespace polyprompt
