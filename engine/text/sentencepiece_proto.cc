#include "engine/text/sentencepiece_proto.h"

#include <cstring>
#include <optional>

#include "common/utf8.h"
#include "engine/text/vocabulary.h"

namespace flotilla::text {
namespace {

Status damaged(std::string_view why) {
  return invalid_argument("tokenizer.model is no SentencePiece model or damaged: " +
                          std::string(why));
}

// Walks the fields of one protobuf message.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : bytes_(bytes) {}

  // False at the end, or at damage: then ok() is false.
  bool next() {
    if (bytes_.empty() || !ok_) return false;
    const auto tag = varint();
    if (!tag) return ok_ = false;
    field_ = *tag >> 3;
    switch (*tag & 7) {
      case 0: {
        const auto value = varint();
        if (!value) return ok_ = false;
        number_ = *value;
        is_bytes_ = false;
        return true;
      }
      case 1:
        return take(8);
      case 5:
        return take(4);
      case 2: {
        const auto size = varint();
        if (!size) return ok_ = false;
        return take(*size);
      }
      default:
        return ok_ = false;
    }
  }
  bool ok() const { return ok_; }
  bool is_bytes(uint64_t field) const { return is_bytes_ && field_ == field; }
  bool is_number(uint64_t field) const { return !is_bytes_ && field_ == field; }
  uint64_t number() const { return number_; }
  std::string_view bytes() const { return value_; }

 private:
  std::optional<uint64_t> varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) return std::nullopt;
      const auto byte = static_cast<unsigned char>(bytes_[0]);
      bytes_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }
  bool take(uint64_t size) {
    if (size > bytes_.size()) return ok_ = false;
    value_ = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return is_bytes_ = true;
  }

  std::string_view bytes_;
  std::string_view value_;
  uint64_t field_ = 0, number_ = 0;
  bool is_bytes_ = false;
  bool ok_ = true;
};

// u32 size of a Darts double array, the array, then NUL-terminated replacements that its leaves
// point into.
bool is_safe_charsmap(std::string_view map) {
  if (map.empty()) return true;
  uint32_t trie_bytes;
  if (map.size() < sizeof trie_bytes) return false;
  std::memcpy(&trie_bytes, map.data(), sizeof trie_bytes);
  map.remove_prefix(sizeof trie_bytes);
  if (trie_bytes >= map.size() || trie_bytes % 1024 != 0 || trie_bytes == 0) return false;
  const std::string_view replacements = map.substr(trie_bytes);
  if (replacements.back() != '\0') return false;
  const uint32_t units = trie_bytes / 4;
  for (uint32_t i = 0; i < units; ++i) {
    uint32_t unit;
    std::memcpy(&unit, map.data() + size_t{i} * 4, 4);
    if (unit >> 31 != 0) {
      if ((unit & 0x7FFFFFFF) >= replacements.size()) return false;
    } else {
      const uint32_t offset = (unit >> 10) << ((unit & 1u << 9) >> 6);
      if (((i ^ offset) | 0xFF) >= units) return false;
    }
  }
  return true;
}

Status read_piece(std::string_view bytes, SentencePieceProto* proto) {
  SentencePieceProto::Piece piece;
  ProtoReader reader(bytes);
  while (reader.next()) {
    if (reader.is_bytes(1)) piece.text = reader.bytes();
    if (reader.is_number(3)) {
      if (reader.number() < 1 || reader.number() > 6) return damaged("a piece of unknown type");
      piece.type = static_cast<SentencePieceProto::PieceType>(reader.number());
    }
  }
  if (!reader.ok()) return damaged("a piece is cut off");
  if (piece.text.empty() || !is_valid_utf8(piece.text)) return damaged("a piece is not text");
  if (proto->pieces.size() >= kMaxVocabularyIds) return damaged("too many pieces");
  proto->pieces.push_back(piece);
  return ok_status();
}

Status read_trainer_spec(std::string_view bytes, SentencePieceProto* proto) {
  ProtoReader reader(bytes);
  while (reader.next()) {
    if (reader.is_number(3)) proto->model_type = static_cast<int>(reader.number() & 0xFF);
    if (reader.is_number(24)) proto->treat_whitespace_as_suffix = reader.number() != 0;
    if (reader.is_bytes(44)) {
      if (!is_valid_utf8(reader.bytes())) return damaged("unk_surface is not text");
      proto->unk_surface = reader.bytes();
    }
  }
  return reader.ok() ? ok_status() : damaged("the trainer_spec is cut off");
}

Status read_normalizer_spec(std::string_view bytes, SentencePieceProto* proto) {
  ProtoReader reader(bytes);
  while (reader.next()) {
    if (reader.is_bytes(2)) proto->charsmap = reader.bytes();
    if (reader.is_number(3)) proto->add_dummy_prefix = reader.number() != 0;
    if (reader.is_number(4)) proto->remove_extra_whitespaces = reader.number() != 0;
    if (reader.is_number(5)) proto->escape_whitespaces = reader.number() != 0;
  }
  return reader.ok() ? ok_status() : damaged("the normalizer_spec is cut off");
}

}  // namespace

StatusOr<SentencePieceProto> read_sentencepiece_proto(std::string_view bytes) {
  SentencePieceProto proto;
  ProtoReader reader(bytes);
  while (reader.next()) {
    if (reader.is_bytes(1)) FLOTILLA_RETURN_IF_ERROR(read_piece(reader.bytes(), &proto));
    if (reader.is_bytes(2)) FLOTILLA_RETURN_IF_ERROR(read_trainer_spec(reader.bytes(), &proto));
    if (reader.is_bytes(3)) FLOTILLA_RETURN_IF_ERROR(read_normalizer_spec(reader.bytes(), &proto));
    if (reader.is_bytes(5)) {
      ProtoReader denormalizer(reader.bytes());
      while (denormalizer.next()) {
        if (denormalizer.is_bytes(2)) proto.denormalizer_charsmap = denormalizer.bytes();
      }
    }
  }
  if (!reader.ok()) return damaged("a field is cut off");
  if (proto.pieces.empty()) return damaged("it has no pieces");
  if (!is_safe_charsmap(proto.charsmap)) return damaged("its normalisation rules are not valid");
  return proto;
}

}  // namespace flotilla::text
