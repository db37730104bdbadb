// The few fields of a SentencePiece ModelProto that its library does not show. Source:
// sentencepiece_model.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flotilla::text {

struct SentencePieceProto {
  enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string_view text;  // into the bytes that were read
    PieceType type = PieceType::kNormal;
  };
  std::vector<Piece> pieces;  // by id
  int model_type = 1;         // 1 unigram, 2 BPE, 3 word, 4 char
  bool treat_whitespace_as_suffix = false;
  std::string unk_surface = " \u2047 ";
  std::string_view charsmap;  // compiled normalisation rules, empty: identity
  std::string_view denormalizer_charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Fails for bytes that are no such message. Checks the charsmap too: the library follows its
// offsets unchecked.
StatusOr<SentencePieceProto> read_sentencepiece_proto(std::string_view bytes);

}  // namespace flotilla::text
