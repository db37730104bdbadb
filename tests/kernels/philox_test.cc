#include "kernels/philox.h"

#include <doctest/doctest.h>

#include "kernels/sampler.h"

using namespace flotilla;
using Words = std::array<uint32_t, 4>;

// The known answers of Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST_CASE("Philox.GivesTheKnownAnswersOfItsAuthors") {
  CHECK(philox_4x32_10({0, 0, 0, 0}, {0, 0}) ==
        Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(
      philox_4x32_10({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
      Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(
      philox_4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
      Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("SamplingUniform.TakesSeedPositionAndChoiceAsKeyAndCounter") {
  CHECK(sampling_uniform(0, 0, 0) == static_cast<float>(0x6627e8d5 >> 8) * 0x1p-24f);
  const Words words = philox_4x32_10({0x89abcdef, 0x01234567, 7, 0}, {0x55667788, 0x11223344});
  CHECK(sampling_uniform(0x1122334455667788, 7, 0x0123456789abcdef) ==
        static_cast<float>(words[0] >> 8) * 0x1p-24f);
}

TEST_CASE("SamplingUniform.StaysBelowOneAndDiffersByEveryPartOfTheKey") {
  for (int64_t position = 0; position < 100'000; ++position) {
    const float u = sampling_uniform(42, 0, position);
    REQUIRE(u >= 0.0f);
    REQUIRE(u < 1.0f);
  }
  const float u = sampling_uniform(42, 0, 0);
  CHECK(u != sampling_uniform(43, 0, 0));
  CHECK(u != sampling_uniform(42, 1, 0));
  CHECK(u != sampling_uniform(42, 0, 1));
  CHECK(u != sampling_uniform(42 + (uint64_t{1} << 32), 0, 0));
  CHECK(u != sampling_uniform(42, 0, int64_t{1} << 32));
}
