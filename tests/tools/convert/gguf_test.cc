// The GGUF reader and its number formats.
#include "tools/convert/gguf.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/tools/convert/scratch_dir.h"
#include "tests/tools/convert/tiny_llama.h"
#include "tools/convert/dequantize.h"
#include "tools/convert/noise.h"

using namespace flotilla;
using namespace flotilla::convert;

namespace {

using B = GgufBuilder;

// In an allocation of its own size, so that a sanitizer sees one byte too far.
StatusOr<GgufContents> parse(const std::string& file) {
  static std::vector<std::byte> bytes;
  const auto* begin = reinterpret_cast<const std::byte*>(file.data());
  bytes = std::vector<std::byte>(begin, begin + file.size());
  return parse_gguf(bytes);
}

void check_error(const std::string& file, std::string_view part) {
  const auto contents = parse(file);
  REQUIRE(!contents.ok());
  CAPTURE(contents.status().message());
  CHECK(contents.status().message().find(part) != std::string::npos);
}

void check_error(const GgufBuilder& builder, std::string_view part) {
  check_error(builder.build(), part);
}

GgufBuilder one_tensor(std::vector<uint64_t> ne, uint32_t type, size_t bytes) {
  GgufBuilder b;
  b.tensor({"t", std::move(ne), type, std::string(bytes, '\1')});
  return b;
}

std::vector<float> dequantized(GgmlType type, const std::string& bytes, int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  dequantize(type, reinterpret_cast<const std::byte*>(bytes.data()), n, out.data());
  return out;
}

constexpr uint16_t kHalfOne = 0x3C00, kHalfMinusTwo = 0xC000, kHalfQuarter = 0x3400;

}  // namespace

TEST_CASE("Gguf.ReadsEveryTypeOfValue") {
  GgufBuilder b;
  b.entry("u8", B::kU8, B::raw<uint8_t>(200))
      .entry("i8", B::kI8, B::raw<int8_t>(-5))
      .entry("u16", B::kU16, B::raw<uint16_t>(60000))
      .entry("i16", B::kI16, B::raw<int16_t>(-300))
      .entry("u32", B::kU32, B::raw<uint32_t>(4000000000u))
      .entry("i32", B::kI32, B::raw<int32_t>(-70000))
      .entry("u64", B::kU64, B::raw<uint64_t>(~uint64_t{0}))
      .entry("i64", B::kI64, B::raw<int64_t>(INT64_MIN))
      .entry("f32", B::kF32, B::raw(1.5f))
      .entry("f64", B::kF64, B::raw(-2.25))
      .boolean("bool", true)
      .string("text", "héllo")
      .strings("texts", {"a", "", "ccc"})
      .i32s("numbers", {1, -2, 3})
      .entry("floats", B::kArray, B::raw<uint32_t>(B::kF32) + B::raw<uint64_t>(1) + B::raw(1.0f));
  for (const uint32_t version : {2u, 3u}) {
    const auto contents = parse(b.build(version));
    REQUIRE_MESSAGE(contents.ok(), contents.status().message());
    const auto& m = contents->metadata;
    CHECK(contents->version == version);
    CHECK(std::get<int64_t>(m.at("u8")) == 200);
    CHECK(std::get<int64_t>(m.at("i8")) == -5);
    CHECK(std::get<int64_t>(m.at("u16")) == 60000);
    CHECK(std::get<int64_t>(m.at("i16")) == -300);
    CHECK(std::get<int64_t>(m.at("u32")) == 4000000000);
    CHECK(std::get<int64_t>(m.at("i32")) == -70000);
    CHECK(std::get<int64_t>(m.at("u64")) == INT64_MAX);  // as far as it goes
    CHECK(std::get<int64_t>(m.at("i64")) == INT64_MIN);
    CHECK(std::get<double>(m.at("f32")) == 1.5);
    CHECK(std::get<double>(m.at("f64")) == -2.25);
    CHECK(std::get<bool>(m.at("bool")));
    CHECK(std::get<std::string_view>(m.at("text")) == "héllo");
    CHECK(std::get<std::vector<std::string_view>>(m.at("texts")).at(2) == "ccc");
    CHECK(std::get<GgufIntegers>(m.at("numbers"))[1] == -2);
    CHECK(std::get<GgufFloats>(m.at("floats")).count == 1);
  }
}

