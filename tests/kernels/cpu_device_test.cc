#include "kernels/cpu/cpu_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/cpu_memory.h"
#include "tests/kernels/kernel_test.h"

using namespace flotilla;

TEST_CASE("ParseCpuIsa.TakesEveryNameAndAuto") {
  for (const CpuIsa isa :
       {CpuIsa::kReference, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16}) {
    const auto parsed = parse_cpu_isa(cpu_isa_name(isa));
    if (cpu_has(isa)) {
      CHECK(parsed.value() == isa);
    } else {
      CHECK(parsed.status().code() == StatusCode::kFailedPrecondition);
    }
  }
  CHECK(parse_cpu_isa("auto").value() == best_cpu_isa());
}

TEST_CASE("ParseCpuIsa.NamesTheChoicesForAnUnknownOne") {
  const auto parsed = parse_cpu_isa("sse2");
  CHECK(parsed.status().code() == StatusCode::kInvalidArgument);
  CHECK(parsed.status().message() ==
        "unknown instruction set 'sse2'; expected auto, reference, avx2, avx512 or avx512_bf16");
}

TEST_CASE("CpuDevice.StreamsHaveTheTableOfTheirInstructionSet") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto device = make_cpu_device({.num_threads = 2, .cores = {}, .isa = isa});
    CHECK(device->kind() == DeviceKind::kCpu);
    CHECK(device->description() == "cpu " + std::string(cpu_isa_name(isa)) + " (2 threads)");
    const auto stream = device->create_stream();
    CHECK(stream->kernels().name == cpu_isa_name(isa));
    CHECK(stream->device() == DeviceKind::kCpu);
    stream->synchronize();
  }
}

TEST_CASE("CpuDevice.MemoryIsZeroedAndAligned") {
  const auto device = make_cpu_device({});
  for (const size_t bytes :
       {size_t{0}, size_t{1}, size_t{4097}, size_t{5} << 20, size_t{40} << 20}) {
    for (const bool exportable : {false, true}) {
      auto buffer =
          exportable ? device->allocate_exportable(bytes, "test") : device->allocate(bytes);
      REQUIRE(buffer.ok());
      CHECK(buffer->size() == bytes);
      REQUIRE(buffer->data() != nullptr);
      const size_t alignment = bytes > kShareBytes || exportable ? kHugePageBytes : 4096;
      CHECK(reinterpret_cast<uintptr_t>(buffer->data()) % alignment == 0);
      auto* const p = static_cast<char*>(buffer->data());
      CHECK(std::count(p, p + bytes, 0) == static_cast<std::ptrdiff_t>(bytes));
      std::memset(p, 1, bytes);
      CHECK((buffer->export_fd() >= 0) == exportable);
    }
  }
}

TEST_CASE("CpuDevice.AnotherMappingOfTheDescriptorSeesTheSameBytes") {
  const auto device = make_cpu_device({});
  auto buffer = device->allocate_exportable(10'000, "test");
  REQUIRE(buffer.ok());
  static_cast<char*>(buffer->data())[9'999] = 42;
  void* const other = ::mmap(nullptr, 10'000, PROT_READ, MAP_SHARED, buffer->export_fd(), 0);
  REQUIRE(other != MAP_FAILED);
  CHECK(static_cast<const char*>(other)[9'999] == 42);
  // Nobody can shrink it under the other's feet.
  CHECK(::ftruncate(buffer->export_fd(), 0) != 0);
  ::munmap(other, 10'000);
  CHECK((::fcntl(buffer->export_fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("CpuDevice.RefusesWhatDoesNotFitAndSaysHowMuch") {
  const auto device = make_cpu_device({});
  for (const size_t bytes : {size_t{1} << 60, SIZE_MAX}) {
    for (const bool exportable : {false, true}) {
      const auto buffer =
          exportable ? device->allocate_exportable(bytes, "test") : device->allocate(bytes);
      CHECK(buffer.status().code() == StatusCode::kResourceExhausted);
      CHECK(buffer.status().message().find(std::to_string(bytes)) != std::string::npos);
    }
  }
}

TEST_CASE("CpuDevice.BuffersThatShareASlabAreApartAndComeZeroedAgain") {
  const auto device = make_cpu_device({});
  std::vector<DeviceBuffer> buffers;
  // Several slabs full, in sizes that are no pages.
  for (int i = 0; i < 30; ++i)
    buffers.push_back(std::move(*device->allocate((size_t{9} << 20) + 77)));
  for (size_t i = 0; i < buffers.size(); ++i)
    std::memset(buffers[i].data(), static_cast<int>(i + 1), buffers[i].size());
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto* const p = static_cast<const char*>(buffers[i].data());
    CHECK(p[0] == static_cast<char>(i + 1));
    CHECK(p[buffers[i].size() - 1] == static_cast<char>(i + 1));
  }
  // Every other one goes, then new ones come, then all go.
  for (size_t i = 0; i < buffers.size(); i += 2) buffers[i].reset();
  for (size_t i = 0; i < buffers.size(); i += 2) {
    buffers[i] = std::move(*device->allocate(size_t{1} << 20));
    const auto* const p = static_cast<const char*>(buffers[i].data());
    CHECK(std::count(p, p + buffers[i].size(), 0) ==
          static_cast<std::ptrdiff_t>(buffers[i].size()));
  }
  for (size_t i = 1; i < buffers.size(); i += 2) {
    CHECK(*static_cast<const char*>(buffers[i].data()) == static_cast<char>(i + 1));
  }
}

TEST_CASE("DeviceBuffer.MovesAndIsFreedOnce") {
  const auto device = make_cpu_device({});
  DeviceBuffer a = std::move(*device->allocate(4096));
  void* const data = a.data();
  DeviceBuffer b = std::move(a);
  CHECK(b.data() == data);
  CHECK(a.data() == nullptr);
  b = std::move(*device->allocate(8192));
  CHECK(b.size() == 8192);
  b.reset();
  CHECK(b.data() == nullptr);
  b.reset();
}

TEST_CASE("CpuDevice.DiesOfImpossibleOptions") {
  CHECK(dying_words([] {
          (void)make_cpu_device({.num_threads = 0, .cores = {}});
        }).find("needs at least one thread") != std::string::npos);
}
