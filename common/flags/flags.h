// Reads a program's flags: command line > environment (FLOTILLA_<FLAG>) > --config FILE (INI) >
// default. Tokens and files are cut by Boost.Program_options; types, ranges, availability and what
// the errors say are the table's.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/flags/flag_spec.h"
#include "common/status.h"

namespace flotilla {

using Environment = std::map<std::string, std::string>;

// This process's environment.
Environment current_environment();

enum class FlagSource { kDefault, kFile, kEnvironment, kCommandLine };

// The values of all flags of a table. Asking for a name that the table lacks, or for the wrong
// type, is a check failure.
class ParsedFlags {
 public:
  // From the command line, the environment or the file, as against the default.
  bool given(std::string_view name) const { return source(name) != FlagSource::kDefault; }
  FlagSource source(std::string_view name) const;
  // Has a value at all: given, or a default.
  bool has(std::string_view name) const;

  bool boolean(std::string_view name) const;
  int64_t integer(std::string_view name) const;   // kInt, kBytes; has(name) must be true
  double number(std::string_view name) const;     // kFloat
  std::string text(std::string_view name) const;  // "" if it has none
  std::vector<std::string> list(std::string_view name) const;  // kList, repeatable ones, kRemainder
  std::vector<int> ports(std::string_view name) const;

  // What differs from the defaults, "--port=9000 --api-key=*** (FLOTILLA_API_KEY)", secrets masked;
  // for the log at start.
  std::string non_default() const;
  const std::vector<std::string>& warnings() const { return warnings_; }
  // Flags that were given, are known, and change nothing here.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  friend class FlagParser;
  struct Value {
    const FlagSpec* spec = nullptr;
    FlagSource source = FlagSource::kDefault;
    std::vector<std::string> texts;  // one, or several if repeatable or a list
  };
  const Value& at(std::string_view name, std::initializer_list<FlagType> types) const;

  std::map<std::string, Value, std::less<>> values_;
  std::vector<std::string> warnings_;
  std::vector<std::string> notes_;
};

// `table` must outlive the result. `args` without the program's name. An error's message has one
// line per mistake, each naming the flag, where it was set, what was seen and what was expected.
// Variables of `environment` that no flag knows are warnings; those that Kubernetes injects for a
// Service called "flotilla" are ignored.
StatusOr<ParsedFlags> parse_flags(const FlagTable& table,
                                  const std::vector<std::string>& args,
                                  const Environment& environment);

// True if the flag (a kBool, "help") stands on the command line, before a kRemainder flag; nothing
// else is looked at.
bool has_flag(const FlagTable& table, const std::vector<std::string>& args, std::string_view name);

// --help, --version, --config, --print-flags: rows that every program has.
void add_common_flags(FlagTable* table);

}  // namespace flotilla
