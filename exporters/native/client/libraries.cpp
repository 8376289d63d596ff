#include "libraries.hpp"

#include <cstdlib>

#include <dlfcn.h>

#include <openvino/openvino.hpp>

namespace polyprompt {
namespace {

using Path = std::filesystem::path;

Path if_there(const Path& path) {
    std::error_code failed;
    return std::filesystem::is_regular_file(path, failed) ? path : Path();
}

// The folder of Python's packages: OpenVINO's own library lies in openvino/libs there.
Path packages() {
    Dl_info about{};
    if (dladdr(reinterpret_cast<const void*>(&ov::get_openvino_version), &about) == 0 || about.dli_fname == nullptr) return {};
    return Path(about.dli_fname).parent_path().parent_path().parent_path();
}

Path compiled(const std::string& name) {
    std::error_code failed;
    const Path program = std::filesystem::read_symlink("/proc/self/exe", failed);
    const Path beside = failed ? Path() : if_there(program.parent_path() / name);
    return beside.empty() ? if_there(packages() / name) : beside;
}

}  // namespace

Path text_operators() {
    if (const char* named = std::getenv("OV_TOKENIZER_PREBUILD_EXTENSION_PATH"); named != nullptr) return named;
    return packages() / "openvino_tokenizers" / "lib" / "libopenvino_tokenizers.so";
}

Path openvino_operator() {
    const std::string build = ov::get_openvino_version().buildNumber;  // 2026.4.1-12345-...
    return compiled("polyprompt_openvino-" + build.substr(0, build.find('-')) + ".so");
}

Path onnxruntime_operator() { return compiled("polyprompt_onnxruntime.so"); }

Path onnxruntime_library(const std::string& named) {
    if (!named.empty()) return named;
    if (const char* there = std::getenv("POLYPROMPT_ONNXRUNTIME"); there != nullptr && *there != '\0') return there;
    std::error_code failed;
    for (const auto& file : std::filesystem::directory_iterator(packages() / "onnxruntime" / "capi", failed))
        if (file.path().filename().string().rfind("libonnxruntime.so", 0) == 0) return file.path();
    return {};
}

}  // namespace polyprompt
