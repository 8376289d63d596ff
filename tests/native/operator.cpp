// Throws inputs of random shapes, lengths and contents at the operator, sound and malformed, on several threads, with
// each set of instructions; what it accepts is compared with attention in double precision.
//
//     polyprompt_fuzz [SECONDS [SEED]]     random bytes until the time is over
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "operator.hpp"

using namespace polyprompt;

namespace {

// Decisions out of bytes; zeros when they are used up.
class Bytes {
public:
    Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
    int64_t below(int64_t bound) {
        uint32_t found = 0;
        for (int i = 0; i < (bound > 256 ? 2 : 1); i++) found = found << 8 | next();
        return int64_t(found) % bound;
    }
    bool seldom() { return next() >= 250; }
    uint32_t seed() { return uint32_t(below(256) << 8 | below(256)); }

private:
    uint8_t next() { return left_ ? (left_--, *data_++) : 0; }
    const uint8_t* data_;
    size_t left_;
};

uint16_t to_bf16(float number) {
    uint32_t found;
    std::memcpy(&found, &number, 4);
    return uint16_t(found >> 16);
}

float from_bf16(uint16_t half) {
    const uint32_t found = uint32_t(half) << 16;
    float number;
    std::memcpy(&number, &found, 4);
    return number;
}

// Without the instructions of the processor and the code under test: sign, exponent, fraction.
double from_f16(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                        : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                       : std::ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}

uint16_t to_f16(float number) {  // of numbers below 4, towards zero
    const float size = std::fabs(number);
    const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
    const int fraction = int(std::ldexp(size, 10 - exponent));
    const int found = size < 0x1p-14f ? fraction : ((exponent + 15) << 10) + fraction - 1024;
    return uint16_t((number < 0 ? 0x8000 : 0) | found);
}

// A tensor in memory of exactly its size, so that a sanitizer sees each step beside it.
struct Made {
    std::unique_ptr<char[]> memory;
    std::vector<int64_t> shape;
    std::vector<double> numbers;
    bool narrow = false;