TEST_CASE("Gguf.FindsTensorsAtTheirAlignedOffsets") {
  GgufBuilder b;
  b.u32("general.alignment", 64);
  b.f32_tensor("a", {3}, {1, 2, 3}).f32_tensor("b", {2, 2}, {4, 5, 6, 7});
  const auto contents = parse(b.build(3, 64));
  REQUIRE_MESSAGE(contents.ok(), contents.status().message());
  const GgufTensor& tensor = contents->tensors.at("b");
  CHECK(tensor.shape == std::vector<int64_t>{2, 2});
  CHECK(tensor.rows() == 2);
  float value;
  std::memcpy(&value, tensor.row(1), sizeof value);
  CHECK(value == 6.0f);
}

TEST_CASE("Gguf.DequantizesByTheFormatsDefinition") {
  SUBCASE("F32, F16, BF16") {
    CHECK(dequantized(GgmlType::kF32, B::raw(1.1f), 1)[0] == 1.1f);
    CHECK(dequantized(GgmlType::kF16, B::raw(kHalfMinusTwo), 1)[0] == -2.0f);
    CHECK(dequantized(GgmlType::kBf16, B::raw<uint16_t>(0xC040), 1)[0] == -3.0f);
  }
  SUBCASE("Q8_0") {
    std::string block = B::raw(kHalfQuarter);
    for (int i = 0; i < 32; ++i) block += static_cast<char>(i * 8 - 128);
    const auto values = dequantized(GgmlType::kQ8_0, block + block, 64);
    CHECK(values[0] == -32.0f);
    CHECK(values[31] == 30.0f);
    CHECK(values[33] == -30.0f);
  }
  SUBCASE("Q4_0 and Q4_1: low halves first, then high ones") {
    std::string nibbles;
    for (int i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);
    const auto plain = dequantized(GgmlType::kQ4_0, B::raw(kHalfMinusTwo) + nibbles, 32);
    CHECK(plain[0] == 16.0f);
    CHECK(plain[15] == -14.0f);
    CHECK(plain[16] == -14.0f);
    CHECK(plain[31] == 16.0f);
    CHECK(std::signbit(plain[8]));  // 0 · −2, as the definition has it
    const auto offset =
        dequantized(GgmlType::kQ4_1, B::raw(kHalfOne) + B::raw(kHalfMinusTwo) + nibbles, 32);
    CHECK(offset[0] == -2.0f);
    CHECK(offset[15] == 13.0f);
    CHECK(offset[16] == 13.0f);
    CHECK(offset[31] == -2.0f);
  }
}

