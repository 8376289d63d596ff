// polyprompt-predict: ask a bundle; one text from the command line, or JSON lines in, JSON lines out.

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "error.hpp"
#include "json.hpp"
#include "session.hpp"
#include "utf8.hpp"

namespace {

using namespace polyprompt;

constexpr size_t lines_together = 512;

constexpr const char* usage = R"(usage: polyprompt-predict BUNDLE [TEXT] [options]

Ask a bundle. Without TEXT, questions are JSON lines from stdin; answers are JSON lines.

  --task NAME          which task answers, or all; may be left out where the bundle has one
  --language CODE      of the text (BCP-47), for what was trained in several languages
  --pair TEXT          second sentence, hypothesis, or context of a question
  --choices TEXT ...   alternatives, or candidates of retrieval
  --tokens JSON        words for tagging as a JSON list (default: split the text)
  --marked N           semantic roles: which word is the predicate, from 0
  --jsonl FILE         answer JSON lines of a file; - is stdin
  --threads N          of the runtime (default: one a core)
  --engine NAME        onnxruntime, openvino, openvino-bf16 or auto: of those that are there the one that was fastest
                       for the bundle (default: auto)
  --onnxruntime FILE   library of ONNX Runtime (default: $POLYPROMPT_ONNXRUNTIME, or that of Python's package)
  --verbose            say on stderr which engine computed how many batches in which form
  --no-packed          fill rows of different lengths up, always: saves the memory of a second graph
)";

struct Options {
    std::filesystem::path bundle;
    std::optional<std::string> text, pair, task, tokens, jsonl;
    std::string language;
    std::vector<std::string> choices;
    std::optional<int> marked;
    bool verbose = false;
    Settings settings;
};

int number(const std::string& name, const std::string& text, int least) {
    char* end = nullptr;
    const long found = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end != '\0' || found < least || found > 1 << 20) throw Error(name + " " + text + ": not a whole number from " + std::to_string(least) + " on");
    return int(found);
}

Options read_options(const std::vector<std::string>& given) {
    Options options;
    std::vector<std::string> plain;
    for (size_t i = 0; i < given.size(); ++i) {
        std::string name = given[i];
        if (!is_utf8(name)) throw Error("an argument is not UTF-8");
        if (name.rfind("--", 0) != 0 || name == "--") {
            if (name != "--") plain.push_back(name);
            continue;
        }
        std::optional<std::string> value;
        if (const size_t at = name.find('='); at != std::string::npos) value = name.substr(at + 1), name.resize(at);
        if (name == "--choices") {
            if (value) options.choices.push_back(*value);
            while (!value && i + 1 < given.size() && given[i + 1].rfind("--", 0) != 0) options.choices.push_back(given[++i]);
            continue;
        }
        if (name == "--no-packed" || name == "--verbose") {
            if (value) throw Error(name + ": takes no value");
            (name == "--verbose" ? options.verbose : options.settings.packed) = name == "--verbose";
            continue;
        }
        if (!value) {
            if (i + 1 >= given.size()) throw Error(name + ": needs a value; see --help");
            value = given[++i];
        }
        if (!is_utf8(*value)) throw Error(name + ": not UTF-8");
        if (name == "--task") options.task = value;
        else if (name == "--language") options.language = *value;
        else if (name == "--pair") options.pair = value;
        else if (name == "--tokens") options.tokens = value;
        else if (name == "--marked") options.marked = number(name, *value, 0);
        else if (name == "--jsonl") options.jsonl = value;
        else if (name == "--threads") options.settings.threads = number(name, *value, 1);
        else if (name == "--engine") options.settings.engine = *value;
        else if (name == "--onnxruntime") options.settings.onnxruntime = *value;
        else throw Error(name + ": unknown; see --help");
    }
    if (plain.empty()) throw Error("name a bundle; see --help");
    if (plain.size() > 2) throw Error("more than one text; put it in quotes");
    options.bundle = plain[0];
    if (plain.size() == 2) options.text = plain[1];
    std::error_code failed;
    if (!std::filesystem::exists(options.bundle / "bundle.json", failed) && std::filesystem::exists(options.bundle / "export" / "bundle.json", failed))
        options.bundle /= "export";
    return options;
}

std::vector<std::string> strings(const Json& from, const char* name) {
    std::vector<std::string> found;
    if (!from.is(Json::Kind::array)) throw Error(std::string(name) + ": must be a list of strings");
    for (const Json& item : from.items) {
        if (!item.is(Json::Kind::string)) throw Error(std::string(name) + ": must be a list of strings");
        found.push_back(item.text);
    }
    return found;
}