    int64_t count() const {
        int64_t found = 1;
        for (int64_t size : shape) found *= size;
        return found;
    }
    void fill(Type type, std::mt19937& draw) {
        std::uniform_real_distribution<float> uniform(-2, 2);
        const size_t size = type == Type::f32 ? 4 : 2;
        numbers.resize(size_t(count()));
        memory.reset(new char[numbers.size() * size]);
        for (size_t i = 0; i < numbers.size(); i++) {
            const float number = uniform(draw);
            const uint16_t half = type == Type::bf16 ? to_bf16(number) : to_f16(number);
            std::memcpy(memory.get() + i * size, type == Type::f32 ? static_cast<const void*>(&number) : &half, size);
            numbers[i] = type == Type::f32 ? number : type == Type::bf16 ? from_bf16(half) : from_f16(half);
        }
    }
    void fill(const std::vector<int64_t>& integers, bool as_narrow) {
        narrow = as_narrow;
        shape = {int64_t(integers.size())};
        memory.reset(new char[integers.size() * (narrow ? 4 : 8)]);
        for (size_t i = 0; i < integers.size(); i++) {
            const auto half = int32_t(integers[i]);
            if (narrow) std::memcpy(memory.get() + i * 4, &half, 4);
            else std::memcpy(memory.get() + i * 8, &integers[i], 8);
        }
    }
};

void on_threads(void (*work)(void*), void* data) {
    std::thread others[2];
    for (auto& other : others) other = std::thread(work, data);
    work(data);
    for (auto& other : others) other.join();
}

[[noreturn]] void fail(const char* text, double got, double wanted) {
    std::fprintf(stderr, "%s: %g, not %g (%s)\n", text, got, wanted, instructions());
    std::abort();
}

// Row by row, head by head, in double precision.
void compare(
    const Made (&made)[INPUTS], const std::vector<int64_t> (&integers)[INPUTS], Type type, int64_t heads, float scale,
    const char* output) {
    const int64_t hidden = made[PREFIX_KEY].shape[2], slots = made[PREFIX_KEY].shape[1], width = hidden / heads;
    const int64_t query_row = made[QUERY].shape[1], own_row = made[KEY_VALUE].shape[1];
    const double tolerance = type == Type::f32 ? 1e-5 : type == Type::bf16 ? 3e-2 : 4e-3;
    for (size_t row = 0; row < integers[PROMPT].size(); row++) {
        const int64_t prompt = integers[PROMPT][row], front = slots ? integers[PROMPT_LENGTHS][size_t(prompt)] : 0;
        const int64_t first = integers[KEY_STARTS][row], keys = front + integers[KEY_STARTS][row + 1] - first;
        for (int64_t query = integers[QUERY_STARTS][row]; query < integers[QUERY_STARTS][row + 1]; query++)
            for (int64_t head = 0; head < heads; head++) {
                auto at = [&](Input prefix, int64_t part, int64_t key, int64_t i) {
                    return key < front ? made[prefix].numbers[size_t((prompt * slots + key) * hidden + head * width + i)]
                                       : made[KEY_VALUE].numbers[size_t(
                                             (first + key - front + 1) * own_row - part * hidden + head * width + i)];
                };
                std::vector<double> weights(size_t(keys), 0.0);
                double top = -INFINITY, sum = 0;
                for (int64_t key = 0; key < keys; key++) {
                    double score = 0;
                    for (int64_t i = 0; i < width; i++)
                        score += made[QUERY].numbers[size_t(query * query_row + head * width + i)] * at(PREFIX_KEY, 2, key, i);
                    weights[size_t(key)] = scale * score;
                    top = std::max(top, scale * score);
                }
                for (double& weight : weights) sum += weight = std::exp(weight - top);
                for (int64_t i = 0; i < width; i++) {
                    double wanted = 0;
                    for (int64_t key = 0; key < keys; key++) wanted += weights[size_t(key)] / sum * at(PREFIX_VALUE, 1, key, i);
                    const char* place = output + (query * hidden + head * width + i) * (type == Type::f32 ? 4 : 2);
                    float number;
                    uint16_t half;
                    std::memcpy(&number, place, type == Type::f32 ? 4 : 0);
                    std::memcpy(&half, place, 2);
                    const double got = type == Type::f32 ? number : type == Type::bf16 ? from_bf16(half) : from_f16(half);
                    if (!(std::fabs(got - wanted) <= tolerance)) fail("a number is wrong", got, wanted);
                }
            }
    }
}

// The same on what are no numbers, which leaves such in the thread's memory: none of it may come back.
void spoil(
    const Tensor (&sound)[INPUTS], Type type, int64_t heads, float scale, const Made (&made)[INPUTS], char* output) {
    Tensor taken[INPUTS];
    std::unique_ptr<char[]> memory[FIRST_INTEGERS];
    for (int i = 0; i < INPUTS; i++) {
        taken[i] = sound[i];
        if (i >= FIRST_INTEGERS) continue;
        const size_t size = size_t(made[i].count()) * (type == Type::f32 ? 4 : 2);
        memory[i].reset(new char[size]);
        std::memset(memory[i].get(), 0xff, size);
        taken[i].data = memory[i].get();
    }
    Call call;
    if (call.take(taken, type, heads, scale).empty()) call.run(output, Parallel());
}

// An input made of random bytes.
void attempt(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    std::mt19937 draw(bytes.seed());
    static const char* const sets[] = {"portable", "avx2", "avx512", "avx512bf16"};
    use(sets[bytes.below(4)]);
    const auto type = Type(bytes.below(3));
    static const int64_t widths[] = {32, 64, 1, 2, 3, 8, 15, 17, 31, 33, 80, 128};
    const int64_t width = widths[bytes.below(12)], rows = bytes.below(12), prompts = 1 + bytes.below(3);
    int64_t heads = 1 + bytes.below(3), hidden = heads * width;
    const int64_t slots = bytes.seldom() ? 250 + bytes.below(300) : bytes.below(20);
    const bool one_asks = bytes.below(2), narrow = bytes.below(2);
    const int64_t longest = bytes.below(12) ? -1 : bytes.below(12);  // a row of several parts

    std::vector<int64_t> integers[INPUTS];
    for (Input starts : {QUERY_STARTS, KEY_STARTS}) integers[starts] = {0};
    for (int64_t row = 0; row < rows; row++) {
        const int64_t length = row == longest ? 200 + bytes.below(400) : bytes.below(30);
        integers[KEY_STARTS].push_back(integers[KEY_STARTS].back() + length);
        integers[QUERY_STARTS].push_back(integers[QUERY_STARTS].back() + (one_asks ? 1 : length));
        integers[PROMPT].push_back(bytes.below(prompts));
    }
    for (int64_t prompt = 0; prompt < prompts; prompt++) integers[PROMPT_LENGTHS].push_back(bytes.below(slots + 1));
    Made made[INPUTS];
    made[QUERY].shape = {integers[QUERY_STARTS].back(), hidden + bytes.below(5)};
    made[KEY_VALUE].shape = {integers[KEY_STARTS].back(), 2 * hidden + bytes.below(5)};
    made[PREFIX_KEY].shape = made[PREFIX_VALUE].shape = {prompts, slots, hidden};

    // What is malformed: a size, a rank, a number of rows or an integer, a few times.
    for (int64_t times = bytes.below(4); times > 1; times--) {
        const auto input = Input(bytes.below(INPUTS));
        if (input < FIRST_INTEGERS) {
            auto& shape = made[input].shape;
            if (bytes.seldom()) shape.push_back(1);
            else shape[size_t(bytes.below(int64_t(shape.size())))] = bytes.below(70);
        } else if (auto& found = integers[input]; found.empty() || bytes.below(8) == 0) {
            found.push_back(bytes.below(4));
        } else if (bytes.below(8) == 0) {
            found.pop_back();
        } else {
            static const int64_t odd[] = {-1, 1, INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, 1000, 3};
            auto& one = found[size_t(bytes.below(int64_t(found.size())))];
            const int64_t by = odd[bytes.below(8)];
            one = by > 4 || by < -1 ? by : int64_t(uint64_t(one) + uint64_t(by));  // it may be the largest already
        }
    }
    if (bytes.seldom()) heads = bytes.below(9) - 2;
    for (int i = 0; i < INPUTS; i++)
        i < FIRST_INTEGERS ? made[i].fill(type, draw) : made[i].fill(integers[i], narrow);
    if (narrow)
        for (int i = FIRST_INTEGERS; i < INPUTS; i++)
            for (auto& one : integers[i]) one = int32_t(one);

    Tensor taken[INPUTS];
    for (int i = 0; i < INPUTS; i++) taken[i] = {made[i].memory.get(), made[i].shape, made[i].narrow};
    const float scale = 1.0f / std::sqrt(float(width));
    Call call;
    if (!call.take(taken, type, heads, scale).empty()) return;
    const size_t bytes_of_output = size_t(call.queries() * call.hidden()) * (type == Type::f32 ? 4 : 2);
    std::unique_ptr<char[]> output(new char[bytes_of_output]);
    const bool alone = bytes.below(4) == 0;
    if (alone) spoil(taken, type, heads, scale, made, output.get());
    call.run(output.get(), alone ? Parallel() : Parallel(on_threads));
    compare(made, integers, type, heads, scale, output.get());
}

}  // namespace

int main(int count, char** words) {
    const double seconds = count > 1 ? std::atof(words[1]) : 10;
    const auto seed = unsigned(count > 2 ? std::atol(words[2]) : 0);
    const auto start = std::chrono::steady_clock::now();
    std::mt19937 draw(seed);
    std::vector<uint8_t> bytes(200);
    long times = 0;
    do {
        for (auto& byte : bytes) byte = uint8_t(draw());
        attempt(bytes.data(), bytes.size());
        times++;
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
    std::printf("%ld inputs, none of them harmful\n", times);
}
