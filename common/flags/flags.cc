#include "common/flags/flags.h"

#include <algorithm>
#include <boost/program_options/cmdline.hpp>
#include <boost/program_options/errors.hpp>
#include <boost/program_options/option.hpp>
#include <boost/program_options/options_description.hpp>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <cctype>
#include <optional>
#include <sstream>

#include "common/fd.h"
#include "common/flags/flag_value.h"

extern char** environ;

namespace flotilla {
namespace {

namespace po = boost::program_options;

constexpr size_t kMaxConfigBytes = 1u << 20;

bool is_on(const std::string& text) { return parse_bool(text).value_or(false); }

std::string joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += (out.empty() ? "" : "\n") + line;
  return out;
}

// What Kubernetes sets in every pod of a namespace that has a Service called "flotilla" or
// "flotilla-…".
bool injected_by_kubernetes(const std::string& name, const std::string& value) {
  for (const char* scheme : {"tcp://", "udp://", "sctp://"}) {
    if (value.starts_with(scheme)) return true;
  }
  if (name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT")) return true;
  return name.find("_SERVICE_PORT_") != std::string::npos ||
         (name.find("PORT_") != std::string::npos &&
          (name.find("_TCP") != std::string::npos || name.find("_UDP") != std::string::npos ||
           name.find("_SCTP") != std::string::npos));
}

// Variables of the suite that are no flags.
bool reserved_variable(const std::string& name) {
  for (const char* known : {"FLOTILLA_FDS", "FLOTILLA_CLUSTER_SECRET", "FLOTILLA_DEBIAN_MIRROR"}) {
    if (name == known) return true;
  }
  return false;
}

}  // namespace

Environment current_environment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view pair(*entry);
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    environment.emplace(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return environment;
}

class FlagParser {
 public:
  FlagParser(const FlagTable& table, const Environment& environment)
      : table_(table), environment_(environment) {
    for (const FlagSpec& spec : table.flags) {
      ParsedFlags::Value value;
      value.spec = &spec;
      if (!spec.default_value.empty()) value.texts.push_back(spec.default_value);
      result_.values_.emplace(spec.name, std::move(value));
    }
  }

  StatusOr<ParsedFlags> parse(const std::vector<std::string>& args) {
    // The command line first: it names the file. Lower sources do not replace higher ones.
    read_command_line(args);
    if (errors_.empty()) {
      read_environment();
      read_config_file();
    }
    if (!errors_.empty()) return Status(code_, joined(errors_));
    return std::move(result_);
  }

 private:
  void error(StatusCode code, std::string message) {
    if (errors_.empty()) code_ = code;
    errors_.push_back(std::move(message));
  }

  // "--port", "--port (from FLOTILLA_PORT)", "--port (from fleet.ini)"
  static std::string label(const FlagSpec& spec, const std::string& origin) {
    return "--" + spec.name + (origin.empty() ? "" : " (from " + origin + ")");
  }

  void unknown(const std::string& shown, const std::string& name, const std::string& origin) {
    for (const std::string& other : table_.foreign) {
      if (normalise_flag_name(other) != normalise_flag_name(name)) continue;
      return error(StatusCode::kInvalidArgument, shown + " " + table_.foreign_note);
    }
    const std::string near = nearest_flag(table_, name);
    error(StatusCode::kInvalidArgument,
          "unknown flag " + shown + (origin.empty() ? "" : " in " + origin) +
              (near.empty() ? "" : "; did you mean --" + near + "?") + " (" + table_.program +
              " --help lists all flags)");
  }

  std::string unaliased(const std::string& token) const {
    for (const FlagSpec& spec : table_.flags) {
      for (const std::string& alias : spec.aliases) {
        if (token == alias) return "--" + spec.name;
        if (token.starts_with(alias + "=")) return "--" + spec.name + token.substr(alias.size());
      }
    }
    if (!token.starts_with("--")) return token;
    const size_t equals = token.find('=');
    return "--" +
           normalise_flag_name(token.substr(2, equals == std::string::npos ? equals : equals - 2)) +
           (equals == std::string::npos ? "" : token.substr(equals));
  }

