// The kernel for Python: addresses and shapes in, nothing out. harness/kernel.py is the only one that calls it.
#include <nanobind/nanobind.h>

#include <stdexcept>

#include "attention.hpp"

namespace nb = nanobind;
using namespace polyprompt;

void add_decoding(nb::module_& module);  // decode.cpp
void add_packing(nb::module_& module);   // exporters/native/packing.cpp

namespace {

template <class Number>
Number* at(uintptr_t address) {
    return reinterpret_cast<Number*>(address);
}

struct Call : Attention {
    Parallel parallel;
};

Call made(
    int type, nb::tuple shape, nb::tuple from, nb::tuple strides, nb::tuple rows, float scale, uintptr_t mixed,
    uintptr_t logsum, uintptr_t parallel) {
    Call call;
    auto number = [](nb::handle item) { return nb::cast<int64_t>(item); };
    auto address = [](nb::handle item) { return nb::cast<uintptr_t>(item); };
    if (type != int(Type::f32) && type != int(Type::bf16)) throw std::invalid_argument("it is trained in fp32 or bf16");
    call.type = Type(type);
    call.rows = number(shape[0]), call.heads = number(shape[1]), call.width = number(shape[2]);
    call.slots = number(shape[3]), call.banks = number(shape[4]);
    call.query = at<const void>(address(from[0])), call.key = at<const void>(address(from[1]));
    call.value = at<const void>(address(from[2]));
    call.slot_stride = call.width, call.head_stride = call.slots * call.width;
    call.bank_stride = call.heads * call.head_stride;
    const int64_t half = call.banks * call.bank_stride * (call.type == Type::f32 ? 4 : 2);  // [2, bank, head, slot, width]
    call.prefix_key = at<const void>(address(from[3]));
    call.prefix_value = at<const void>(address(from[3]) + uintptr_t(half));
    call.bank_slots = nullptr;
    call.query_stride = number(strides[0]), call.key_stride = number(strides[1]);
    call.query_starts = at<const int64_t>(address(rows[0])), call.key_starts = at<const int64_t>(address(rows[1]));
    call.bank = at<const int64_t>(address(rows[2]));
    call.scale = scale, call.mixed = at<void>(mixed), call.logsum = at<float>(logsum);
    // GOMP_parallel of a library of OpenMP: 0 threads are all that it has
    auto* team = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(parallel);
    if (team) call.parallel = [team](void (*work)(void*), void* data) { team(work, data, 0, 0); };
    if (const char* text = refused(call, number(rows[3]), number(rows[4]))) throw std::invalid_argument(text);
    return call;
}

}  // namespace

NB_MODULE(polyprompt_native, module) {
    add_decoding(module);
    add_packing(module);
    module.attr("INTERFACE") = 1;  // harness/kernel.py knows which one it can call

    module.def(
        "forward",
        [](int type, nb::tuple shape, nb::tuple from, nb::tuple strides, nb::tuple rows, float scale, uintptr_t mixed,
           uintptr_t logsum, uintptr_t parallel) {
            Call call = made(type, shape, from, strides, rows, scale, mixed, logsum, parallel);
            nb::gil_scoped_release release;
            forward(call, call.parallel);
        });
    module.def(
        "backward",
        [](int type, nb::tuple shape, nb::tuple from, nb::tuple strides, nb::tuple rows, float scale, uintptr_t mixed,
           uintptr_t logsum, uintptr_t parallel, nb::tuple gradients, nb::tuple gradient_strides) {
            Call call = made(type, shape, from, strides, rows, scale, mixed, logsum, parallel);
            auto address = [&](int place) { return nb::cast<uintptr_t>(gradients[place]); };
            Gradient gradient{
                at<const void>(address(0)), at<void>(address(1)), at<void>(address(2)), at<void>(address(3)),
                nb::cast<int64_t>(gradient_strides[0]), nb::cast<int64_t>(gradient_strides[1]), at<float>(address(4))};
            nb::gil_scoped_release release;
            backward(call, gradient, call.parallel);
        });
    module.def("instructions", &instructions);
    module.def("use", &use);
}
