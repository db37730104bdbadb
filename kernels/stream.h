// Where kernels run. A Stream orders the ops given to it; an op may return before it is complete,
// and allocates nothing. On the CPU every op is complete when it returns. No CUDA header is needed
// to include this.
#pragma once

#include <string_view>

namespace flotilla {

struct KernelTable;

enum class DeviceKind { kCpu, kCuda };

// Threads: one thread at a time uses a stream.
class Stream {
 public:
  virtual ~Stream() = default;

  virtual DeviceKind device() const = 0;
  // The ops as this device, and this instruction set, has them.
  virtual const KernelTable& kernels() const = 0;
  // Waits until everything given to the stream is complete.
  virtual void synchronize() = 0;
};

}  // namespace flotilla
