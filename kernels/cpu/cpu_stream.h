// A stream of the CPU: a table of ops and the threads that run them.
#pragma once

#include <utility>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/kernel_table.h"

namespace flotilla {

class CpuStream final : public Stream {
 public:
  explicit CpuStream(const CpuDeviceOptions& options);

  DeviceKind device() const override { return DeviceKind::kCpu; }
  const KernelTable& kernels() const override { return kernels_; }
  void synchronize() override {}

  int num_threads() const { return pool_.num_threads(); }
  template <typename F>
  void parallel_for(int64_t count, F&& f) {
    pool_.parallel_for(count, std::forward<F>(f));
  }

 private:
  const KernelTable& kernels_;
  ThreadPool pool_;
};

}  // namespace flotilla
