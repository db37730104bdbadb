#include "common/flags/flag_spec.h"

#include <algorithm>
#include <cctype>

namespace flotilla {
namespace {

// Edits (insert, delete, replace, swap of neighbours) between two short words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

const FlagSpec* FlagTable::find(std::string_view name) const {
  const std::string wanted = normalise_flag_name(name);
  for (const FlagSpec& flag : flags) {
    if (normalise_flag_name(flag.name) == wanted) return &flag;
  }
  return nullptr;
}

std::string normalise_flag_name(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

std::string flag_environment_name(std::string_view name) {
  std::string out = "FLOTILLA_";
  for (const char c : name) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

std::string nearest_flag(const FlagTable& table, std::string_view name) {
  constexpr size_t kLongest = 64;  // longer words are no typo of a flag
  const std::string wanted = normalise_flag_name(name.substr(0, kLongest));
  std::string best;
  size_t best_distance = std::max<size_t>(2, wanted.size() / 3) + 1;
  const auto consider = [&](const std::string& candidate) {
    size_t distance = edit_distance(wanted, normalise_flag_name(candidate));
    // Part of a name is a likelier slip than its length says: --tensor-parallel,
    // --num-blocks-override.
    if (wanted.size() >= 4 && candidate.starts_with(wanted)) distance = 1;
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  };
  for (const FlagSpec& flag : table.flags) {
    if (flag.internal) continue;
    consider(flag.name);
    if (flag.negatable) consider("no-" + flag.name);
  }
  return best;
}

}  // namespace flotilla
