#include "viterbi.hpp"

#include <algorithm>
#include <limits>
#include <system_error>
#include <thread>
#include <vector>

namespace polyprompt {

namespace {

constexpr double never = -std::numeric_limits<double>::infinity();

// One thread's work, with its memory.
class Search {
public:
    explicit Search(const Tags& tags)
        : tags(tags), sums(tags.labels), next(tags.labels), top(tags.sets), source(tags.sets) {}

    void run(const float* logits, int64_t words, int64_t* found) {
        const int64_t labels = tags.labels;
        if (!words || greedy(logits, words, found)) return;
        before.resize(std::max(before.size(), size_t(words * labels)));
        score(logits, next.data());
        for (int64_t label = 0; label < labels; label++) sums[label] = tags.first[label] ? next[label] : never;
        for (int64_t word = 1; word < words; word++) {
            for (int64_t set = 0; set < tags.sets; set++) {
                double most = never;
                int64_t from = tags.starts[set], end = tags.starts[set + 1], place = from < end ? tags.members[from] : 0;
                for (; from < end; from++)
                    if (sums[tags.members[from]] > most) most = sums[tags.members[from]], place = tags.members[from];
                top[set] = most, source[set] = int32_t(place);
            }
            score(logits + word * labels, next.data());
            int32_t* back = before.data() + word * labels;
            for (int64_t label = 0; label < labels; label++) {
                sums[label] = top[tags.set[label]] + next[label];
                back[label] = source[tags.set[label]];
            }
        }
        double most = never;
        int64_t tag = 0;
        for (int64_t label = 0; label < labels; label++)
            if (tags.last[label] && sums[label] > most) most = sums[label], tag = label;
        for (int64_t word = words - 1; word >= 0; word--) found[word] = tag, tag = word ? before[word * labels + tag] : 0;
    }

private:
    // The best tag of each word, and whether they can stand together.
    bool greedy(const float* logits, int64_t words, int64_t* found) const {
        for (int64_t word = 0; word < words; word++, logits += tags.labels)
            found[word] = std::max_element(logits, logits + tags.labels) - logits;
        bool fits = tags.first[found[0]] && tags.last[found[words - 1]];
        for (int64_t word = 1; word < words && fits; word++) fits = tags.follows[found[word - 1] * tags.labels + found[word]];
        return fits;
    }

    void score(const float* logits, double* scores) const {
        const double most = *std::max_element(logits, logits + tags.labels);
        for (int64_t label = 0; label < tags.labels; label++)
            scores[label] = most == never ? 0 : std::max(double(logits[label]) - most, tags.impossible);
    }

    const Tags& tags;
    std::vector<double> sums, next, top;
    std::vector<int32_t> source, before;
};

}  // namespace

const char* refused(const Tags& tags, int64_t members, const int64_t* starts, int64_t sentences, int64_t words) {
    bool right = tags.labels > 0 && tags.sets > 0 && sentences >= 0;
    for (int64_t row = 0; right && row < sentences; row++) right = starts[row] <= starts[row + 1];
    right = right && starts[0] == 0 && starts[sentences] == words;
    for (int64_t one = 0; right && one < tags.sets; one++) right = tags.starts[one] <= tags.starts[one + 1];
    right = right && tags.starts[0] == 0 && tags.starts[tags.sets] == members;
    for (int64_t one = 0; right && one < members; one++) right = tags.members[one] >= 0 && tags.members[one] < tags.labels;
    for (int64_t label = 0; right && label < tags.labels; label++) right = tags.set[label] >= 0 && tags.set[label] < tags.sets;
    return right ? nullptr : "sentences, tags and sets do not fit together";
}

void viterbi(const Tags& tags, const float* logits, const int64_t* starts, int64_t sentences, int threads, int64_t* found) {
    const int64_t labels = tags.labels, words = starts[sentences];
    auto part = [&](int64_t from, int64_t end) {
        Search search(tags);
        for (int64_t row = from; row < end; row++)
            search.run(logits + starts[row] * labels, starts[row + 1] - starts[row], found + starts[row]);
    };
    // Sentences with about as many words for each thread; a thread is begun in the time of some thousand words.
    const int64_t useful = std::max<int64_t>(1, std::min<int64_t>(threads, words * labels / (1 << 16)));
    std::vector<std::thread> others;
    int64_t from = 0;
    for (int64_t one = 1; one < useful; one++) {
        const int64_t* there = std::lower_bound(starts, starts + sentences, words * one / useful);
        try {
            others.emplace_back(part, from, there - starts);
        } catch (const std::system_error&) {
            break;  // no more threads are to be had
        }
        from = there - starts;
    }
    part(from, sentences);
    for (std::thread& other : others) other.join();
}

}  // namespace polyprompt
