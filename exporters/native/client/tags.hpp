// The best sequence of tags that can be, where a task asks for it, as harness.viterbi finds it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace polyprompt {

// What the names of tags say of their order. BIO: "I-" stands behind "B-" or "I-" of its type alone. IOBES: "I-" and "E-"
// do, and what was begun by "B-" is ended by "E-" of its type.
class Order {
public:
    // Throws Error: tags of another kind.
    explicit Order(const std::vector<std::string>& labels);

    // Labels of a sentence, [words]. logits: [words, labels]. Throws Error: a score is not a number, or plus infinity.
    std::vector<int64_t> best(const std::vector<float>& logits) const;

private:
    int64_t labels_;
    std::unique_ptr<bool[]> first_, last_, follows_;
    std::vector<int32_t> set_;
    std::vector<int64_t> members_, starts_{0};
};

}  // namespace polyprompt
