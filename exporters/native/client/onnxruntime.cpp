// ONNX Runtime. Its library belongs to a package of its own, so it is opened when it is asked for, and nothing is linked.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <cstring>

#include <dlfcn.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "engine.hpp"
#include "error.hpp"

namespace polyprompt {
namespace {

// The interface of a library, which stays open.
const OrtApi& interface_of(const std::filesystem::path& library) {
    void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (opened == nullptr) throw Error(library.string() + ": cannot be opened as ONNX Runtime (" + last_line(dlerror()) + ")");
    auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(opened, "OrtGetApiBase"));
    const OrtApi* found = base == nullptr ? nullptr : base()->GetApi(ORT_API_VERSION);
    if (found == nullptr) throw Error(library.string() + ": is no ONNX Runtime, or older than 1." + std::to_string(ORT_API_VERSION));
    return *found;
}

// Whether the processor has products of four int8 numbers at once (VNNI).
bool has_byte_products() {
#if defined(__x86_64__)
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_max(0, nullptr) >= 7 &&
           ((__get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 11 & 1)) || (__get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1)));
#else
    return false;
#endif
}

class OnnxRuntime : public Engine {
public:
    OnnxRuntime(const std::filesystem::path& model, int threads, const std::filesystem::path& operators, const Tensors& kept, bool second)
        : environment_(ORT_LOGGING_LEVEL_FATAL, "polyprompt"), memory_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)), kept_(kept) {
        // as exporters.engines.onnxruntime opens it, which says why
        Ort::SessionOptions options;
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        options.AddConfigEntry("session.force_spinning_stop", "1");
        if (!has_byte_products()) options.AddConfigEntry("session.x64quantprecision", "1");
        if (second) options.AddConfigEntry("session.disable_prepacking", "1");
        if (threads > 0) options.SetIntraOpNumThreads(threads);
        if (!operators.empty()) options.RegisterCustomOpsLibrary(operators.c_str());
        session_ = Ort::Session(environment_, model.c_str(), options);
        Ort::AllocatorWithDefaultOptions allocator;
        for (size_t i = 0; i < session_.GetInputCount(); ++i) inputs_.emplace_back(session_.GetInputNameAllocated(i, allocator).get());
        for (size_t i = 0; i < session_.GetOutputCount(); ++i) outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    }

    std::map<std::string, Tensor> run(const Tensors& feeds) override {
        std::vector<const char*> names, wanted;
        std::vector<Ort::Value> values;
        for (const std::string& name : outputs_) wanted.push_back(name.c_str());
        for (const std::string& name : inputs_) {
            auto there = feeds.find(name);
            if (there == feeds.end() && (there = kept_.find(name)) == kept_.end()) throw Error("the graph has an input " + name + ", which the bundle lacks");
            names.push_back(name.c_str());
            values.push_back(in_place(there->second));
        }
        std::map<std::string, Tensor> found;
        try {
            const std::vector<Ort::Value> results = session_.Run(Ort::RunOptions(), names.data(), values.data(), values.size(), wanted.data(), wanted.size());
            for (size_t i = 0; i < results.size(); ++i) {
                const auto about = results[i].GetTensorTypeAndShapeInfo();
                if (about.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) throw Error("an output of the graph is not in floats");
                Tensor& out = found[outputs_[i]];
                out.shape = about.GetShape();
                out.data.resize(4 * about.GetElementCount());
                if (!out.data.empty()) std::memcpy(out.data.data(), results[i].GetTensorData<float>(), out.data.size());
            }
        } catch (const Ort::Exception& error) {
            throw Error("ONNX Runtime cannot compute a batch (" + last_line(error.what()) + ")");
        }
        return found;
    }

private:
    Ort::Value in_place(const Tensor& tensor) const {
        constexpr ONNXTensorElementDataType types[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL};
        static uint8_t nowhere[8];  // of what is empty there is no place
        void* data = tensor.data.empty() ? nowhere : const_cast<uint8_t*>(tensor.data.data());
        return Ort::Value::CreateTensor(memory_, data, tensor.data.size(), tensor.shape.data(), tensor.shape.size(), types[int(tensor.type)]);
    }

    Ort::Env environment_;
    Ort::MemoryInfo memory_;
    Ort::Session session_{nullptr};
    const Tensors& kept_;
    std::vector<std::string> inputs_, outputs_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path& library, const std::filesystem::path& model, int threads,
                                         const std::filesystem::path& operators, const Tensors& kept, bool second) {
    Ort::InitApi(&interface_of(library));
    try {
        return std::make_unique<OnnxRuntime>(model, threads, operators, kept, second);
    } catch (const Ort::Exception& error) {
        throw Error(model.string() + ": ONNX Runtime cannot open it (" + last_line(error.what()) + ")");
    }
}

}  // namespace polyprompt
