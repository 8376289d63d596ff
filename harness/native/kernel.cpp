// The kernel for one set of instructions: compiled once for each, into a namespace of its own (see CMakeLists.txt).
//
// A head of a row is computed whole: its keys and values, prefix in front, are packed once, then blocks of queries go
// through. All products are one routine: C[m, n] = sum over k of A[m, k] B[k, n] in fp32, where an element of A and B
// is a unit of 32 bits: a number in fp32, and in bf16 two numbers that are neighbours along k, for dot products of pairs.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "attention.hpp"
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace polyprompt::POLYPROMPT_KERNEL {

using Floats = float __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Units = uint32_t __attribute__((vector_size(64)));
using Shorts = uint16_t __attribute__((vector_size(32)));
constexpr int64_t LANES = 16;
constexpr int64_t BLOCK = 64;  // queries that go through at once; even

template <class Vector, class Number>
inline Vector load(const Number* from) {
    Vector to;
    std::memcpy(&to, from, sizeof to);
    return to;
}
template <class Vector, class Number>
inline void store(Number* to, Vector from) {
    std::memcpy(to, &from, sizeof from);
}
inline Floats splat(float number) { return Floats{} + number; }
inline Floats bits(Units units) { return (Floats)units; }

// Numbers as bf16 in the lower halves: to the nearest, ties to even. What is none stays none: it came out of bf16.
inline Units rounded16(Floats numbers) {
    const Units found = (Units)numbers;
    return (found + 0x7fffu + (found >> 16 & 1u)) >> 16;
}

struct Float32 {
    using Number = float;
    static constexpr int64_t PAIR = 1;  // numbers a unit
    static Floats read16(const Number* from) { return load<Floats>(from); }
    static void write16(Number* to, Floats numbers) { store(to, numbers); }
    static Floats dot(Floats sum, uint32_t left, Units right) {
        float number;
        std::memcpy(&number, &left, 4);
        return sum + number * bits(right);
    }
};

struct BFloat16 {
    using Number = uint16_t;
    static constexpr int64_t PAIR = 2;
    static Floats read16(const Number* from) {
        return bits(__builtin_convertvector(load<Shorts>(from), Units) << 16);
    }
    static void write16(Number* to, Floats numbers) {  // to the nearest, ties to even
#if defined(__AVX512BF16__)
        store(to, (__m256i)_mm512_cvtneps_pbh((__m512)numbers));
#else
        store(to, __builtin_convertvector(rounded16(numbers), Shorts));
#endif
    }
    static Floats dot(Floats sum, uint32_t left, Units right) {
#if defined(__AVX512BF16__)
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(left)), (__m512bh)right);
#else
        uint32_t halves[2] = {left << 16, left & 0xffff0000u};
        float numbers[2];
        std::memcpy(numbers, halves, 8);
        return sum + numbers[0] * bits(right << 16) + numbers[1] * bits(right & 0xffff0000u);
#endif
    }
};

// Two rows of numbers as rows of units, pairs side by side.
inline Units pairs(Floats first, Floats second) {
#if defined(__AVX512BF16__)
    auto half = [](Floats wide) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)wide)); };
    return (Units)_mm512_or_si512(half(first), _mm512_slli_epi32(half(second), 16));
#else
    return rounded16(first) | rounded16(second) << 16;
#endif
}

// exp, to about two units in the last place; 0 far below.
inline Floats exponential(Floats x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
    x *= 1.44269504f;
    x = x < splat(-126.0f) ? splat(-126.0f) : x;
    Floats shifted = x + magic;
    Floats part = x - (shifted - magic);
    Floats power = splat(1.54035304e-4f);  // ln(2)^k / k! of 2^part, |part| <= 1/2
    power = power * part + 1.33335581e-3f;
    power = power * part + 9.61812911e-3f;
    power = power * part + 5.55041087e-2f;
    power = power * part + 2.40226507e-1f;
    power = power * part + 6.93147181e-1f;
    power = power * part + 1.0f;
    Ints exponent = (Ints)shifted << 23;
    return (Floats)((Ints)power + exponent);
}

// Products -----------------------------------------------------------------------------------------------------------

struct Left {  // A[m, k] is at[m * row + k * step]
    const uint32_t* at;
    int64_t row, step;
};

