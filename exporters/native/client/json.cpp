#include "json.hpp"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "error.hpp"
#include "utf8.hpp"

namespace polyprompt {
namespace {

constexpr int deepest = 64;

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json all() {
        Json found = value(0);
        space();
        if (at_ != text_.size()) fail("something behind the end");
        return found;
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        throw Error("not JSON (" + what + " at byte " + std::to_string(at_ + 1) + ")");
    }

    void space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool take(char wanted) {
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        ++at_;
        return true;
    }

    bool word(std::string_view wanted) {
        if (text_.substr(at_, wanted.size()) != wanted) return false;
        at_ += wanted.size();
        return true;
    }

    Json value(int depth) {
        if (depth > deepest) fail("nested too deeply");
        space();
        Json found;
        const char next = peek();
        if (next == '{') {
            object(found, depth);
        } else if (next == '[') {
            array(found, depth);
        } else if (next == '"') {
            found.kind = Json::Kind::string;
            found.text = string();
        } else if (word("true") || word("false")) {
            found.kind = Json::Kind::boolean;
            found.truth = text_[at_ - 2] == 'u';
        } else if (!word("null")) {
            number(found);
        }
        return found;
    }

    void object(Json& found, int depth) {
        found.kind = Json::Kind::object;
        ++at_;
        space();
        if (take('}')) return;
        do {
            space();
            if (peek() != '"') fail("a name is missing");
            std::string name = string();
            space();
            if (!take(':')) fail("':' is missing");
            if (found.members.size() < few && found.find(name) != nullptr) fail("a name that is there twice");
            found.members.emplace_back(std::move(name), value(depth + 1));
            space();
        } while (take(','));
        if (!take('}')) fail("'}' is missing");
    }

    void array(Json& found, int depth) {
        found.kind = Json::Kind::array;
        ++at_;
        space();
        if (take(']')) return;
        do {
            found.items.push_back(value(depth + 1));
            space();
        } while (take(','));
        if (!take(']')) fail("']' is missing");
    }

    unsigned hex() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = peek();
            const int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (digit < 0) fail("not four hexadecimal digits");
            code = 16 * code + unsigned(digit);
            ++at_;
        }
        return code;
    }

    std::string string() {
        std::string found;
        ++at_;
        while (true) {
            const size_t begin = at_;
            while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' && uint8_t(text_[at_]) >= 32) ++at_;
            const std::string_view plain = text_.substr(begin, at_ - begin);
            if (!is_utf8(plain)) fail("not UTF-8");
            found += plain;
            if (at_ >= text_.size()) fail("a string without end");
            if (take('"')) return found;
            if (!take('\\')) fail("a control character in a string");
            const char c = peek();
            ++at_;
            const size_t known = std::string_view("\"\\/bfnrt").find(c);
            if (c == 'u') {
                unsigned code = hex();
                if (code >= 0xD800 && code < 0xDC00 && text_.substr(at_, 2) == "\\u") {
                    at_ += 2;
                    const unsigned low = hex();
                    if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                }
                if (code >= 0xD800 && code < 0xE000) fail("half of a surrogate pair; only whole characters can be read");
                append(found, char32_t(code));
            } else if (c != '\0' && known != std::string_view::npos) {
                found += "\"\\/\b\f\n\r\t"[known];
            } else {
                fail("an unknown escape");
            }
        }
    }

    void digits() {
        if (peek() < '0' || peek() > '9') fail("a value is missing");
        while (peek() >= '0' && peek() <= '9') ++at_;
    }

    void number(Json& found) {
        found.kind = Json::Kind::number;
        const size_t begin = at_;
        take('-');
        if (!take('0')) digits();
        const bool plain = peek() != '.' && peek() != 'e' && peek() != 'E';
        if (take('.')) digits();
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            digits();
        }
        const std::string_view part = text_.substr(begin, at_ - begin);
        int64_t whole = 0;
        if (plain && std::from_chars(part.data(), part.data() + part.size(), whole).ec == std::errc()) found.whole = whole;
        found.number = std::strtod(std::string(part).c_str(), nullptr);
    }

    static constexpr size_t few = 256;  // names that are compared: what is larger is a dictionary of ours

    std::string_view text_;
    size_t at_ = 0;
};

const char* name_of(Json::Kind kind) {
    constexpr const char* names[] = {"null", "true or false", "a number", "a string", "a list", "an object"};
    return names[int(kind)];
}

}  // namespace

const Json* Json::find(std::string_view name) const {
    for (const auto& [key, value] : members)
        if (key == name) return &value;
    return nullptr;
}

const Json& Json::at(std::string_view name, Kind wanted) const {
    const Json* found = find(name);
    if (found == nullptr) throw Error(std::string(name) + " is missing");
    if (found->kind != wanted) throw Error(std::string(name) + " is not " + name_of(wanted));
    return *found;
}

int64_t Json::whole_at(std::string_view name, int64_t least, int64_t most) const {
    const Json& found = at(name, Kind::number);
    if (!found.whole || *found.whole < least || *found.whole > most)
        throw Error(std::string(name) + " is not a whole number from " + std::to_string(least) + " to " +
                    std::to_string(most));
    return *found.whole;
}

Json parse_json(std::string_view text) { return Parser(text).all(); }

std::string json_string(std::string_view text) {
    std::string found = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            found += '\\';
            found += c;
        } else if (uint8_t(c) < 32) {
            constexpr char hex[] = "0123456789abcdef";
            found += "\\u00";
            found += hex[uint8_t(c) >> 4];
            found += hex[uint8_t(c) & 15];
        } else {
            found += c;
        }
    }
    return found + '"';
}

std::string written(double number) {
    if (!std::isfinite(number)) return "null";
    char place[32];
    const auto [end, error] = std::to_chars(place, place + sizeof place, number);
    return std::string(place, end);
}

}  // namespace polyprompt
