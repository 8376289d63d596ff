#include "tensors.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "error.hpp"
#include "json.hpp"

namespace polyprompt {
namespace {

constexpr uint64_t longest_header = 100'000'000;
constexpr size_t most_axes = 8;
constexpr uint64_t most_steps = uint64_t(1) << 31;

const char* const tables[] = {"task_prompt", "sequence_logits.head", "sequence_logits.readout.head", "token_logits.head"};

bool is_table(const std::string& name) { return std::find(std::begin(tables), std::end(tables), name) != std::end(tables); }

Tensor read_tensor(const std::string& name, const Json& about, std::string_view data, uint64_t& begin, uint64_t& end) {
    Tensor found;
    const std::string& type = about.string_at("dtype");
    if (type != "F32" && type != "I64" && type != "BOOL") throw Error("tensor " + name + " is of the type " + type);
    found.type = type == "F32" ? Tensor::Type::f32 : type == "I64" ? Tensor::Type::i64 : Tensor::Type::boolean;
    uint64_t bytes = found.width();
    const Json& shape = about.at("shape", Json::Kind::array);
    if (shape.items.size() > most_axes) throw Error("tensor " + name + " has too many axes");
    uint64_t steps = 1;  // also of what is empty: it may be filled up beside others
    for (const Json& size : shape.items) {
        if (!size.whole || *size.whole < 0) throw Error("tensor " + name + " has a bad shape");
        if (uint64_t(*size.whole) > most_steps / steps) throw Error("tensor " + name + " is larger than the file");
        steps *= uint64_t(std::max<int64_t>(1, *size.whole));
        if (*size.whole != 0 && bytes > data.size() / uint64_t(*size.whole)) throw Error("tensor " + name + " is larger than the file");
        bytes *= uint64_t(*size.whole);
        found.shape.push_back(*size.whole);
    }
    const Json& place = about.at("data_offsets", Json::Kind::array);
    if (place.items.size() != 2 || !place.items[0].whole || !place.items[1].whole) throw Error("tensor " + name + " has no place");
    const int64_t first = *place.items[0].whole, last = *place.items[1].whole;
    if (first < 0 || last < first || uint64_t(last) > data.size()) throw Error("tensor " + name + " lies beyond the end");
    if (uint64_t(last - first) != bytes) throw Error("tensor " + name + " has another size than its shape");
    begin = uint64_t(first), end = uint64_t(last);
    found.data.assign(data.begin() + first, data.begin() + last);
    return found;
}

// Each row of an array, padded with zeros up to wider axes.
void append_padded(std::vector<uint8_t>& out, const Tensor& from, const std::vector<int64_t>& widest, size_t axis, size_t& at) {
    if (axis == from.shape.size()) {
        out.insert(out.end(), from.data.begin() + long(at), from.data.begin() + long(at + from.width()));
        at += from.width();
        return;
    }
    for (int64_t i = 0; i < from.shape[axis]; ++i) append_padded(out, from, widest, axis + 1, at);
    if (axis == 0) return;
    size_t row = from.width();
    for (size_t later = axis + 1; later < from.shape.size(); ++later) row *= size_t(widest[later]);
    out.resize(out.size() + row * size_t(widest[axis] - from.shape[axis]));
}

Tensor stacked(const std::vector<const Tensor*>& parts) {
    Tensor found = *parts[0];
    found.data.clear();
    found.shape[0] = 0;
    for (const Tensor* part : parts)
        for (size_t axis = 1; axis < found.shape.size(); ++axis) found.shape[axis] = std::max(found.shape[axis], part->shape[axis]);
    uint64_t steps = 1;
    for (size_t axis = 1; axis < found.shape.size(); ++axis) {
        if (uint64_t(found.shape[axis]) > most_steps / steps) throw Error("its tensors together are too large");
        steps *= uint64_t(std::max<int64_t>(1, found.shape[axis]));
    }
    for (const Tensor* part : parts) {
        size_t at = 0;
        found.shape[0] += part->shape[0];
        if (uint64_t(found.shape[0]) > most_steps / steps) throw Error("its tensors together are too large");
        append_padded(found.data, *part, found.shape, 0, at);
    }
    return found;
}

Tensor beside(const std::vector<const Tensor*>& parts) {  // along the second axis
    Tensor found = *parts[0];
    found.data.clear();
    for (size_t i = 1; i < parts.size(); ++i) found.shape[1] += parts[i]->shape[1];
    for (int64_t row = 0; row < found.shape[0]; ++row)
        for (const Tensor* part : parts) {
            const size_t size = size_t(part->shape[1]) * part->width();
            found.data.insert(found.data.end(), part->data.begin() + long(row * size), part->data.begin() + long((row + 1) * size));
        }
    return found;
}

const Tensor& get(const Tensors& part, const std::string& name, size_t axes) {
    const auto found = part.find(name);
    if (found == part.end()) throw Error("has no tensor " + name);
    if (found->second.shape.size() != axes) throw Error("tensor " + name + " has a bad shape");
    return found->second;
}

int64_t rows_of(const Tensors& part, const std::string& table) {
    if (table == "task_prompt") return get(part, "prompt_lengths", 2).shape[1];
    return get(part, table.substr(0, table.size() - 4) + "weight", 3).shape[0];
}

void widen(Tensors& tensors, const std::string& one, const std::string& other) {
    for (const char* part : {".weight", ".bias"}) {
        Tensor& left = tensors.at(one + part);
        Tensor& right = tensors.at(other + part);
        if (left.shape.size() != 3 || right.shape.size() != 3) throw Error("tensor " + one + part + " has a bad shape");
        const int64_t wide = std::max(left.shape[2], right.shape[2]);
        for (Tensor* tensor : {&left, &right}) {
            std::vector<int64_t> widest = tensor->shape;
            widest[2] = wide;
            std::vector<uint8_t> data;
            size_t at = 0;
            append_padded(data, *tensor, widest, 0, at);
            tensor->data = std::move(data);
            tensor->shape = widest;
        }
    }
}

}  // namespace

Tensors read_tensors(std::string_view file) {
    if (file.size() < 8) throw Error("cut short");
    uint64_t size = 0;
    for (int i = 7; i >= 0; --i) size = size << 8 | uint8_t(file[size_t(i)]);
    if (size > longest_header || size > file.size() - 8) throw Error("its header is longer than the file");
    const Json header = parse_json(file.substr(8, size));
    if (!header.is(Json::Kind::object)) throw Error("its header is not an object");
    const std::string_view data = file.substr(8 + size);
    Tensors found;
    std::vector<std::pair<uint64_t, uint64_t>> places;
    for (const auto& [name, about] : header.members) {
        if (name == "__metadata__") continue;
        if (!about.is(Json::Kind::object)) throw Error("tensor " + name + " is not described");
        uint64_t begin = 0, end = 0;
        if (!found.emplace(name, read_tensor(name, about, data, begin, end)).second) throw Error("tensor " + name + " is there twice");
        places.emplace_back(begin, end);
    }
    std::sort(places.begin(), places.end());
    uint64_t at = 0;
    for (const auto& [begin, end] : places) {
        if (begin != at) throw Error("its tensors overlap or leave gaps");
        at = end;
    }
    if (at != data.size()) throw Error("something behind its tensors");
    return found;
}

Tensors merge(const std::vector<Tensors>& parts, std::vector<int64_t>& offsets) {
    offsets.clear();
    int64_t tasks = 0;
    for (const Tensors& part : parts) {
        offsets.push_back(tasks);
        tasks += get(part, "token_logits.head", 1).shape[0];
    }
    if (parts.size() == 1) return parts[0];
    Tensors merged;
    for (const auto& [name, first] : parts[0]) {
        std::vector<const Tensor*> arrays;
        for (const Tensors& part : parts) {
            arrays.push_back(&get(part, name, first.shape.size()));
            if (arrays.back()->type != first.type) throw Error("tensor " + name + " is of several types");
        }
        if (name.rfind("readout.", 0) == 0) {
            merged[name] = first;
        } else if (name == "prompt_lengths") {
            for (const Tensor* array : arrays)
                if (first.shape.size() != 2 || array->shape[0] != first.shape[0]) throw Error("tensor " + name + " has a bad shape");
            merged[name] = beside(arrays);
        } else if (first.shape.empty()) {
            throw Error("tensor " + name + " has a bad shape");
        } else if (is_table(name)) {
            if (first.type != Tensor::Type::i64) throw Error("tensor " + name + " is of a wrong type");
            Tensor all = stacked(arrays);
            int64_t begin = 0;
            size_t at = 0;
            for (size_t i = 0; i < parts.size(); ++i) {
                for (size_t n = arrays[i]->data.size() / 8; n > 0; --n, at += 8) {
                    int64_t value = 0;
                    std::memcpy(&value, all.data.data() + at, 8);
                    value = int64_t(uint64_t(value) + uint64_t(begin));
                    std::memcpy(all.data.data() + at, &value, 8);
                }
                begin += rows_of(parts[i], name);
            }
            merged[name] = std::move(all);
        } else {
            merged[name] = stacked(arrays);
        }
    }
    if (merged.count("readout.dense.bias") != 0) {
        for (const char* bank : {"sequence_logits", "sequence_logits.readout"})
            for (const char* part : {".weight", ".bias"}) get(merged, std::string(bank) + part, 3);
        widen(merged, "sequence_logits", "sequence_logits.readout");
    }
    return merged;
}

}  // namespace polyprompt
