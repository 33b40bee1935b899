// The decoder, one token of each row at a time.
#pragma once

#include <vector>

#include "attention.h"
#include "model.h"
#include "projection.h"
#include "threads.h"

namespace dq {

// What the decoder continues by one token.
struct Row {
  int sentence;
  int slot;  // where its keys and values of this step go
  int32_t token;
};

class Decoder {
 public:
  // memory: keys and values of the encoder's output, by layer. slots: rows of the longest step.
  Decoder(const Model& model, const Ops& ops, const Sequences& sentences,
          const std::vector<KeyValues>& memory, int slots, int most_positions, int threads);
  // Every member calls it with the same rows, those of a sentence together. Afterwards
  // logits(row) holds the scores of the next tokens.
  void step(const Member& member, const std::vector<Row>& rows, int position);
  float* logits(int row) { return logits_.data() + row * logits_stride_; }
  // After the step of `position`: in the next one this slot continues what `parent` was. All calls
  // of `keep` read what held in the last step; `commit` makes them hold.
  void keep(int slot, int parent, int position);
  void commit(int position);

 private:
  // One thread's memory. All threads hold the same x.
  struct Scratch {
    Scratch(const Model& model, const Ops& ops, int rows, int keys);
    Projector projector;
    AttentionScratch attention;
    Buffer<float> x, hidden, row;
    std::vector<int> sentence_begins;
  };
  // What earlier steps left for a layer's self-attention, by position, slot and head.
  struct Cache {
    Cache(const Attention& attention, int64_t vectors);
    Buffer<int8_t> key_codes, value_codes;
    Buffer<float> key_scale, value_scale, key_values, value_values;
  };

  void prepare(int position);
  void embed_rows(const std::vector<Row>& rows, int position, Scratch& scratch);
  void attend_self(size_t layer, const Member& member, const std::vector<Row>& rows, int position,
                   Scratch& scratch);
  void attend_self_row(size_t layer, int number, const Row& row, int first_head, int last_head,
                       int position, Scratch& scratch);
  void store(const Attention& attention, Cache& cache, int64_t place, int first_head,
             int last_head, const float* key, const float* value, Scratch& scratch);
  void attend_cross(size_t layer, const Member& member, const std::vector<Row>& rows,
                    Scratch& scratch);
  void feed_forward(const FeedForward& block, const Member& member, int rows, Scratch& scratch);
  // x += what a block made of it, with the norms after it.
  void add(const Norm& own, const Norm& next, int rows, Scratch& scratch);

  const Model& model_;
  const Ops& ops_;
  const std::vector<KeyValues>& memory_;
  const Attention& shape_;  // any layer's: its sizes
  const int slots_, most_positions_;
  const int64_t logits_stride_;
  std::vector<Scratch> scratch_;  // by member
  std::vector<Cache> cache_;      // by layer
  // What follows has room for every position, most of which no text may ever reach: like the
  // caches it is filled position by position, because memory that nobody wrote costs nothing.
  Buffer<float> bias_;  // by head and distance, that of 0 last; null: the model has none
  Buffer<int32_t> ancestors_, next_ancestors_;  // by slot and position: place in the caches
  Buffer<float> projected_, context_, inner_, out_, logits_;  // of all rows, written in shares
};

}  // namespace dq