TEST_CASE("Gguf.RefusesDamagedFilesByName") {
  SUBCASE("head") {
    check_error(std::string("GGML\3\0\0\0", 8), "does not begin with 'GGUF'");
    check_error(std::string("GG"), "does not begin with 'GGUF'");
    check_error(GgufBuilder().build(1), "GGUF version 1");
    check_error(GgufBuilder().build(4), "GGUF version 4");
    check_error(GgufBuilder().build(0x03000000), "big-endian");
    check_error("GGUF" + B::raw<uint32_t>(3) + B::raw<uint64_t>(1), "missing or absurd");
    check_error("GGUF" + B::raw<uint32_t>(3) + B::raw<uint64_t>(0) + B::raw(~uint64_t{0}),
                "missing or absurd");
    check_error("GGUF" + B::raw<uint32_t>(3) + B::raw(~uint64_t{0}) + B::raw<uint64_t>(0),
                "missing or absurd");
  }
  SUBCASE("metadata") {
    check_error("GGUF" + B::raw<uint32_t>(3) + B::raw<uint64_t>(0) + B::raw<uint64_t>(1) +
                    B::raw(~uint64_t{0}),
                "key of metadata entry 0");
    check_error(GgufBuilder().entry("k", 13, ""), "'k': unknown value type 13");
    check_error(GgufBuilder().entry("k", B::kString, B::raw(~uint64_t{0})), "'k': the file ends");
    check_error(GgufBuilder().entry("k", B::kU64, "1234").build().substr(0, 44),
                "'k': the file ends");
    check_error(GgufBuilder().u32("k", 1).u32("k", 2), "'k' appears twice");
    check_error(
        GgufBuilder().entry(
            "k", B::kArray, B::raw<uint32_t>(B::kString) + B::raw<uint64_t>(uint64_t{1} << 60)),
        "'k': the file ends");
    check_error(GgufBuilder().entry(
                    "k",
                    B::kArray,
                    B::raw<uint32_t>(B::kString) + B::raw<uint64_t>(1) + B::raw<uint64_t>(99)),
                "'k': the file ends");
    check_error(
        GgufBuilder().entry(
            "k", B::kArray, B::raw<uint32_t>(B::kU64) + B::raw<uint64_t>(uint64_t{1} << 61)),
        "'k': the file ends");
    check_error(
        GgufBuilder().entry("k", B::kArray, B::raw<uint32_t>(B::kArray) + B::raw<uint64_t>(1)),
        "'k': an array of value type 9");
    check_error(GgufBuilder().u32("general.alignment", 12), "general.alignment");
    check_error(GgufBuilder().u32("general.alignment", 0), "general.alignment");
    check_error(GgufBuilder().string("general.alignment", "32"), "general.alignment");
  }
  SUBCASE("tensors") {
    check_error(one_tensor({}, 0, 0), "'t': 0 dimensions");
    check_error(one_tensor({1, 1, 1, 1, 1}, 0, 4), "'t': 5 dimensions");
    check_error(one_tensor({0}, 0, 0), "'t': a dimension of 0");
    check_error(one_tensor({uint64_t{1} << 33, uint64_t{1} << 33}, 0, 4), "absurd");
    check_error(one_tensor({uint64_t{1} << 62}, 0, 4), "overflows");
    check_error(one_tensor({1}, 99, 4), "'t': unknown type 99");
    check_error(one_tensor({256}, 12, 144), "'t' is Q4_K");
    check_error(one_tensor({33}, 8, 68), "'t': rows of 33 values");
    check_error(one_tensor({1024}, 0, 100), "'t': 4096 bytes at offset 0");
    check_error(one_tensor({4}, 0, 16).tensor({"t", {4}, 0, std::string(16, '\1')}),
                "'t' appears twice");
    check_error(one_tensor({4}, 0, 16).build().substr(0, 40), "'t'");
    std::string long_name = GgufBuilder().tensor({std::string(600, 'x'), {1}, 0, "1234"}).build();
    check_error(long_name, "a tensor's name");
    // Offsets: the last 8 bytes of a tensor's entry.
    GgufBuilder two = one_tensor({16}, 0, 64);
    two.tensor({"u", {16}, 0, std::string(64, '\2')});
    std::string file = two.build();
    const size_t offset_of_u = file.find("u", 30) + 1 + 4 + 8 + 4;
    const auto with_offset = [&](uint64_t offset) {
      std::string changed = file;
      std::memcpy(changed.data() + offset_of_u, &offset, sizeof offset);
      return changed;
    };
    REQUIRE(parse(with_offset(64)).ok());
    check_error(with_offset(32), "'t' and 'u' overlap");
    check_error(with_offset(68), "'u': offset 68");
    check_error(with_offset(128), "'u': 64 bytes at offset 128");
    check_error(with_offset(~uint64_t{31}), "'u': 64 bytes at offset");
  }
  SUBCASE("names are shown without what a terminal would obey") {
    check_error(GgufBuilder().entry("\x1b[2J", 13, ""), "'?[2J'");
  }
}

TEST_CASE("Gguf.EveryPrefixOfAFileIsRefused") {
  const std::string file = TinyLlama::builder().build();
  REQUIRE(parse(file).ok());
  const size_t head = file.find("blk.0.ffn_down.weight") + 60;
  for (size_t n = 0; n < file.size(); n += n < head ? 7 : 4001) {
    CAPTURE(n);
    CHECK(!parse(file.substr(0, n)).ok());
  }
}

TEST_CASE("Gguf.FlippedBytesNeverLeadOutOfTheFile") {
  const std::string file = TinyLlama::builder().build();
  const size_t head = file.find("blk.0.ffn_down.weight") + 60;
  Noise noise({17});
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = file;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[noise.below(head)] = static_cast<char>(noise.bits());
    }
    const auto contents = parse(damaged);
    if (!contents.ok()) {
      CHECK(!contents.status().message().empty());
      continue;
    }
    for (const auto& [name, tensor] : contents->tensors) {
      std::vector<float> row(static_cast<size_t>(tensor.cols()));
      dequantize(tensor.type, tensor.row(tensor.rows() - 1), tensor.cols(), row.data());
    }
  }
}

TEST_CASE("GgufFile.OpensAFileAndNamesItInErrors") {
  ScratchDir dir;
  CHECK(GgufFile::open(dir / "none.gguf").status().code() == StatusCode::kNotFound);
  CHECK(GgufFile::open(dir / "").status().message().find("no regular file") != std::string::npos);
  CHECK(GgufFile::open(dir.write("empty", "")).status().message().find("empty") !=
        std::string::npos);
  const auto damaged = GgufFile::open(dir.write("x.gguf", "GGUF"));
  REQUIRE(!damaged.ok());
  CHECK(damaged.status().message().find("x.gguf: ") != std::string::npos);
  const auto file = GgufFile::open(dir.write("tiny.gguf", TinyLlama::builder().build()));
  REQUIRE(file.ok());
  CHECK((*file)->contents().tensors.size() == 11);
}
