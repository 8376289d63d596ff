// Which instructions the processor has, and what is refused.
#include "attention.hpp"

#include <cstring>
#include <vector>

#define POLYPROMPT_DECLARE(kernel)                                          \
    namespace polyprompt::kernel {                                          \
    void forward(const Attention&, const Parallel&);                               \
    void backward(const Attention&, const Gradient&, const Parallel&);             \
    }
POLYPROMPT_DECLARE(portable)
#if POLYPROMPT_X86
POLYPROMPT_DECLARE(avx2)
POLYPROMPT_DECLARE(avx512)
POLYPROMPT_DECLARE(avx512bf16)
#endif

namespace polyprompt {

namespace {

struct Kernel {
    const char* name;
    void (*forward)(const Attention&, const Parallel&);
    void (*backward)(const Attention&, const Gradient&, const Parallel&);
};

// Those that the processor can run, the fastest first.
std::vector<Kernel> runnable() {
    std::vector<Kernel> found;
#if POLYPROMPT_X86
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide && __builtin_cpu_supports("avx512bf16"))
        found.push_back({"avx512bf16", avx512bf16::forward, avx512bf16::backward});
    if (wide) found.push_back({"avx512", avx512::forward, avx512::backward});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        found.push_back({"avx2", avx2::forward, avx2::backward});
#endif
    found.push_back({"portable", portable::forward, portable::backward});
    return found;
}

Kernel& kernel() {
    static Kernel found = runnable().front();
    return found;
}

const char* refused_starts(const int64_t* starts, int64_t rows, int64_t end, const char* text) {
    bool good = starts[0] == 0 && starts[rows] == end;
    for (int64_t row = 0; row < rows; row++) good = good && starts[row] <= starts[row + 1];
    return good ? nullptr : text;
}

}  // namespace

const char* refused(const Attention& a, int64_t queries, int64_t keys) {
    if (a.rows < 0 || a.heads < 1 || a.width < 1 || a.slots < 0 || a.banks < 0)
        return "rows, heads, slots and prefixes are counted, and heads have a width";
    if (a.type == Type::bf16 && (a.width % 2 || a.query_stride % 2))
        return "in bf16, heads have an even width, and queries lie an even number of numbers apart";
    if (const char* text = refused_starts(a.query_starts, a.rows, queries, "rows of queries do not follow each other"))
        return text;
    if (const char* text = refused_starts(a.key_starts, a.rows, keys, "rows of keys do not follow each other"))
        return text;
    for (int64_t row = 0; row < a.rows && a.slots; row++)
        if (a.bank[row] < 0 || a.bank[row] >= a.banks) return "a row has the number of a prefix that is not there";
    for (int64_t bank = 0; bank < a.banks && a.bank_slots; bank++)
        if (a.bank_slots[bank] < 0 || a.bank_slots[bank] > a.slots) return "a prefix has more slots than there are";
    return nullptr;
}

void forward(const Attention& attention, const Parallel& parallel) { kernel().forward(attention, parallel); }
void backward(const Attention& attention, const Gradient& gradient, const Parallel& parallel) {
    kernel().backward(attention, gradient, parallel);
}
const char* instructions() { return kernel().name; }
bool use(const char* instructions) {
    for (const Kernel& one : runnable())
        if (!std::strcmp(one.name, instructions)) {
            kernel() = one;
            return true;
        }
    return false;
}

}  // namespace polyprompt