template <class Kind, int R, int V>
inline void tile(Left a, const uint32_t* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, bool add) {
    Floats sums[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = add ? load<Floats>(c + r * ldc + v * LANES) : Floats{};
    for (int64_t k = 0; k < depth; k++) {
        Units right[V];
        for (int v = 0; v < V; v++) right[v] = load<Units>(b + k * ldb + v * LANES);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = Kind::dot(sums[r][v], a.at[r * a.row + k * a.step], right[v]);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(c + r * ldc + v * LANES, sums[r][v]);
}

template <class Kind, int R, int V>
inline void tile_of(int64_t rows, Left a, const uint32_t* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, bool add) {
    if (rows >= R)
        tile<Kind, R, V>(a, b, ldb, depth, c, ldc, add);
    else if constexpr (R > 1)
        tile_of<Kind, R - 1, V>(rows, a, b, ldb, depth, c, ldc, add);
}

template <class Kind, int R, int V>
inline void panel(int64_t m, Left a, const uint32_t* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, bool add) {
    for (int64_t row = 0; row < m; row += R)
        tile_of<Kind, R, V>(
            m - row, {a.at + row * a.row, a.row, a.step}, b, ldb, depth, c + row * ldc, ldc, add);
}

// C [m, n] = A B, or C + A B; n is a multiple of LANES. 28 of 32 registers are used.
template <class Kind>
void product(
    int64_t m, int64_t n, int64_t depth, Left a, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool add) {
    int64_t column = 0;
    for (; column + 4 * LANES <= n; column += 4 * LANES)
        panel<Kind, 6, 4>(m, a, b + column, ldb, depth, c + column, ldc, add);
    for (; column + 2 * LANES <= n; column += 2 * LANES)
        panel<Kind, 12, 2>(m, a, b + column, ldb, depth, c + column, ldc, add);
    if (column < n) panel<Kind, 14, 1>(m, a, b + column, ldb, depth, c + column, ldc, add);
}

// Packing ------------------------------------------------------------------------------------------------------------

// Exchanges the blocks of `Step` by `Step` units beside the diagonal.
template <int Step>
inline void exchange(Units rows[16]) {
#define POLYPROMPT_LANES(of) \
    of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), of(12), of(13), of(14), of(15)
#define POLYPROMPT_LOWER(lane) (lane & Step ? 16 + lane - Step : lane)
#define POLYPROMPT_UPPER(lane) (lane & Step ? 16 + lane : lane + Step)
    for (int row = 0; row < 16; row++)
        if (!(row & Step)) {
            const Units first = rows[row], second = rows[row + Step];
            rows[row] = __builtin_shufflevector(first, second, POLYPROMPT_LANES(POLYPROMPT_LOWER));
            rows[row + Step] = __builtin_shufflevector(first, second, POLYPROMPT_LANES(POLYPROMPT_UPPER));
        }
}

// 16 rows of 16 units to 16 columns.
inline void transpose(Units rows[16]) {
    exchange<1>(rows);
    exchange<2>(rows);
    exchange<4>(rows);
    exchange<8>(rows);
}

inline int64_t rounded(int64_t number, int64_t to) { return (number + to - 1) / to * to; }

// Pieces of a head: first those of a prefix, then those of a row.
template <class Kind>
struct Pieces {
    const typename Kind::Number *front, *own;
    int64_t slots, width, slot_stride, stride;
    const typename Kind::Number* operator[](int64_t place) const {
        return place < slots ? front + place * slot_stride : own + (place - slots) * stride;
    }
};

// [width / PAIR, count] units, columns up to a multiple of LANES zero: neighbours along the width are pairs.
template <class Kind>
void pack_columns(const Pieces<Kind>& pieces, int64_t count, uint32_t* to, int64_t ld) {
    const int64_t units = pieces.width / Kind::PAIR;
    for (int64_t begin = 0; begin < count; begin += LANES)
        for (int64_t unit = 0; unit < units; unit += LANES) {
            Units block[16] = {};
            const int64_t wide = std::min(LANES, units - unit), high = std::min(LANES, count - begin);
            for (int64_t row = 0; row < high; row++) {
                const auto* from = pieces[begin + row] + unit * Kind::PAIR;
                if (wide == LANES)
                    block[row] = load<Units>(from);
                else
                    std::memcpy(&block[row], from, size_t(wide) * 4);
            }
            transpose(block);
            for (int64_t row = 0; row < wide; row++) store(to + (unit + row) * ld + begin, block[row]);
        }
}

// [count / PAIR rounded up, width] units, columns up to a multiple of LANES zero: neighbours along the pieces are pairs.
template <class Kind>
void pack_rows(const Pieces<Kind>& pieces, int64_t count, uint32_t* to, int64_t ld) {
    for (int64_t place = 0; place < count; place += Kind::PAIR, to += ld) {
        const auto* first = pieces[place];
        if constexpr (Kind::PAIR == 1) {
            std::memcpy(to, first, size_t(pieces.width) * 4);
        } else if (place + 1 < count) {
            const auto* second = pieces[place + 1];
            for (int64_t i = 0; i < pieces.width; i++) to[i] = uint32_t(first[i]) | uint32_t(second[i]) << 16;
        } else {
            for (int64_t i = 0; i < pieces.width; i++) to[i] = first[i];
        }
        for (int64_t i = pieces.width; i < ld; i++) to[i] = 0;
    }
}

// A row of fp32 numbers, padded to a multiple of LANES, as units that are pairs along the row.
template <class Kind>
inline void narrow(const float* from, int64_t count, uint32_t* to) {
    auto* numbers = reinterpret_cast<typename Kind::Number*>(to);
    for (int64_t i = 0; i < count; i += LANES) Kind::write16(numbers + i, load<Floats>(from + i));
}

// A row of fp32 numbers, padded to a multiple of LANES, to one that is not.
template <class Kind>
inline void write_row(const float* from, int64_t count, float factor, typename Kind::Number* to) {
    for (int64_t i = 0; i < count; i += LANES) {
        const Floats numbers = load<Floats>(from + i) * factor;
        if (i + LANES <= count) {
            Kind::write16(to + i, numbers);
        } else {
            typename Kind::Number last[LANES];
            Kind::write16(last, numbers);
            std::memcpy(to + i, last, size_t(count - i) * sizeof *to);
        }
    }
}

// Memory of a thread -------------------------------------------------------------------------------------------------

struct Scratch {
    std::vector<uint32_t> memory;
    size_t used = 0;
    void begin(size_t units) {
        used = 0;
        if (memory.size() < units + 16) memory.resize(units + 16);
    }
    template <class Number>
    Number* take(int64_t units) {
        auto start = reinterpret_cast<uintptr_t>(memory.data());
        auto aligned = (start + used * 4 + 63) / 64 * 64;
        used = (aligned - start) / 4 + size_t(units);
        return reinterpret_cast<Number*>(aligned);
    }
};

// The numbers of a vector that belong to a row, and something else behind its end.
inline Floats within(Floats numbers, int64_t begin, int64_t count, float instead) {
    const Ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lanes < int32_t(count - begin) ? numbers : splat(instead);
}

inline float sum_of(Floats numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)numbers);
#else
    float sum = 0;
    for (int lane = 0; lane < 16; lane++) sum += numbers[lane];
    return sum;
