// Hashes that are not computed again, in the cache that Python has as well.
#pragma once

#include <filesystem>
#include <string>

namespace polyprompt {

// The SHA-256 of a file, as exporters.store.known_sha256 finds and remembers it. Throws Error: it cannot be read.
std::string known_sha256(const std::filesystem::path& file);

}  // namespace polyprompt
