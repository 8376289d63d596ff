// Rows of different lengths in batches that cost least, as exporters.batching.plan cuts them.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "bundle.hpp"

namespace polyprompt {

struct Batch {
    size_t begin, end;  // rows
    Form form;
};

struct Plan {
    std::vector<Batch> batches;
    double cost;  // microseconds
};

// lengths: ascending. most: pieces of a batch of several rows, in the padded form places. paces: of each form that there
// is; one that is not the packed one at least.
Plan plan(const std::vector<size_t>& lengths, size_t most, const std::map<Form, Pace>& paces);

}  // namespace polyprompt
