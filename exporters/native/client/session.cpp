#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <map>

#include "batching.hpp"
#include "decode.hpp"
#include "error.hpp"

namespace polyprompt {
namespace {

constexpr size_t tokens_a_batch = 4096;  // as in exporters.session
constexpr const char* predicate = "B-V";

Tensor numbers(const std::vector<int64_t>& values, std::vector<int64_t> shape) {
    Tensor tensor;
    tensor.type = Tensor::Type::i64;
    tensor.shape = std::move(shape);
    tensor.data.resize(8 * values.size());
    if (!values.empty()) std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
    return tensor;
}

// What asks the same of the same pieces shares a row.
struct Row {
    int64_t number;
    const Feature* feature;
    std::vector<size_t> asked;
};

std::string fastest(ov::Core& core, const Card& card) {
    std::string found;
    for (const char* name : {"openvino", "openvino-bf16"}) {
        const auto there = card.engines.find(name);
        if (there == card.engines.end() || (std::string(name) == "openvino-bf16" && !has_bf16(core))) continue;
        if (found.empty() || there->second.milliseconds < card.engines.at(found).milliseconds) found = name;
    }
    return found.empty() ? "openvino" : found;
}

}  // namespace

void check_example(const Task& task, const Example& example) {
    const auto lacks = [&](const char* what) { throw Error("task " + task.name + " needs " + what); };
    if (task.kind == Kind::choice && example.choices.empty()) lacks("choices, the alternatives");
    if (task.kind == Kind::tagging && example.tokens.empty()) lacks("tokens, the words");
    if (task.kind == Kind::span && !example.pair) lacks("text_pair, the context that holds the answer");
    if (task.kind == Kind::retrieval && example.choices.empty()) lacks("choices, the candidates");
    const std::string words = "0.." + std::to_string(int64_t(example.tokens.size()) - 1);
    if (std::find(task.labels.begin(), task.labels.end(), predicate) == task.labels.end()) {
        if (example.marked) throw Error("task " + task.name + " does not ask about one word; leave marked away");
    } else if (!example.marked) {
        throw Error("task " + task.name + " needs marked, the number of the predicate among the words, " + words);
    } else if (*example.marked < 0 || size_t(*example.marked) >= example.tokens.size()) {
        throw Error("marked is " + std::to_string(*example.marked) + "; it must be the number of a word, " + words);
    }
}

Session::Session(const std::filesystem::path& bundle, const std::string& engine, int threads) : bundle_(open_bundle(bundle)) {
    if (bundle_.card.files.count("tokenizer.xml") == 0 || bundle_.card.files.count("tokenizer.bin") == 0)
        throw Error((bundle / "tokenizer.xml").string() + ": not in the bundle; write it with `python -m exporters.tokenizer " + bundle.string() + "`");
    const std::string name = engine == "auto" ? fastest(core_, bundle_.card) : engine;
    engine_ = open_engine(core_, name, bundle_.model(name), threads, bundle_.tensors);
    tokenizer_ = std::make_unique<Tokenizer>(core_, bundle, threads);
    if (const auto found = bundle_.card.engines.find(name); found != bundle_.card.engines.end()) pace_ = found->second.pace;
}

Session::Encoded Session::run_all(std::vector<std::pair<const Task*, int64_t>>& asked, std::vector<Feature> features) {
    Encoded found{std::move(features), {}};
    found.outputs.resize(found.features.size());
    std::map<std::tuple<int64_t, std::vector<int>, std::vector<int>>, size_t> same;
    std::vector<Row> rows;
    for (size_t i = 0; i < found.features.size(); ++i) {
        const Feature& feature = found.features[i];
        const auto [there, fresh] = same.try_emplace({asked[i].second, feature.ids, feature.types}, rows.size());
        if (fresh) rows.push_back({asked[i].second, &feature, {}});
        rows[there->second].asked.push_back(i);
    }
    std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.feature->ids.size() < b.feature->ids.size(); });
    std::vector<size_t> lengths;
    for (const Row& row : rows) lengths.push_back(row.feature->ids.size());
    const Card& card = bundle_.card;
    for (const auto& [begin, end] : plan(lengths, tokens_a_batch, pace_)) {
        const int64_t count = int64_t(end - begin), longest = int64_t(lengths[end - 1]);
        std::vector<int64_t> ids(size_t(count * longest), card.pad), types(ids.size(), 0), real, tasks;
        std::map<std::string, std::map<size_t, size_t>> read;  // input -> row -> row of the output
        std::map<std::string, std::vector<int64_t>> named;
        for (size_t r = begin; r < end; ++r) {
            const Feature& feature = *rows[r].feature;
            const size_t at = (r - begin) * size_t(longest);
            std::copy(feature.ids.begin(), feature.ids.end(), ids.begin() + long(at));
            std::copy(feature.types.begin(), feature.types.end(), types.begin() + long(at));
            real.push_back(int64_t(feature.ids.size()));
            tasks.push_back(rows[r].number);
            for (const size_t index : rows[r].asked) {
                auto& there = read[asked[index].first->rows];
                if (there.try_emplace(r, there.size()).second) named[asked[index].first->rows].push_back(int64_t(r - begin));
            }
        }
        Tensors feeds{{"input_ids", numbers(ids, {count, longest})}, {"lengths", numbers(real, {count})}, {"task_id", numbers(tasks, {count})}};
        if (card.token_types) feeds["token_type_ids"] = numbers(types, {count, longest});
        feeds["whole_rows"] = numbers(named["whole_rows"], {int64_t(named["whole_rows"].size())});
        if (card.cls) feeds["sequence_rows"] = numbers(named["sequence_rows"], {int64_t(named["sequence_rows"].size())});
        const std::map<std::string, Tensor> results = engine_->run(feeds);
        for (size_t r = begin; r < end; ++r)
            for (const size_t index : rows[r].asked) {
                const Task& task = *asked[index].first;
                const auto result = results.find(task.output);
                if (result == results.end()) throw Error("the graph has no output " + task.output);
                const std::vector<int64_t>& shape = result->second.shape;
                const size_t row = read[task.rows][r], length = lengths[r];
                const size_t wide = shape.empty() ? 0 : size_t(shape.back()), first = size_t(task.first_column), columns = size_t(task.columns);
                const bool each = shape.size() == 3;
                if (shape.size() < 2 || shape.size() > 3 || row >= size_t(shape[0]) || first + columns > wide || (each && length > size_t(shape[1])) ||
                    each != (task.output == "token_logits"))
                    throw Error("the output " + task.output + " of the graph has not the shape that task " + task.name + " reads");
                const size_t steps = each ? size_t(shape[1]) : 1;
                std::vector<float>& output = found.outputs[index];
                output.resize((each ? length : 1) * columns);
                for (size_t i = 0; i < (each ? length : 1); ++i)
                    std::memcpy(output.data() + i * columns, result->second.data.data() + 4 * ((row * steps + i) * wide + first), 4 * columns);
            }
    }
    return found;
}

