#include "engine.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "error.hpp"
#include "libraries.hpp"
#include "slim.hpp"

namespace polyprompt {
namespace {

constexpr int kernels = 100;  // as in exporters.engines.openvino

ov::Tensor in_place(const Tensor& tensor) {
    const ov::element::Type types[] = {ov::element::f32, ov::element::i64, ov::element::boolean};
    const ov::Shape shape(tensor.shape.begin(), tensor.shape.end());
    // OpenVINO reads it only; of what is empty there is no place
    static uint8_t nowhere[8];
    void* data = tensor.data.empty() ? nowhere : const_cast<uint8_t*>(tensor.data.data());
    return ov::Tensor(types[int(tensor.type)], shape, data);
}

// The same in bf16, where the graph reads that.
ov::Tensor narrowed(const Tensor& tensor) {
    const ov::Tensor from = in_place(tensor);
    ov::Tensor to(ov::element::bf16, from.get_shape());
    std::copy_n(from.data<float>(), from.get_size(), to.data<ov::bfloat16>());
    return to;
}

class OpenVino : public Engine {
public:
    OpenVino(ov::Core& core, const std::filesystem::path& model, int threads, bool bf16, const Tensors& kept) : kept_(kept) {
        ov::AnyMap settings{{ov::hint::inference_precision.name(), bf16 ? ov::element::bf16 : ov::element::f32},
                            {"CPU_RUNTIME_CACHE_CAPACITY", kernels}};
        if (threads > 0) settings[ov::inference_num_threads.name()] = threads;
        try {
            const auto read = core.read_model(model.string());
            slim(read);
            if (bf16) narrow(read);
            compiled_ = core.compile_model(read, "CPU", settings);
            request_ = compiled_.create_infer_request();
            for (const auto& port : compiled_.inputs())
                for (const std::string& name : port.get_names()) inputs_[name] = port.get_element_type();
            for (const auto& [name, tensor] : kept_)
                if (inputs_.count(name) != 0)
                    request_.set_tensor(name, inputs_[name] == ov::element::bf16 ? narrowed(tensor) : in_place(tensor));
        } catch (const std::exception& error) {
            throw Error(model.string() + ": OpenVINO cannot open it (" + last_line(error.what()) + ")");
        }
    }

    std::map<std::string, Tensor> run(const Tensors& feeds) override {
        try {
            for (const auto& [name, tensor] : feeds)
                if (inputs_.count(name) != 0) request_.set_tensor(name, in_place(tensor));
            // with one thread OpenVINO drops what an operator raises in a synchronous request, and later ones can crash
            request_.start_async();
            request_.wait();
        } catch (const std::exception& error) {
            throw Error("OpenVINO cannot compute a batch (" + last_line(error.what()) + ")");
        }
        std::map<std::string, Tensor> found;
        for (const auto& port : compiled_.outputs()) {
            const ov::Tensor result = request_.get_tensor(port);
            if (result.get_element_type() != ov::element::f32) throw Error("an output of the graph is not in floats");
            Tensor out;
            const ov::Shape shape = result.get_shape();
            out.shape.assign(shape.begin(), shape.end());
            out.data.resize(result.get_byte_size());
            if (!out.data.empty()) std::memcpy(out.data.data(), result.data<float>(), out.data.size());
            for (const std::string& name : port.get_names()) found[name] = out;
        }
        return found;
    }

private:
    const Tensors& kept_;
    ov::CompiledModel compiled_;
    ov::InferRequest request_;
    std::map<std::string, ov::element::Type> inputs_;
};

bool has_bf16(ov::Core& core) {
    for (const std::string& known : core.get_property("CPU", ov::device::capabilities))
        if (known == "BF16") return true;
    return false;
}

}  // namespace

std::string last_line(const std::string& text) {
    const size_t end = text.find_last_not_of(" \n");
    const std::string whole = text.substr(0, end == std::string::npos ? 0 : end + 1);
    return whole.substr(whole.rfind('\n') + 1);
}

Engines::Engines(ov::Core& core, int threads, const std::string& onnxruntime)
    : core_(core), threads_(threads), onnxruntime_(onnxruntime_library(onnxruntime)) {}

void Engines::check(const std::string& name) const {
    if (name != "onnxruntime" && name != "openvino" && name != "openvino-bf16")
        throw Error("--engine " + name + ": unknown; choose onnxruntime, openvino, openvino-bf16 or auto");
}

bool Engines::has(const std::string& name) const {
    if (name == "onnxruntime") return POLYPROMPT_ONNXRUNTIME && !onnxruntime_.empty();
    return name == "openvino" || (name == "openvino-bf16" && has_bf16(core_));
}

bool Engines::has_operator(const std::string& name) const {
    return !(name == "onnxruntime" ? onnxruntime_operator() : openvino_operator()).empty();
}

std::unique_ptr<Engine> Engines::open(const std::string& name, const std::filesystem::path& model, Form form, const Tensors& kept, bool second) {
    check(name);
    const std::filesystem::path operators = form != Form::native ? "" : name == "onnxruntime" ? onnxruntime_operator() : openvino_operator();
    if (name == "onnxruntime") {
#if POLYPROMPT_ONNXRUNTIME
        if (onnxruntime_.empty()) throw Error("--engine onnxruntime: not found; name its library with --onnxruntime");
        return open_onnxruntime(onnxruntime_, model, threads_, operators, kept, second);
#else
        throw Error("--engine onnxruntime: its headers were not there when this program was built; take --engine openvino");
#endif
    }
    const bool bf16 = name == "openvino-bf16";
    if (bf16 && !has_bf16(core_)) throw Error("--engine openvino-bf16: this processor has no bf16; take --engine openvino");
    if (!operators.empty() && !extended_) {
        try {
            core_.add_extension(operators.string());
        } catch (const std::exception& error) {
            throw Error(operators.string() + ": OpenVINO cannot open it (" + last_line(error.what()) + ")");
        }
        extended_ = true;
    }
    return std::make_unique<OpenVino>(core_, model, threads_, bf16, kept);
}

}  // namespace polyprompt
