// The subcommands of the tool `flotilla`: one function and one row of the table in main.cc each.
#pragma once

#include <span>
#include <string_view>

namespace flotilla::cli {

// Exit codes of every subcommand.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;  // the work failed; stderr says why
inline constexpr int kUsage = 2;   // the command line is wrong

using Args = std::span<const std::string_view>;  // behind the subcommand's name

int run_bench(Args args);
int run_chat(Args args);
int run_convert(Args args);
int run_inspect(Args args);
int run_tokenize(Args args);

}  // namespace flotilla::cli
