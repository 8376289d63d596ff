// Viterbi's algorithm over the tags of many sentences; harness/viterbi.py says what it finds and is the only caller.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

namespace nb = nanobind;

namespace {

template <class Number, int axes>
using Array = nb::ndarray<Number, nb::ndim<axes>, nb::c_contig, nb::device::cpu>;

constexpr double never = -std::numeric_limits<double>::infinity();

// What may stand where; see Constraints in harness/viterbi.py.
struct Tags {
    int64_t labels, sets;
    const bool *follows, *first, *last;
    const int32_t* set;
    const int64_t *members, *starts;
    double impossible;
};

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

void viterbi(
    Array<const float, 2> logits, Array<const int64_t, 1> starts, Array<const bool, 2> follows,
    Array<const bool, 1> first, Array<const bool, 1> last, Array<const int32_t, 1> set,
    Array<const int64_t, 1> members, Array<const int64_t, 1> set_starts, double impossible, Array<int64_t, 1> found,
    int threads) {
    const int64_t labels = int64_t(logits.shape(1)), words = int64_t(logits.shape(0));
    const int64_t sentences = int64_t(starts.shape(0)) - 1, sets = int64_t(set_starts.shape(0)) - 1;
    auto side = [&](auto& array) { return int64_t(array.shape(0)) == labels; };
    bool right = labels && sentences >= 0 && sets > 0 && int64_t(found.shape(0)) == words && side(follows) && side(first) &&
                 side(last) && side(set) && int64_t(follows.shape(1)) == labels;
    for (int64_t row = 0; right && row < sentences; row++) right = starts.data()[row] <= starts.data()[row + 1];
    right = right && starts.data()[0] == 0 && starts.data()[sentences] == words;
    for (int64_t one = 0; right && one < sets; one++) right = set_starts.data()[one] <= set_starts.data()[one + 1];
    right = right && set_starts.data()[0] == 0 && set_starts.data()[sets] == int64_t(members.shape(0));
    for (size_t one = 0; right && one < members.shape(0); one++)
        right = members.data()[one] >= 0 && members.data()[one] < labels;
    for (int64_t label = 0; right && label < labels; label++) right = set.data()[label] >= 0 && set.data()[label] < sets;
    if (!right) throw std::invalid_argument("sentences, tags and sets do not fit together");

    const Tags tags{labels,     sets,           follows.data(),    first.data(), last.data(),
                    set.data(), members.data(), set_starts.data(), impossible};
    nb::gil_scoped_release release;
    auto part = [&](int64_t from, int64_t end) {
        Search search(tags);
        for (int64_t row = from; row < end; row++) {
            const int64_t word = starts.data()[row];
            search.run(logits.data() + word * labels, starts.data()[row + 1] - word, found.data() + word);
        }
    };
    // Sentences with about as many words for each thread; a thread is begun in the time of some thousand words.
    const int64_t useful = std::max<int64_t>(1, std::min<int64_t>(threads, words * labels / (1 << 16)));
    std::vector<std::thread> others;
    int64_t from = 0;
    for (int64_t one = 1; one < useful; one++) {
        const int64_t* there = std::lower_bound(starts.data(), starts.data() + sentences, words * one / useful);
        try {
            others.emplace_back(part, from, there - starts.data());
        } catch (const std::system_error&) {
            break;  // no more threads are to be had
        }
        from = there - starts.data();
    }
    part(from, sentences);
    for (std::thread& other : others) other.join();
}

}  // namespace

void add_decoding(nb::module_& module) {
    module.attr("DECODING") = 1;  // harness/viterbi.py knows which one it can call
    module.def("viterbi", &viterbi);
}
