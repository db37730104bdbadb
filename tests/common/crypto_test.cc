#include "common/crypto.h"

#include <doctest/doctest.h>

using namespace flotilla;

TEST_CASE("Sha256.MatchesTheStandardsVectors") {
  CHECK(to_hex(as_bytes(sha256("abc"))) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  hash.update("a");
  hash.update("bc");
  CHECK(hash.finish() == sha256("abc"));
}

TEST_CASE("HmacSha256.MatchesRfc4231CaseTwo") {
  CHECK(to_hex(as_bytes(hmac_sha256("Jefe", "what do ya want for nothing?"))) ==
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST_CASE("EqualConstantTime.ComparesContentAndLength") {
  CHECK(equal_constant_time("abc", "abc"));
  CHECK_FALSE(equal_constant_time("abc", "abd"));
  CHECK_FALSE(equal_constant_time("abc", "abcd"));
}
