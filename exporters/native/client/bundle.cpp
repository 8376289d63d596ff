#include "bundle.hpp"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <set>
#include <system_error>
#include <thread>

#include "error.hpp"
#include "hashes.hpp"

namespace polyprompt {
namespace {

constexpr const char* card_file = "bundle.json";
constexpr int64_t most = int64_t(1) << 31;
constexpr const char* again = "; export the run again";

Kind kind_of(const std::string& name) {
    const std::map<std::string, Kind> known{{"classification", Kind::classification}, {"regression", Kind::regression},
                                            {"multiple-choice", Kind::choice},        {"tagging", Kind::tagging},
                                            {"span", Kind::span},                     {"retrieval", Kind::retrieval}};
    const auto found = known.find(name);
    if (found == known.end()) throw Error("kind " + name + " is unknown");
    return found->second;
}

bool flag(const Json& from, const char* name, bool otherwise) {
    const Json* found = from.find(name);
    return found == nullptr ? otherwise : from.at(name, Json::Kind::boolean).truth;
}

int64_t whole(const Json& from, const char* name, int64_t otherwise) {
    return from.find(name) == nullptr ? otherwise : from.whole_at(name, 0, most);
}

Task read_task(const Json& from, bool cls) {
    const Json& card = from.at("card", Json::Kind::object);
    Task task;
    task.name = card.string_at("name");
    task.kind = kind_of(card.string_at("kind"));
    if (card.find("labels") != nullptr)
        for (const Json& label : card.at("labels", Json::Kind::array).items) {
            if (!label.is(Json::Kind::string)) throw Error("labels are not strings");
            task.labels.push_back(label.text);
        }
    task.max_length = whole(card, "max_length", 128);
    task.stride = whole(card, "stride", 32);
    task.no_answer = flag(card, "no_answer", false);
    if (card.find("decoding") != nullptr && card.string_at("decoding") != "greedy") {
        if (card.string_at("decoding") != "viterbi") throw Error("task " + task.name + " decodes its tags by " + card.string_at("decoding") + ", which is unknown");
        try {
            task.order = std::make_shared<Order>(task.labels);
        } catch (const Error& error) {
            throw Error("task " + task.name + ": " + error.what());
        }
    }
    task.file = from.find("file") == nullptr ? "tasks.safetensors" : from.string_at("file");
    task.id = from.whole_at("task_id", 0, most);
    task.output = from.string_at("output");
    task.first_column = whole(from, "first_column", 0);
    task.columns = from.whole_at("columns", 1, most);
    task.max_positions = from.whole_at("max_positions", 1, most);
    if (const Json* mask = from.find("mask_id"); mask != nullptr && !mask->is(Json::Kind::null))
        task.mask = from.whole_at("mask_id", 0, most);
    if (const Json* limit = from.find("threshold"); limit != nullptr && !limit->is(Json::Kind::null))
        task.threshold = from.at("threshold", Json::Kind::number).number;
    if (from.find("languages") != nullptr) {
        const Json& languages = from.at("languages", Json::Kind::object);
        for (const auto& [code, id] : languages.members) task.languages[code] = languages.whole_at(code, 0, most);
    }
    if (from.find("thresholds") != nullptr) {
        const Json& limits = from.at("thresholds", Json::Kind::object);
        for (const auto& [code, limit] : limits.members) task.thresholds[code] = limits.at(code, Json::Kind::number).number;
    }
    const bool labelled = task.kind == Kind::classification || task.kind == Kind::tagging;
    if (labelled && int64_t(task.labels.size()) != task.columns) throw Error("task " + task.name + " has not a column a label");
    if (task.kind == Kind::span && task.columns != 2) throw Error("task " + task.name + " has not two columns");
    const bool token = task.kind == Kind::tagging || task.kind == Kind::span;
    const char* output = token ? "token_logits" : task.kind == Kind::retrieval ? "embedding" : "sequence_logits";
    if (task.output != output) throw Error("task " + task.name + " has the output " + task.output + ", not " + output);
    task.rows = cls && task.output == "sequence_logits" ? "sequence_rows" : "whole_rows";
    return task;
}

Card::Measured read_measured(const Json& report) {
    Card::Measured found;
    found.milliseconds = report.at("milliseconds", Json::Kind::number).number;
    const Json* there = report.find("pace");
    if (there == nullptr || there->is(Json::Kind::null)) return found;
    const Json& from = report.at("pace", Json::Kind::object);
    const auto number = [&](const char* name) { return from.find(name) == nullptr ? 0 : from.at(name, Json::Kind::number).number; };
    found.pace = Pace{number("opening"), from.at("batch", Json::Kind::number).number, from.at("piece", Json::Kind::number).number, number("pair")};
    return found;
}

void check_name(const std::string& name) {
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string("/\\\0", 3)) != std::string::npos)
        throw Error("refers to '" + name + "', which is not a file in the bundle's folder");
}

