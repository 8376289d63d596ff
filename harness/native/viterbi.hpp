// Viterbi's algorithm over the tags of many sentences; harness/viterbi.py says what it finds. It depends on nothing.
#pragma once

#include <cstdint>

namespace polyprompt {

// What may stand where; see Constraints in harness/viterbi.py. The sets are those of the tags that a tag may follow.
struct Tags {
    int64_t labels, sets;
    const bool *follows, *first, *last;  // [labels, labels], [labels], [labels]
    const int32_t* set;                  // of each label, [labels]
    const int64_t *members, *starts;     // labels of all sets, and where each set begins in them, [sets + 1]
    double impossible;                   // the score in place of minus infinity
};

// What is wrong with sets, or with sentences of so many words; null: nothing. starts: [sentences + 1].
const char* refused(const Tags& tags, int64_t members, const int64_t* starts, int64_t sentences, int64_t words);

// The best sequence of tags of each sentence, in at most so many threads. logits: [words, labels]; found: [words].
void viterbi(const Tags& tags, const float* logits, const int64_t* starts, int64_t sentences, int threads, int64_t* found);

}  // namespace polyprompt
