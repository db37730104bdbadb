#include "common/flags/flag_value.h"

#include <doctest/doctest.h>

using namespace flotilla;

TEST_CASE("ParseBool.TakesTheUsualWords") {
  for (const char* yes : {"1", "true", "TRUE", "Yes", "on"}) CHECK(parse_bool(yes) == true);
  for (const char* no : {"0", "false", "No", "off"}) CHECK(parse_bool(no) == false);
  for (const char* neither : {"", "2", "maybe", "true "})
    CHECK_FALSE(parse_bool(neither).has_value());
}

TEST_CASE("ParseInteger.RefusesRestsAndOverflow") {
  CHECK(parse_integer("-1") == -1);
  for (const char* bad : {"", "+", "1x", " 1", "1.0", "9223372036854775808"}) {
    CHECK_FALSE(parse_integer(bad).has_value());
  }
}

TEST_CASE("ParseNumber.RefusesWhatIsNotFinite") {
  CHECK(parse_number("2.5e1") == 25.0);
  for (const char* bad : {"", "nan", "inf", "1e999", "1,5"})
    CHECK_FALSE(parse_number(bad).has_value());
}

TEST_CASE("ParseBytes.CountsInPowersOf1024") {
  CHECK(parse_bytes("4096") == 4096);
  CHECK(parse_bytes("64b") == 64);
  CHECK(parse_bytes("2k") == 2048);
  CHECK(parse_bytes("512M") == int64_t{512} << 20);
  CHECK(parse_bytes("2GiB") == int64_t{2} << 30);
  CHECK(parse_bytes("1.5GB") == int64_t{3} << 29);
  for (const char* bad : {"", "G", "-1", "1X", "1GiBx", "1e3", "99999999999T"}) {
    CHECK_FALSE(parse_bytes(bad).has_value());
  }
}

TEST_CASE("ParsePorts.TakesAListAndBoundsEachPort") {
  CHECK(parse_ports("1811, 1822,") == std::vector<int>{1811, 1822});
  CHECK(parse_ports("0") == std::vector<int>{0});
  for (const char* bad : {"", ",", "-1", "65536", "80 81", "http"}) {
    CHECK_FALSE(parse_ports(bad).has_value());
  }
}

TEST_CASE("ParseCpuList.ReadsTheKernelsForm") {
  CHECK(parse_cpu_list("0-2,8\n") == std::vector<int>{0, 1, 2, 8});
  CHECK(parse_cpu_list("") == std::vector<int>{});
  for (const char* bad : {"2-1", "a", "1-", "0-9999999"})
    CHECK_FALSE(parse_cpu_list(bad).has_value());
}

TEST_CASE("FormatBytes.PicksAReadableUnit") {
  CHECK(format_bytes(17) == "17 B");
  CHECK(format_bytes(512 << 20) == "512 MiB");
  CHECK(format_bytes(int64_t{12} << 30) == "12.0 GiB");
}
