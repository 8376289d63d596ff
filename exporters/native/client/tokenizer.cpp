#include "tokenizer.hpp"

#include <algorithm>
#include <unordered_map>

#include "error.hpp"
#include "json.hpp"
#include "libraries.hpp"
#include "utf8.hpp"

namespace polyprompt {
namespace {

constexpr const char* xml = "tokenizer.xml";

// Stands on both sides of characters that are normalized apart: no mark melts with it, and nobody strips it.
constexpr char guard = '-';

std::vector<Slot> read_row(const Json& from) {
    std::vector<Slot> row;
    for (const Json& item : from.items) {
        if (!item.is(Json::Kind::array) || item.items.size() != 2 || !item.items[1].whole) throw Error("a bad row");
        Slot slot;
        slot.type = int(*item.items[1].whole);
        if (item.items[0].is(Json::Kind::string)) {
            slot.text = item.items[0].text == "b";
        } else if (item.items[0].whole) {
            slot.piece = int(*item.items[0].whole);
        } else {
            throw Error("a bad row");
        }
        row.push_back(slot);
    }
    return row;
}

bool is_space(std::string_view text, size_t at) {
    const uint8_t c = uint8_t(text[at]);
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    const std::string_view one = text.substr(at, width(text[at]));
    for (const char* known : {"\u00a0", "\u0085", "\u1680", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"})
        if (one == known) return true;
    return one.size() == 3 && one >= "\u2000" && one <= "\u200a";
}

}  // namespace

// What the graph gives for strings.
struct Tokenizer::Cut {
    std::vector<int> first_piece, last_piece;  // of each string
    std::vector<int> pieces, sizes;
    std::vector<std::string> normal;             // of each string
    struct Word {
        int begin, end, first, last;  // bytes in `normal`; pieces
    };
    std::vector<std::vector<Word>> words;
};

Tokenizer::Tokenizer(ov::Core& core, const std::filesystem::path& bundle, int threads) {
    const std::filesystem::path file = bundle / xml;
    std::error_code failed;
    if (!std::filesystem::is_regular_file(file, failed))
        throw Error(file.string() + ": missing; write it with `python -m exporters.tokenizer " + bundle.string() + "`");
    const std::filesystem::path library = text_operators();
    if (!std::filesystem::is_regular_file(library, failed))
        throw Error(library.string() + ": missing; install the package openvino-tokenizers beside openvino");
    try {
        core.add_extension(library.string());
        const auto model = core.read_model(file.string());
        const Json about = parse_json(model->get_rt_info<std::string>("polyprompt"));
        if (about.whole_at("version", 0, 1 << 30) != 1) throw Error("of another version; write it again");
        single = read_row(about.at("single", Json::Kind::array));
        pair = read_row(about.at("pair", Json::Kind::array));
        mark = int(about.whole_at("mark", -1, 1 << 30));
        if (about.find("bytes") != nullptr) {
            const Json& bytes = about.at("bytes", Json::Kind::object);
            bytes_ = true;
            space_ = bytes.at("space", Json::Kind::boolean).truth;
            trim_ = bytes.at("trim", Json::Kind::boolean).truth;
        }
        for (const Json& one : about.at("added", Json::Kind::array).items) {
            Added found{one.string_at("content"), int(one.whole_at("id", 0, 1 << 30)), one.at("lstrip", Json::Kind::boolean).truth,
                        one.at("rstrip", Json::Kind::boolean).truth};
            if (!found.content.empty()) added_.push_back(std::move(found));
        }
        // the longest first: of two that begin at one place it is the one that is found
        std::stable_sort(added_.begin(), added_.end(), [](const Added& a, const Added& b) { return a.content.size() > b.content.size(); });
        ov::AnyMap settings;
        if (threads > 0) settings[ov::inference_num_threads.name()] = threads;
        request_ = core.compile_model(model, "CPU", settings).create_infer_request();
    } catch (const Error& error) {
        throw Error(file.string() + ": " + error.what());
    } catch (const std::exception&) {
        throw Error(file.string() + ": OpenVINO cannot open it with " + library.string());
    }
}

void Tokenizer::split(size_t number, const std::string& text, std::vector<Part>& parts) const {
    size_t begin = 0;
    while (begin < text.size()) {
        size_t at = std::string::npos;
        const Added* found = nullptr;
        for (const Added& one : added_)
            if (const size_t place = text.find(one.content, begin); place < at) at = place, found = &one;
        if (found == nullptr) break;
        size_t end = at + found->content.size();
        while (found->right && end < text.size() && is_space(text, end)) end += width(text[end]);
        while (found->left && at > begin) {
            size_t before = at - 1;
            while (before > begin && (uint8_t(text[before]) & 0xC0) == 0x80) --before;
            if (!is_space(text, before)) break;
            at = before;
        }
        if (at > begin) parts.push_back({number, begin, at, -1});
        parts.push_back({number, at, end, found->id});
        begin = end;
    }
    if (begin < text.size()) parts.push_back({number, begin, text.size(), -1});
}

Tokenizer::Cut Tokenizer::run(const std::vector<std::string>& texts) {
    Cut cut;
    if (texts.empty()) return cut;
    // a tensor with its own strings: OpenVINO does not write into them
    request_.set_input_tensor(ov::Tensor(ov::element::string, {texts.size()}, const_cast<std::string*>(texts.data())));
    request_.start_async();  // not infer(), see engine.cpp
    request_.wait();
    const auto numbers = [&](const char* name) { return request_.get_tensor(name).data<const int32_t>(); };
    const auto *first_word = numbers("first_word"), *last_word = numbers("last_word"), *word_begins = numbers("word_begins"),
               *word_ends = numbers("word_ends"), *first_piece = numbers("first_piece"), *last_piece = numbers("last_piece"),
               *normal_begins = numbers("normal_begins"), *normal_ends = numbers("normal_ends");
    const ov::Tensor pieces = request_.get_tensor("pieces"), sizes = request_.get_tensor("sizes");
    cut.pieces.assign(pieces.data<const int32_t>(), pieces.data<const int32_t>() + pieces.get_size());
    cut.sizes.assign(sizes.data<const int32_t>(), sizes.data<const int32_t>() + sizes.get_size());
    const char* characters = reinterpret_cast<const char*>(request_.get_tensor("characters").data<const uint8_t>());
    for (size_t i = 0; i < texts.size(); ++i) {
        cut.normal.emplace_back(characters + normal_begins[i], characters + normal_ends[i]);
        auto& words = cut.words.emplace_back();
        for (int word = first_word[i]; word < last_word[i]; ++word)
            words.push_back({word_begins[word] - normal_begins[i], word_ends[word] - normal_begins[i], first_piece[word], last_piece[word]});
        cut.first_piece.push_back(words.empty() ? 0 : words.front().first);
        cut.last_piece.push_back(words.empty() ? 0 : words.back().last);
    }
    return cut;
}

std::vector<Pieces> Tokenizer::encode(const std::vector<std::string>& texts, bool with_places) {
    std::vector<Part> parts;
    std::vector<std::string> plain;
    for (size_t i = 0; i < texts.size(); ++i) split(i, texts[i], parts);
    for (const Part& part : parts)
        if (part.id < 0) plain.push_back(texts[part.text].substr(part.begin, part.end - part.begin));
    const Cut cut = run(plain);
    std::vector<std::vector<std::pair<int, int>>> found;
    if (with_places) found = bytes_ ? places_of_bytes(plain, cut) : places(plain, cut);
    std::vector<Pieces> all(texts.size());
    size_t next = 0;
    for (const Part& part : parts) {
        Pieces& out = all[part.text];
        const int before = with_places ? int(boundaries(std::string_view(texts[part.text]).substr(0, part.begin)).size()) - 1 : 0;
        if (part.id >= 0) {
            out.ids.push_back(part.id);
            const size_t size = part.end - part.begin;
            if (with_places) out.places.emplace_back(before, before + int(boundaries(std::string_view(texts[part.text]).substr(part.begin, size)).size()) - 1);
            continue;
        }
        out.ids.insert(out.ids.end(), cut.pieces.begin() + cut.first_piece[next], cut.pieces.begin() + cut.last_piece[next]);
        if (with_places)
            for (const auto& [begin, end] : found[next]) out.places.emplace_back(before + begin, before + end);
        ++next;
    }
    return all;
}

// Of each piece the characters of the text of which it has a byte, without spaces at its ends where they are trimmed.
std::vector<std::vector<std::pair<int, int>>> Tokenizer::places_of_bytes(const std::vector<std::string>& texts, const Cut& cut) const {
    std::vector<std::vector<std::pair<int, int>>> all(texts.size());
    for (size_t t = 0; t < texts.size(); ++t) {
        const std::vector<int> at = boundaries(texts[t]);
        const int added = int(cut.normal[t].size() - texts[t].size());  // the space in front
        const auto character = [&](int byte) { return int(std::upper_bound(at.begin(), at.end(), byte) - at.begin()) - 1; };
        for (const Cut::Word& word : cut.words[t]) {
            int place = word.begin;
            for (int piece = word.first; piece < word.last; ++piece) {
                const std::string bytes = cut.normal[t].substr(size_t(place), size_t(std::max(0, cut.sizes[size_t(piece)])));
                const int from = place - added, to = from + int(bytes.size());
                int begin = character(std::max(0, from)), end = to <= 0 ? 0 : character(to - 1) + 1;
                if (trim_ && !bytes.empty()) {
                    int front = int(std::min(bytes.size(), bytes.find_first_not_of(' ')));
                    const size_t last = bytes.find_last_not_of(' ');
                    const int behind = int(last == std::string::npos ? bytes.size() : bytes.size() - 1 - last);
                    if (front > 0 && space_ && (all[t].empty() || begin == 0)) --front;  // it is not of the text
                    begin = std::min(begin + front, end);
                    if (end >= behind) end = std::max(end - behind, begin);
                }
                all[t].emplace_back(begin, end);
                place += int(bytes.size());
            }
        }
    }
    return all;
}

// Of each piece the characters of the text that it covers.
//
// The graph normalizes each character alone, and each two neighbours; where two become something else than the one behind
// the other they belong together. So every normalized character is known to come from one character of the text, or from
// a few that melt.
std::vector<std::vector<std::pair<int, int>>> Tokenizer::places(const std::vector<std::string>& texts, const Cut& cut) {
    std::unordered_map<std::string, std::pair<std::string, bool>> known;  // characters -> normalized, is it an unknown piece
    size_t front = 0;
    const auto learn = [&](std::vector<std::string> wanted) {
        std::sort(wanted.begin(), wanted.end());
        wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
        wanted.erase(std::remove_if(wanted.begin(), wanted.end(), [&](const std::string& one) { return known.count(one) != 0; }), wanted.end());
        std::vector<std::string> guarded{std::string(2, guard)};
        for (const std::string& one : wanted) guarded.push_back(guard + one + guard);
        const Cut apart = run(guarded);
        front = apart.normal[0].size() - 1;
        for (size_t i = 0; i < wanted.size(); ++i) {
            const std::string& normal = apart.normal[i + 1];
            bool unknown = false;
            for (int piece = apart.first_piece[i + 1]; piece < apart.last_piece[i + 1]; ++piece) unknown = unknown || apart.sizes[size_t(piece)] < 0;
            known[wanted[i]] = {normal.substr(front, normal.size() - front - 1), unknown};
        }
    };
    std::vector<std::string> ones, twos;
    for (const std::string& text : texts) {
        const std::vector<int> at = boundaries(text);
        for (size_t i = 0; i + 1 < at.size(); ++i) {
            ones.push_back(text.substr(size_t(at[i]), size_t(at[i + 1] - at[i])));
            if (i + 2 < at.size()) twos.push_back(text.substr(size_t(at[i]), size_t(at[i + 2] - at[i])));
        }
    }
    learn(std::move(ones));
    learn(std::move(twos));
    std::vector<std::vector<std::string>> groups(texts.size());
    std::vector<std::string> longer;
    for (size_t t = 0; t < texts.size(); ++t) {
        const std::vector<int> at = boundaries(texts[t]);
        const auto part = [&](size_t i, size_t count) { return texts[t].substr(size_t(at[i]), size_t(at[i + count] - at[i])); };
        for (size_t i = 0; i + 1 < at.size(); ++i) {
            const bool melts = i > 0 && known[part(i - 1, 2)].first != known[part(i - 1, 1)].first + known[part(i, 1)].first;
            if (melts)
                groups[t].back() += part(i, 1);
            else
                groups[t].push_back(part(i, 1));
        }
        longer.insert(longer.end(), groups[t].begin(), groups[t].end());
    }
    learn(std::move(longer));
    std::vector<std::vector<std::pair<int, int>>> all(texts.size());
    for (size_t t = 0; t < texts.size(); ++t) {
        std::string together;
        for (const std::string& group : groups[t]) together += known[group].first;
        const std::string& normal = cut.normal[t];
        // what stands in front of the text alone: the mark of a word's beginning
        const bool marked = normal.compare(0, std::min(normal.size(), together.size()), together, 0, std::min(normal.size(), together.size())) != 0;
        std::vector<int> from(marked ? boundaries(std::string_view(normal).substr(0, front - 1)).size() - 1 : 0, 0);
        std::vector<bool> unknown(from.size(), false);
        int begin = 0;
        for (const std::string& group : groups[t]) {
            const int size = int(boundaries(group).size()) - 1;
            const auto& [made, strange] = known[group];
            const int count = int(boundaries(made).size()) - 1;
            for (int k = 0; k < count; ++k) from.push_back(begin + std::min(k, size - 1)), unknown.push_back(strange);
            begin += size;
        }
        const std::vector<int> at = boundaries(normal);
        const auto character = [&](int byte) { return int(std::lower_bound(at.begin(), at.end(), byte) - at.begin()); };
        while (from.size() + 1 < at.size()) from.push_back(std::max(0, begin - 1)), unknown.push_back(false);
        for (const Cut::Word& word : cut.words[t]) {
            int place = character(word.begin);
            const int last = character(word.end);
            int strangers = 0, rest = last - place;
            for (int piece = word.first; piece < word.last; ++piece) {
                strangers += cut.sizes[size_t(piece)] < 0;
                rest -= std::max(0, cut.sizes[size_t(piece)]);
            }
            for (int piece = word.first; piece < word.last; ++piece) {
                int size = cut.sizes[size_t(piece)];
                if (size < 0 && strangers == 1) {
                    size = rest;
                } else if (size < 0) {  // neighbours that are no piece are one together
                    size = 1;
                    while (place + size < last && unknown[size_t(place + size)]) ++size;
                }
                const int end = std::min(last, place + std::max(0, size));
                const int one = std::min(place, std::max(0, last - 1));
                all[t].emplace_back(from[size_t(one)], end > place ? from[size_t(end - 1)] + 1 : from[size_t(one)]);
                place = end;
            }
        }
    }
    return all;
}

}  // namespace polyprompt