#endif
}

inline float most_of(Floats numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)numbers);
#else
    float most = numbers[0];
    for (int lane = 1; lane < 16; lane++) most = std::max(most, numbers[lane]);
    return most;
#endif
}

// The sum of products of two rows.
template <class Kind>
inline float inner(const typename Kind::Number* left, const typename Kind::Number* right, int64_t count) {
    Floats sum = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sum += Kind::read16(left + i) * Kind::read16(right + i);
    if (i < count) {
        typename Kind::Number lasts[2][LANES] = {};
        std::memcpy(lasts[0], left + i, size_t(count - i) * sizeof *left);
        std::memcpy(lasts[1], right + i, size_t(count - i) * sizeof *right);
        sum += Kind::read16(lasts[0]) * Kind::read16(lasts[1]);
    }
    return sum_of(sum);
}

template <class Kind>
struct Head {  // of a row
    using Number = typename Kind::Number;
    const Attention& attention;
    int64_t queries, slots, keys, first_query, columns, wide, head;
    Pieces<Kind> key, value, query;

    Head(const Attention& a, int64_t row, int64_t head) : attention(a), head(head) {
        first_query = a.query_starts[row];
        queries = a.query_starts[row + 1] - first_query;
        const int64_t own = a.key_starts[row], bank = a.bank[row], at = head * a.width;
        slots = !a.slots ? 0 : a.bank_slots ? a.bank_slots[bank] : a.slots;
        keys = slots + a.key_starts[row + 1] - own;
        columns = rounded(keys, LANES);
        wide = rounded(a.width, LANES);
        auto numbers = [](const void* from) { return static_cast<const Number*>(from); };
        auto pieces = [&](const void* prefix, const void* from) {
            const Number* front = slots ? numbers(prefix) + bank * a.bank_stride + head * a.head_stride : nullptr;
            return Pieces<Kind>{
                front, numbers(from) + own * a.key_stride + at, slots, a.width, a.slot_stride, a.key_stride};
        };
        key = pieces(a.prefix_key, a.key);
        value = pieces(a.prefix_value, a.value);
        query = {nullptr, numbers(a.query) + first_query * a.query_stride + at, 0, a.width, 0, a.query_stride};
    }
    int64_t pairs_of(int64_t count) const { return (count + Kind::PAIR - 1) / Kind::PAIR; }
    Left left(const Number* rows, int64_t stride) const {
        return {reinterpret_cast<const uint32_t*>(rows), stride / Kind::PAIR, 1};
    }
};

