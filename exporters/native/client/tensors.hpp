// Tensors of tasks in a safetensors file, and those of several files together.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace polyprompt {

struct Tensor {
    enum class Type { f32, i64, boolean };

    Type type = Type::f32;
    std::vector<int64_t> shape;
    std::vector<uint8_t> data;

    size_t width() const { return type == Type::f32 ? 4 : type == Type::i64 ? 8 : 1; }
};

using Tensors = std::map<std::string, Tensor>;

// The content of a safetensors file. Throws Error: it is none.
Tensors read_tensors(std::string_view file);

// As exporters.tasks.merge does it; offsets: what is added to the task ids of each part. Throws Error: parts do not fit.
Tensors merge(const std::vector<Tensors>& parts, std::vector<int64_t>& offsets);

}  // namespace polyprompt
