// How the next tokens of one sentence are chosen, as Hugging Face transformers' `generate` does.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops.h"
#include "scores.h"
#include "settings.h"

namespace dq {

struct Result {
  std::vector<int32_t> tokens;  // without the start token
  float score;                  // of a beam search
};

// A row of the decoder's next step: it continues what row `parent` of this step was.
struct NextRow {
  int32_t parent, token;
};

// The search of one sentence. A round: `read` for each row, then `advance` once.
class Search {
 public:
  Search(const Ops& ops, const Settings& settings, Tokens source, int vocabulary)
      : ops_(ops), settings_(settings), source_(source), vocabulary_(vocabulary) {}
  virtual ~Search() = default;
  // The rows of the first step, and after `advance` those of the next; none: it is finished.
  const std::vector<NextRow>& rows() const { return rows_; }
  // Takes what it needs from the logits of one row, and spoils them. Threads may read several rows
  // at the same time; padded logits.
  virtual void read(int row, float* logits) = 0;
  virtual void advance() = 0;
  virtual std::vector<Result> results() const = 0;

 protected:
  const Ops& ops_;
  const Settings& settings_;
  const Tokens source_;
  const int vocabulary_;
  std::vector<NextRow> rows_;
};

std::unique_ptr<Search> make_search(const Ops& ops, const Settings& settings, Tokens source,
                                    int vocabulary);
// Greedy search, and sampling of `num_return_sequences` texts.
std::unique_ptr<Search> make_token_search(const Ops& ops, const Settings& settings, Tokens source,
                                          int vocabulary);
std::unique_ptr<Search> make_beam_search(const Ops& ops, const Settings& settings, Tokens source,
                                         int vocabulary);

}  // namespace dq
