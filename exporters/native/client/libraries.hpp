// Where the libraries lie that are opened by name; what is not there has an empty path.
#pragma once

#include <filesystem>
#include <string>

namespace polyprompt {

// Of the operators for text: in openvino_tokenizers, or what OV_TOKENIZER_PREBUILD_EXTENSION_PATH names.
std::filesystem::path text_operators();

// Of the operator of packed graphs: beside the program, or beside the packages.
std::filesystem::path openvino_operator();
std::filesystem::path onnxruntime_operator();

// ONNX Runtime: what was named, what POLYPROMPT_ONNXRUNTIME names, or in the package onnxruntime.
std::filesystem::path onnxruntime_library(const std::string& named);

}  // namespace polyprompt