void check_file(const std::filesystem::path& path, const StoredFile& stored) {
    std::error_code failed;
    if (!std::filesystem::is_regular_file(path, failed)) throw Error(path.string() + ": missing; the bundle is not complete" + again);
    if (std::filesystem::file_size(path, failed) != stored.bytes || failed || known_sha256(path) != stored.sha256)
        throw Error(path.string() + ": damaged, it is not the file that " + card_file + " describes" + again);
}

// On as many threads as there are cores; of several errors the first file's counts.
void check_files(const std::filesystem::path& folder, const std::map<std::string, StoredFile>& files) {
    std::vector<std::pair<std::filesystem::path, StoredFile>> all;
    for (const auto& [name, stored] : files) all.emplace_back(folder / name, stored);
    std::vector<std::string> failures(all.size());
    std::atomic<size_t> next{0};
    const auto work = [&] {
        for (size_t i; (i = next.fetch_add(1)) < all.size();) try {
                check_file(all[i].first, all[i].second);
            } catch (const std::exception& error) {
                failures[i] = error.what();
            }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < std::min<size_t>(std::thread::hardware_concurrency(), all.size()); ++i) try {
            others.emplace_back(work);
        } catch (const std::system_error&) {
            break;  // no more threads are to be had
        }
    work();
    for (std::thread& other : others) other.join();
    for (const std::string& failure : failures)
        if (!failure.empty()) throw Error(failure);
}

// Fields of a protobuf message, one after the other.
class Message {
public:
    explicit Message(std::string_view data) : data_(data) {}

    bool next() {
        if (data_.empty()) return false;
        const uint64_t key = number();
        field = key >> 3;
        body = {};
        switch (key & 7) {
            case 0: number(); break;
            case 1: body = part(8); break;
            case 2: body = part(number()); break;
            case 5: body = part(4); break;
            default: throw Error("not an ONNX file");
        }
        return true;
    }

    uint64_t field = 0;
    std::string_view body;

private:
    uint64_t number() {
        uint64_t found = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (data_.empty()) break;
            const uint8_t byte = uint8_t(data_[0]);
            data_.remove_prefix(1);
            found |= uint64_t(byte & 127) << shift;
            if (byte < 128) return found;
        }
        throw Error("not an ONNX file");
    }

    std::string_view part(uint64_t size) {
        if (size > data_.size()) throw Error("not an ONNX file");
        const std::string_view found = data_.substr(0, size);
        data_.remove_prefix(size);
        return found;
    }

    std::string_view data_;
};

}  // namespace

const Task& Card::task(const std::string& name) const {
    std::string known;
    for (const Task& task : tasks) {
        if (task.name == name) return task;
        known += (known.empty() ? "" : ", ") + task.name;
    }
    throw Error("the bundle has no task '" + name + "', only " + known);
}

std::filesystem::path Bundle::model(const std::string& engine, Form form) const {
    const bool ranges = engine.rfind("openvino", 0) == 0 && card.files.count("openvino.onnx") != 0;
    std::string name = ranges ? "openvino.onnx" : "model.onnx";
    if (form == Form::native) name = ranges ? "openvino-native.onnx" : "native.onnx";
    if (form == Form::packed) name = ranges ? "openvino-packed.onnx" : "packed.onnx";
    return card.files.count(name) != 0 ? folder / name : std::filesystem::path();
}

// See exporters.bundle, BundleCard.light.
bool is_light(const Json& card) {
    constexpr double most_bytes = 1 << 29;
    const Json& backbone = card.at("backbone", Json::Kind::object);
    const double hidden = double(backbone.whole_at("hidden", 1, most)), layers = double(backbone.whole_at("layers", 0, most));
    const std::string precision = card.find("precision") == nullptr ? "fp32" : card.string_at("precision");
    const double bits = precision == "int4" ? 4 : precision == "int8" ? 8 : precision == "fp16" ? 16 : 32;
    return 12 * layers * hidden * hidden * bits / 8 <= most_bytes;
}

