#include "tags.hpp"

#include <algorithm>
#include <limits>

#include "error.hpp"
#include "viterbi.hpp"

namespace polyprompt {
namespace {

constexpr double impossible = -1e30;  // as in harness.viterbi

// "B" and "PER" of "B-PER"; "O" has no type.
struct Parts {
    char prefix;
    std::string type;
};

}  // namespace

Order::Order(const std::vector<std::string>& labels) : labels_(int64_t(labels.size())) {
    std::vector<Parts> parts;
    for (const std::string& label : labels) {
        const bool typed = label.size() > 2 && label[1] == '-' && std::string("BIES").find(label[0]) != std::string::npos;
        if (!typed && label != "O") throw Error("its labels are no BIO or IOBES tags, which viterbi needs");
        parts.push_back({label[0], typed ? label.substr(2) : ""});
    }
    const auto is = [](const Parts& part, const char* among) { return std::string(among).find(part.prefix) != std::string::npos; };
    const bool closed = std::any_of(parts.begin(), parts.end(), [&](const Parts& part) { return is(part, "ES"); });
    first_.reset(new bool[labels.size()]);
    last_.reset(new bool[labels.size()]);
    follows_.reset(new bool[labels.size() * labels.size()]);
    bool begun = false, alone = false;
    for (size_t label = 0; label < parts.size(); ++label) {
        first_[label] = is(parts[label], "OBS");
        last_[label] = !closed || !is(parts[label], "BI");
        begun = begun || is(parts[label], "BS");
        alone = alone || (first_[label] && last_[label]);
    }
    if (!begun || !alone) throw Error("its labels are no BIO or IOBES tags, which viterbi needs");
    for (size_t label = 0; label < parts.size(); ++label) {
        set_.push_back(int32_t(label));
        for (size_t before = 0; before < parts.size(); ++before) {
            const bool goes_on = is(parts[before], "BI") && is(parts[label], "IE") && parts[before].type == parts[label].type;
            const bool fits = goes_on || (last_[before] && first_[label]);
            follows_[before * parts.size() + label] = fits;
            if (fits) members_.push_back(int64_t(before));
        }
        starts_.push_back(int64_t(members_.size()));
    }
}

std::vector<int64_t> Order::best(const std::vector<float>& logits) const {
    for (const float score : logits)
        if (!(score < std::numeric_limits<float>::infinity()))
            throw Error("a score of a tag is not a number or plus infinity; the model cannot be used");
    const int64_t starts[] = {0, int64_t(logits.size()) / labels_};
    const Tags tags{labels_, labels_, follows_.get(), first_.get(), last_.get(), set_.data(), members_.data(), starts_.data(), impossible};
    std::vector<int64_t> found(logits.size() / size_t(labels_));
    viterbi(tags, logits.data(), starts, 1, 1, found.data());
    return found;
}

}  // namespace polyprompt
