#include "slim.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <openvino/op/add.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/parameter.hpp>

namespace polyprompt {
namespace {

using Node = std::shared_ptr<ov::Node>;
using Constant = std::shared_ptr<ov::op::v0::Constant>;

// What gives an input of a node, if it is of this kind.
Node source(const Node& node, size_t place, const std::string& kind) {
    if (node == nullptr || place >= node->get_input_size()) return nullptr;
    const Node found = node->get_input_node_shared_ptr(place);
    return found->get_type_name() == kind ? found : nullptr;
}

void replace(const ov::Output<ov::Node>& old, const ov::Output<ov::Node>& by) {
    for (ov::Input<ov::Node> reader : old.get_target_inputs()) reader.replace_source_output(by);
}

// One of equal parts of a constant along its last axis.
Constant part(const Constant& whole, size_t number, size_t parts) {
    ov::Shape shape = whole->get_shape();
    const size_t wide = shape.back(), columns = wide / parts, rows = ov::shape_size(shape) / wide;
    const float* from = whole->get_data_ptr<float>() + number * columns;
    std::vector<float> found(rows * columns);
    for (size_t row = 0; row < rows; ++row) std::copy_n(from + row * wide, columns, found.data() + row * columns);
    shape.back() = columns;
    return std::make_shared<ov::op::v0::Constant>(ov::element::f32, shape, found.data());
}

// One product and its bias in front of a split along the last axis become one for each part.
void divide(const Node& split) {
    const Node add = source(split, 0, "Add"), product = source(add, 0, "MatMul");
    if (product == nullptr || add->output(0).get_target_inputs().size() > 1) return;
    const auto weight = std::dynamic_pointer_cast<ov::op::v0::Constant>(source(product, 1, "Constant"));
    const auto bias = std::dynamic_pointer_cast<ov::op::v0::Constant>(source(add, 1, "Constant"));
    const size_t parts = split->get_output_size();
    for (const Constant& one : {weight, bias})
        if (one == nullptr || one->get_element_type() != ov::element::f32 || one->get_shape().empty() || one->get_shape().back() % parts != 0) return;
    for (size_t number = 0; number < parts; ++number) {
        const auto found = std::make_shared<ov::op::v0::MatMul>(product->input_value(0), part(weight, number, parts), false, false);
        replace(split->output(number), std::make_shared<ov::op::v1::Add>(found, part(bias, number, parts))->output(0));
    }
}

// Of a softmax with zeros where it is no number, the softmax.
void without_search(const Node& select) {
    const Node isnan = source(select, 0, "IsNaN");
    if (source(isnan, 0, "Softmax") != nullptr) replace(select->output(0), isnan->input_value(0));
}

}  // namespace

void slim(const std::shared_ptr<ov::Model>& model) {
    for (const Node& node : model->get_ordered_ops()) {
        if (node->get_type_name() == std::string("Split")) divide(node);
        if (node->get_type_name() == std::string("Select")) without_search(node);
    }
}

// Whether an output is an input of the model that the operator alone reads.
static bool alone(const ov::Output<ov::Node>& from) {
    if (from.get_node()->get_type_name() != std::string("Parameter")) return false;
    for (const ov::Input<ov::Node>& reader : from.get_target_inputs())
        if (reader.get_node()->get_type_name() != std::string("PackedPrefixAttention")) return false;
    return true;
}

static ov::Output<ov::Node> as_input(const ov::Output<ov::Node>& from) {
    const auto parameter = std::dynamic_pointer_cast<ov::op::v0::Parameter>(from.get_node_shared_ptr());
    parameter->set_element_type(ov::element::bf16);
    parameter->validate_and_infer_types();
    return parameter->output(0);
}

void narrow(const std::shared_ptr<ov::Model>& model) {
    constexpr size_t numbers = 4;  // inputs of the operator, the first ones; the others are integers
    std::map<ov::Output<ov::Node>, ov::Output<ov::Node>> known;
    const auto converted = [](const ov::Output<ov::Node>& from, ov::element::Type type) { return std::make_shared<ov::op::v0::Convert>(from, type)->output(0); };
    for (const Node& node : model->get_ordered_ops()) {
        if (node->get_type_name() != std::string("PackedPrefixAttention")) continue;
        for (size_t place = 0; place < numbers; ++place) {
            const ov::Output<ov::Node> from = node->input_value(place);
            if (known.count(from) == 0) known[from] = alone(from) ? as_input(from) : converted(from, ov::element::bf16);
            node->input(place).replace_source_output(known[from]);
        }
        const auto readers = node->output(0).get_target_inputs();
        node->validate_and_infer_types();
        const ov::Output<ov::Node> widened = converted(node->output(0), ov::element::f32);
        for (ov::Input<ov::Node> reader : readers) reader.replace_source_output(widened);
    }
    model->validate_nodes_and_infer_types();
}

}  // namespace polyprompt
