// Products of matrices, the same loops around each instruction set's own tiles; see ops.h for each
// function and ops_vector.h for how this file is compiled. A tile is what fits into the registers:
// a few rows of activations by a few blocks of 16 rows of the matrix.

namespace dq {
namespace DQ_ISA {

constexpr int kVectors = kBlock / kLanes;  // in a block
constexpr int kMostBlocks = 4;             // in a tile
constexpr int kRowsInCache = 96;           // their codes and results stay in the L2 cache

DQ_INLINE int least(int a, int b) { return a < b ? a : b; }

// The shape of the integer tile to take next, given what is left.
struct TileShape {
  int rows, blocks;
};
DQ_INLINE TileShape tile_shape(int rows_left, int blocks_left);

// sums[row][block][16] = sum over columns of field * code, for one tile: rows that begin at
// `codes`, blocks of `block_bytes` that begin at `fields`.
static void integer_tile(int bits, const uint8_t* fields, int64_t block_bytes, const int8_t* codes,
                         int64_t stride, TileShape shape, int32_t* sums);

template <typename Finish>
DQ_INLINE void integer_products(const Matrix& weight, const Int8Rows& x, int first_block,
                                int last_block, Finish finish) {
  alignas(64) int32_t sums[kRowsTogether * kMostBlocks * kBlock];
  const int64_t block_bytes = dq_packed_bytes(kBlock, weight.columns, weight.bits);
  const uint8_t* fields = (const uint8_t*)weight.fields;
  // Two blocks stay in the L1 cache while many rows pass by, or while the next two arrive; a few
  // rows share the reading of their codes among four, unless those are too large (8 bits).
  const int blocks_together = x.rows < 2 * kRowsTogether && weight.bits < 8 ? kMostBlocks : 2;
  for (int begin = 0; begin < x.rows; begin += kRowsInCache) {
    const int end = least(begin + kRowsInCache, x.rows);
    for (int block = first_block; block < last_block; block += blocks_together) {
      const int blocks_end = least(block + blocks_together, last_block);
      TileShape shape;
      for (int row = begin; row < end; row += shape.rows)
        for (int b = block; b < blocks_end; b += shape.blocks) {
          shape = tile_shape(end - row, blocks_end - b);
          integer_tile(weight.bits, fields + b * block_bytes, block_bytes,
                       x.codes + row * x.stride, x.stride, shape, sums);
          const int32_t* sum = sums;
          for (int m = row; m < row + shape.rows; m++)
            for (int i = b; i < b + shape.blocks; i++, sum += kBlock) finish(m, i, sum);
        }
    }
  }
}

static void accumulate(const Matrix& weight, const Int8Rows& x, int first_block, int last_block,
                       int32_t* out, int64_t out_stride) {
  integer_products(weight, x, first_block, last_block, [&](int row, int block,
                                                           const int32_t* sums) {
    for (int o = 0; o < kBlock && block * kBlock + o < weight.rows; o++)
      out[row * out_stride + block * kBlock + o] = sums[o] + weight.lowest * x.sum[row];
  });
}

static void linear(const Matrix& weight, const Int8Rows& x, int first_block, int last_block,
                   float* out, int64_t out_stride) {
  // Copies, because the compiler must assume that a store of a vector changes what others see.
  const Matrix own = weight;
  const Int8Rows from = x;
  integer_products(weight, x, first_block, last_block, [=](int row, int block,
                                                           const int32_t* sums) {
    const int32_t shift = own.lowest * from.sum[row];
    for (int v = 0; v < kVectors; v++) {
      const int begin = block * kBlock + v * kLanes;
      Floats y = to_floats(*(const Ints*)(sums + v * kLanes) + shift);
      if (own.zero_point) y -= load(own.zero_point + begin) * (float)from.sum[row];
      y *= load(own.scale + begin) * from.scale[row];
      if (own.bias) y += load(own.bias + begin);
      store(out + row * out_stride + begin, own.rows - begin, y);
    }
  });
}

// out[m][lane of v] = sum over i of a[m * a_stride + i] * b_v[i * b_stride + lane].
template <int kRows, int kColumns, typename LoadB>
DQ_INLINE void float_tile(const float* a, int64_t a_stride, int n, LoadB load_b,
                          Floats (&out)[kRows][kColumns]) {
  Floats sums[kRows][kColumns];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 8
    for (int v = 0; v < kColumns; v++) sums[m][v] = all(0.0f);
  for (int i = 0; i < n; i++) {
    Floats b[kColumns];
#pragma GCC unroll 8
    for (int v = 0; v < kColumns; v++) b[v] = load_b(i, v);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; m++) {
      const Floats one = all(a[m * a_stride + i]);
#pragma GCC unroll 8
      for (int v = 0; v < kColumns; v++) sums[m][v] = multiply_add(one, b[v], sums[m][v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 8
    for (int v = 0; v < kColumns; v++) out[m][v] = sums[m][v];
}

// A block of the matrix as floats [columns][16], in `values` unless it is floats already.
DQ_INLINE const float* block_values(const Matrix& weight, int block, float* values) {
  if (weight.bits == 32)
    return (const float*)weight.fields + (int64_t)block * weight.columns * kBlock;
  const int fields_a_byte = 8 / weight.bits, mask = (1 << weight.bits) - 1;
  const int64_t bytes = dq_packed_bytes(kBlock, weight.columns, weight.bits);
  const uint8_t* fields = (const uint8_t*)weight.fields + block * bytes;
  for (int column = 0; column < weight.columns; column++) {
    const int within = column % (4 * fields_a_byte), group = column / (4 * fields_a_byte);
    const uint8_t* from = fields + group * kBlock * 4 + within % 4;
    for (int o = 0; o < kBlock; o++) {
      const int row = block * kBlock + o;
      const int code = ((from[4 * o] >> (within / 4 * weight.bits)) & mask) + weight.lowest;
      const float centred = (float)code - (weight.zero_point ? weight.zero_point[row] : 0.0f);
      values[column * kBlock + o] =
          weight.divisor ? centred / weight.divisor[row] : centred * weight.scale[row];
    }
  }
  return values;
}

template <int kRows>
DQ_INLINE void float_linear_tile(const float* values, const Matrix& weight, int block,
                                 const float* x, int64_t x_stride, float* out,
                                 int64_t out_stride) {
  Floats sums[kRows][kVectors];
  float_tile(x, x_stride, weight.columns,
             [=](int i, int v) { return load(values + i * kBlock + v * kLanes); }, sums);
  for (int m = 0; m < kRows; m++)
    for (int v = 0; v < kVectors; v++) {
      const int begin = block * kBlock + v * kLanes;
      if (weight.bias) sums[m][v] += load(weight.bias + begin);
      store(out + m * out_stride + begin, weight.rows - begin, sums[m][v]);
    }
}

static void float_linear(const Matrix& weight, const float* x, int64_t x_stride, int rows,
                         int first_block, int last_block, float* out, int64_t out_stride) {
  float* scratch =
      weight.bits == 32 ? nullptr : (float*)std::malloc(sizeof(float) * kBlock * weight.columns);
  for (int block = first_block; block < last_block; block++) {
    const float* values = block_values(weight, block, scratch);
    int row = 0;
    for (; row + kFloatRows <= rows; row += kFloatRows)
      float_linear_tile<kFloatRows>(values, weight, block, x + row * x_stride, x_stride,
                                    out + row * out_stride, out_stride);
    for (; row < rows; row++)
      float_linear_tile<1>(values, weight, block, x + row * x_stride, x_stride,
                           out + row * out_stride, out_stride);
  }
  std::free(scratch);
}

}  // namespace DQ_ISA
}  // namespace dq
