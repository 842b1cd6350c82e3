// SPDX-License-Identifier: Apache-2.0
#pragma once
// Zeros without end: address space of which only what is written takes memory.

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace strata::test {

template <class T>
class SparseMemory {
 public:
  explicit SparseMemory(std::size_t count) : bytes_(count * sizeof(T)) {
    void* const address =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(address);
  }
  ~SparseMemory() { munmap(data_, bytes_); }
  SparseMemory(SparseMemory const&) = delete;
  SparseMemory& operator=(SparseMemory const&) = delete;

  T* data() const { return data_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace strata::test