  void read_command_line(const std::vector<std::string>& args) {
    po::options_description description;
    for (const FlagSpec& spec : table_.flags) {
      const std::string name = normalise_flag_name(spec.name);
      auto* value = po::value<std::string>();
      if (spec.type == FlagType::kBool) value->implicit_value("true");
      description.add_options()(name.c_str(), value);
      if (spec.negatable) {
        description.add_options()(("no-" + name).c_str(), new po::untyped_value(true));
      }
    }

    std::vector<std::string> tokens;
    for (size_t i = 0; i < args.size(); ++i) {
      const std::string token = unaliased(args[i]);
      const FlagSpec* spec = token.starts_with("--") ? table_.find(token.substr(2)) : nullptr;
      if (spec != nullptr && spec->type == FlagType::kRemainder) {
        ParsedFlags::Value& value = result_.values_.at(spec->name);
        value.source = FlagSource::kCommandLine;
        value.texts.assign(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
        break;
      }
      tokens.push_back(token);
    }

    using Style = po::command_line_style::style_t;
    try {
      const po::parsed_options parsed =
          po::command_line_parser(tokens)
              .options(description)
              .style(Style::allow_long | Style::long_allow_adjacent | Style::long_allow_next)
              .allow_unregistered()
              .run();
      for (const po::option& option : parsed.options) take_option(option);
    } catch (const po::error& e) {
      error(StatusCode::kInvalidArgument,
            std::string(e.what()) + " (" + table_.program + " --help)");
    }
  }

  void take_option(const po::option& option) {
    if (option.unregistered) {
      return unexpected(option.original_tokens.front());
    }
    if (option.string_key.empty()) return unexpected(option.value.front());
    if (const FlagSpec* spec = table_.find(option.string_key)) {
      // Only a kBool may stand without a value.
      return take(*spec,
                  FlagSource::kCommandLine,
                  "",
                  option.value.empty() ? "true" : option.value.front());
    }
    const FlagSpec* spec =
        table_.find(std::string_view(option.string_key).substr(3));  // behind "no-"
    take(*spec, FlagSource::kCommandLine, "", "false");
  }

  void unexpected(const std::string& word) {
    if (const size_t name = word.find_first_not_of('-'); name != std::string::npos && name > 0) {
      const std::string shown = word.substr(0, word.find('='));
      return unknown(shown, shown.substr(name), "");
    }
    // Behind an unknown flag its value looks like a stray word: one message is enough.
    if (!errors_.empty()) return;
    error(StatusCode::kInvalidArgument,
          "unexpected word '" + word + "': " + table_.program + " takes flags only (" +
              table_.program + " --help)");
  }

  void read_environment() {
    for (const auto& [name, text] : environment_) {
      if (!name.starts_with("FLOTILLA_") || text.empty() || reserved_variable(name)) continue;
      if (injected_by_kubernetes(name, text)) continue;
      const FlagSpec* spec = nullptr;
      bool negated = false;
      bool foreign = false;
      for (const FlagSpec& candidate : table_.flags) {
        const std::string flag = normalise_flag_name(candidate.name);
        if (name == flag_environment_name(flag)) spec = &candidate;
        if (candidate.negatable && name == flag_environment_name("no-" + flag)) {
          spec = &candidate;
          negated = true;
        }
      }
      for (const std::string& other : table_.foreign) {
        foreign |= name == flag_environment_name(normalise_flag_name(other));
      }
      if (spec != nullptr && spec->type == FlagType::kRemainder) {
        result_.warnings_.push_back(name + " is ignored: --" + spec->name +
                                    " can only be given on the command line");
      } else if (spec != nullptr) {
        take(*spec,
             FlagSource::kEnvironment,
             name,
             negated ? (is_on(text) ? "false" : "true") : text);
      } else if (!foreign) {
        const std::string near = nearest_flag(table_, lower(name.substr(sizeof "FLOTILLA_" - 1)));
        result_.warnings_.push_back(
            "the environment variable " + name + " is no flag of " + table_.program +
            (near.empty()
                 ? ""
                 : "; did you mean " + flag_environment_name(normalise_flag_name(near)) + "?"));
      }
    }
  }

  static std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
  }

  void read_config_file() {
    if (table_.find("config") == nullptr) return;
    const std::string path = result_.text("config");
    if (path.empty()) return;
    const StatusOr<std::string> content = read_file(path, kMaxConfigBytes);
    if (!content.ok())
      return error(StatusCode::kInvalidArgument, "--config: " + content.status().message());
    std::istringstream stream(*content);
    try {
      const po::parsed_options parsed =
          po::parse_config_file(stream, po::options_description(), true);
      for (const po::option& option : parsed.options) take_config_line(option, path);
    } catch (const po::error& e) {
      error(StatusCode::kInvalidArgument,
            "--config: " + path + " is no INI file of 'flag = value' lines: " + e.what());
    }
  }

