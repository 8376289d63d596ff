// Viterbi's algorithm for Python; harness/viterbi.py is the only caller.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>

#include "viterbi.hpp"

namespace nb = nanobind;

namespace {

template <class Number, int axes>
using Array = nb::ndarray<Number, nb::ndim<axes>, nb::c_contig, nb::device::cpu>;

void viterbi(
    Array<const float, 2> logits, Array<const int64_t, 1> starts, Array<const bool, 2> follows,
    Array<const bool, 1> first, Array<const bool, 1> last, Array<const int32_t, 1> set,
    Array<const int64_t, 1> members, Array<const int64_t, 1> set_starts, double impossible, Array<int64_t, 1> found,
    int threads) {
    const int64_t labels = int64_t(logits.shape(1)), words = int64_t(logits.shape(0));
    const int64_t sentences = int64_t(starts.shape(0)) - 1, sets = int64_t(set_starts.shape(0)) - 1;
    const polyprompt::Tags tags{labels,     sets,           follows.data(),    first.data(), last.data(),
                                set.data(), members.data(), set_starts.data(), impossible};
    auto side = [&](auto& array) { return int64_t(array.shape(0)) == labels; };
    const bool right = int64_t(found.shape(0)) == words && side(follows) && side(first) && side(last) && side(set) &&
                       int64_t(follows.shape(1)) == labels;
    if (!right) throw std::invalid_argument("arrays of labels and words do not fit together");
    if (const char* text = polyprompt::refused(tags, int64_t(members.shape(0)), starts.data(), sentences, words))
        throw std::invalid_argument(text);
    nb::gil_scoped_release release;
    polyprompt::viterbi(tags, logits.data(), starts.data(), sentences, threads, found.data());
}

}  // namespace

void add_decoding(nb::module_& module) {
    module.attr("DECODING") = 1;  // harness/viterbi.py knows which one it can call
    module.def("viterbi", &viterbi);
}
