// SHA-256 of files (FIPS 180-4).
#pragma once

#include <filesystem>
#include <string>

namespace polyprompt {

// In hexadecimal. Throws Error: it cannot be read.
std::string sha256(const std::filesystem::path& file);

}  // namespace polyprompt
