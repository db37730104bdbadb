// A stream of the CPU: a table of ops, the inner loops they use, and the threads that run them.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels/cpu/cpu_table.h"
#include "kernels/cpu/thread_pool.h"

namespace flotilla {

class CpuStream final : public Stream {
 public:
  explicit CpuStream(const CpuDeviceOptions& options)
      : kernels_(cpu_kernels(options.isa)),
        isa_(isa_kernels(options.isa)),
        pool_(options.num_threads, options.cores) {}

  DeviceKind device() const override { return DeviceKind::kCpu; }
  const KernelTable& kernels() const override { return kernels_; }
  void synchronize() override {}

  const IsaKernels& isa() const { return *isa_; }
  int num_threads() const { return pool_.num_threads(); }

  // Calls f(task, thread) for each task of [0, count).
  template <typename F>
  void parallel_for(int64_t count, F&& f) {
    pool_.parallel_for(count, std::forward<F>(f));
  }

  // Calls f(i) for each i of [0, count), where one costs about `nanoseconds`: cut into as few tasks
  // as balance needs, into one if the whole is not worth waking a thread for.
  template <typename F>
  void parallel_for_each(int64_t count, int64_t nanoseconds, F&& f) {
    constexpr int64_t kWorthATask = 4'000;  // ns
    const int64_t most = num_threads() == 1 ? 1 : num_threads() * 4;
    const int64_t tasks = std::clamp<int64_t>(
        count * nanoseconds / kWorthATask, 1, std::min(most, std::max<int64_t>(count, 1)));
    parallel_for(tasks, [&](int64_t task, int) {
      const int64_t end = count * (task + 1) / tasks;
      for (int64_t i = count * task / tasks; i < end; ++i) f(i);
    });
  }

 private:
  const KernelTable& kernels_;
  const IsaKernels* isa_;
  ThreadPool pool_;
};

// The stream behind an op of this folder: its table comes from nowhere else.
inline CpuStream& cpu_stream(Stream& stream) { return static_cast<CpuStream&>(stream); }
inline const CpuStream& cpu_stream(const Stream& stream) {
  return static_cast<const CpuStream&>(stream);
}

inline Stored stored_type(DType type) {
  switch (type) {
    case DType::kF32:
      return Stored::kF32;
    case DType::kBf16:
      return Stored::kBf16;
    case DType::kF16:
      return Stored::kF16;
    case DType::kF8E4M3:
    case DType::kI32:
    case DType::kU8:
      break;
  }
  check(false, "no such type in the CPU's kernels");
  return Stored::kF32;
}

}  // namespace flotilla
