#include "session.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "decode.hpp"
#include "error.hpp"

namespace polyprompt {
namespace {

// As exporters.engines.pieces_a_batch.
size_t pieces_a_batch(const std::string& engine) { return engine == "onnxruntime" ? 1024 : 2048; }
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

Session::Session(const std::filesystem::path& bundle, const Settings& settings)
    : bundle_(open_bundle(bundle)), packed_(settings.packed), engines_(core_, settings.threads, settings.onnxruntime) {
    if (bundle_.card.files.count("tokenizer.xml") == 0 || bundle_.card.files.count("tokenizer.bin") == 0)
        throw Error((bundle / "tokenizer.xml").string() + ": not in the bundle; write it with `python -m exporters.tokenizer " + bundle.string() + "`");
    name_ = settings.engine == "auto" ? fastest() : settings.engine;
    engines_.check(name_);
    const auto report = card().engines.find(name_);
    paces_[Form::padded] = Pace();
    if (report != card().engines.end())
        for (const Form form : usable(name_))
            if (const auto& pace = report->second.at(form).pace; pace || (form == Form::native && card().always_native)) paces_[form] = pace.value_or(Pace());
    if (card().always_native && paces_.count(Form::native) != 0) paces_ = {*paces_.find(Form::native)};
    opened(paces_.begin()->first);
    tokenizer_ = std::make_unique<Tokenizer>(core_, bundle, settings.threads);
}

// Forms that an engine is verified for and can compute here.
std::vector<Form> Session::usable(const std::string& engine) const {
    std::vector<Form> found;
    const auto report = card().engines.find(engine);
    if (report == card().engines.end()) return found;
    for (const auto& [form, measured] : report->second)
        if (form == Form::padded || (packed_ && !bundle_.model(engine, form).empty() && (form != Form::native || engines_.has_operator(engine))))
            found.push_back(form);
    return found;
}

std::string Session::fastest() const {
    std::string found;
    double least = std::numeric_limits<double>::infinity();
    for (const char* name : {"onnxruntime", "openvino", "openvino-bf16"}) {
        if (!engines_.has(name)) continue;
        for (const Form form : usable(name))
            if (const double took = card().engines.at(name).at(form).milliseconds; took < least) least = took, found = name;
    }
    return found.empty() ? "openvino" : found;
}

Engine& Session::opened(Form form) {
    std::unique_ptr<Engine>& engine = open_[form];
    if (engine == nullptr) {
        try {
            const bool second = open_.size() > 1 && !card().light;
            engine = engines_.open(name_, bundle_.model(name_, form), form, bundle_.tensors, second);
        } catch (...) {
            open_.erase(form);
            throw;
        }
    }
    return *engine;
}

// A graph is opened when it would have saved as much time as that takes, as in exporters.session.
std::vector<Batch> Session::batches(const std::vector<size_t>& lengths) {
    const size_t most = pieces_a_batch(name_);
    const Plan best = plan(lengths, most, paces_);
    std::map<Form, Pace> open;
    for (const auto& [form, pace] : paces_)
        if (open_.count(form) != 0) open[form] = pace;
    std::set<Form> lacking;
    for (const Batch& batch : best.batches)
        if (open_.count(batch.form) == 0) lacking.insert(batch.form);
    if (lacking.empty()) return best.batches;
    const Plan without = plan(lengths, most, open);
    missed_ += without.cost - best.cost;
    double opening = 0;
    for (const Form form : lacking) opening += paces_.at(form).opening;
    return missed_ < opening ? without.batches : best.batches;
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
    for (const auto& [begin, end, form] : batches(lengths)) {
        ++counted_[form];
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
        const std::map<std::string, Tensor> results = opened(form).run(feeds);
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

std::string Session::used() const {
    constexpr const char* names[] = {"padded", "packed", "native"};
    std::string text = name_;
    for (const auto& [form, count] : counted_) text += ", " + std::string(names[int(form)]) + ": " + std::to_string(count);
    return text;
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
