// Random and damaged files for what the client reads: an error or a result, and nothing else.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "error.hpp"

namespace {

template <typename Read>
void attempt(Read read) {
    try {
        read();
    } catch (const polyprompt::Error&) {
    }
}

std::string tensors(std::string header, size_t data) {
    std::string file(8, '\0');
    for (size_t i = 0; i < 8; ++i) file[i] = char(header.size() >> (8 * i));
    return file + header + std::string(data, '\1');
}

// Sound files, which are then damaged.
const std::vector<std::string>& seeds() {
    static const std::vector<std::string> found{
        tensors(R"({"token_logits.head":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
                R"("token_logits.weight":{"dtype":"F32","shape":[1,2,3],"data_offsets":[16,40]},)"
                R"("prompt_lengths":{"dtype":"I64","shape":[1,2],"data_offsets":[40,56]}})", 56),
        R"({"schema_name":"polyprompt-bundle","version":2,"token_types":true,"pooling":"cls","pad_id":0,"precision":"int8",)"
        R"("backbone":{"layers":2,"hidden":32},"files":{"model.onnx":)"
        R"({"bytes":1,"sha256":"00"},"tokenizer.json":{"bytes":1,"sha256":"00"},"tasks.safetensors":{"bytes":1,"sha256":"00"}},)"
        R"("tasks":[{"card":{"name":"a","kind":"tagging","labels":["O","B-\u00e4\ud83d\ude00"],"max_length":40},"task_id":0,)"
        R"("output":"token_logits","columns":2,"max_positions":64,"threshold":-1.5e3,"languages":{"de":1}}],)"
        R"("parity":{"openvino":{"milliseconds":1.5,"pace":{"batch":1,"piece":2}}}})",
        std::string("\x08\x07\x3a\x16\x2a\x14\x6a\x12\x0a\x08location\x12\x06weight", 26),
        R"([[[[1e-5,-0,12345678901234567890]],"\"\\\/\b\f\n\r\t"],null,true,false])",
    };
    return found;
}

// One file, as everything that is read.
void read_all(const std::string& text) {
    attempt([&] { polyprompt::parse_json(text); });
    attempt([&] { polyprompt::read_card(text); });
    attempt([&] { polyprompt::external_files(text); });
    attempt([&] {
        static const polyprompt::Tensors whole = polyprompt::read_tensors(seeds()[0]);
        const polyprompt::Tensors found = polyprompt::read_tensors(text);
        std::vector<int64_t> offsets;
        attempt([&] { polyprompt::merge({found, whole}, offsets); });
        polyprompt::merge({whole, found}, offsets);
    });
}

}  // namespace

int main(int count, char** words) {
    const double seconds = count > 1 ? std::atof(words[1]) : 10;
    std::mt19937 draw(unsigned(count > 2 ? std::atol(words[2]) : 0));
    const auto start = std::chrono::steady_clock::now();
    polyprompt::read_card(seeds()[1]);  // they are sound as they are
    polyprompt::read_tensors(seeds()[0]);
    if (polyprompt::external_files(seeds()[2]) != std::vector<std::string>{"weight"}) return 1;
    long times = 0;
    do {
        std::string text = seeds()[draw() % seeds().size()];
        for (unsigned changes = draw() % 6; changes > 0 && !text.empty(); --changes) {
            const size_t at = draw() % text.size();
            static const std::string odd[] = {"-1", "9223372036854775807", "1e999", "[", "{", "\"", "null", "\xff", "99999999999", "0"};
            switch (draw() % 4) {
                case 0: text[at] = char(draw()); break;
                case 1: text.erase(at, 1 + draw() % 8); break;
                case 2: text.insert(at, odd[draw() % 10]); break;
                default: text.replace(at, std::min<size_t>(1 + draw() % 3, text.size() - at), odd[draw() % 10]);
            }
        }
        if (draw() % 500 == 0) text = std::string(100000, "[{\""[draw() % 3]);
        read_all(text);
        times++;
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds);
    std::printf("%ld inputs, none of them harmful\n", times);
}
