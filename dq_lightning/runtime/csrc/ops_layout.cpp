// Layouts of matrices and single values: plain code, the same on every machine.

#include <cstring>

#include "ops.h"

namespace dq {
namespace {

// Where a field lives in the kernel layout: a byte, and the bits below it in that byte.
struct Place {
  int64_t byte;
  int shift;
};

Place place_of(int row, int column, int64_t columns, int bits) {
  const int fields_a_byte = 8 / bits;
  const int group = 4 * fields_a_byte;
  const int64_t groups = round_up(columns, group) / group;
  const int64_t block = row / kBlock, within = column % group;
  const int64_t vector = block * groups + column / group;
  return {(vector * kBlock + row % kBlock) * 4 + within % 4, static_cast<int>(within / 4) * bits};
}

// Each field's value in one row, with the roundings of the student: a difference, then a product
// or a quotient.
void values_of_fields(const Matrix& matrix, int row, float* value_of) {
  const float zero_point = matrix.zero_point ? matrix.zero_point[row] : 0.0f;
  for (int field = 0; field < 1 << matrix.bits; field++) {
    const float centred = static_cast<float>(field + matrix.lowest) - zero_point;
    value_of[field] = matrix.divisor ? centred / matrix.divisor[row] : centred * matrix.scale[row];
  }
}

}  // namespace

extern "C" int64_t dq_packed_bytes(int32_t rows, int32_t columns, int32_t bits) {
  const int64_t padded_rows = round_up(rows, kBlock);
  if (bits == 32) return padded_rows * columns * static_cast<int64_t>(sizeof(float));
  return padded_rows * round_up(columns, 32 / bits) * bits / 8;
}

extern "C" void dq_pack(const uint8_t* row_major, int32_t rows, int32_t columns, int32_t bits,
                        void* fields) {
  const int64_t bytes_a_row = (static_cast<int64_t>(columns) * bits + 7) / 8;
  const int mask = (1 << bits) - 1;
  uint8_t* out = static_cast<uint8_t*>(fields);
  std::memset(out, 0, static_cast<size_t>(dq_packed_bytes(rows, columns, bits)));
  for (int row = 0; row < rows; row++) {
    const uint8_t* source = row_major + row * bytes_a_row;
    for (int column = 0; column < columns; column++) {
      const int first_bit = column * bits;
      const int field = (source[first_bit / 8] >> (first_bit % 8)) & mask;
      const Place place = place_of(row, column, columns, bits);
      out[place.byte] |= static_cast<uint8_t>(field << place.shift);
    }
  }
}

extern "C" void dq_pack_floats(const float* row_major, int32_t rows, int32_t columns,
                               void* fields) {
  float_keys_matrix(row_major, columns, rows, columns, fields);
}

extern "C" void dq_dequantize_row(const Matrix* matrix, int32_t row, float* out) {
  const Matrix& m = *matrix;
  const int64_t within = row % kBlock, columns = m.columns;
  if (m.bits == 32) {
    const float* from = static_cast<const float*>(m.fields) + row / kBlock * columns * kBlock;
    for (int64_t column = 0; column < columns; column++)
      out[column] = from[column * kBlock + within];
    return;
  }
  float value_of[256];
  values_of_fields(m, row, value_of);
  const int fields_a_byte = 8 / m.bits, mask = (1 << m.bits) - 1;
  const int64_t groups = round_up(columns, 4 * fields_a_byte) / (4 * fields_a_byte);
  const uint8_t* from =
      static_cast<const uint8_t*>(m.fields) + (row / kBlock * groups * kBlock + within) * 4;
  for (int64_t column = 0; column < columns; from += kBlock * 4)
    for (int j = 0; j < fields_a_byte; j++)
      for (int i = 0; i < 4 && column < columns; i++, column++)
        out[column] = value_of[(from[i] >> (j * m.bits)) & mask];
}

extern "C" void dq_pack_keys(const Int8Rows* keys, void* fields) {
  const int64_t groups = round_up(keys->columns, 4) / 4;
  uint8_t* out = static_cast<uint8_t*>(fields);
  for (int row = 0; row < keys->rows; row++) {
    const int8_t* codes = keys->codes + row * keys->stride;
    uint8_t* place = out + (row / kBlock * groups * kBlock + row % kBlock) * 4;
    for (int64_t group = 0; group < groups; group++) {
      uint32_t four;
      std::memcpy(&four, codes + 4 * group, 4);
      four ^= 0x80808080u;  // code + 128, four at a time
      std::memcpy(place + group * kBlock * 4, &four, 4);
    }
  }
}

Matrix keys_matrix(const Int8Rows& keys, void* fields) {
  dq_pack_keys(&keys, fields);
  return {keys.rows, keys.columns, 8, -128, fields, keys.scale, nullptr, nullptr, nullptr};
}

Matrix float_keys_matrix(const float* keys, int64_t stride, int rows, int columns, void* fields) {
  float* out = static_cast<float*>(fields);
  for (int64_t row = 0; row < round_up(rows, kBlock); row++) {
    float* place = out + row / kBlock * columns * kBlock + row % kBlock;
    for (int column = 0; column < columns; column++)
      place[static_cast<int64_t>(column) * kBlock] = row < rows ? keys[row * stride + column] : 0.f;
  }
  return {rows, columns, 32, 0, fields, nullptr, nullptr, nullptr, nullptr};
}

void dequantize_vectors(const Vectors& vectors, int n, float* out) {
  for (int i = 0; i < n; i++) {
    const int64_t place = vectors.index ? vectors.index[i] : i;
    float* row = out + static_cast<int64_t>(i) * vectors.columns;
    if (!vectors.codes) {
      std::memcpy(row, vectors.values + place * vectors.stride, sizeof(float) * vectors.columns);
      continue;
    }
    const int8_t* codes = vectors.codes + place * vectors.stride;
    const float scale = vectors.scale[place * vectors.scale_stride];
    for (int column = 0; column < vectors.columns; column++)
      row[column] = static_cast<float>(codes[column]) * scale;
  }
}

}  // namespace dq
