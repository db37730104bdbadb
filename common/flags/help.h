// What a flag table looks like to people and machines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/flags/flag_spec.h"

namespace flotilla {

// --help: groups in the table's order, 100 columns, every flag with unit and default, one example a
// group.
std::string help_text(const FlagTable& table);
// A section of docs/flags.md: "## program", a table per group, then what this version does not do.
std::string markdown_text(const FlagTable& table);
// {"program": …, "flags": [{"name": …, "type": …, …}]}
std::string json_text(const FlagTable& table);

// "markdown" or "json" if `args` hold --print-flags with that value.
std::optional<std::string> print_flags_format(const FlagTable& table,
                                              const std::vector<std::string>& args);
// What --help, --version or --print-flags want printed; nullopt if none of them stands in `args`
// before a kRemainder flag. They win over everything else on the command line, mistakes included.
std::optional<std::string> flags_info(const FlagTable& table, const std::vector<std::string>& args);

}  // namespace flotilla
