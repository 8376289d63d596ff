// Characters of UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace polyprompt {

// Bytes of the character that begins with this one; 1 for what begins none.
inline size_t width(char first) {
    const uint8_t c = uint8_t(first);
    return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

inline void append(std::string& text, char32_t code) {
    if (code < 0x80) {
        text += char(code);
    } else if (code < 0x800) {
        text += char(0xC0 | (code >> 6));
        text += char(0x80 | (code & 63));
    } else if (code < 0x10000) {
        text += char(0xE0 | (code >> 12));
        text += char(0x80 | ((code >> 6) & 63));
        text += char(0x80 | (code & 63));
    } else {
        text += char(0xF0 | (code >> 18));
        text += char(0x80 | ((code >> 12) & 63));
        text += char(0x80 | ((code >> 6) & 63));
        text += char(0x80 | (code & 63));
    }
}

// Whole characters alone: no surrogates, nothing that could be written shorter.
inline bool is_utf8(std::string_view text) {
    for (size_t i = 0; i < text.size();) {
        const uint8_t first = uint8_t(text[i]);
        if (first < 0x80) {
            ++i;
            continue;
        }
        const size_t size = first >= 0xC2 && first < 0xF5 ? width(text[i]) : 0;
        if (size == 0 || i + size > text.size()) return false;
        uint32_t code = first & (0xFFu >> (size + 1));
        for (size_t k = 1; k < size; ++k) {
            if ((uint8_t(text[i + k]) & 0xC0) != 0x80) return false;
            code = (code << 6) | (uint8_t(text[i + k]) & 63u);
        }
        constexpr uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (code < least[size] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
        i += size;
    }
    return true;
}

// Bytes at which characters begin, and the end.
inline std::vector<int> boundaries(std::string_view text) {
    std::vector<int> found;
    for (size_t i = 0; i < text.size(); i += width(text[i])) found.push_back(int(i));
    found.push_back(int(text.size()));
    return found;
}

}  // namespace polyprompt
