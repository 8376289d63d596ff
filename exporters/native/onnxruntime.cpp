// The operator for ONNX Runtime: a library that `SessionOptions.register_custom_ops_library` loads. It links nothing.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <exception>
#include <thread>

#include "operator.hpp"

namespace {

using namespace polyprompt;

constexpr const char* DOMAIN_NAME = "polyprompt";

OrtStatusPtr failed(const std::string& reason, OrtErrorCode code) {
    return Ort::Status(("PackedPrefixAttention: " + reason).c_str(), code).release();
}

class Kernel {
public:
    Kernel(const OrtKernelInfo* found, Type type) : type_(type) {
        const Ort::ConstKernelInfo info(found);
        heads_ = info.GetAttribute<int64_t>("heads");
        scale_ = info.GetAttribute<float>("scale");
    }

    OrtStatusPtr ComputeV2(OrtKernelContext* found) noexcept try {
        const Ort::KernelContext context(found);
        Tensor taken[INPUTS];
        for (int i = 0; i < INPUTS; i++) {
            const auto input = context.GetInput(size_t(i));
            taken[i] = {input.GetTensorRawData(), input.GetTensorTypeAndShapeInfo().GetShape(), false};
        }
        Call call;
        const std::string reason = call.take(taken, type_, heads_, scale_);
        if (!reason.empty()) return failed(reason, ORT_INVALID_ARGUMENT);
        auto output = context.GetOutput(0, {call.queries(), call.hidden()});
        // On the threads of the session. Whoever comes first takes all that is left, so one call a core is enough.
        call.run(output.GetTensorMutableRawData(), [&](void (*work)(void*), void* data) {
            struct Work {
                void (*run)(void*);
                void* data;
            } shared{work, data};
            const size_t cores = std::max(1u, std::thread::hardware_concurrency());
            auto once = [](void* shared, size_t) { static_cast<Work*>(shared)->run(static_cast<Work*>(shared)->data); };
            context.ParallelFor(once, cores, cores, &shared);
        });
        return nullptr;
    } catch (const std::exception& error) {
        return failed(error.what(), ORT_RUNTIME_EXCEPTION);
    }

private:
    Type type_;
    int64_t heads_;
    float scale_;
};

// One for each type of numbers: to ONNX Runtime they are one operator that takes them all.
template <Type TYPE, ONNXTensorElementDataType NUMBER>
struct Operator : Ort::CustomOpBase<Operator<TYPE, NUMBER>, Kernel, true> {
    OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept try {
        *kernel = new Kernel(info, TYPE);
        return nullptr;
    } catch (const std::exception& error) {
        return failed(error.what(), ORT_INVALID_ARGUMENT);
    }

    const char* GetName() const { return "PackedPrefixAttention"; }
    const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
    size_t GetInputTypeCount() const { return INPUTS; }
    size_t GetOutputTypeCount() const { return 1; }
    ONNXTensorElementDataType GetInputType(size_t input) const {
        return input < size_t(FIRST_INTEGERS) ? NUMBER : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    }
    ONNXTensorElementDataType GetOutputType(size_t) const { return NUMBER; }

    // What is no shape of such inputs is left to ComputeV2. A number of queries that is not known yet has no way through
    // this interface (it arrives as -1, which later passes take for a number): then the graph says what the shape is.
    static Ort::Status InferOutputShape(Ort::ShapeInferContext& context) {
        if (context.GetInputCount() != INPUTS) return Ort::Status(nullptr);
        const auto &query = context.GetInputShape(QUERY), &prefix = context.GetInputShape(PREFIX_KEY);
        if (query.size() != 2 || prefix.size() != 3) return Ort::Status(nullptr);
        for (const auto& size : {query[0], prefix[2]})
            if (size.IsInt() && size.AsInt() < 0) return Ort::Status(nullptr);
        return context.SetOutputShape(0, {query[0], prefix[2]}, NUMBER);
    }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(ORT_API_VERSION);
    if (!api) {
        const OrtApi* first = base->GetApi(1);
        return first->CreateStatus(ORT_FAIL, "PackedPrefixAttention was built for a newer version of ONNX Runtime");
    }
    Ort::InitApi(api);
    static const Operator<Type::f32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT> f32;
    static const Operator<Type::bf16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16> bf16;
    static const Operator<Type::f16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16> f16;
    static const Ort::CustomOpDomain domain = [] {
        Ort::CustomOpDomain made(DOMAIN_NAME);
        made.Add(&f32), made.Add(&bf16), made.Add(&f16);
        return made;
    }();
    return api->AddCustomOpDomain(options, domain);
}
