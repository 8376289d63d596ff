// What computes the graph.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include <openvino/openvino.hpp>

#include "bundle.hpp"
#include "tensors.hpp"

namespace polyprompt {

class Engine {
public:
    virtual ~Engine() = default;

    // All outputs of the graph. Throws Error: the engine refuses the batch.
    virtual std::map<std::string, Tensor> run(const Tensors& feeds) = 0;
};

// The engines that are there.
class Engines {
public:
    // threads: 0: one a core. onnxruntime: its library; empty: where it is looked for, see libraries.hpp.
    Engines(ov::Core& core, int threads, const std::string& onnxruntime);

    // Throws Error: no engine has this name.
    void check(const std::string& name) const;

    // Whether it can compute here, as far as can be seen without opening it.
    bool has(const std::string& name) const;

    // Whether the compiled operator is there for it.
    bool has_operator(const std::string& name) const;

    // Throws Error: the engine is not to be had here, or cannot open the file. kept: tensors of every run. second: another
    // graph over the same weights is open.
    std::unique_ptr<Engine> open(const std::string& name, const std::filesystem::path& model, Form form, const Tensors& kept, bool second);

private:
    ov::Core& core_;
    int threads_;
    std::filesystem::path onnxruntime_;
    bool extended_ = false;
};

// The last line of what an engine says of an error.
std::string last_line(const std::string& text);

#if POLYPROMPT_ONNXRUNTIME
// Where the headers were there. operators: library of operators that the graph has; empty: none.
std::unique_ptr<Engine> open_onnxruntime(const std::filesystem::path& library, const std::filesystem::path& model, int threads,
                                         const std::filesystem::path& operators, const Tensors& kept, bool second);
#endif

}  // namespace polyprompt