Card read_card(std::string_view text) {
    const Json from = parse_json(text);
    if (!from.is(Json::Kind::object) || from.find("schema_name") == nullptr || from.string_at("schema_name") != "polyprompt-bundle")
        throw Error("not the card of a bundle");
    if (from.whole_at("version", 0, most) != 2) throw Error("a bundle of another version than 2; export the run again");
    Card card;
    card.token_types = from.at("token_types", Json::Kind::boolean).truth;
    card.cls = from.string_at("pooling") == "cls";
    card.always_native = from.find("form") != nullptr && from.string_at("form") == "packed";
    card.light = is_light(from);
    card.pad = from.whole_at("pad_id", 0, most);
    const Json& files = from.at("files", Json::Kind::object);
    for (const auto& [name, about] : files.members) {
        check_name(name);
        if (!about.is(Json::Kind::object)) throw Error("files: " + name + " is not described");
        StoredFile stored{uint64_t(about.whole_at("bytes", 0, INT64_MAX)), about.string_at("sha256")};
        if (!card.files.emplace(name, std::move(stored)).second) throw Error("files: " + name + " is there twice");
    }
    for (const Json& task : from.at("tasks", Json::Kind::array).items) {
        if (!task.is(Json::Kind::object)) throw Error("tasks: not an object");
        card.tasks.push_back(read_task(task, card.cls));
        for (size_t i = 0; i + 1 < card.tasks.size(); ++i)
            if (card.tasks[i].name == card.tasks.back().name) throw Error("task " + card.tasks[i].name + " is there twice");
    }
    if (card.tasks.empty()) throw Error("it has no task");
    std::vector<std::string> needed{"model.onnx", "tokenizer.json"};
    for (const Task& task : card.tasks) needed.push_back(task.file);
    for (const std::string& name : needed)
        if (card.files.count(name) == 0) throw Error("files: " + name + " is not listed");
    if (from.find("parity") != nullptr)
        for (const auto& [name, report] : from.at("parity", Json::Kind::object).members) {
            if (!report.is(Json::Kind::object)) throw Error("parity: " + name + " is not described");
            Card::Forms& forms = card.engines[name];
            forms[Form::padded] = read_measured(report);
            for (const auto& [form, key] : {std::pair(Form::packed, "packed"), std::pair(Form::native, "native")})
                if (const Json* part = report.find(key); part != nullptr && !part->is(Json::Kind::null))
                    forms[form] = read_measured(report.at(key, Json::Kind::object));
        }
    return card;
}

std::vector<std::string> external_files(std::string_view model) {
    std::set<std::string> found;
    Message top(model);
    while (top.next()) {
        if (top.field != 7) continue;  // ModelProto.graph
        Message graph(top.body);
        while (graph.next()) {
            if (graph.field != 5) continue;  // GraphProto.initializer
            Message tensor(graph.body);
            while (tensor.next()) {
                if (tensor.field != 13) continue;  // TensorProto.external_data
                Message entry(tensor.body);
                std::string key, value;
                while (entry.next()) (entry.field == 1 ? key : value) = std::string(entry.body);
                if (key == "location") found.insert(value);
            }
        }
    }
    return {found.begin(), found.end()};
}

std::string read_file(const std::filesystem::path& path) {
    std::ifstream source(path, std::ios::binary);
    std::string found((std::istreambuf_iterator<char>(source)), std::istreambuf_iterator<char>());
    if (!source) throw Error(path.string() + ": cannot be read");
    return found;
}

Bundle open_bundle(const std::filesystem::path& folder) {
    Bundle bundle;
    bundle.folder = folder;
    std::error_code failed;
    const std::filesystem::path path = folder / card_file;
    if (!std::filesystem::is_regular_file(path, failed))
        throw Error(folder.string() + ": no " + card_file + " there; make a bundle with `python -m exporters.export RUN`");
    std::filesystem::path at = path;
    try {
        Card& card = bundle.card = read_card(read_file(path));
        check_files(folder, card.files);
        for (const auto& [name, stored] : card.files) {
            if (name.size() < 5 || name.substr(name.size() - 5) != ".onnx") continue;
            at = folder / name;
            for (const std::string& other : external_files(read_file(at))) {
                check_name(other);
                if (card.files.count(other) == 0) throw Error("refers to '" + other + "', which " + card_file + " does not list");
            }
        }
        std::vector<std::string> names;
        for (const Task& task : card.tasks)
            if (std::find(names.begin(), names.end(), task.file) == names.end()) names.push_back(task.file);
        std::vector<Tensors> parts;
        for (const std::string& name : names) {
            at = folder / name;
            parts.push_back(read_tensors(read_file(at)));
        }
        std::vector<int64_t> offsets;
        bundle.tensors = merge(parts, offsets);
        for (Task& task : card.tasks) {
            const size_t part = size_t(std::find(names.begin(), names.end(), task.file) - names.begin());
            const int64_t known = parts[part].at("token_logits.head").shape[0];
            std::vector<int64_t*> ids{&task.id};
            for (auto& [code, id] : task.languages) ids.push_back(&id);
            for (int64_t* id : ids) {
                at = path;
                if (*id >= known) throw Error("task " + task.name + " has a number that " + task.file + " does not know");
                *id += offsets[part];
            }
        }
    } catch (const Error& error) {
        const std::string text = error.what();
        throw Error(text.rfind(folder.string(), 0) == 0 ? text : at.string() + ": " + text);
    }
    return bundle;
}

}  // namespace polyprompt