template <class Kind>
void forward_head(const Attention& a, int64_t row, int64_t number, Scratch& scratch) {
    Head<Kind> head(a, row, number);
    using Number = typename Kind::Number;
    auto* mixed = static_cast<Number*>(a.mixed) + head.first_query * a.heads * a.width + number * a.width;
    const int64_t units = a.width / Kind::PAIR, stride = a.heads * a.width, columns = head.columns;
    if (!head.queries) return;
    if (!head.keys) {
        for (int64_t q = 0; q < head.queries; q++) std::memset(mixed + q * stride, 0, size_t(a.width) * sizeof(Number));
        return;
    }
    const int64_t block = std::min(BLOCK, head.queries);
    scratch.begin(size_t(units * columns + (head.pairs_of(head.keys) + block) * head.wide + 2 * block * columns + 256));
    auto* keys = scratch.take<uint32_t>(units * columns);
    auto* values = scratch.take<uint32_t>(head.pairs_of(head.keys) * head.wide);
    auto* scores = scratch.take<float>(block * columns);
    auto* weights = scratch.take<uint32_t>(block * columns);
    auto* results = scratch.take<float>(block * head.wide);
    pack_columns(head.key, head.keys, keys, columns);
    pack_rows(head.value, head.keys, values, head.wide);
    for (int64_t begin = 0; begin < head.queries; begin += block) {
        const int64_t count = std::min(block, head.queries - begin);
        product<Kind>(
            count, columns, units, head.left(head.query[begin], a.query_stride), keys, columns, scores, columns, false);
        float inverse[BLOCK];
        for (int64_t q = 0; q < count; q++) {
            float* line = scores + q * columns;
            Floats most = splat(-INFINITY);
            for (int64_t c = 0; c < columns; c += LANES) {
                Floats found = within(load<Floats>(line + c) * a.scale, c, head.keys, -INFINITY);
                store(line + c, found);
                most = found > most ? found : most;
            }
            const float top = most_of(most);
            Floats sum = {};
            for (int64_t c = 0; c < columns; c += LANES) {
                Floats found = within(exponential(load<Floats>(line + c) - top), c, head.keys, 0.0f);
                store(line + c, found);
                sum += found;
            }
            const float total = sum_of(sum);
            inverse[q] = 1.0f / total;
            if (a.logsum) a.logsum[number * a.query_starts[a.rows] + head.first_query + begin + q] = top + std::log(total);
            narrow<Kind>(line, columns, weights + q * (columns / Kind::PAIR));
        }
        product<Kind>(
            count, head.wide, head.pairs_of(head.keys), {weights, columns / Kind::PAIR, 1}, values, head.wide, results,
            head.wide, false);
        for (int64_t q = 0; q < count; q++)
            write_row<Kind>(results + q * head.wide, a.width, inverse[q], mixed + (begin + q) * stride);
    }
}

