// Questions in, answers out, in batches that mix tasks.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "batching.hpp"
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

struct Settings {
    std::string engine = "auto";  // of those that are there the one that was fastest when the bundle was verified
    int threads = 0;              // 0: one a core
    bool packed = true;           // use the packed and the native form too, where they were verified and take less time
    std::string onnxruntime;      // its library; empty: where it is looked for
};

class Session {
public:
    // Throws Error: the bundle is damaged, or the engine not to be had.
    Session(const std::filesystem::path& bundle, const Settings& settings);

    // One JSON object a question, as exporters.predict writes it.
    std::vector<std::string> answer(const std::vector<Question>& questions);

    const Card& card() const { return bundle_.card; }

    // The engine, and how many batches it computed in each form.
    std::string used() const;

private:
    using Output = std::vector<float>;
    struct Encoded {
        std::vector<Feature> features;
        std::vector<Output> outputs;
    };

    Encoded run_all(std::vector<std::pair<const Task*, int64_t>>& asked, std::vector<Feature> features);
    std::vector<Batch> batches(const std::vector<size_t>& lengths);
    Engine& opened(Form form);
    std::vector<Form> usable(const std::string& engine) const;
    std::string fastest() const;

    ov::Core core_;
    Bundle bundle_;
    bool packed_;
    Engines engines_;
    std::string name_;
    std::map<Form, Pace> paces_;  // of the forms that batches may have
    std::map<Form, std::unique_ptr<Engine>> open_;
    std::map<Form, size_t> counted_;
    double missed_ = 0;  // microseconds that forms which are not open would have saved
    std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace polyprompt
