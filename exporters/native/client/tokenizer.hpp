// Text to pieces by the graph of exporters.tokenizer; rows are made in features.hpp.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <openvino/openvino.hpp>

namespace polyprompt {

// Pieces of a text, and where each is in it, in characters (only if that was asked for).
struct Pieces {
    std::vector<int> ids;
    std::vector<std::pair<int, int>> places;
};

// Of a row: a piece, or one of its texts.
struct Slot {
    int piece = -1, text = -1, type = 0;
};

class Tokenizer {
public:
    // Throws Error: the files are not there, or not what exporters.tokenizer writes.
    Tokenizer(ov::Core& core, const std::filesystem::path& bundle, int threads);

    std::vector<Pieces> encode(const std::vector<std::string>& texts, bool places = false);

    std::vector<Slot> single, pair;
    int mark = -1;  // the piece of a word's beginning alone

private:
    struct Added {
        std::string content;
        int id;
        bool left, right;  // white space beside it belongs to it
    };
    struct Part {
        size_t text, begin, end;  // bytes
        int id;                   // an added piece; -1: what the graph cuts
    };
    struct Cut;

    void split(size_t number, const std::string& text, std::vector<Part>& parts) const;
    Cut run(const std::vector<std::string>& texts);
    std::vector<std::vector<std::pair<int, int>>> places(const std::vector<std::string>& texts, const Cut& cut);
    std::vector<std::vector<std::pair<int, int>>> places_of_bytes(const std::vector<std::string>& texts, const Cut& cut) const;

    ov::InferRequest request_;
    std::vector<Added> added_;
    bool bytes_ = false, space_ = false, trim_ = false;  // pieces of bytes; see describe in exporters.tokenizer
};

}  // namespace polyprompt
