// JSON as RFC 8259 has it, strictly; bounded in depth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace polyprompt {

struct Json {
    enum class Kind { null, boolean, number, string, array, object };

    Kind kind = Kind::null;
    bool truth = false;
    double number = 0;
    std::optional<int64_t> whole;  // of a number without fraction and exponent
    std::string text;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;  // in order; a name that is there twice is refused

    bool is(Kind wanted) const { return kind == wanted; }
    const Json* find(std::string_view name) const;

    // What must be there and of this kind; errors name the place.
    const Json& at(std::string_view name, Kind wanted) const;
    const std::string& string_at(std::string_view name) const { return at(name, Kind::string).text; }
    int64_t whole_at(std::string_view name, int64_t least, int64_t most) const;
};

// Throws Error: not JSON, and where.
Json parse_json(std::string_view text);

// A string with its quotes.
std::string json_string(std::string_view text);

// The shortest number that is read back as the same; "null" for what is not finite.
std::string written(double number);

}  // namespace polyprompt