  void take_config_line(const po::option& option, const std::string& path) {
    // [sections] are for the reader: "model.max-model-len" is max-model-len.
    std::string key = option.string_key;
    if (const size_t dot = key.rfind('.'); dot != std::string::npos) key.erase(0, dot + 1);
    key = normalise_flag_name(key);
    const std::string text = option.value.empty() ? "" : option.value.front();
    if (const FlagSpec* spec = table_.find(key)) {
      if (spec->type == FlagType::kRemainder || spec->name == "config") {
        return error(StatusCode::kInvalidArgument,
                     "--" + spec->name + " cannot stand in a file (" + path + ")");
      }
      return take(*spec, FlagSource::kFile, path, text);
    }
    if (key.starts_with("no-")) {
      const FlagSpec* spec = table_.find(std::string_view(key).substr(3));
      if (spec != nullptr && spec->negatable) {
        return take(*spec, FlagSource::kFile, path, is_on(text) ? "false" : "true");
      }
    }
    for (const std::string& other : table_.foreign) {
      if (normalise_flag_name(other) == key) return;
    }
    unknown(key, key, path);
  }

  void take(const FlagSpec& spec, FlagSource source, const std::string& origin, std::string text) {
    ParsedFlags::Value& value = result_.values_.at(spec.name);
    if (value.source > source) return;
    const std::string who = label(spec, origin);
    if (const std::optional<std::string> wrong = why_not_a_value(spec, text)) {
      return error(
          StatusCode::kInvalidArgument,
          who + ": got " + (spec.secret ? "a value" : "'" + text + "'") + ", expected " + *wrong);
    }
    if (spec.type == FlagType::kBool) text = is_on(text) ? "true" : "false";
    if (!available(spec, who, text)) return;
    std::vector<std::string> words = {text};
    if (spec.type == FlagType::kList || (spec.repeatable && source != FlagSource::kCommandLine)) {
      words = split_list(text);
    }
    if (value.source == source && spec.repeatable) {
      value.texts.insert(value.texts.end(), words.begin(), words.end());
      return;
    }
    if (value.source == source && value.texts != words) {
      result_.warnings_.push_back(who + " is given more than once; the last one counts");
    }
    value.source = source;
    value.texts = std::move(words);
  }

  // Reports what this version cannot do, and values that change nothing.
  bool available(const FlagSpec& spec, const std::string& who, const std::string& text) {
    Availability availability = spec.availability;
    std::string note = spec.note;
    std::string what = who;
    if (std::find(spec.accepted.begin(), spec.accepted.end(), text) != spec.accepted.end())
      return true;
    // A flag that is off asks for nothing.
    if (spec.type == FlagType::kBool && availability != Availability::kWorks && !spec.negatable &&
        text == "false") {
      return true;
    }
    for (const FlagChoice& choice : spec.choices) {
      if (choice.value != text || choice.availability == Availability::kWorks) continue;
      availability = choice.availability;
      note = choice.note;
      what += " " + text;
    }
    switch (availability) {
      case Availability::kWorks:
        return true;
      case Availability::kNoEffect:
        result_.notes_.push_back(what + " is accepted and changes nothing: " + note);
        return true;
      case Availability::kLater:
        error(StatusCode::kUnimplemented, what + " is not in this version: " + note);
        return false;
      case Availability::kSuperseded:
        error(StatusCode::kInvalidArgument, what + " is not supported: " + note);
        return false;
    }
    return false;
  }

  const FlagTable& table_;
  const Environment& environment_;
  ParsedFlags result_;
  std::vector<std::string> errors_;
  StatusCode code_ = StatusCode::kInvalidArgument;
};

StatusOr<ParsedFlags> parse_flags(const FlagTable& table,
                                  const std::vector<std::string>& args,
                                  const Environment& environment) {
  return FlagParser(table, environment).parse(args);
}

bool has_flag(const FlagTable& table, const std::vector<std::string>& args, std::string_view name) {
  const FlagSpec* wanted = table.find(name);
  check(wanted != nullptr, "no such flag in the table: " + std::string(name));
  for (const std::string& token : args) {
    const FlagSpec* spec = token.starts_with("--") ? table.find(token.substr(2)) : nullptr;
    if (spec != nullptr && spec->type == FlagType::kRemainder) return false;
    if (spec == wanted) return true;
    for (const std::string& alias : wanted->aliases) {
      if (token == alias) return true;
    }
  }
  return false;
}

}  // namespace flotilla
