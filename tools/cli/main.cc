#include <cstdio>
#include <string_view>
#include <vector>

#include "common/log.h"
#include "tools/cli/commands.h"

namespace flotilla::cli {
namespace {

struct Subcommand {
  std::string_view name;
  std::string_view help;
  int (*run)(Args args);
};

constexpr Subcommand kSubcommands[] = {
    {"bench", "speed of engine, server and step clock, as JSON", run_bench},
    {"chat", "talk to a server", run_chat},
    {"convert", "GGUF to safetensors, a dense model to its Mixture-of-Experts twin", run_convert},
    {"inspect", "what a model is and what it needs", run_inspect},
    {"tokenize", "text to token ids, or back, by a model's tokenizer", run_tokenize},
};

void print_help(std::FILE* to) {
  std::fputs("usage: flotilla COMMAND [arguments]\n\n", to);
  for (const Subcommand& command : kSubcommands) {
    std::fprintf(to,
                 "  %-10.*s %.*s\n",
                 static_cast<int>(command.name.size()),
                 command.name.data(),
                 static_cast<int>(command.help.size()),
                 command.help.data());
  }
  std::fputs("\nflotilla COMMAND --help says more; flotilla --version prints the version.\n", to);
}

int run(const std::vector<std::string_view>& args) {
  if (args.empty()) {
    print_help(stderr);
    return kUsage;
  }
  if (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    print_help(stdout);
    return kOk;
  }
  if (args[0] == "--version") {
    std::puts("flotilla " FLOTILLA_VERSION);
    return kOk;
  }
  for (const Subcommand& command : kSubcommands) {
    if (command.name == args[0]) return command.run(Args(args).subspan(1));
  }
  std::fprintf(stderr,
               "flotilla: there is no command '%.*s'\n",
               static_cast<int>(args[0].size()),
               args[0].data());
  print_help(stderr);
  return kUsage;
}

}  // namespace
}  // namespace flotilla::cli

int main(int argc, char** argv) {
  flotilla::configure_logging({.component = "flotilla"});
  return flotilla::cli::run({argv + 1, argv + argc});
}
