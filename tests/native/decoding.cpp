// Throws sentences and tags at the search for tags, sound and malformed, on several threads; short sentences are compared
// with every sequence that there is.
//
//     polyprompt_fuzz_decoding [SECONDS [SEED]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "viterbi.hpp"

using namespace polyprompt;

namespace {

constexpr double never = -std::numeric_limits<double>::infinity();
constexpr double impossible = -1e30;

// Memory of exactly its size, so that a sanitizer sees each step beside it.
template <class Number>
std::unique_ptr<Number[]> exactly(const std::vector<Number>& from) {
    std::unique_ptr<Number[]> found(new Number[from.size()]);
    std::copy(from.begin(), from.end(), found.get());
    return found;
}

// What may stand where, drawn at random.
struct Drawn {
    int64_t labels;
    std::vector<char> first, last, follows;
    std::vector<int32_t> set;
    std::vector<int64_t> members, starts{0};

    Drawn(std::mt19937& draw, int64_t labels) : labels(labels) {
        const unsigned seldom = 1 + draw() % 4;
        for (int64_t label = 0; label < labels; label++) first.push_back(draw() % 4 < seldom), last.push_back(draw() % 4 < seldom);
        for (int64_t pair = 0; pair < labels * labels; pair++) follows.push_back(draw() % 4 < seldom);
        for (int64_t label = 0; label < labels; label++) {  // a set for each label: equal ones may be there twice
            set.push_back(int32_t(label));
            for (int64_t before = 0; before < labels; before++)
                if (follows[size_t(before * labels + label)]) members.push_back(before);
            starts.push_back(int64_t(members.size()));
        }
    }
};

// The greatest sum of a sentence by trying all sequences; -infinity: none can be.
double best(const Drawn& tags, const float* logits, int64_t words) {
    std::vector<int64_t> path(size_t(words), 0);
    double most = never;
    while (true) {
        bool fits = tags.first[size_t(path[0])] && tags.last[size_t(path.back())];
        double sum = 0;
        for (int64_t word = 0; word < words; word++) {
            const float* line = logits + word * tags.labels;
            const double top = *std::max_element(line, line + tags.labels);
            fits = fits && (word == 0 || tags.follows[size_t(path[size_t(word - 1)] * tags.labels + path[size_t(word)])]);
            sum += top == never ? 0 : std::max(line[path[size_t(word)]] - top, impossible);
        }
        if (fits) most = std::max(most, sum);
        int64_t word = 0;
        while (word < words && ++path[size_t(word)] == tags.labels) path[size_t(word++)] = 0;
        if (word == words) return most;
    }
}

double sum_of(const Drawn& tags, const float* logits, int64_t words, const int64_t* path) {
    double sum = 0;
    for (int64_t word = 0; word < words; word++) {
        const float* line = logits + word * tags.labels;
        const double top = *std::max_element(line, line + tags.labels);
        sum += top == never ? 0 : std::max(line[path[word]] - top, impossible);
    }
    return sum;
}

bool can_be(const Drawn& tags, const int64_t* path, int64_t words) {
    bool fits = tags.first[size_t(path[0])] && tags.last[size_t(path[words - 1])];
    for (int64_t word = 1; word < words; word++) fits = fits && tags.follows[size_t(path[word - 1] * tags.labels + path[word])];
    return fits;
}

[[noreturn]] void fail(const char* text, double got, double wanted) {
    std::fprintf(stderr, "%s: %g, not %g\n", text, got, wanted);
    std::abort();
}

void attempt(std::mt19937& draw) {
    const bool large = draw() % 50 == 0;  // of several threads' work
    Drawn drawn(draw, large ? 9 : 1 + draw() % 5);
    std::vector<int64_t> starts{0};
    for (unsigned sentences = large ? 2000 : draw() % 6; sentences > 0; sentences--)
        starts.push_back(starts.back() + int64_t(large ? draw() % 30 : draw() % 6));
    const int64_t words = starts.back(), sentences = int64_t(starts.size()) - 1;
    std::vector<float> logits;
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < words * drawn.labels; i++) logits.push_back(draw() % 30 == 0 ? -INFINITY : draw() % 9 == 0 ? 1.0f : normal(draw));

    const bool damaged = draw() % 3 == 0;
    if (damaged) {
        static const int64_t odd[] = {-1, 1, INT64_MIN, INT64_MAX, 7};
        const int64_t by = odd[draw() % 5];
        switch (draw() % 4) {
            case 0: starts[draw() % starts.size()] = by; break;
            case 1: drawn.starts[draw() % drawn.starts.size()] = by; break;
            case 2: drawn.set[draw() % drawn.set.size()] = int32_t(by); break;
            default: if (!drawn.members.empty()) drawn.members[draw() % drawn.members.size()] = by;
        }
    }
    const auto scores = exactly(logits);
    const auto set = exactly(drawn.set);
    const auto members = exactly(drawn.members), set_starts = exactly(drawn.starts), begins = exactly(starts);
    const auto as_bools = [](const std::vector<char>& from) {
        std::unique_ptr<bool[]> found(new bool[from.size()]);
        std::copy(from.begin(), from.end(), found.get());
        return found;
    };
    const auto first = as_bools(drawn.first), last = as_bools(drawn.last), follows = as_bools(drawn.follows);
    const Tags tags{drawn.labels, drawn.labels, follows.get(), first.get(), last.get(), set.get(), members.get(), set_starts.get(), impossible};
    if (refused(tags, int64_t(drawn.members.size()), begins.get(), sentences, words)) {
        if (!damaged) fail("what is sound is refused", 1, 0);
        return;
    }
    std::vector<int64_t> found(size_t(words), -1);
    viterbi(tags, scores.get(), begins.get(), sentences, 1 + int(draw() % 4), found.data());
    for (const int64_t tag : found)
        if (tag < 0 || tag >= drawn.labels) fail("no tag", double(tag), double(drawn.labels));
    for (int64_t row = 0; row < sentences && !damaged && !large; row++) {
        const int64_t begin = starts[size_t(row)], count = starts[size_t(row + 1)] - begin;
        if (count == 0) continue;
        const float* lines = logits.data() + begin * drawn.labels;
        const double wanted = best(drawn, lines, count);
        if (wanted == never) continue;  // nothing can be, and anything is found
        if (!can_be(drawn, found.data() + begin, count)) fail("tags that cannot stand together", double(row), 0);
        const double got = sum_of(drawn, lines, count, found.data() + begin);
        if (std::fabs(got - wanted) > 1e-6 * std::max(1.0, std::fabs(wanted))) fail("not the best", got, wanted);
    }
}

}  // namespace

int main(int count, char** words) {
    const double seconds = count > 1 ? std::atof(words[1]) : 10;
    std::mt19937 draw(unsigned(count > 2 ? std::atol(words[2]) : 0));
    const auto start = std::chrono::steady_clock::now();
    long times = 0;
    do {
        attempt(draw);
        times++;
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
    std::printf("%ld inputs, none of them harmful\n", times);
}
