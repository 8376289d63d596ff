#include "batching.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace polyprompt {

std::vector<std::pair<size_t, size_t>> plan(const std::vector<size_t>& lengths, size_t most, const Pace& pace) {
    std::vector<size_t> longest, ends{0};  // of rows of the same length
    for (size_t i = 0; i < lengths.size(); ++i) {
        if (longest.empty() || longest.back() != lengths[i]) longest.push_back(lengths[i]), ends.push_back(i);
        ends.back() = i + 1;
    }
    std::vector<double> cost(ends.size(), 0);
    std::vector<size_t> begins(ends.size(), 0);
    for (size_t end = 1; end < ends.size(); ++end) {
        cost[end] = std::numeric_limits<double>::infinity();
        for (size_t begin = 0; begin < end; ++begin) {
            const double places = double((ends[end] - ends[begin]) * longest[end - 1]);
            const double total = cost[begin] + pace.batch * std::ceil(places / double(most)) + (pace.piece + pace.place) * places;
            if (total < cost[end]) cost[end] = total, begins[end] = begin;
        }
    }
    std::vector<std::pair<size_t, size_t>> found;
    for (size_t end = longest.size(); end > 0; end = begins[end]) {
        const size_t first = ends[begins[end]], rows = ends[end] - first;
        const size_t each = std::max<size_t>(1, most / std::max<size_t>(1, longest[end - 1]));
        const size_t count = (rows + each - 1) / each;
        for (size_t part = count; part > 0; --part) found.emplace_back(first + (part - 1) * rows / count, first + part * rows / count);
    }
    std::reverse(found.begin(), found.end());
    return found;
}

}  // namespace polyprompt
