// The kernel for one set of instructions: compiled once for each, into a namespace of its own (see CMakeLists.txt).
//
// A head of a row is computed whole: its keys and values are packed once, those of a prefix once for several rows, then
// blocks of queries go through. All products are one routine: C[m, n] = sum over k of A[m, k] B[k, n] in fp32, where an
// element of A and B is a unit of 32 bits: a number in fp32; where the processor has dot products of bf16, two numbers
// that are neighbours along k. Numbers of 16 bits that it has none for become fp32 when they are packed.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "attention.hpp"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Numbers a vector, as many as the processor has at once: lists of lanes are written out. POLYPROMPT_EMULATED: everything
// is laid out as for AVX-512 with bf16, and computed without, for tests on other processors.
#if defined(__AVX512F__) || defined(POLYPROMPT_EMULATED)
#define POLYPROMPT_LANES(of) \
    of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), of(12), of(13), of(14), of(15)
#elif defined(__AVX2__)
#define POLYPROMPT_LANES(of) of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)
#else
#define POLYPROMPT_LANES(of) of(0), of(1), of(2), of(3)
#endif
#define POLYPROMPT_ITSELF(lane) lane

namespace polyprompt::POLYPROMPT_KERNEL {

constexpr int NUMBERED[] = {POLYPROMPT_LANES(POLYPROMPT_ITSELF)};
constexpr int64_t LANES = sizeof NUMBERED / sizeof *NUMBERED;
using Floats = float __attribute__((vector_size(4 * LANES)));
using Ints = int32_t __attribute__((vector_size(4 * LANES)));
using Units = uint32_t __attribute__((vector_size(4 * LANES)));
using Shorts = uint16_t __attribute__((vector_size(2 * LANES)));

constexpr int64_t BLOCK = 64;     // queries that go through at once; even
constexpr int64_t PART = 256;     // keys that are packed as one; a multiple of LANES
constexpr int64_t AT_ONCE = 384;  // and those whose scores are there at once: they stay in the second cache
constexpr int64_t GROUP = 8;      // rows for which a prefix is packed once

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
inline Units widened(Shorts numbers) { return __builtin_convertvector(numbers, Units); }

// Numbers as bf16 in the lower halves: to the nearest, ties to even. What is none stays none: it came out of bf16.
inline Units rounded16(Floats numbers) {
    const Units found = (Units)numbers;
    return (found + 0x7fffu + (found >> 16 & 1u)) >> 16;
}

// A kind of numbers: how they are read and written, and as what they are multiplied.
struct Float32 {
    using Number = float;
    using Product = Float32;
    static constexpr int64_t PAIR = 1;          // numbers a unit
    static constexpr bool CONVERTED = false;    // where they lie they are no units
    static Floats read(const Number* from) { return load<Floats>(from); }
    static void write(Number* to, Floats numbers) { store(to, numbers); }
    static Floats dot(Floats sum, uint32_t left, Units right) {
        float number;
        std::memcpy(&number, &left, 4);
        return sum + number * bits(right);
    }
};

struct BFloat16 {
    using Number = uint16_t;
    static Floats read(const Number* from) { return bits(widened(load<Shorts>(from)) << 16); }
#if defined(__AVX512BF16__) || defined(POLYPROMPT_EMULATED)
    using Product = BFloat16;
    static constexpr int64_t PAIR = 2;
    static constexpr bool CONVERTED = false;
    // Two rows of numbers as a row of units.
    static Units pairs(Floats first, Floats second) { return rounded(first) | rounded(second) << 16; }
#if defined(__AVX512BF16__)
    static Units rounded(Floats numbers) {
        return (Units)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)numbers));
    }
    static void write(Number* to, Floats numbers) { store(to, (__m256i)_mm512_cvtneps_pbh((__m512)numbers)); }
    static Floats dot(Floats sum, uint32_t left, Units right) {
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(int(left)), (__m512bh)right);
    }
#else
    static Units rounded(Floats numbers) { return rounded16(numbers); }
    static void write(Number* to, Floats numbers) { store(to, __builtin_convertvector(rounded16(numbers), Shorts)); }
    static Floats dot(Floats sum, uint32_t left, Units right) {
        const uint32_t halves[2] = {left << 16, left & 0xffff0000u};
        float numbers[2];
        std::memcpy(numbers, halves, 8);
        return sum + numbers[0] * bits(right << 16) + numbers[1] * bits(right & 0xffff0000u);
    }
