// Questions in, answers out, in batches that mix tasks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "engine.hpp"
#include "features.hpp"
#include "tokenizer.hpp"

namespace polyprompt {

struct Question {
    std::string task, language;
    Example example;
};

// Throws Error: an example lacks what its task reads.
void check_example(const Task& task, const Example& example);

class Session {
public:
    // engine: "auto": the one of OpenVINO's that was fastest when the bundle was verified. threads: 0: one a core.
    Session(const std::filesystem::path& bundle, const std::string& engine, int threads);

    // One JSON object a question, as exporters.predict writes it.
    std::vector<std::string> answer(const std::vector<Question>& questions);

    const Card& card() const { return bundle_.card; }

private:
    using Output = std::vector<float>;
    struct Encoded {
        std::vector<Feature> features;
        std::vector<Output> outputs;
    };

    Encoded run_all(std::vector<std::pair<const Task*, int64_t>>& asked, std::vector<Feature> features);

    ov::Core core_;
    Bundle bundle_;
    std::unique_ptr<Tokenizer> tokenizer_;
    std::unique_ptr<Engine> engine_;
    Pace pace_;
};

}  // namespace polyprompt
