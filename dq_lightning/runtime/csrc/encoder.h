// The encoder over some sentences at once, without padding.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "attention.h"
#include "model.h"
#include "projection.h"
#include "threads.h"

namespace dq {

class Encoder {
 public:
  // tokens: of all sentences, behind each other.
  Encoder(const Model& model, const Ops& ops, const Sequences& sentences, const int32_t* tokens,
          int threads);
  // Every member calls it. Writes keys and values for the cross attention of each decoder layer.
  void run(const Member& member, std::vector<KeyValues>& memory);

 private:
  // Some rows that one thread takes through a layer while they are in its cache.
  struct Chunk {
    int first_row, rows;
    std::vector<Piece> pieces;
  };
  // One thread's memory.
  struct Scratch {
    Scratch(const Model& model, const Ops& ops, int rows, int keys);
    Projector projector;
    AttentionScratch attention;
    Buffer<float> projected, context, inner, out, hidden, row;
  };

  void split(int threads);
  template <typename Work>
  void for_each_chunk(int phase, const Work& work);
  void embed_chunk(const Chunk& chunk, Scratch& scratch);
  // Queries, keys and values of a layer; the rest of the layer; both for one chunk.
  void look(int layer, const Chunk& chunk, Scratch& scratch);
  void finish(int layer, const Chunk& chunk, Scratch& scratch);
  void attend_piece(int layer, const Piece& piece, float* context, Scratch& scratch);
  void remember(const Chunk& chunk, std::vector<KeyValues>& memory, Scratch& scratch);
  float* rows_of(const Chunk& chunk) { return x_.data() + int64_t{chunk.first_row} * model_.width; }
  // Where the queries of a head begin, as vectors, and their memory.
  int64_t place_of(int head, const Piece& piece) const;
  Int8Rows query_codes(int64_t place, int rows);
  float* query_values(int64_t place);

  const Model& model_;
  const Ops& ops_;
  const Sequences& sentences_;
  const int32_t* tokens_;
  const Attention& shape_;  // any layer's: its sizes
  const std::vector<float> bias_;
  std::vector<Chunk> chunks_;
  int most_rows_ = 0;  // of a chunk
  std::vector<std::atomic<int>> next_chunk_;  // of each phase
  Buffer<float> x_;
  CodeBuffer query_codes_;  // head by head; of layers with integers and of those with floats
  Buffer<float> query_values_;
  std::vector<KeyValues> own_;
};

}  // namespace dq