#endif
#else
    using Product = Float32;
    static constexpr int64_t PAIR = 1;
    static constexpr bool CONVERTED = true;
    static void write(Number* to, Floats numbers) {
        store(to, __builtin_convertvector(rounded16(numbers), Shorts));
    }
#endif
};

struct Float16 {
    using Number = uint16_t;
    using Product = Float32;
    static constexpr int64_t PAIR = 1;
    static constexpr bool CONVERTED = true;
#if defined(__AVX512F__)
    static Floats read(const Number* from) { return (Floats)_mm512_cvtph_ps(load<__m256i>(from)); }
    static void write(Number* to, Floats numbers) {
        store(to, _mm512_cvtps_ph((__m512)numbers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
#elif defined(__F16C__)
    static Floats read(const Number* from) { return (Floats)_mm256_cvtph_ps(load<__m128i>(from)); }
    static void write(Number* to, Floats numbers) {
        store(to, _mm256_cvtps_ph((__m256)numbers, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
#else
    // The exponent of fp16 is 112 less than that of fp32, whose products make its subnormal numbers right too.
    static Floats read(const Number* from) {
        const Units half = widened(load<Shorts>(from)), large = half & 0x7c00u;
        const Floats scaled = bits((half & 0x7fffu) << 13) * 0x1p112f;
        const Units infinite = (Units)(large == 0x7c00u) & 0x7f800000u;
        return bits((Units)scaled | infinite | (half & 0x8000u) << 16);
    }
    static void write(Number* to, Floats numbers) {  // to the nearest, ties to even
        const Units found = (Units)numbers, size = found & 0x7fffffffu;
        const Units normal = (size + 0xfffu + (size >> 13 & 1u) - 0x38000000u) >> 13;
        const Units subnormal = (Units)(bits(size) + 0.5f) - 0x3f000000u;  // a half's last place is that of fp16
        const Units none = (Units)(size > 0x7f800000u) & 0x200u;
        Units half = size < 0x38800000u ? subnormal : normal;
        half = size >= 0x47800000u ? (none | 0x7c00u) : half;
        store(to, __builtin_convertvector(half | (found >> 16 & 0x8000u), Shorts));
    }
#endif
};

// 2 to the power of x, 0 far below: to about two units in the last place, or to one in ten thousand, a twentieth of what
// the result loses as bf16.
template <bool Exact>
inline Floats two_to(Floats x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to an integer
    x = x < splat(-126.0f) ? splat(-126.0f) : x;
    Floats shifted = x + magic;
    Floats part = x - (shifted - magic);
    Floats power;
    if constexpr (Exact) {
        power = splat(1.54035304e-4f);  // ln(2)^k / k! of 2^part, |part| <= 1/2
        power = power * part + 1.33335581e-3f;
        power = power * part + 9.61812911e-3f;
        power = power * part + 5.55041087e-2f;
        power = power * part + 2.40226507e-1f;
        power = power * part + 6.93147181e-1f;
        power = power * part + 1.0f;
    } else {
        power = splat(0.0551716703f);  // the cubic whose largest relative error there is least
        power = power * part + 0.242611125f;
        power = power * part + 0.693260985f;
        power = power * part + 0.999928073f;
    }
    Ints exponent = (Ints)shifted << 23;
    return (Floats)((Ints)power + exponent);
}

constexpr float LOG2_E = 1.44269504f;

inline Floats exponential(Floats x) { return two_to<true>(x * LOG2_E); }

// Products -----------------------------------------------------------------------------------------------------------

struct Left {  // A[m, k] is at[m * row + k * step]
    const uint32_t* at;
    int64_t row, step;
};

template <class Kind, int R, int V>
inline void tile(Left a, const uint32_t* b, int64_t ldb, int64_t depth, float* c, int64_t ldc, bool add) {
    Floats sums[R][V] = {};  // added to what is there at the end: a choice here would keep them out of registers
    for (int64_t k = 0; k < depth; k++) {
        Units right[V];
        for (int v = 0; v < V; v++) right[v] = load<Units>(b + k * ldb + v * LANES);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sums[r][v] = Kind::dot(sums[r][v], a.at[r * a.row + k * a.step], right[v]);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) {
            float* place = c + r * ldc + v * LANES;
            store(place, add ? sums[r][v] + load<Floats>(place) : sums[r][v]);
        }
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
    const int64_t tiles = (m + R - 1) / R, high = tiles ? (m + tiles - 1) / tiles : 0;  // about equal: low ones wait
    for (int64_t row = 0; row < m; row += high)
        tile_of<Kind, R, V>(
            std::min(high, m - row), {a.at + row * a.row, a.row, a.step}, b, ldb, depth, c + row * ldc, ldc, add);
}

// C [m, n] = A B, or C + A B; n is a multiple of LANES. The tiles leave few registers unused, of 32 or 16.
template <class Kind>
void product(
    int64_t m, int64_t n, int64_t depth, Left a, const uint32_t* b, int64_t ldb, float* c, int64_t ldc, bool add) {
#if defined(__AVX512F__) || defined(__aarch64__) || defined(POLYPROMPT_EMULATED)
    constexpr int QUADS = 6, TRIPLES = 8, TWOS = 12, ONES = 14;
#else
    constexpr int QUADS = 0, TRIPLES = 0, TWOS = 6, ONES = 12;
#endif
    int64_t column = 0;
    if constexpr (QUADS > 0)
        for (; column + 4 * LANES <= n; column += 4 * LANES)
            panel<Kind, QUADS, 4>(m, a, b + column, ldb, depth, c + column, ldc, add);
    if constexpr (TRIPLES > 0)
        if (column + 3 * LANES == n) return panel<Kind, TRIPLES, 3>(m, a, b + column, ldb, depth, c + column, ldc, add);
    for (; column + 2 * LANES <= n; column += 2 * LANES)
        panel<Kind, TWOS, 2>(m, a, b + column, ldb, depth, c + column, ldc, add);
    if (column < n) panel<Kind, ONES, 1>(m, a, b + column, ldb, depth, c + column, ldc, add);
}

// Packing ------------------------------------------------------------------------------------------------------------

// Exchanges the blocks of `Step` by `Step` units beside the diagonal.
template <int Step>
inline void exchange(Units rows[LANES]) {
#define POLYPROMPT_LOWER(lane) (lane & Step ? int(LANES) + lane - Step : lane)
#define POLYPROMPT_UPPER(lane) (lane & Step ? int(LANES) + lane : lane + Step)
    for (int row = 0; row < LANES; row++)
        if (!(row & Step)) {
            const Units first = rows[row], second = rows[row + Step];
            rows[row] = __builtin_shufflevector(first, second, POLYPROMPT_LANES(POLYPROMPT_LOWER));
            rows[row + Step] = __builtin_shufflevector(first, second, POLYPROMPT_LANES(POLYPROMPT_UPPER));
        }
}

// As many rows as units to columns.
inline void transpose(Units rows[LANES]) {
    exchange<1>(rows);
    exchange<2>(rows);
    if constexpr (LANES > 4) exchange<4>(rows);
    if constexpr (LANES > 8) exchange<8>(rows);
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

// `count` units of neighbours, at most LANES, zeros behind them.
template <class Kind>
inline Units units_of(const typename Kind::Number* from, int64_t count) {
    using Number = typename Kind::Number;
    Number last[LANES * Kind::PAIR] = {};
    if (count < LANES) {
        std::memcpy(last, from, size_t(count * Kind::PAIR) * sizeof(Number));
        from = last;
    }
    if constexpr (Kind::CONVERTED)
        return (Units)Kind::read(from);
    else
        return load<Units>(from);
}

// [width / PAIR, count] units, columns up to a multiple of LANES zero: neighbours along the width are pairs.
template <class Kind>
void pack_columns(const Pieces<Kind>& pieces, int64_t count, uint32_t* to, int64_t ld) {
    const int64_t units = pieces.width / Kind::PAIR;
    for (int64_t begin = 0; begin < count; begin += LANES)
        for (int64_t unit = 0; unit < units; unit += LANES) {
            Units block[LANES];
            const int64_t wide = std::min(LANES, units - unit), high = std::min(LANES, count - begin);
            uint32_t* place = to + unit * ld + begin;
            if (wide == LANES) {  // loops of a known length, so that a block stays in registers
                for (int row = 0; row < LANES; row++)
                    block[row] = row < high ? units_of<Kind>(pieces[begin + row] + unit * Kind::PAIR, LANES) : Units{};
                transpose(block);
                for (int row = 0; row < LANES; row++) store(place + row * ld, block[row]);
            } else {
                for (int row = 0; row < LANES; row++)
                    block[row] = row < high ? units_of<Kind>(pieces[begin + row] + unit * Kind::PAIR, wide) : Units{};
                transpose(block);
                for (int64_t row = 0; row < wide; row++) store(place + row * ld, block[row]);
            }
        }
}

// [count / PAIR rounded up, width] units, columns up to a multiple of LANES zero: neighbours along the pieces are pairs.
template <class Kind>
void pack_rows(const Pieces<Kind>& pieces, int64_t count, uint32_t* to, int64_t ld) {
    for (int64_t place = 0; place < count; place += Kind::PAIR, to += ld) {
        const auto* first = pieces[place];
        if constexpr (Kind::PAIR == 1) {
            for (int64_t i = 0; i < pieces.width; i += LANES)
                store(to + i, units_of<Kind>(first + i, std::min(LANES, pieces.width - i)));
            continue;
        } else {
            const bool paired = place + 1 < count;
            const auto* second = paired ? pieces[place + 1] : first;
            const uint32_t upper = paired ? 0xffff0000u : 0;
            int64_t i = 0;
            for (; i + LANES <= pieces.width; i += LANES)
                store(to + i, widened(load<Shorts>(first + i)) | (widened(load<Shorts>(second + i)) << 16 & upper));
            for (; i < pieces.width; i++) to[i] = uint32_t(first[i]) | (uint32_t(second[i]) << 16 & upper);
        }
        for (int64_t i = pieces.width; i < ld; i++) to[i] = 0;
    }
}

// Rows of numbers as A of a product: where they lie, or converted.
template <class Kind>
Left left(const typename Kind::Number* from, int64_t stride, int64_t count, int64_t width, uint32_t* converted) {
    if constexpr (!Kind::CONVERTED) return {reinterpret_cast<const uint32_t*>(from), stride / Kind::PAIR, 1};
    const int64_t ld = rounded(width, LANES);
    pack_rows(Pieces<Kind>{nullptr, from, 0, width, 0, stride}, count, converted, ld);
    return {converted, ld, 1};
}

// A row of fp32 numbers, padded to a multiple of LANES, as units that are pairs along the row.
template <class Kind>
inline void narrow(const float* from, int64_t count, uint32_t* to) {
    if constexpr (Kind::PAIR == 1) {
        std::memcpy(to, from, size_t(count) * 4);
    } else {
        auto* numbers = reinterpret_cast<typename Kind::Number*>(to);
        for (int64_t i = 0; i < count; i += LANES) Kind::write(numbers + i, load<Floats>(from + i));
    }
}

// A row of fp32 numbers, padded to a multiple of LANES, to one that is not.
template <class Kind>
inline void write_row(const float* from, int64_t count, float factor, typename Kind::Number* to) {
    for (int64_t i = 0; i < count; i += LANES) {
        const Floats numbers = load<Floats>(from + i) * factor;
        if (i + LANES <= count) {
            Kind::write(to + i, numbers);
        } else {
            typename Kind::Number last[LANES];
            Kind::write(last, numbers);
            std::memcpy(to + i, last, size_t(count - i) * sizeof *to);
        }
    }
}

// Memory of a thread -------------------------------------------------------------------------------------------------

// Keys and values, packed. `slots` of a prefix may stand in front, in columns of their own up to a multiple of LANES.
struct Part {
    const uint32_t *keys, *values;  // [width / PAIR, ld], [columns / PAIR, width rounded up]
    int64_t slots, count, columns, ld;
};

struct Scratch {
    std::vector<uint32_t> memory;
    std::vector<Part> parts;
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
    const Ints lanes = {POLYPROMPT_LANES(POLYPROMPT_ITSELF)};
    return lanes < int32_t(count - begin) ? numbers : splat(instead);
}

inline float sum_of(Floats numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)numbers);
#else
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += numbers[lane];
    return sum;
#endif
}

inline float most_of(Floats numbers) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)numbers);
#else
    float most = numbers[0];
    for (int lane = 1; lane < LANES; lane++) most = std::max(most, numbers[lane]);
    return most;
#endif
}

// The sum of products of two rows.
template <class Kind>
inline float inner(const typename Kind::Number* left, const typename Kind::Number* right, int64_t count) {
    Floats sum = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sum += Kind::read(left + i) * Kind::read(right + i);
    if (i < count) {
        typename Kind::Number lasts[2][LANES] = {};
        std::memcpy(lasts[0], left + i, size_t(count - i) * sizeof *left);
        std::memcpy(lasts[1], right + i, size_t(count - i) * sizeof *right);
        sum += Kind::read(lasts[0]) * Kind::read(lasts[1]);
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
    static int64_t pairs_of(int64_t count) { return (count + Kind::PAIR - 1) / Kind::PAIR; }
};

// Units of memory for so many keys and values.
template <class Kind>
int64_t packed_size(int64_t keys, int64_t width) {
    const int64_t aligned = 2 * 16 * (keys / PART + 1);
    return width / Kind::PAIR * rounded(keys, LANES) + Head<Kind>::pairs_of(keys) * rounded(width, LANES) + aligned;
}

// Packs keys and values in parts, behind those that are there.
template <class Kind>
void pack(Pieces<Kind> key, Pieces<Kind> value, int64_t count, Scratch& scratch) {
    const int64_t wide = rounded(key.width, LANES);
    for (int64_t begin = 0; begin < count; begin += PART) {
        const int64_t some = std::min(PART, count - begin), columns = rounded(some, LANES);
        auto* keys = scratch.take<uint32_t>(key.width / Kind::PAIR * columns);
        auto* values = scratch.take<uint32_t>(Head<Kind>::pairs_of(some) * wide);
        pack_columns(key, some, keys, columns);
        pack_rows(value, some, values, wide);
        scratch.parts.push_back({keys, values, 0, some, columns, columns});
        key.own += PART * key.stride;
        value.own += PART * value.stride;
    }
}

// Visits the columns of parts in which keys are, a vector at a time: visit(column, how many keys there are from it on).
template <class Visit>
inline void each_of(const Part* part, const Part* end, Visit visit) {
    for (int64_t column = 0; part < end; column += part->columns, part++) {
        for (int64_t c = 0; c < part->slots; c += LANES) visit(column + c, part->slots - c);
        const int64_t own = column + rounded(part->slots, LANES);
        for (int64_t c = 0; c < part->count; c += LANES) visit(own + c, part->count - c);
    }
}

// Scores of queries against parts, [count, ld], to weights, of which the largest would be 1 and those of no keys are 0.
// `scale` is for powers of two, and so are `top`, which is at least what it was, and `sum`, [count] up to a multiple of
// LANES. The weights are units at `to`, [count, ld / PAIR], which may be `scores` where units are fp32.
template <class Kind>
void weigh(
    const float* scores, int64_t count, int64_t ld, const Part* part, const Part* end, float scale, float* top, float* sum,
    uint32_t* to) {
    for (int64_t first = 0; first < count; first += LANES) {
        const int64_t some = std::min(LANES, count - first);
        Units lines[LANES] = {};
        for (int64_t q = 0; q < some; q++) {
            const float* line = scores + (first + q) * ld;
            Floats most = splat(top[first + q]);
            each_of(part, end, [&](int64_t column, int64_t left) {
                Floats found = load<Floats>(line + column) * scale;
                if (left < LANES) found = within(found, 0, left, -INFINITY);
                most = found > most ? found : most;
            });
            lines[q] = (Units)most;
        }
        transpose(lines);
        Floats tops = bits(lines[0]);
        for (int lane = 1; lane < LANES; lane++) tops = bits(lines[lane]) > tops ? bits(lines[lane]) : tops;
        store(top + first, tops);
        for (int64_t q = 0; q < some; q++) {
            const float* line = scores + (first + q) * ld;
            auto* weights = reinterpret_cast<typename Kind::Number*>(to + (first + q) * (ld / Kind::PAIR));
            const float highest = top[first + q];
            Floats sums = {};
            each_of(part, end, [&](int64_t column, int64_t left) {
                Floats found = two_to<Kind::PAIR == 1>(load<Floats>(line + column) * scale - highest);
                if (left < LANES) found = within(found, 0, left, 0.0f);
                sums += found;
                if constexpr (Kind::PAIR == 1)
                    store(to + (first + q) * ld + column, found);
                else
                    Kind::write(weights + column, found);
            });
            lines[q] = (Units)sums;
        }
        for (int64_t q = some; q < LANES; q++) lines[q] = Units{};
        transpose(lines);
        Floats sums = bits(lines[0]);
        for (int lane = 1; lane < LANES; lane++) sums += bits(lines[lane]);
        store(sum + first, sums);
    }
}

// A head of a row against the parts of its keys: as many of them at once as AT_ONCE allows; then what was found is
// scaled by what was the largest score before and is now.
template <class Kind>
void attend(const Head<Kind>& head, Scratch& scratch) {
    using Product = typename Kind::Product;
    const Attention& a = head.attention;
    const int64_t units = a.width / Kind::PAIR, stride = a.heads * a.width, wide = head.wide;
    const int64_t block = std::min(BLOCK, head.queries), most = std::min(AT_ONCE, head.columns);
    auto* asked = scratch.take<uint32_t>(Kind::CONVERTED ? block * wide : 0);
    auto* scores = scratch.take<float>(block * most);
    auto* narrowed = scratch.take<uint32_t>(Kind::PAIR > 1 ? block * most / Kind::PAIR : 0);
    auto* results = scratch.take<float>(block * wide);
    const Part *parts = scratch.parts.data(), *last = parts + scratch.parts.size();
    auto* mixed = static_cast<typename Kind::Number*>(a.mixed) + head.first_query * stride + head.head * a.width;
    for (int64_t begin = 0; begin < head.queries; begin += block) {
        const int64_t count = std::min(block, head.queries - begin);
        const Left query = left<Kind>(head.query[begin], a.query_stride, count, a.width, asked);
        float top[BLOCK], sum[BLOCK], before[BLOCK], found[BLOCK];
        std::fill(top, top + BLOCK, -INFINITY);
        for (const Part *part = parts, *end = part; part < last; part = end) {
            int64_t columns = 0;
            do {
                product<Product>(count, end->columns, units, query, end->keys, end->ld, scores + columns, most, false);
                columns += end->columns;
                end++;
            } while (end < last && columns + end->columns <= most);
            std::copy(top, top + count, before);
            auto* weights = Kind::PAIR > 1 ? narrowed : reinterpret_cast<uint32_t*>(scores);
            weigh<Kind>(scores, count, most, part, end, a.scale * LOG2_E, top, part > parts ? found : sum, weights);
            for (int64_t q = 0; q < count && part > parts; q++) {
                const float factor = std::exp2(before[q] - top[q]);
                for (int64_t i = 0; i < wide; i += LANES)
                    store(results + q * wide + i, load<Floats>(results + q * wide + i) * factor);
                sum[q] = sum[q] * factor + found[q];
            }
            for (; part < end; weights += part->columns / Kind::PAIR, part++) {
                const int64_t depth = rounded(part->slots, LANES) / Kind::PAIR + head.pairs_of(part->count);
                product<Product>(
                    count, wide, depth, {weights, most / Kind::PAIR, 1}, part->values, wide, results, wide, part > parts);
            }
        }
        for (int64_t q = 0; q < count; q++) {
            if (a.logsum)
                a.logsum[head.head * a.query_starts[a.rows] + head.first_query + begin + q] =
                    top[q] / LOG2_E + std::log(sum[q]);
            write_row<Kind>(results + q * wide, a.width, 1.0f / sum[q], mixed + (begin + q) * stride);
        }
    }
}

// Up to LANES numbers, zeros behind them.
template <class Kind>
inline Floats read_some(const typename Kind::Number* from, int64_t count) {
    if (count >= LANES) return Kind::read(from);
    typename Kind::Number last[LANES] = {};
    std::memcpy(last, from, size_t(count) * sizeof *from);
    return Kind::read(last);
}

// A head of a row that asks once: keys and values are read where they lie, since to pack them takes longer than the
// products.
template <class Kind>
void attend_once(const Head<Kind>& head, Scratch& scratch) {
    const Attention& a = head.attention;
    auto* query = scratch.take<float>(head.wide);
    auto* weights = scratch.take<float>(head.columns);
    auto* results = scratch.take<float>(head.wide);
    for (int64_t i = 0; i < a.width; i += LANES) store(query + i, read_some<Kind>(head.query[0] + i, a.width - i) * a.scale);
    Floats most = splat(-INFINITY), sums = {};
    for (int64_t begin = 0; begin < head.keys; begin += LANES) {
        Units block[LANES] = {};
        for (int64_t row = 0; row < std::min(LANES, head.keys - begin); row++) {
            const auto* key = head.key[begin + row];
            Floats sum = {};
            for (int64_t i = 0; i < a.width; i += LANES) sum += load<Floats>(query + i) * read_some<Kind>(key + i, a.width - i);
            block[row] = (Units)sum;
        }
        transpose(block);
        Floats scores = {};
        for (int64_t part = 0; part < LANES; part++) scores += bits(block[part]);
        store(weights + begin, scores);
        scores = within(scores, begin, head.keys, -INFINITY);
        most = scores > most ? scores : most;
    }
    const float top = most_of(most);
    for (int64_t begin = 0; begin < head.keys; begin += LANES) {
        const Floats found = within(exponential(load<Floats>(weights + begin) - top), begin, head.keys, 0.0f);
        store(weights + begin, found);
        sums += found;
    }
    const float sum = sum_of(sums);
    for (int64_t i = 0; i < a.width; i += LANES) {
        constexpr int ROWS = 4;  // sums that do not wait for each other
        Floats found[ROWS] = {};
        for (int64_t key = 0; key < head.keys; key += ROWS)
            for (int row = 0; row < ROWS && key + row < head.keys; row++)
                found[row] += weights[key + row] * read_some<Kind>(head.value[key + row] + i, a.width - i);
        store(results + i, (found[0] + found[1]) + (found[2] + found[3]));
    }
    if (a.logsum) a.logsum[head.head * a.query_starts[a.rows] + head.first_query] = top + std::log(sum);
    auto* mixed = static_cast<typename Kind::Number*>(a.mixed) + (head.first_query * a.heads + head.head) * a.width;
    write_row<Kind>(results, a.width, 1.0f / sum, mixed);
}

// A head of rows that have the same prefix.
template <class Kind>
void forward_group(const Attention& a, const int64_t* row, const int64_t* end, int64_t number, Scratch& scratch) {
    using Number = typename Kind::Number;
    int64_t queries = 0, keys = 0;
    for (const int64_t* one = row; one < end; one++) {
        queries = std::max(queries, std::min(BLOCK, a.query_starts[*one + 1] - a.query_starts[*one]));
        keys = std::max(keys, a.key_starts[*one + 1] - a.key_starts[*one]);
    }
    const Head<Kind> first(a, *row, number);
    const int64_t front = rounded(first.slots, LANES), ld = front + rounded(keys, LANES), columns = std::min(AT_ONCE, ld);
    scratch.begin(size_t(
        packed_size<Kind>(front, a.width) + packed_size<Kind>(keys, a.width) + 2 * queries * (first.wide + columns) +
        2 * first.wide + ld + 256));
    scratch.parts.clear();
    auto of_prefix = [&](const Pieces<Kind>& pieces) {
        return Pieces<Kind>{nullptr, pieces.front, 0, a.width, 0, a.slot_stride};
    };
    // Behind each other in one part, so that each product is one, where that is short enough.
    const bool together = ld <= PART && queries > 1;
    uint32_t *all_keys = nullptr, *all_values = nullptr;
    if (together) {
        const int64_t high = front / Kind::PAIR, used_by_slots = Head<Kind>::pairs_of(first.slots);
        all_keys = scratch.take<uint32_t>(a.width / Kind::PAIR * ld);
        all_values = scratch.take<uint32_t>((high + Head<Kind>::pairs_of(keys)) * first.wide);
        pack_columns(of_prefix(first.key), first.slots, all_keys, ld);
        pack_rows(of_prefix(first.value), first.slots, all_values, first.wide);
        std::memset(all_values + used_by_slots * first.wide, 0, size_t((high - used_by_slots) * first.wide) * 4);
    } else if (queries > 1) {
        pack(of_prefix(first.key), of_prefix(first.value), first.slots, scratch);
    }
    const size_t parts = scratch.parts.size(), used = scratch.used;
    for (; row < end; row++) {
        Head<Kind> head(a, *row, number);
        if (!head.queries) continue;
        if (!head.keys) {
            auto* mixed = static_cast<Number*>(a.mixed) + (head.first_query * a.heads + number) * a.width;
            for (int64_t q = 0; q < head.queries; q++)
                std::memset(mixed + q * a.heads * a.width, 0, size_t(a.width) * sizeof(Number));
            continue;
        }
        scratch.used = used;
        if (head.queries == 1) {
            attend_once(head, scratch);
            continue;
        }
        scratch.parts.resize(parts);
        head.key.slots = head.value.slots = 0;
        const int64_t own = head.keys - head.slots;
        head.columns = front + rounded(own, LANES);
        if (together) {
            pack_columns(head.key, own, all_keys + front, ld);
            pack_rows(head.value, own, all_values + front / Kind::PAIR * head.wide, head.wide);
            scratch.parts.push_back({all_keys, all_values, head.slots, own, head.columns, ld});
        } else {
            pack(head.key, head.value, own, scratch);
        }
        attend(head, scratch);
    }
}

template <class Kind>
void backward_head(const Attention& a, const Gradient& g, int64_t row, int64_t number, float* of_prefix, Scratch& scratch) {
    Head<Kind> head(a, row, number);
    using Number = typename Kind::Number;
    using Product = typename Kind::Product;
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
                         2 * high * wide + 3 * block * wide + 2 * tall * wide + 512));
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
    auto* asked_units = scratch.take<uint32_t>(Kind::CONVERTED ? block * wide : 0);
    auto* given_units = scratch.take<uint32_t>(Kind::CONVERTED ? block * wide : 0);
    auto* key_sums = scratch.take<float>(tall * wide);
    auto* value_sums = scratch.take<float>(tall * wide);
    pack_columns(head.key, head.keys, keys, columns);
    pack_columns(head.value, head.keys, values, columns);
    pack_rows(head.key, head.keys, key_rows, wide);
    for (int64_t begin = 0; begin < head.queries; begin += block) {
        const int64_t count = std::min(block, head.queries - begin), pairs_high = head.pairs_of(count);
        const Left query = left<Kind>(head.query[begin], a.query_stride, count, a.width, asked_units);
        const Left grad = left<Kind>(grads[begin], stride, count, a.width, given_units);
        product<Product>(count, columns, units, query, keys, columns, scores, columns, false);
        product<Product>(count, columns, units, grad, values, columns, changes, columns, false);
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
                    store(weights + pair * columns + c, Kind::pairs(load<Floats>(line), load<Floats>(line + columns)));
                    store(slopes + pair * columns + c, Kind::pairs(load<Floats>(change), load<Floats>(change + columns)));
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
        product<Product>(
            count, wide, head.pairs_of(head.keys), {slope_rows, columns / Kind::PAIR, 1}, key_rows, wide, results, wide,
            false);
        for (int64_t q = 0; q < count; q++)
            write_row<Kind>(results + q * wide, a.width, 1.0f, of_query + (begin + q) * g.query_stride);
        product<Product>(head.keys, wide, pairs_high, {weights, 1, columns}, grad_rows, wide, value_sums, wide, begin > 0);
        product<Product>(head.keys, wide, pairs_high, {slopes, 1, columns}, queries, wide, key_sums, wide, begin > 0);
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
void on_all(int64_t count, const Parallel& parallel, Work work) {
    std::atomic<int64_t> next{0};
    auto run = [&] {
        thread_local Scratch scratch;
        for (int64_t number; (number = next.fetch_add(1)) < count;) work(number, scratch);
    };
    if (parallel && count > 1)
        parallel([](void* data) { (*static_cast<decltype(&run)>(data))(); }, &run);
    else
        run();
}

// Rows with the same prefix, a few at a time: the places in `order` where each group begins, and the end.
std::vector<int64_t> grouped(const Attention& a, std::vector<int64_t>& order) {
    order.resize(size_t(a.rows));
    std::iota(order.begin(), order.end(), int64_t(0));
    if (a.slots) std::stable_sort(order.begin(), order.end(), [&](int64_t one, int64_t other) {
        return a.bank[one] < a.bank[other];
    });
    std::vector<int64_t> begins;
    for (int64_t place = 0; place < a.rows; place++) {
        const bool same = place && a.slots && a.bank[order[size_t(place)]] == a.bank[order[size_t(place) - 1]];
        if (!same || place - begins.back() == GROUP) begins.push_back(place);
    }
    begins.push_back(a.rows);
    return begins;
}

template <class Kind>
void forward_of(const Attention& a, const Parallel& parallel) {
    std::vector<int64_t> order;
    const std::vector<int64_t> begins = grouped(a, order);
    on_all(int64_t(begins.size() - 1) * a.heads, parallel, [&](int64_t number, Scratch& scratch) {
        const auto group = size_t(number / a.heads);
        const int64_t* rows = order.data();
        forward_group<Kind>(a, rows + begins[group], rows + begins[group + 1], number % a.heads, scratch);
    });
}

// Rows are divided into parts with sums of their own for the prefixes, whose number does not depend on the threads:
// the result is the same whoever computes what.
constexpr int64_t PARTS = 4;

template <class Kind>
void backward_of(const Attention& a, const Gradient& g, const Parallel& parallel) {
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

void forward(const Attention& a, const Parallel& parallel) {
    if (a.type == Type::f32) forward_of<Float32>(a, parallel);
    if (a.type == Type::bf16) forward_of<BFloat16>(a, parallel);
    if (a.type == Type::f16) forward_of<Float16>(a, parallel);
}
void backward(const Attention& a, const Gradient& g, const Parallel& parallel) {
    if (a.type == Type::f32) backward_of<Float32>(a, g, parallel);
    if (a.type == Type::bf16) backward_of<BFloat16>(a, g, parallel);
}

}  // namespace polyprompt::POLYPROMPT_KERNEL
