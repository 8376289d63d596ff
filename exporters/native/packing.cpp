// Weights in blocks of int4; exporters/precision.py says what they are and is the only caller.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace nb = nanobind;

namespace {

template <class Number, int axes>
using Array = nb::ndarray<Number, nb::ndim<axes>, nb::c_contig, nb::device::cpu>;

constexpr int block = 32, lanes = 8, vectors = block / lanes;

using Vector = float __attribute__((vector_size(lanes * sizeof(float))));
using Bits = int32_t __attribute__((vector_size(lanes * sizeof(float))));

// Added and taken away again it rounds small numbers to whole ones, halves to even ones.
constexpr float rounding = 12582912;

inline __attribute__((always_inline)) Vector absolute(Vector value) {
    return Vector(Bits(value) & 0x7fffffff);
}

// One block. Sums are taken in the order that numpy's code has.
inline __attribute__((always_inline)) void quantise(
    const float* from, const float* parts, int64_t count, uint8_t* values, float* scale) {
    Vector weights[vectors], whole[vectors], chosen[vectors] = {}, most = {};
    std::memcpy(weights, from, sizeof weights);
    for (const Vector& part : weights) most = absolute(part) > most ? absolute(part) : most;
    float size = 0;
    for (int lane = 0; lane < lanes; lane++) size = std::max(size, most[lane]);
    int place = 0;
    while (place < block - 1 && std::fabs(from[place]) != size) place++;
    float least = std::numeric_limits<float>::infinity();
    *scale = 1;
    for (int64_t part = 0; part < count; part++) {
        float tried = from[place] * parts[part] / -8;
        if (tried == 0) tried = 1;
        Vector sums = {};
        for (int number = 0; number < vectors; number++) {
            Vector value = weights[number] / tried;
            value = value > -8.f ? value : Vector{} - 8.f;
            value = value < 7.f ? value : Vector{} + 7.f;
            whole[number] = (value + rounding) - rounding;
            const Vector off = whole[number] * tried - weights[number];
            sums = number ? sums + off * off : off * off;
        }
        const float found = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        if (found < least) {
            least = found, *scale = tried;
            for (int number = 0; number < vectors; number++) chosen[number] = whole[number];
        }
    }
    for (int one = 0; one < block; one++) values[one] = uint8_t(int(chosen[one / lanes][one % lanes]) + 8);
}

struct Work {
    const float *weights, *parts;
    int64_t blocks, count;
    uint8_t* values;
    float* scales;
};

inline __attribute__((always_inline)) void each(const Work& work) {
    for (int64_t one = 0; one < work.blocks; one++)
        quantise(work.weights + one * block, work.parts, work.count, work.values + one * block, work.scales + one);
}

void portable(const Work& work) { each(work); }

#ifdef __x86_64__
__attribute__((target("avx2"))) void avx2(const Work& work) { each(work); }
#endif

void quantise_blocks(
    Array<const float, 3> weights, Array<const float, 1> parts, Array<uint8_t, 3> values, Array<float, 2> scales) {
    for (int axis = 0; axis < 2; axis++)
        if (values.shape(axis) != weights.shape(axis) || scales.shape(axis) != weights.shape(axis))
            throw std::invalid_argument("weights, values and scales are not of one shape");
    if (weights.shape(2) != block || values.shape(2) != block) throw std::invalid_argument("blocks are not of 32");
    const Work work{
        weights.data(), parts.data(),  int64_t(weights.shape(0) * weights.shape(1)), int64_t(parts.shape(0)),
        values.data(),  scales.data()};
    nb::gil_scoped_release release;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) return avx2(work);
#endif
    portable(work);
}

}  // namespace

void add_packing(nb::module_& module) {
    module.attr("PACKING") = 1;  // exporters/precision.py knows which one it can call
    module.def("quantise_blocks", &quantise_blocks);
}