template <class Kind>
void backward_head(const Attention& a, const Gradient& g, int64_t row, int64_t number, float* of_prefix, Scratch& scratch) {
    Head<Kind> head(a, row, number);
    using Number = typename Kind::Number;
    const int64_t units = a.width / Kind::PAIR, stride = a.heads * a.width, columns = head.columns, wide = head.wide;
    const int64_t own = a.key_starts[row], at = number * a.width;
    auto* of_key = static_cast<Number*>(g.key) + own * g.key_stride + at;
    auto* of_value = static_cast<Number*>(g.value) + own * g.key_stride + at;
    auto* of_query = static_cast<Number*>(g.query) + head.first_query * g.query_stride + at;
    if (!head.queries || !head.keys) {
        for (int64_t k = 0; k < head.keys - head.slots; k++) {
            std::memset(of_key + k * g.key_stride, 0, size_t(a.width) * sizeof(Number));
            std::memset(of_value + k * g.key_stride, 0, size_t(a.width) * sizeof(Number));
        }
        for (int64_t q = 0; q < head.queries; q++)
            std::memset(of_query + q * g.query_stride, 0, size_t(a.width) * sizeof(Number));
        return;
    }
    const auto* mixed = static_cast<const Number*>(a.mixed) + head.first_query * stride + at;
    const auto* above = static_cast<const Number*>(g.mixed) + head.first_query * stride + at;
    const Pieces<Kind> grads{nullptr, above, 0, a.width, 0, stride};
    const int64_t block = std::min(BLOCK, head.queries), high = head.pairs_of(block), tall = rounded(head.keys, 16);
    scratch.begin(size_t(2 * units * columns + head.pairs_of(head.keys) * wide + 5 * (block + 1) * columns +
                         2 * high * wide + block * wide + 2 * tall * wide + 512));
    auto* keys = scratch.take<uint32_t>(units * columns);
    auto* values = scratch.take<uint32_t>(units * columns);
    auto* key_rows = scratch.take<uint32_t>(head.pairs_of(head.keys) * wide);
    auto* scores = scratch.take<float>((block + 1) * columns);
    auto* changes = scratch.take<float>((block + 1) * columns);
    auto* weights = scratch.take<uint32_t>(high * columns);     // pairs along the queries
    auto* slopes = scratch.take<uint32_t>(high * columns);      // the same
    auto* slope_rows = scratch.take<uint32_t>(block * columns); // pairs along the keys
    auto* queries = scratch.take<uint32_t>(high * wide);
    auto* grad_rows = scratch.take<uint32_t>(high * wide);
    auto* results = scratch.take<float>(block * wide);
    auto* key_sums = scratch.take<float>(tall * wide);
    auto* value_sums = scratch.take<float>(tall * wide);
    pack_columns(head.key, head.keys, keys, columns);
    pack_columns(head.value, head.keys, values, columns);
    pack_rows(head.key, head.keys, key_rows, wide);
    for (int64_t begin = 0; begin < head.queries; begin += block) {
        const int64_t count = std::min(block, head.queries - begin), pairs_high = head.pairs_of(count);
        product<Kind>(
            count, columns, units, head.left(head.query[begin], a.query_stride), keys, columns, scores, columns, false);
        product<Kind>(count, columns, units, head.left(grads[begin], stride), values, columns, changes, columns, false);
        for (int64_t q = 0; q < count; q++) {
            float* line = scores + q * columns;
            float* change = changes + q * columns;
            const float logsum = a.logsum[number * a.query_starts[a.rows] + head.first_query + begin + q];
            const float mean = inner<Kind>(grads[begin + q], mixed + (begin + q) * stride, a.width);
            for (int64_t c = 0; c < columns; c += LANES) {
                Floats weight = within(exponential(load<Floats>(line + c) * a.scale - logsum), c, head.keys, 0.0f);
                store(line + c, weight);
                store(change + c, weight * (load<Floats>(change + c) - mean) * a.scale);
            }
            narrow<Kind>(change, columns, slope_rows + q * (columns / Kind::PAIR));
        }
        if constexpr (Kind::PAIR == 2) {
            if (count % 2) {
                std::memset(scores + count * columns, 0, size_t(columns) * 4);
                std::memset(changes + count * columns, 0, size_t(columns) * 4);
            }
            for (int64_t pair = 0; pair < pairs_high; pair++)
                for (int64_t c = 0; c < columns; c += LANES) {
                    const float *line = scores + 2 * pair * columns + c, *change = changes + 2 * pair * columns + c;
                    store(weights + pair * columns + c, pairs(load<Floats>(line), load<Floats>(line + columns)));
                    store(slopes + pair * columns + c, pairs(load<Floats>(change), load<Floats>(change + columns)));
                }
        } else {
            std::memcpy(weights, scores, size_t(count * columns) * 4);
            std::memcpy(slopes, changes, size_t(count * columns) * 4);
        }
        Pieces<Kind> asked = head.query, given = grads;
        asked.own = head.query[begin];
        given.own = grads[begin];
        pack_rows(asked, count, queries, wide);
        pack_rows(given, count, grad_rows, wide);
        product<Kind>(
            count, wide, head.pairs_of(head.keys), {slope_rows, columns / Kind::PAIR, 1}, key_rows, wide, results, wide,
            false);
        for (int64_t q = 0; q < count; q++)
            write_row<Kind>(results + q * wide, a.width, 1.0f, of_query + (begin + q) * g.query_stride);
        product<Kind>(head.keys, wide, pairs_high, {weights, 1, columns}, grad_rows, wide, value_sums, wide, begin > 0);
        product<Kind>(head.keys, wide, pairs_high, {slopes, 1, columns}, queries, wide, key_sums, wide, begin > 0);
    }
    const int64_t bank = a.bank[row], half = a.banks * a.heads * a.slots * a.width;
    float* prefix = of_prefix + (bank * a.heads + number) * a.slots * a.width;
    for (int64_t slot = 0; slot < head.slots && of_prefix; slot++)
        for (int64_t i = 0; i < a.width; i++) {
            prefix[slot * a.width + i] += key_sums[slot * wide + i];
            prefix[half + slot * a.width + i] += value_sums[slot * wide + i];
        }
    for (int64_t k = head.slots; k < head.keys; k++) {
        write_row<Kind>(key_sums + k * wide, a.width, 1.0f, of_key + (k - head.slots) * g.key_stride);
        write_row<Kind>(value_sums + k * wide, a.width, 1.0f, of_value + (k - head.slots) * g.key_stride);
    }
}