std::vector<std::string> Session::answer(const std::vector<Question>& questions) {
    struct Place {
        std::vector<size_t> questions;
        std::vector<Example> examples;
        std::map<std::string, size_t> candidates;  // text -> its example, behind the questions'
        std::vector<std::vector<size_t>> rows;      // of each example
    };
    std::map<std::pair<std::string, std::string>, Place> places;
    for (size_t i = 0; i < questions.size(); ++i) {
        check_example(card().task(questions[i].task), questions[i].example);
        Place& place = places[{questions[i].task, questions[i].language}];
        place.questions.push_back(i);
        place.examples.push_back(questions[i].example);
    }
    std::vector<Feature> all;
    std::vector<std::pair<const Task*, int64_t>> asked;
    for (auto& [key, place] : places) {
        const Task& task = card().task(key.first);
        if (task.kind == Kind::retrieval)
            for (size_t i = 0; i < place.questions.size(); ++i)
                for (const std::string& text : questions[place.questions[i]].example.choices)
                    if (place.candidates.try_emplace(text, place.examples.size()).second) {
                        Example candidate;
                        candidate.text = text;
                        place.examples.push_back(std::move(candidate));
                    }
        const auto own = task.languages.find(key.second);
        const int64_t number = own == task.languages.end() ? task.id : own->second;
        place.rows.resize(place.examples.size());
        for (Feature& feature : features(*tokenizer_, card(), task, place.examples)) {
            place.rows[feature.example].push_back(all.size());
            asked.emplace_back(&task, number);
            all.push_back(std::move(feature));
        }
    }
    const Encoded encoded = run_all(asked, std::move(all));
    std::vector<std::string> found(questions.size());
    for (const auto& [key, place] : places) {
        const Task& task = card().task(key.first);
        const auto own = task.thresholds.find(key.second);
        const std::optional<double> threshold = own == task.thresholds.end() ? task.threshold : own->second;
        for (size_t i = 0; i < place.questions.size(); ++i) {
            std::vector<Answered> rows;
            for (const size_t row : place.rows[i]) rows.push_back({&encoded.features[row], &encoded.outputs[row]});
            std::vector<const std::vector<float>*> candidates;
            if (task.kind == Kind::retrieval)
                for (const std::string& text : place.examples[i].choices) candidates.push_back(&encoded.outputs[place.rows[place.candidates.at(text)][0]]);
            found[place.questions[i]] = decode(task, place.examples[i], threshold, rows, candidates);
        }
    }
    return found;
}

}  // namespace polyprompt
