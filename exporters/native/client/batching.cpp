#include "batching.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace polyprompt {
namespace {

// In the packed form attention pads so many parts of a batch, each to its own longest row: exporters.batching.PARTS.
constexpr size_t parts_of_packed = 3;

// Rows by length: the different lengths, behind how many rows each ends, and sums up to there. In front of them is 0.
struct Sizes {
    std::vector<size_t> longest, ends{0};
    std::vector<double> pieces{0}, pairs{0};

    explicit Sizes(const std::vector<size_t>& lengths) {
        for (size_t i = 0; i < lengths.size(); ++i) {
            if (longest.empty() || longest.back() != lengths[i]) {
                longest.push_back(lengths[i]), ends.push_back(i);
                pieces.push_back(pieces.back()), pairs.push_back(pairs.back());
            }
            ends.back() = i + 1;
            pieces.back() += double(lengths[i]), pairs.back() += double(lengths[i]) * double(lengths[i]);
        }
    }

    // Of a batch of the lengths from begin to end.
    double places(size_t begin, size_t end) const { return double((ends[end] - ends[begin]) * longest[end - 1]); }

    // Pairs of places in the parts of a packed batch.
    double pairs_in_parts(size_t begin, size_t end) const {
        double found = 0;
        for (size_t part = 1, first = begin; part <= parts_of_packed; ++part) {
            const size_t limit = part * longest[end - 1] / parts_of_packed;
            const size_t last = size_t(std::upper_bound(longest.begin() + ptrdiff_t(first), longest.begin() + ptrdiff_t(end), limit) - longest.begin());
            if (last > first) found += double(ends[last] - ends[first]) * double(longest[last - 1]) * double(longest[last - 1]);
            first = last;
        }
        return found;
    }

    // What the batch takes, infinite where the form is not for it.
    double taken(Form form, const Pace& pace, size_t begin, size_t end, double most) const {
        const double padded = places(begin, end), real = pieces[end] - pieces[begin];
        if (form == Form::padded) return pace.batch * std::ceil(padded / most) + (pace.piece + pace.pair * double(longest[end - 1])) * padded;
        if (form == Form::native) return pace.batch * std::ceil(real / most) + pace.piece * real + pace.pair * (pairs[end] - pairs[begin]);
        if (real >= padded) return std::numeric_limits<double>::infinity();
        return pace.batch * std::ceil(real / most) + pace.piece * real + pace.pair * pairs_in_parts(begin, end);
    }
};

// Parts of at most so many pieces, or of one row, as few as there can be and about equal.
std::vector<size_t> filled(const std::vector<size_t>& lengths, size_t first, size_t last, size_t most) {
    std::vector<size_t> ends, cuts{first};
    size_t total = 0;
    for (size_t row = first; row < last; ++row) ends.push_back(total += lengths[row]);
    while (cuts.back() < last) {
        const size_t begin = cuts.back() - first, before = begin > 0 ? ends[begin - 1] : 0;
        const size_t left = total - before, parts = std::max<size_t>(1, (left + most - 1) / most);
        const double share = double(left) / double(parts);
        const auto end = std::upper_bound(ends.begin(), ends.end(), double(before) + share, [](double value, size_t one) { return value < double(one); });
        cuts.push_back(first + std::max(begin + 1, size_t(end - ends.begin())));
    }
    return cuts;
}

// About equal parts of at most so many rows.
std::vector<size_t> parts(size_t first, size_t last, size_t most) {
    const size_t rows = last - first, count = (rows + most - 1) / most;
    std::vector<size_t> cuts;
    for (size_t part = 0; part <= count; ++part) cuts.push_back(first + part * rows / count);
    return cuts;
}

}  // namespace

Plan plan(const std::vector<size_t>& lengths, size_t most, const std::map<Form, Pace>& paces) {
    const Sizes sizes(lengths);
    const std::vector<size_t>&longest = sizes.longest, &ends = sizes.ends;
    std::vector<double> cost(ends.size(), 0);
    std::vector<size_t> begins(ends.size(), 0);
    std::vector<Form> forms(ends.size(), Form::padded);
    for (size_t end = 1; end < ends.size(); ++end) {
        cost[end] = std::numeric_limits<double>::infinity();
        for (size_t begin = 0; begin < end; ++begin) {
            for (const auto& [form, pace] : paces) {
                const double total = cost[begin] + sizes.taken(form, pace, begin, end, double(most));
                if (total < cost[end]) cost[end] = total, begins[end] = begin, forms[end] = form;
            }
        }
    }
    Form flat = Form::packed;  // of parts of a packed batch that have no padding
    for (const auto& [form, pace] : paces)
        if (form != Form::packed && flat == Form::packed) flat = form;
    std::vector<std::vector<Batch>> found;
    for (size_t end = longest.size(); end > 0; end = begins[end]) {
        const size_t first = ends[begins[end]], last = ends[end];
        const Form form = forms[end];
        const std::vector<size_t> cuts =
            form != Form::padded ? filled(lengths, first, last, most) : parts(first, last, std::max<size_t>(1, most / std::max<size_t>(1, longest[end - 1])));
        auto& mine = found.emplace_back();
        for (size_t i = 0; i + 1 < cuts.size(); ++i) {
            const bool even = lengths[cuts[i]] == lengths[cuts[i + 1] - 1];
            mine.push_back({cuts[i], cuts[i + 1], form == Form::packed && even ? flat : form});
        }
    }
    Plan whole{{}, cost.back()};
    for (auto part = found.rbegin(); part != found.rend(); ++part) whole.batches.insert(whole.batches.end(), part->begin(), part->end());
    return whole;
}

}  // namespace polyprompt
