#include "sha256.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <vector>

#include "error.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define POLYPROMPT_SHA 1
#else
#define POLYPROMPT_SHA 0
#endif

namespace polyprompt {
namespace {

using State = std::array<uint32_t, 8>;

// Fractional parts of the roots of the first primes: square roots begin, cube roots are added.
struct Constants {
    alignas(16) uint32_t rounds[64];
    State begin;

    Constants() {
        int count = 0;
        for (int n = 2; count < 64; ++n) {
            bool prime = true;
            for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
            if (!prime) continue;
            const auto bits = [](long double root) { return uint32_t((root - std::floor(root)) * 4294967296.0L); };
            if (count < 8) begin[count] = bits(std::sqrt((long double)n));
            rounds[count++] = bits(std::cbrt((long double)n));
        }
    }
};

const Constants& constants() {
    static const Constants found;
    return found;
}

uint32_t turned(uint32_t x, int by) { return (x >> by) | (x << (32 - by)); }

void blocks_portable(State& state, const uint8_t* data, size_t count) {
    const uint32_t* k = constants().rounds;
    for (; count > 0; --count, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; ++i)
            w[i] = uint32_t(data[4 * i]) << 24 | uint32_t(data[4 * i + 1]) << 16 | uint32_t(data[4 * i + 2]) << 8 |
                   data[4 * i + 3];
        for (int i = 16; i < 64; ++i)
            w[i] = w[i - 16] + w[i - 7] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ (w[i - 15] >> 3)) +
                   (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ (w[i - 2] >> 10));
        State s = state;
        for (int i = 0; i < 64; ++i) {
            const uint32_t a = s[0], e = s[4];
            const uint32_t one = s[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
            const uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
            s = {one + two, a, s[1], s[2], s[3] + one, e, s[5], s[6]};
        }
        for (int i = 0; i < 8; ++i) state[i] += s[i];
    }
}

#if POLYPROMPT_SHA
// By the processor's own instructions; the state is kept as they want it, in the order ABEF, CDGH.
__attribute__((target("sha,sse4.1"))) void blocks_x86(State& state, const uint8_t* data, size_t count) {
    const auto* k = reinterpret_cast<const __m128i*>(constants().rounds);
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abef = _mm_set_epi32(int(state[0]), int(state[1]), int(state[4]), int(state[5]));
    __m128i cdgh = _mm_set_epi32(int(state[2]), int(state[3]), int(state[6]), int(state[7]));
    for (; count > 0; --count, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; ++i)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + i), swap);
        for (int i = 0; i < 16; ++i) {
            const __m128i now = w[i & 3];
            __m128i sum = _mm_add_epi32(now, _mm_load_si128(k + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            sum = _mm_shuffle_epi32(sum, 0x0E);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, sum);
            if (i < 12) {
                __m128i next = _mm_sha256msg1_epu32(now, w[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    alignas(16) uint32_t left[4], right[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(left), abef);
    _mm_store_si128(reinterpret_cast<__m128i*>(right), cdgh);
    state = {left[3], left[2], right[3], right[2], left[1], left[0], right[1], right[0]};
}

bool has_sha() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
    return (b >> 29) & 1 && __builtin_cpu_supports("sse4.1");
}
#endif

void blocks(State& state, const uint8_t* data, size_t count) {
#if POLYPROMPT_SHA
    static const bool fast = has_sha();
    if (fast) return blocks_x86(state, data, count);
#endif
    blocks_portable(state, data, count);
}

}  // namespace

std::string sha256(const std::filesystem::path& file) {
    std::ifstream source(file, std::ios::binary);
    std::vector<char> buffer(1 << 20);
    State state = constants().begin;
    uint64_t total = 0;
    size_t there = 0;
    while (source) {
        source.read(buffer.data(), std::streamsize(buffer.size()));
        there = size_t(source.gcount());
        total += there;
        if (there < buffer.size()) break;
        blocks(state, reinterpret_cast<const uint8_t*>(buffer.data()), there / 64);
        there = 0;
    }
    if (source.bad() || !source.eof()) throw Error(file.string() + ": cannot be read");
    const auto* data = reinterpret_cast<const uint8_t*>(buffer.data());
    blocks(state, data, there / 64);
    uint8_t last[128] = {};
    const size_t rest = there % 64, size = rest < 56 ? 64 : 128;
    std::memcpy(last, data + there - rest, rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; ++i) last[size - 1 - size_t(i)] = uint8_t((8 * total) >> (8 * i));
    blocks(state, last, size / 64);
    std::string found;
    for (const uint32_t word : state)
        for (int shift = 28; shift >= 0; shift -= 4) found += "0123456789abcdef"[(word >> shift) & 15];
    return found;
}

}  // namespace polyprompt