// Threads ------------------------------------------------------------------------------------------------------------

template <class Work>
void on_all(int64_t count, Parallel parallel, Work work) {
    struct Shared {
        std::atomic<int64_t> next{0};
        int64_t count;
        Work* work;
    } shared;
    shared.count = count;
    shared.work = &work;
    auto run = [](void* data) {
        auto* shared = static_cast<Shared*>(data);
        thread_local Scratch scratch;
        for (int64_t number; (number = shared->next.fetch_add(1)) < shared->count;) (*shared->work)(number, scratch);
    };
    if (parallel && count > 1)
        parallel(run, &shared, 0, 0);
    else
        run(&shared);
}

template <class Kind>
void forward_of(const Attention& a, Parallel parallel) {
    on_all(a.rows * a.heads, parallel, [&](int64_t number, Scratch& scratch) {
        forward_head<Kind>(a, number / a.heads, number % a.heads, scratch);
    });
}

// Rows are divided into parts with sums of their own for the prefixes, whose number does not depend on the threads:
// the result is the same whoever computes what.
constexpr int64_t PARTS = 4;

template <class Kind>
void backward_of(const Attention& a, const Gradient& g, Parallel parallel) {
    const int64_t size = g.prefix ? 2 * a.banks * a.heads * a.slots * a.width : 0, parts = std::min(PARTS, a.rows);
    std::vector<float> sums(size_t(parts > 1 ? parts * size : 0));
    on_all(parts * a.heads, parallel, [&](int64_t number, Scratch& scratch) {
        const int64_t part = number / a.heads, head = number % a.heads;
        float* of_prefix = !size ? nullptr : parts > 1 ? sums.data() + part * size : g.prefix;
        for (int64_t row = part * a.rows / parts; row < (part + 1) * a.rows / parts; row++)
            backward_head<Kind>(a, g, row, head, of_prefix, scratch);
    });
    for (size_t i = 0; i < sums.size(); i++) g.prefix[i % size_t(size)] += sums[i];
}

void forward(const Attention& a, Parallel parallel) {
    a.type == Type::f32 ? forward_of<Float32>(a, parallel) : forward_of<BFloat16>(a, parallel);
}
void backward(const Attention& a, const Gradient& g, Parallel parallel) {
    a.type == Type::f32 ? backward_of<Float32>(a, g, parallel) : backward_of<BFloat16>(a, g, parallel);
}

}  // namespace polyprompt::POLYPROMPT_KERNEL
