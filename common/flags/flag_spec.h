// A program's flags as a table: what --help, docs/flags.md, the environment, the configuration file
// and the parser know of them comes from one row each.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace flotilla {

enum class FlagType {
  kBool,  // --x, --x=false; --no-x where `negatable`
  kInt,
  kFloat,
  kText,
  kChoice,     // one of `choices`
  kList,       // comma-separated words
  kPorts,      // comma-separated port numbers, 0 = any free port
  kBytes,      // 4096, 512M, 2GiB (powers of 1024)
  kRemainder,  // every word behind it, untouched; command line only
};

enum class Availability {
  kWorks,
  kNoEffect,    // accepted, changes nothing; `note` says why
  kLater,       // stops with "not in this version"; `note` says what would be needed
  kSuperseded,  // stops; `note` says what to use
};

struct FlagChoice {
  std::string value;
  Availability availability = Availability::kWorks;
  std::string note = {};
};

struct FlagSpec {
  std::string name;  // without dashes: "max-model-len"; '_' and '-' are the same when read
  FlagType type = FlagType::kText;
  std::string group = {};
  std::string metavar = {};        // "TOKENS"; from the type if empty
  std::string default_value = {};  // as a user would write it; empty: none
  std::string default_note = {};   // shown in place of the default where it depends on something
  std::string unit = {};           // "tokens", "s"
  std::string help = {};
  int64_t min = std::numeric_limits<int64_t>::min();  // kInt, kBytes, kFloat
  int64_t max = std::numeric_limits<int64_t>::max();
  std::vector<FlagChoice> choices = {};
  Availability availability = Availability::kWorks;
  std::string note = {};
  std::vector<std::string> accepted =
      {};  // values that change nothing although the flag itself is kLater or kSuperseded
  std::vector<std::string> aliases = {};  // as typed, dashes included: "-tp"
  bool repeatable = false;                // --x a --x b; a comma list in environment and file
  bool secret = false;                    // value never printed
  bool negatable = false;                 // kBool: --no-x exists
  bool internal = false;                  // set by the launcher for its ranks; not in --help
};

struct FlagGroup {
  std::string name;
  std::string example;
};

struct FlagTable {
  std::string program;
  std::string usage;  // "multi_api_server [flags] --args [api_server flags]"
  std::string about;
  std::vector<FlagGroup> groups;  // in the order of --help
  std::vector<FlagSpec> flags;
  // Names of other programs of the suite: no error in a shared configuration file, no warning in
  // the environment.
  std::vector<std::string> foreign;
  std::string foreign_note;  // on the command line: "is a flag of api_server: put it behind --args"

  // Any spelling without dashes in front; nullptr if unknown.
  const FlagSpec* find(std::string_view name) const;
};

// "max_model_len" → "max-model-len"
std::string normalise_flag_name(std::string_view name);
// "max-model-len" → "FLOTILLA_MAX_MODEL_LEN"
std::string flag_environment_name(std::string_view name);
// The known flag that `name` most probably meant; empty if none is near.
std::string nearest_flag(const FlagTable& table, std::string_view name);

}  // namespace flotilla
