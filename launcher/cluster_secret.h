// The cluster secret: 32 bytes that both ends of an internal connection prove to know. It never
// stands on a command line, in a log or in a rank's environment.
#pragma once

#include <string>

#include "common/fd.h"
#include "common/flags/flags.h"
#include "common/status.h"

namespace flotilla {

inline constexpr size_t kClusterSecretBytes = 32;
inline constexpr char kClusterSecretVariable[] = "FLOTILLA_CLUSTER_SECRET";

// From `file` if that is named, else from FLOTILLA_CLUSTER_SECRET, else drawn at random. File and
// variable hold any text of 16 bytes or more (line ends behind it do not count); its SHA-256 is the
// secret, so that hosts which share the text share that.
StatusOr<std::string> find_cluster_secret(const std::string& file, const Environment& environment);

// A descriptor that holds the secret, sealed. Close-on-exec here; the child's copy is not.
StatusOr<UniqueFd> make_secret_memfd(const std::string& secret);
// Does not move the offset that all holders of the descriptor share.
StatusOr<std::string> read_secret_memfd(int fd);

}  // namespace flotilla
