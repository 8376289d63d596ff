#include "decode.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "json.hpp"
#include "utf8.hpp"

namespace polyprompt {
namespace {

constexpr int longest_answer = 30;  // pieces, as in harness.decode
constexpr double infinity = std::numeric_limits<double>::infinity();

std::vector<float> softmax(const float* logits, size_t count) {
    std::vector<float> found(logits, logits + count);
    const float most = *std::max_element(found.begin(), found.end());
    float sum = 0;
    for (float& value : found) sum += value = std::exp(value - most);
    for (float& value : found) value /= sum;
    return found;
}

size_t best_of(const std::vector<float>& values) { return size_t(std::max_element(values.begin(), values.end()) - values.begin()); }

template <typename Values, typename Write>
std::string list(const Values& values, Write write) {
    std::string found = "[";
    for (size_t i = 0; i < values.size(); ++i) found += (i > 0 ? ", " : "") + write(values[i]);
    return found + "]";
}

bool is_space(const std::string& one) {
    for (const char* known : {" ", "\t", "\n", "\v", "\f", "\r", "\x1c", "\x1d", "\x1e", "\x1f", "\u0085", "\u00a0", "\u1680", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"})
        if (one == known) return true;
    return one.size() == 3 && one >= "\u2000" && one <= "\u200a";
}

std::string span(const Task& task, const Example& example, std::optional<double> threshold, const std::vector<Answered>& rows) {
    float best = -std::numeric_limits<float>::infinity();
    std::pair<int, int> where{-1, -1};
    double no_answer = infinity;
    std::vector<float> all;
    for (const Answered& row : rows) {
        const std::vector<float>& output = *row.output;
        if (output.size() >= 2) no_answer = std::min(no_answer, double(output[0] + output[1]));
        std::vector<size_t> inside;
        for (size_t i = 0; i < row.feature->places.size(); ++i)
            if (row.feature->places[i].first >= 0) inside.push_back(i);
        for (size_t more = 0; more < std::min<size_t>(longest_answer, inside.size()); ++more)
            for (size_t i = 0; i + more < inside.size(); ++i) {
                const float score = output[2 * inside[i]] + output[2 * inside[i + more] + 1];
                all.push_back(score);
                if (score > best) {
                    best = score;
                    where = {row.feature->places[inside[i]].first, row.feature->places[inside[i + more]].second};
                }
            }
    }
    double probability = 0, difference = infinity;
    std::string text;
    int begin = 0, end = 0;
    if (!all.empty()) {
        double sum = task.no_answer ? std::exp(no_answer - double(best)) : 0;
        for (const float score : all) sum += std::exp(double(score) - double(best));
        probability = 1 / sum;
        difference = no_answer - double(best);
        const std::string& context = *example.pair;
        const std::vector<int> at = boundaries(context);
        const int last = int(at.size()) - 1;
        begin = std::min(where.first, last), end = std::clamp(where.second, begin, last);
        const auto one = [&](int i) { return context.substr(size_t(at[size_t(i)]), size_t(at[size_t(i + 1)] - at[size_t(i)])); };
        while (begin < end && is_space(one(begin))) ++begin;
        while (end > begin && is_space(one(end - 1))) --end;
        text = context.substr(size_t(at[size_t(begin)]), size_t(at[size_t(end)] - at[size_t(begin)]));
    }
    const bool none = text.empty() || (task.no_answer && difference > threshold.value_or(0));
    if (none && !text.empty()) text.clear();
    const double said = !none ? probability : std::isfinite(difference) ? std::min(1.0, probability * std::exp(difference)) : 1.0;
    return json_string(text) + ", \"start\": " + (none ? "null" : std::to_string(begin)) + ", \"end\": " + (none ? "null" : std::to_string(end)) +
           ", \"probability\": " + written(said) + ", \"no_answer\": " + written(difference);
}

std::string tags(const Task& task, const Example& example, const std::vector<Answered>& rows) {
    const auto outside = std::find(task.labels.begin(), task.labels.end(), "O");
    std::vector<size_t> found(example.tokens.size(), outside == task.labels.end() ? 0 : size_t(outside - task.labels.begin()));
    std::vector<double> scores(example.tokens.size(), 0);
    const size_t labels = task.labels.size();
    // a word of which the tokenizer keeps nothing is read nowhere: it is outside of everything
    std::vector<float> logits(example.tokens.size() * labels, -std::numeric_limits<float>::infinity());
    std::vector<bool> read(example.tokens.size(), false);
    for (size_t word = 0; word < found.size(); ++word) logits[word * labels + found[word]] = 0;
    for (const Answered& row : rows)
        for (size_t i = 0; i < row.feature->words.size(); ++i) {
            const size_t word = size_t(row.feature->words[i]);
            read[word] = true;
            std::copy_n(row.output->data() + size_t(row.feature->positions[i]) * labels, labels, logits.data() + word * labels);
        }
    const std::vector<int64_t> best = task.order ? task.order->best(logits) : std::vector<int64_t>();
    for (size_t word = 0; word < found.size(); ++word) {
        if (task.order) found[word] = size_t(best[word]);
        if (!read[word]) continue;
        const std::vector<float> chances = softmax(logits.data() + word * labels, labels);
        if (!task.order) found[word] = best_of(chances);
        scores[word] = chances[found[word]];
    }
    return list(found, [&](size_t tag) { return json_string(task.labels[tag]); }) + ", \"scores\": " + list(scores, written);
}

std::string nearest(const Task& task, const Example& example, std::optional<double> threshold, const std::vector<float>& vector,
                    const std::vector<const std::vector<float>*>& candidates) {
    std::vector<float> cosines;
    for (const std::vector<float>* candidate : candidates) {
        float sum = 0;
        for (size_t i = 0; i < vector.size(); ++i) sum += vector[i] * (*candidate)[i];
        cosines.push_back(sum);
    }
    const size_t best = best_of(cosines);
    const bool none = task.no_answer && threshold && double(cosines[best]) < *threshold;
    return json_string(none ? "" : std::to_string(best)) + ", \"choice\": " + (none ? "null" : json_string(example.choices[best])) +
           ", \"cosine\": " + written(cosines[best]);
}

}  // namespace

std::string decode(const Task& task, const Example& example, std::optional<double> threshold, const std::vector<Answered>& rows,
                   const std::vector<const std::vector<float>*>& candidates) {
    std::string text = "{\"id\": " + json_string(example.id) + ", \"task\": " + json_string(task.name) + ", \"prediction\": ";
    switch (task.kind) {
        case Kind::classification: {
            const std::vector<float> chances = softmax(rows[0].output->data(), rows[0].output->size());
            text += json_string(task.labels[best_of(chances)]) + ", \"scores\": {";
            for (size_t i = 0; i < chances.size(); ++i) text += (i > 0 ? ", " : "") + json_string(task.labels[i]) + ": " + written(chances[i]);
            text += "}";
            break;
        }
        case Kind::regression: text += written((*rows[0].output)[0]); break;
        case Kind::choice: {
            std::vector<float> logits;
            for (const Answered& row : rows) logits.push_back((*row.output)[0]);
            const std::vector<float> chances = softmax(logits.data(), logits.size());
            const size_t best = best_of(chances);
            const bool texts = example.cloze || example.pair.value_or("").find(placeholder) != std::string::npos;
            text += json_string(texts ? example.choices[best] : std::to_string(best)) + ", \"choice\": " + json_string(example.choices[best]) +
                    ", \"scores\": " + list(chances, [](float value) { return written(value); });
            break;
        }
        case Kind::tagging: text += tags(task, example, rows); break;
        case Kind::span: text += span(task, example, threshold, rows); break;
        case Kind::retrieval: text += nearest(task, example, threshold, *rows[0].output, candidates); break;
    }
    return text + "}";
}

}  // namespace polyprompt