Question read_question(const std::string& line, size_t at, const Session& session, const Options& options) {
    const Json from = parse_json(line);
    if (!from.is(Json::Kind::object)) throw Error("not a JSON object");
    Question question;
    question.language = options.language;
    std::optional<std::string> task = options.task;
    Example& example = question.example;
    example.id = std::to_string(at);
    bool text = false;
    for (const auto& [name, value] : from.members) {
        const bool null = value.is(Json::Kind::null);
        const auto string = [&, &name = name, &value = value]() -> const std::string& {
            if (!value.is(Json::Kind::string)) throw Error(name + ": must be a string");
            return value.text;
        };
        if (name == "task") task = string();
        else if (name == "language") question.language = string();
        else if (name == "id") example.id = string();
        else if (name == "text") example.text = string(), text = true;
        else if (name == "text_pair") example.pair = null ? std::nullopt : std::optional(string());
        else if (name == "choices") example.choices = strings(value, "choices");
        else if (name == "tokens") example.tokens = strings(value, "tokens");
        else if (name == "marked") example.marked = null ? std::nullopt : std::optional(int(from.whole_at(name, -(1 << 30), 1 << 30)));
        else if (name == "answers") example.cloze = !null;
        else if (name != "label" && name != "target" && name != "tags" && name != "group")
            throw Error("unknown field '" + name + "'; known are task, language, id, text, text_pair, choices, tokens, marked, label, target, tags, answers, group");
    }
    if (!task) throw Error("names no task; add \"task\" to the line or --task to the command");
    question.task = *task;
    const Task& card = session.card().task(*task);
    if (!text && card.kind != Kind::tagging) throw Error("task " + card.name + " needs text");
    check_example(card, example);
    return question;
}

void answer_lines(Session& session, std::istream& source, const std::string& name, const Options& options) {
    std::string line;
    size_t at = 0;
    for (bool more = true; more;) {
        std::vector<Question> questions;
        std::optional<Error> failure;
        for (size_t count = 0; count < lines_together && !failure; ++count) {
            more = bool(std::getline(source, line));
            if (!more) break;
            ++at;
            if (line.find_first_not_of(" \t\r\f\v") == std::string::npos) continue;
            try {
                questions.push_back(read_question(line, at, session, options));
            } catch (const Error& error) {
                failure = Error(name + ":" + std::to_string(at) + ": " + error.what());
            }
        }
        for (const std::string& answer : session.answer(questions)) std::cout << answer << '\n';
        std::cout.flush();
        if (failure) throw *failure;
    }
}

std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> found;
    for (size_t begin = text.find_first_not_of(" \t\n\r\f\v"); begin != std::string::npos;) {
        const size_t end = text.find_first_of(" \t\n\r\f\v", begin);
        found.push_back(text.substr(begin, end - begin));
        begin = text.find_first_not_of(" \t\n\r\f\v", end);
    }
    return found;
}

Question read_asked(const Task& task, const Options& options) {
    Question question;
    question.task = task.name;
    question.language = options.language;
    question.example.id = "1";
    question.example.text = options.text.value_or("");
    question.example.pair = options.pair;
    question.example.choices = options.choices;
    question.example.marked = options.marked;
    if (task.kind == Kind::tagging) {
        try {
            question.example.tokens = options.tokens ? strings(parse_json(*options.tokens), "words") : split(question.example.text);
        } catch (const Error& error) {
            throw Error(std::string("--tokens: ") + error.what());
        }
    } else if (!options.text) {
        throw Error("task " + task.name + " needs a text; write it behind the options in quotes");
    }
    check_example(task, question.example);
    return question;
}

// What is on the command line, by one task or by all that can be asked it.
void answer_one(Session& session, const Options& options) {
    const std::vector<Task>& tasks = session.card().tasks;
    const auto named = [&](const std::string& name) { return std::any_of(tasks.begin(), tasks.end(), [&](const Task& task) { return task.name == name; }); };
    std::vector<Question> questions;
    if (options.task == "all" && !named("all")) {
        for (const Task& task : tasks) try {
                questions.push_back(read_asked(task, options));
            } catch (const Error& error) {
                std::cerr << "left out: " << error.what() << std::endl;
            }
    } else {
        if (!options.task && tasks.size() > 1) {
            std::string known;
            for (const Task& task : tasks) known += (known.empty() ? "" : ", ") + task.name;
            throw Error("--task: say which; the bundle has " + known);
        }
        questions.push_back(read_asked(session.card().task(options.task.value_or(tasks[0].name)), options));
    }
    for (const std::string& answer : session.answer(questions)) std::cout << answer << std::endl;
}

int ask(const std::vector<std::string>& given) {
    for (const std::string& one : given)
        if (one == "--help" || one == "-h") {
            std::cout << usage;
            return 0;
        }
    const Options options = read_options(given);
    if (options.jsonl && options.text) throw Error("--jsonl: the questions come from there; leave the text away");
    std::ifstream file;
    const bool from_file = options.jsonl && *options.jsonl != "-";
    if (from_file) {
        std::error_code failed;
        file.open(*options.jsonl, std::ios::binary);
        if (!file || std::filesystem::is_directory(*options.jsonl, failed)) throw Error("--jsonl " + *options.jsonl + ": no such file");
    }
    Session session(options.bundle, options.settings);
    if (options.text || (options.tokens && !options.jsonl))
        answer_one(session, options);
    else
        answer_lines(session, from_file ? file : std::cin, from_file ? *options.jsonl : "stdin", options);
    if (options.verbose) std::cerr << session.used() << std::endl;
    return 0;
}

}  // namespace

int main(int count, char** given) {
    try {
        std::ios::sync_with_stdio(false);
        return ask({given + 1, given + count});
    } catch (const std::exception& error) {  // also what the runtime throws
        std::string text = error.what();
        for (char& c : text)
            if (c == '\n') c = ' ';
        std::cerr << "polyprompt-predict: " << text << std::endl;
        return 2;
    }
}
