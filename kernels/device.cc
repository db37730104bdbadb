#include "kernels/device.h"

namespace flotilla {

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this == &other) return *this;
  reset();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  free_ = std::exchange(other.free_, nullptr);
  export_fd_ = std::move(other.export_fd_);
  return *this;
}

void DeviceBuffer::reset() {
  if (data_ != nullptr) free_(data_, size_);
  data_ = nullptr;
  size_ = 0;
  free_ = nullptr;
  export_fd_.reset();
}

}  // namespace flotilla
