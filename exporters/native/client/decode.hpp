// Outputs of the graph to answers as JSON objects, as harness.decode and exporters.predict make them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "features.hpp"

namespace polyprompt {

// A row with what the graph gave for it: [columns], or [seq, columns] where each piece has an output.
struct Answered {
    const Feature* feature;
    const std::vector<float>* output;
};

// rows: of one example. candidates: retrieval: unit vectors of its choices.
std::string decode(const Task& task, const Example& example, std::optional<double> threshold, const std::vector<Answered>& rows,
                   const std::vector<const std::vector<float>*>& candidates);

}  // namespace polyprompt
