// Draws that depend on a seed and on what they are drawn for, not on when or beside what.
#pragma once

#include <cmath>
#include <cstdint>

namespace dq {

// SplitMix64 (Steele, Lea and Flood 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    return mixed(state_);
  }
  // In [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // The largest of (score + gumbel) over tokens draws one of them by softmax(scores); the k largest
  // draw k without replacement (Kool et al. 2019).
  double gumbel() { return -std::log(-std::log(uniform() + 0x1p-54)); }
  // Makes all further draws depend on a number too.
  void absorb(uint64_t number) { state_ = mixed(state_ ^ mixed(number + 0x9e3779b97f4a7c15u)); }

 private:
  static uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

}  // namespace dq
