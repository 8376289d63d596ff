// Graphs made cheaper for OpenVINO before they are compiled.
#pragma once

#include <memory>

#include <openvino/openvino.hpp>

namespace polyprompt {

// As exporters.engines.slim, which says why; the results stay, but for rounding.
void slim(const std::shared_ptr<ov::Model>& model);

// As exporters.engines.narrow: for a session in bf16.
void narrow(const std::shared_ptr<ov::Model>& model);

}  // namespace polyprompt
