// The operator for OpenVINO: an extension that `Core.add_extension` loads.
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/core/parallel.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <openvino/op/op.hpp>

#include <cstring>

#include "operator.hpp"

namespace {

using namespace polyprompt;

// On the threads of the arena in which OpenVINO computes: as many as it was told, and none beside them.
void on_threads(void (*work)(void*), void* data) {
    ov::parallel_nt(0, [&](int, int) { work(data); });
}

constexpr int NONE = 0xff;  // each byte of what is no number, in every type

class PackedPrefixAttention : public ov::op::Op {
public:
    OPENVINO_OP("PackedPrefixAttention", "polyprompt");

    PackedPrefixAttention() = default;
    PackedPrefixAttention(const ov::OutputVector& inputs, int64_t heads, float scale)
        : Op(inputs), heads_(heads), scale_(scale) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        NODE_VALIDATION_CHECK(this, get_input_size() == INPUTS, "it has ", get_input_size(), " inputs, not ", INPUTS);
        NODE_VALIDATION_CHECK(this, heads_ > 0, "heads are ", heads_);
        const auto type = get_input_element_type(QUERY);
        NODE_VALIDATION_CHECK(this, type.is_dynamic() || number(type), "query is ", type, ", not f32, bf16 or f16");
        for (int i = 0; i < INPUTS; i++) {
            const auto found = get_input_element_type(i);
            const auto rank = get_input_partial_shape(i).rank();
            const int64_t wanted = i < PREFIX_KEY ? 2 : i < FIRST_INTEGERS ? 3 : 1;
            NODE_VALIDATION_CHECK(this, rank.compatible(wanted), NAMES[i], " has rank ", rank, ", not ", wanted);
            if (i < FIRST_INTEGERS)
                NODE_VALIDATION_CHECK(this, found.compatible(type), NAMES[i], " is ", found, " and query ", type);
            else
                NODE_VALIDATION_CHECK(
                    this, found.is_dynamic() || found == ov::element::i64 || found == ov::element::i32, NAMES[i], " is ",
                    found, ", not i64 or i32");
        }
        const auto &query = get_input_partial_shape(QUERY), &prefix = get_input_partial_shape(PREFIX_KEY);
        const auto hidden = prefix.rank().is_static() ? prefix[2] : ov::Dimension::dynamic();
        NODE_VALIDATION_CHECK(
            this, hidden.is_dynamic() || (hidden.get_length() > 0 && hidden.get_length() % heads_ == 0), heads_,
            " heads do not divide the hidden size ", hidden);
        set_output_type(
            0, type, {query.rank().is_static() ? query[0] : ov::Dimension::dynamic(), hidden});
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<PackedPrefixAttention>(inputs, heads_, scale_);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("heads", heads_);
        visitor.on_attribute("scale", scale_);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        OPENVINO_ASSERT(inputs.size() == INPUTS && outputs.size() == 1, "PackedPrefixAttention: wrong number of tensors");
        const auto type = inputs[QUERY].get_element_type();
        Tensor taken[INPUTS];
        for (int i = 0; i < INPUTS; i++) {
            const auto found = inputs[i].get_element_type();
            const bool good = i < FIRST_INTEGERS ? found == type : found == ov::element::i64 || found == ov::element::i32;
            OPENVINO_ASSERT(good, "PackedPrefixAttention: ", NAMES[i], " is ", found);
            const auto& shape = inputs[i].get_shape();
            taken[i] = {inputs[i].get_size() ? inputs[i].data() : nullptr, {shape.begin(), shape.end()}, found == ov::element::i32};
        }
        OPENVINO_ASSERT(number(type), "PackedPrefixAttention: query is ", type);
        Call call;
        const auto kind = type == ov::element::f32 ? Type::f32 : type == ov::element::bf16 ? Type::bf16 : Type::f16;
        const std::string reason = call.take(taken, kind, heads_, scale_);
        // OpenVINO drops errors of synchronous requests with one thread: what they leave must not look like an answer.
        if (!reason.empty() && outputs[0].get_size()) std::memset(outputs[0].data(), NONE, outputs[0].get_byte_size());
        OPENVINO_ASSERT(reason.empty(), "PackedPrefixAttention: ", reason);
        outputs[0].set_shape({size_t(call.queries()), size_t(call.hidden())});
        call.run(outputs[0].data(), on_threads);
        return true;
    }

private:
    static bool number(const ov::element::Type& type) {
        return type == ov::element::f32 || type == ov::element::bf16 || type == ov::element::f16;
    }

    int64_t heads_ = 0;
    float scale_ = 1.0f;
};

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<PackedPrefixAttention>>(),
    std::make_shared<ov::frontend::onnx::OpExtension<PackedPrefixAttention>>("PackedPrefixAttention", "polyprompt"),
}));
