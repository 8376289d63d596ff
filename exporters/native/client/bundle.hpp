// A bundle on disk: bundle.json and the tensors of its tasks, refused when anything in it does not fit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"
#include "tags.hpp"
#include "tensors.hpp"

namespace polyprompt {

enum class Kind { classification, regression, choice, tagging, span, retrieval };

struct Task {
    std::string name;
    Kind kind = Kind::classification;
    std::vector<std::string> labels;
    int64_t max_length = 0, stride = 0;
    bool no_answer = false;
    std::shared_ptr<const Order> order;  // of tags, where the best sequence is asked for
    std::string file;
    int64_t id = 0;
    std::map<std::string, int64_t> languages;  // with a prompt of their own -> id
    std::string output;
    int64_t first_column = 0, columns = 0;
    std::optional<double> threshold;
    std::map<std::string, double> thresholds;
    std::optional<int64_t> mask;
    int64_t max_positions = 0;
    std::string rows;  // the input of the graph in which its rows are named
};

// Of rows that differ in length, see exporters.batching.
enum class Form { padded, packed, native };

// Microseconds, see exporters.batching.Pace.
struct Pace {
    double opening = 0, batch = 100, piece = 1, pair = 0;
};

struct StoredFile {
    uint64_t bytes = 0;
    std::string sha256;
};

struct Card {
    bool token_types = false, cls = false;
    bool always_native = false;  // the form packed: wherever the operator is there
    bool light = false;          // each open graph may have a copy of the weights, see exporters.bundle
    int64_t pad = 0;
    std::vector<Task> tasks;
    std::map<std::string, StoredFile> files;
    struct Measured {
        double milliseconds = 0;
        std::optional<Pace> pace;
    };
    using Forms = std::map<Form, Measured>;
    std::map<std::string, Forms> engines;  // those that agreed with PyTorch, and in which forms

    const Task& task(const std::string& name) const;  // throws Error: there is none
};

struct Bundle {
    std::filesystem::path folder;
    Card card;  // task ids are those of `tensors`
    Tensors tensors;

    // The graph that an engine opens for a form; empty: there is none.
    std::filesystem::path model(const std::string& engine, Form form) const;
};

// What bundle.json says. Throws Error: it is damaged.
Card read_card(std::string_view text);

// Check every file and read the tasks. Throws Error: names the file. The hash of a large file is remembered in the cache
// that exporters.store has, with its size and times: whatever writes into it changes these.
Bundle open_bundle(const std::filesystem::path& folder);

// Files to which an ONNX graph refers. Throws Error: not an ONNX file.
std::vector<std::string> external_files(std::string_view model);

std::string read_file(const std::filesystem::path& path);

}  // namespace polyprompt
