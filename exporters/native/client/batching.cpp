#include "batching.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace polyprompt {
namespace {

// What a batch takes, infinite where the form is not for it.
double taken(Form form, const Pace& pace, double places, double pieces, double pairs, double most) {
    if (form == Form::padded) return pace.batch * std::ceil(places / most) + (pace.piece + pace.place) * places;
    if (form == Form::native) return pace.batch * std::ceil(pieces / most) + pace.piece * pieces + pace.pair * pairs;
    if (pieces >= places) return std::numeric_limits<double>::infinity();
    return pace.batch * std::ceil(places / most) + pace.piece * pieces + pace.place * places;
}

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
    std::vector<size_t> longest, ends{0};  // of rows of the same length
    std::vector<double> pieces{0}, pairs{0};
    for (size_t i = 0; i < lengths.size(); ++i) {
        if (longest.empty() || longest.back() != lengths[i]) {
            longest.push_back(lengths[i]), ends.push_back(i);
            pieces.push_back(pieces.back()), pairs.push_back(pairs.back());
        }
        ends.back() = i + 1;
        pieces.back() += double(lengths[i]), pairs.back() += double(lengths[i]) * double(lengths[i]);
    }
    std::vector<double> cost(ends.size(), 0);
    std::vector<size_t> begins(ends.size(), 0);
    std::vector<Form> forms(ends.size(), Form::padded);
    for (size_t end = 1; end < ends.size(); ++end) {
        cost[end] = std::numeric_limits<double>::infinity();
        for (size_t begin = 0; begin < end; ++begin) {
            const double places = double((ends[end] - ends[begin]) * longest[end - 1]);
            for (const auto& [form, pace] : paces) {
                const double total = cost[begin] + taken(form, pace, places, pieces[end] - pieces[begin], pairs[end] - pairs[begin], double(most));
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
            form == Form::native ? filled(lengths, first, last, most) : parts(first, last, std::max<size_t>(1, most / std::max<size_t>(1, longest[end - 1])));
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
