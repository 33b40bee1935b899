// Arrays that kernels like: aligned, and readable a little past their end.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "ops.h"

namespace dq {

// n zeros, aligned to 64 bytes, with 64 further bytes that may be read. Of a large buffer only the
// pages that are written take memory and time: they come from the system as zeros.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t n) {
    const int64_t used = n * static_cast<int64_t>(sizeof(T));
    const size_t bytes = static_cast<size_t>(round_up(used, 64)) + 64;
    size_t room = bytes + 64;
    void* const block = std::calloc(room, 1);
    if (!block) throw std::bad_alloc();
    void* aligned = block;
    std::align(64, bytes, aligned, room);
    data_ = {static_cast<T*>(aligned), Free{block}};
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T*) const { std::free(block); }
    void* block = nullptr;
  };
  std::unique_ptr<T, Free> data_;
};

// Memory for the codes of some rows.
class CodeBuffer {
 public:
  CodeBuffer() = default;
  CodeBuffer(int64_t rows, int64_t columns)
      : codes_(rows * round_up(columns, kCodesPad)), scale_(rows), sum_(rows) {}
  Int8Rows rows(int rows, int columns) {
    return {rows, columns, round_up(columns, kCodesPad), codes_.data(), scale_.data(), sum_.data()};
  }

 private:
  Buffer<int8_t> codes_;
  Buffer<float> scale_;
  Buffer<int32_t> sum_;
};

}  // namespace dq
