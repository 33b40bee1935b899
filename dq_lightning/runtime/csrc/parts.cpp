#include <stdexcept>

#include "model.h"

namespace dq {
namespace {

[[noreturn]] void refuse(const std::string& name, const std::string& problem) {
  throw std::invalid_argument(name + " " + problem);
}

std::string times(int64_t rows, int64_t columns) {
  return std::to_string(rows) + " x " + std::to_string(columns);
}

}  // namespace

void Parts::add_matrix(const std::string& name, const Matrix& row_major, bool divides) {
  Matrix matrix = row_major;
  const int64_t bytes = dq_packed_bytes(matrix.rows, matrix.columns, matrix.bits);
  Buffer<uint8_t> fields(bytes);
  const auto source = row_major.fields;
  if (matrix.bits == 32) {
    dq_pack_floats(static_cast<const float*>(source), matrix.rows, matrix.columns, fields.data());
  } else {
    dq_pack(static_cast<const uint8_t*>(source), matrix.rows, matrix.columns, matrix.bits,
            fields.data());
    matrix.scale = keep(row_major.scale, matrix.rows);
    matrix.zero_point = keep(row_major.zero_point, matrix.rows);
    if (divides) {
      matrix.divisor = matrix.scale;
      float* scale = const_cast<float*>(keep(row_major.scale, matrix.rows));
      for (int row = 0; row < matrix.rows; row++) scale[row] = 1.0f / matrix.divisor[row];
      matrix.scale = scale;
    }
  }
  matrix.fields = fields.data();
  fields_.push_back(std::move(fields));
  bytes_ += bytes;
  matrices_[name] = matrix;
}

void Parts::add_numbers(const std::string& name, const float* values, int64_t n) {
  numbers_[name] = {keep(values, n), n};
}

void Parts::add_name(const std::string& name, const std::string& of) {
  const auto matrix = matrices_.find(of);
  const auto numbers = numbers_.find(of);
  if (matrix != matrices_.end()) {
    matrices_[name] = matrix->second;
  } else if (numbers != numbers_.end()) {
    numbers_[name] = numbers->second;
  } else {
    refuse(of, "is missing");
  }
}

const float* Parts::keep(const float* values, int64_t n) {
  if (!values) return nullptr;
  Buffer<float> copy(n);
  std::memcpy(copy.data(), values, static_cast<size_t>(n) * sizeof(float));
  floats_.push_back(std::move(copy));
  bytes_ += n * static_cast<int64_t>(sizeof(float));
  return floats_.back().data();
}

bool Parts::has(const std::string& name) const {
  return matrices_.count(name) > 0 || numbers_.count(name) > 0;
}

int64_t Parts::size(const std::string& name) const {
  const auto matrix = matrices_.find(name);
  if (matrix != matrices_.end()) return matrix->second.rows;
  const auto numbers = numbers_.find(name);
  if (numbers == numbers_.end()) refuse(name, "is missing");
  return numbers->second.second;
}

Matrix Parts::matrix(const std::string& name, int64_t rows, int64_t columns) const {
  const auto found = matrices_.find(name);
  if (found == matrices_.end()) refuse(name, "is missing");
  Matrix matrix = found->second;
  if (matrix.rows != rows || matrix.columns != columns)
    refuse(name, "is " + times(matrix.rows, matrix.columns) + ", not " + times(rows, columns));
  if (has(name + ".bias")) matrix.bias = numbers(name + ".bias", rows);
  return matrix;
}

const float* Parts::numbers(const std::string& name, int64_t n) const {
  const auto found = numbers_.find(name);
  if (found == numbers_.end()) refuse(name, "is missing");
  const auto& [values, size] = found->second;
  if (size != n)
    refuse(name, "has " + std::to_string(size) + " values, not " + std::to_string(n));
  return values;
}

}  // namespace dq
