// Rows of different lengths in batches that cost least, as exporters.batching.plan cuts them.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "bundle.hpp"

namespace polyprompt {

// First row of each batch and the one behind its last. lengths: ascending. most: places of a batch of several rows.
std::vector<std::pair<size_t, size_t>> plan(const std::vector<size_t>& lengths, size_t most, const Pace& pace);

}  // namespace polyprompt
