// Scratch memory of a forward pass: a bump allocator over one device buffer. A Scope gives back
// what was taken inside it. Threads: the device thread.
#pragma once

#include <cstddef>

#include "common/check.h"
#include "kernels/device.h"
#include "kernels/tensor_view.h"

namespace flotilla {

class Workspace {
 public:
  explicit Workspace(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}

  // Uninitialised, aligned to 64 bytes.
  TensorView take(DType dtype, std::initializer_list<int64_t> shape) {
    TensorView view(nullptr, dtype, shape);
    view.data = take_bytes(static_cast<size_t>(view.elements()) * dtype_bytes(dtype));
    return view;
  }
  void* take_bytes(size_t bytes) {
    const size_t begin = used_;
    used_ += round_up(bytes);
    check(used_ <= buffer_.size(), "the workspace is too small for this step");
    return static_cast<char*>(buffer_.data()) + begin;
  }
  static constexpr size_t round_up(size_t bytes) { return (bytes + 63) & ~size_t{63}; }

  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), mark_(workspace.used_) {}
    ~Scope() { workspace_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    const size_t mark_;
  };

 private:
  DeviceBuffer buffer_;
  size_t used_ = 0;
};

}  // namespace flotilla
