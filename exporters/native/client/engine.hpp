// What computes the graph.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include <openvino/openvino.hpp>

#include "tensors.hpp"

namespace polyprompt {

class Engine {
public:
    virtual ~Engine() = default;

    // All outputs of the graph. The tensors in `kept` are those of every run.
    virtual std::map<std::string, Tensor> run(const Tensors& feeds) = 0;
};

// Throws Error: no such engine, not to be had here, or it cannot open the file. threads: 0: one a core.
std::unique_ptr<Engine> open_engine(ov::Core& core, const std::string& name, const std::filesystem::path& model, int threads,
                                    const Tensors& kept);

bool has_bf16(ov::Core& core);

}  // namespace polyprompt
