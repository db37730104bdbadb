// Finds stop strings in a sequence's text as it comes. Text that could be the beginning of a stop
// string is held back until it is clear, so no part of one ever reaches a client. How the text is
// cut into chunks changes nothing. Threads: one at a time; one matcher per sequence.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flotilla {

class StopMatcher {
 public:
  // Empty strings are passed over. At most 16 strings of 256 bytes are what requests may have; more
  // work, but cost more. `include_in_output`: the stop string itself is given out too.
  StopMatcher(std::vector<std::string> stop_strings, bool include_in_output);

  // Appends to *out what can be given out now; true when a stop string is complete: the text ends
  // there, and whatever follows is to be dropped. The stop string that ends first wins; of two that
  // end together the one that begins first. Not to be called again after true or finish().
  bool append(std::string_view text, std::string* out);
  // The text is over without a stop string: gives out what was held back.
  void finish(std::string* out);

  // After append() returned true: which of the given strings it was.
  size_t matched_index() const { return *matched_; }
  const std::string& matched_string() const { return strings_[*matched_]; }
  bool matched() const { return matched_.has_value(); }

  // Bytes taken in that were not given out so far; after a match, the stop string's (0 if it is
  // included).
  size_t held_bytes() const { return held_.size(); }
  // Bytes of text given out so far. A token whose text lies behind this number is not part of the
  // output.
  uint64_t emitted_bytes() const { return emitted_bytes_; }

 private:
  void emit(size_t count, std::string* out);

  std::vector<std::string> strings_;
  std::vector<std::vector<uint32_t>>
      borders_;                     // per string, by length: of the longest border (KMP)
  std::vector<uint32_t> progress_;  // per string: bytes of it that the text ends with
  bool include_in_output_;
  std::string held_;
  uint64_t emitted_bytes_ = 0;
  std::optional<size_t> matched_;
};

}  // namespace flotilla
