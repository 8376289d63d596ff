#include "features.hpp"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "error.hpp"
#include "utf8.hpp"

namespace polyprompt {
namespace {

constexpr int mask_position = 1;

// A text of a row, with the word that each piece belongs to.
struct Text {
    std::vector<int> ids, words;

    int size() const { return int(ids.size()); }
};

struct Range {
    int begin, end;
};

int special(const std::vector<Slot>& row) { return int(std::count_if(row.begin(), row.end(), [](const Slot& s) { return s.text < 0; })); }

// A row with the texts put in; `source` and `index` say where each piece comes from.
struct Row {
    Feature feature;
    std::vector<int> source, index;
};

Row build(const Card& card, const std::vector<Slot>& slots, const Text* const texts[2], const Range ranges[2]) {
    Row row;
    for (const Slot& slot : slots) {
        const int begin = slot.text < 0 ? 0 : ranges[slot.text].begin, end = slot.text < 0 ? 1 : ranges[slot.text].end;
        for (int i = begin; i < end; ++i) {
            row.feature.ids.push_back(slot.text < 0 ? slot.piece : texts[slot.text]->ids[size_t(i)]);
            row.feature.types.push_back(card.token_types ? slot.type : 0);
            row.source.push_back(slot.text);
            row.index.push_back(i);
        }
    }
    return row;
}

// Parts of a text of at most so many pieces, each with `stride` of the one before.
std::vector<Range> windows(int size, int most, int stride) {
    if (size <= most) return {{0, size}};
    if (most <= stride) throw Error("its rows are too short for what each of them repeats");
    std::vector<Range> found;
    for (int begin = 0; found.empty() || found.back().end < size; begin += most - stride) found.push_back({begin, std::min(size, begin + most)});
    return found;
}

// The longer text is cut first, as the `tokenizers` library does it.
void cut_longest(int most, int& one, int& other) {
    if (one + other <= most) return;
    const bool swapped = one > other;
    if (swapped) std::swap(one, other);
    other = one > most ? one : std::max(one, most - one);
    if (one + other > most) {
        one = most / 2;
        other = one + most % 2;
    }
    if (swapped) std::swap(one, other);
}

std::string asked(const Example& example, const std::string& choice) {
    if (!example.pair) return choice;
    std::string text = *example.pair;
    const std::string mark = placeholder;
    size_t at = text.find(mark);
    if (at == std::string::npos) return text + " " + choice;
    for (; at != std::string::npos; at = text.find(mark, at + choice.size())) text.replace(at, mark.size(), choice);
    return text;
}

// Texts that each window repeats, cut to so many pieces.
std::vector<std::string> shortened(Tokenizer& tokenizer, std::vector<std::string> texts, int limit) {
    std::vector<size_t> which;
    std::vector<std::string> candidates;
    for (size_t i = 0; i < texts.size(); ++i)
        if (texts[i].size() > size_t(limit)) which.push_back(i), candidates.push_back(texts[i]);  // a piece has at least one byte
    if (which.empty()) return texts;
    const std::vector<Pieces> found = tokenizer.encode(candidates, true);
    for (size_t i = 0; i < which.size(); ++i) {
        if (int(found[i].ids.size()) <= limit) continue;
        const int end = limit > 0 ? found[i].places[size_t(limit - 1)].second : 0;
        texts[which[i]].resize(size_t(boundaries(texts[which[i]])[size_t(end)]));
    }
    return texts;
}

std::vector<Feature> plain(Tokenizer& tokenizer, const Card& card, const Task& task, const std::vector<Example>& examples, int limit) {
    std::vector<size_t> owners;
    std::vector<std::string> texts;
    std::vector<bool> paired;
    for (size_t i = 0; i < examples.size(); ++i) {
        const Example& example = examples[i];
        const auto add = [&](const std::string* second) {
            owners.push_back(i);
            texts.push_back(example.text);
            paired.push_back(second != nullptr);
            if (second != nullptr) texts.push_back(*second);
        };
        if (task.kind == Kind::choice) {
            for (const std::string& choice : example.choices) {
                const std::string second = asked(example, choice);
                add(&second);
            }
        } else {
            add(example.pair ? &*example.pair : nullptr);
        }
    }
    const std::vector<Pieces> pieces = tokenizer.encode(texts);
    std::vector<Feature> found;
    size_t next = 0;
    for (size_t i = 0; i < owners.size(); ++i) {
        Text parts[2];
        parts[0].ids = pieces[next++].ids;
        if (paired[i]) parts[1].ids = pieces[next++].ids;
        const std::vector<Slot>& slots = paired[i] ? tokenizer.pair : tokenizer.single;
        const int most = std::max(0, limit - (task.mask ? 1 : 0) - special(slots));
        int sizes[2] = {parts[0].size(), parts[1].size()};
        if (paired[i])
            cut_longest(most, sizes[0], sizes[1]);
        else
            sizes[0] = std::min(sizes[0], most);
        const Text* const both[2] = {&parts[0], &parts[1]};
        const Range ranges[2] = {{0, sizes[0]}, {0, sizes[1]}};
        Feature row = build(card, slots, both, ranges).feature;
        row.example = owners[i];
        if (task.mask) {
            const int at = std::min(mask_position, int(row.ids.size()));
            row.ids.insert(row.ids.begin() + at, int(*task.mask));
            row.types.insert(row.types.begin() + at, 0);
        }
        found.push_back(std::move(row));
    }
    return found;
}

struct Start {
    int word, position;
    double room;
};

// Words of the first text, the position of the first piece with text of each, and pieces between it and the nearest cut.
std::vector<Start> word_starts(const Row& row, const Text& text, int mark, bool cut_left, bool cut_right) {
    constexpr double far = std::numeric_limits<double>::infinity();
    std::vector<Start> starts;
    int end = 0, previous = -1;
    const int size = int(row.source.size());
    for (int position = 0; position < size; ++position)
        if (row.source[size_t(position)] == 0) end = position;
    end += 2;
    for (int position = 0; position < size; ++position) {
        if (row.source[size_t(position)] != 0) continue;
        const int word = text.words[size_t(row.index[size_t(position)])];
        const bool first = word != previous;
        const bool behind_mark = !first && starts.back().position == position - 1 && mark >= 0 && row.feature.ids[size_t(position - 1)] == mark;
        if (first || behind_mark) {
            const double room = std::min(cut_left ? double(position) : far, cut_right ? double(end - position) : far);
            if (behind_mark) starts.pop_back();
            starts.push_back({word, position, room});
        }
        previous = word;
    }
    if (cut_left && !starts.empty()) starts.erase(starts.begin());
    return starts;
}

std::vector<Feature> tagging(Tokenizer& tokenizer, const Card& card, const std::vector<Example>& examples, int limit, int stride) {
    std::vector<std::string> again;
    for (const Example& example : examples)
        if (example.marked) again.push_back(example.tokens[size_t(*example.marked)]);
    again = shortened(tokenizer, std::move(again), limit / 4);
    std::vector<std::vector<std::string>> sentences;
    std::unordered_map<std::string, size_t> number;
    std::vector<std::string> unique;
    const auto know = [&](const std::string& word) {
        if (number.emplace(word, unique.size()).second) unique.push_back(word);
    };
    for (const Example& example : examples) {
        auto& words = sentences.emplace_back(example.tokens);
        if (example.marked) {
            words.insert(words.begin() + *example.marked + 1, "*");
            words.insert(words.begin() + *example.marked, "*");
        }
        for (const std::string& word : words) know(word);
    }
    for (const std::string& word : again) know(word);
    const std::vector<Pieces> pieces = tokenizer.encode(unique);
    std::vector<Feature> found;
    size_t next = 0;
    for (size_t i = 0; i < examples.size(); ++i) {
        const auto marked = examples[i].marked;
        Text parts[2];
        for (size_t word = 0; word < sentences[i].size(); ++word) {
            const std::vector<int>& ids = pieces[number[sentences[i][word]]].ids;
            parts[0].ids.insert(parts[0].ids.end(), ids.begin(), ids.end());
            parts[0].words.insert(parts[0].words.end(), ids.size(), int(word));
        }
        if (marked) parts[1].ids = pieces[number[again[next++]]].ids;
        const std::vector<Slot>& slots = marked ? tokenizer.pair : tokenizer.single;
        const std::vector<Range> cuts = windows(parts[0].size(), limit - special(slots) - parts[1].size(), stride);
        const Text* const both[2] = {&parts[0], &parts[1]};
        std::vector<Feature> mine;
        std::map<int, std::pair<Start, size_t>> owner;  // word -> where it is read
        for (size_t w = 0; w < cuts.size(); ++w) {
            const Range ranges[2] = {cuts[w], {0, parts[1].size()}};
            Row row = build(card, slots, both, ranges);
            for (Start start : word_starts(row, parts[0], tokenizer.mark, w > 0, w + 1 < cuts.size())) {
                if (marked) {  // index among the words without marks
                    if (start.word == *marked || start.word == *marked + 2) continue;
                    start.word -= start.word < *marked ? 0 : start.word == *marked + 1 ? 1 : 2;
                }
                const auto there = owner.find(start.word);
                if (there == owner.end() || start.room > there->second.first.room) owner[start.word] = {start, w};
            }
            row.feature.example = i;
            mine.push_back(std::move(row.feature));
        }
        for (const auto& [word, read] : owner) {
            mine[read.second].words.push_back(word);
            mine[read.second].positions.push_back(read.first.position);
        }
        std::move(mine.begin(), mine.end(), std::back_inserter(found));
    }
    return found;
}

std::vector<Feature> span(Tokenizer& tokenizer, const Card& card, const std::vector<Example>& examples, int limit, int stride) {
    std::vector<std::string> questions, contexts;
    for (const Example& example : examples) questions.push_back(example.text), contexts.push_back(example.pair.value_or(""));
    const std::vector<Pieces> first = tokenizer.encode(shortened(tokenizer, std::move(questions), limit / 2));
    // many questions may be asked of one context
    std::vector<std::string> unique = contexts;
    std::sort(unique.begin(), unique.end());
    unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
    const std::vector<Pieces> second = tokenizer.encode(unique, true);
    std::vector<Feature> found;
    for (size_t i = 0; i < examples.size(); ++i) {
        const Pieces& context = second[size_t(std::lower_bound(unique.begin(), unique.end(), contexts[i]) - unique.begin())];
        Text parts[2];
        parts[0].ids = first[i].ids;
        parts[1].ids = context.ids;
        const Text* const both[2] = {&parts[0], &parts[1]};
        for (const Range& cut : windows(parts[1].size(), limit - special(tokenizer.pair) - parts[0].size(), stride)) {
            const Range ranges[2] = {{0, parts[0].size()}, cut};
            Row row = build(card, tokenizer.pair, both, ranges);
            for (size_t k = 0; k < row.source.size(); ++k)
                row.feature.places.push_back(row.source[k] == 1 ? context.places[size_t(row.index[k])] : std::pair(-1, -1));
            row.feature.example = i;
            found.push_back(std::move(row.feature));
        }
    }
    return found;
}

}  // namespace

std::vector<Feature> features(Tokenizer& tokenizer, const Card& card, const Task& task, const std::vector<Example>& examples) {
    const int limit = int(std::min(task.max_length, task.max_positions));
    const int stride = int(std::min<int64_t>(task.stride, limit / 4));
    if (task.kind == Kind::tagging) return tagging(tokenizer, card, examples, limit, stride);
    if (task.kind == Kind::span) return span(tokenizer, card, examples, limit, stride);
    return plain(tokenizer, card, task, examples, limit);
}

}  // namespace polyprompt
