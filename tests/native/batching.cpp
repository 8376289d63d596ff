// Rows of random lengths, forms and paces for what cuts them into batches; of few rows the cost is compared with that of
// every way to cut them.
//
//     polyprompt_fuzz_batching [SECONDS [SEED]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "batching.hpp"

using namespace polyprompt;

namespace {

[[noreturn]] void fail(const char* text, double got, double wanted) {
    std::fprintf(stderr, "%s: %g, not %g\n", text, got, wanted);
    std::abort();
}

struct Sizes {
    double longest, places, pieces = 0, pairs = 0, pairs_in_parts = 0;
    Sizes(const std::vector<size_t>& lengths, size_t begin, size_t end) : longest(double(lengths[end - 1])), places(double(end - begin) * longest) {
        for (size_t row = begin; row < end; ++row) pieces += double(lengths[row]), pairs += double(lengths[row] * lengths[row]);
        // Attention of a packed batch: rows up to a third of the longest, up to two thirds, and longer ones.
        for (double part = 1; part <= 3; ++part) {
            double rows = 0, most = 0;
            for (size_t row = begin; row < end; ++row)
                if (const double length = double(lengths[row]); std::ceil(3 * length / longest) == part) ++rows, most = length;
            pairs_in_parts += rows * most * most;
        }
    }
};

// What neighbouring rows take in a form, in as many batches as they fill.
double cost(const Sizes& sizes, Form form, const Pace& pace, double most) {
    switch (form) {
        case Form::padded: return pace.batch * std::ceil(sizes.places / most) + pace.piece * sizes.places + pace.pair * sizes.places * sizes.longest;
        case Form::native: return pace.batch * std::ceil(sizes.pieces / most) + pace.piece * sizes.pieces + pace.pair * sizes.pairs;
        default:
            if (sizes.pieces == sizes.places) return std::numeric_limits<double>::infinity();
            return pace.batch * std::ceil(sizes.pieces / most) + pace.piece * sizes.pieces + pace.pair * sizes.pairs_in_parts;
    }
}

// The least of all ways to cut the rows from `begin` on where lengths differ.
double least(const std::vector<size_t>& lengths, size_t begin, const std::map<Form, Pace>& paces, double most) {
    if (begin == lengths.size()) return 0;
    double found = std::numeric_limits<double>::infinity();
    for (size_t end = begin + 1; end <= lengths.size(); ++end) {
        if (end < lengths.size() && lengths[end] == lengths[end - 1]) continue;
        const double rest = least(lengths, end, paces, most);
        for (const auto& [form, pace] : paces) found = std::min(found, rest + cost(Sizes(lengths, begin, end), form, pace, most));
    }
    return found;
}

void attempt(std::mt19937& draw) {
    const bool few = draw() % 2;
    std::vector<size_t> lengths(draw() % (few ? 9 : 200));
    const size_t longest = 1 + draw() % (draw() % 4 ? 40 : 3);
    for (size_t& length : lengths) length = 1 + draw() % longest;
    std::sort(lengths.begin(), lengths.end());
    const size_t most = 1 + draw() % (draw() % 2 ? 200 : 20000);
    std::map<Form, Pace> paces;
    const unsigned forms = 1 + draw() % 7;
    for (const Form form : {Form::padded, Form::packed, Form::native})
        if (forms >> int(form) & 1) paces[form] = {0, double(draw() % 100), (1 + draw() % 20) / 8.0, (draw() % 8) / 64.0};
    if (forms == 1u << int(Form::packed)) paces[Form::padded] = Pace();  // rows of one length are not packed
    const Plan found = plan(lengths, most, paces);

    size_t next = 0;
    double done = 0;
    for (const Batch& batch : found.batches) {
        if (batch.begin != next || batch.end <= batch.begin || batch.end > lengths.size()) fail("rows do not follow", double(batch.begin), double(next));
        next = batch.end;
        if (paces.count(batch.form) == 0) fail("a form that is not there", double(batch.form), 0);
        const Sizes sizes(lengths, batch.begin, batch.end);
        const double size = batch.form == Form::padded ? sizes.places : sizes.pieces;
        if (batch.end - batch.begin > 1 && size > double(most)) fail("a batch is too large", size, double(most));
        done += cost(sizes, batch.form, paces.at(batch.form), double(most));
    }
    if (next != lengths.size()) fail("rows are left", double(next), double(lengths.size()));
    if (!std::isfinite(done)) fail("rows of one length are packed", done, 0);
    const auto differ = [](double one, double other) { return std::fabs(one - other) > 1e-9 * std::max(1.0, other); };
    if (few) {
        const double wanted = least(lengths, 0, paces, double(most));
        if (differ(found.cost, wanted)) fail("not the least", found.cost, wanted);
    }
    // what is said to be cheapest is what is done, where each part is one batch
    if (most >= lengths.size() * longest && differ(done, found.cost)) fail("another plan", done, found.cost);
    // rows of one length: as few batches as there can be, about equal
    if (!lengths.empty() && lengths.front() == lengths.back()) {
        const size_t fit = std::max<size_t>(1, most / lengths[0]), wanted = (lengths.size() + fit - 1) / fit;
        if (found.batches.size() != wanted) fail("batches", double(found.batches.size()), double(wanted));
        for (const Batch& batch : found.batches)
            if (double(batch.end - batch.begin) < std::floor(double(lengths.size()) / double(wanted)) - 1)
                fail("a small batch", double(batch.end - batch.begin), double(lengths.size()) / double(wanted));
    }
}

// Of a packed batch that is too large, the parts without padding are computed in the first of the other forms.
void check_parts() {
    std::vector<size_t> lengths(12, 10);
    lengths.push_back(20);
    const Pace slow{0, 10000, 1, 0};
    for (const Batch& batch : plan(lengths, 60, {{Form::padded, slow}, {Form::packed, Pace()}, {Form::native, slow}}).batches) {
        const Form wanted = lengths[batch.begin] == lengths[batch.end - 1] ? Form::padded : Form::packed;
        if (batch.form != wanted) fail("a part's form", double(batch.form), double(wanted));
    }
}

}  // namespace

int main(int count, char** words) {
    const double seconds = count > 1 ? std::atof(words[1]) : 10;
    std::mt19937 draw(unsigned(count > 2 ? std::atol(words[2]) : 0));
    const auto start = std::chrono::steady_clock::now();
    check_parts();
    long times = 0;
    do {
        attempt(draw);
        times++;
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
    std::printf("%ld inputs, none of them harmful\n", times);
}
