// From token ids to token ids.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "decoder.h"
#include "encoder.h"
#include "search.h"
#include "threads.h"

namespace dq {

using Sources = std::vector<Tokens>;

class Engine {
 public:
  // Throws std::invalid_argument for parts that do not fit together, std::runtime_error for
  // threads that cannot be started.
  Engine(std::unique_ptr<Parts> parts, const Ops& ops, int threads);
  // The results of each source. Throws std::invalid_argument for a source that the model cannot
  // read and for a text longer than its positions.
  std::vector<std::vector<Result>> generate(const Sources& sources, const Settings& settings);
  // The logits after each token of each target, which begins with the decoder's start token.
  void logits(const Sources& sources, const Sources& targets, float* out);
  int64_t bytes() const { return parts_->bytes(); }
  const Model& model() const { return model_; }
  const char* isa() const { return ops_.name; }

 private:
  // Sentences that one team of threads takes from source to result together.
  class Group;
  // What a team works on, by sentence number.
  using Numbers = std::vector<int>;
  void check(const Sources& sources, const Settings& settings) const;
  void check(const Stack& stack, const char* what, Tokens tokens) const;
  // Sentences of similar length together, the longest first.
  std::vector<Numbers> group(const Sources& sources, int teams) const;
  // Calls work(member, group) for all groups, with the threads in `teams` teams.
  template <typename Work>
  void for_each_group(int teams, const std::vector<Numbers>& groups, const Work& work);

  std::unique_ptr<Parts> parts_;
  const Model model_;
  const Ops& ops_;
  Threads threads_;
  std::mutex mutex_;
};

}  // namespace dq
