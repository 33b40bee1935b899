// Threads that work together on one thing, and the place where they wait for each other.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dq {

// What a member leaves a barrier with after another one has failed. It tells nothing about why.
struct LeftBehind {};

// A place where `size` threads wait for the last of them: first awake, then asleep.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void wait();
  // Makes everybody who waits here, or ever will, leave by LeftBehind: a member has failed.
  void give_up();

 private:
  void check() const;
  const int size_;
  std::atomic<bool> broken_{false};
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> round_{0};
  std::mutex mutex_;
  std::condition_variable next_round_;
};

// One of `size` threads that run the same code on shared data.
struct Member {
  Barrier* barrier;
  int index, size;

  void meet() const {
    if (size > 1) barrier->wait();
  }
  // Where this member's part of n begins; the next member's begins where it ends.
  int begin(int n) const { return static_cast<int>(static_cast<int64_t>(n) * index / size); }
  int end(int n) const { return static_cast<int>(static_cast<int64_t>(n) * (index + 1) / size); }
};

// A fixed number of threads, the caller among them.
class Threads {
 public:
  // Throws std::runtime_error where the system does not allow as many.
  explicit Threads(int size);
  ~Threads() { stop(); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Runs work(0) ... work(size - 1) at the same time and waits for all of them.
  // The first exception of any of them is thrown again here, but no LeftBehind.
  void run(const std::function<void(int)>& work);

 private:
  void stop();
  void serve(int index);
  void attempt(int index);
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int)>* work_ = nullptr;
  std::exception_ptr error_;
  uint64_t round_ = 0;
  int running_ = 0;
  bool stopping_ = false;
};

}  // namespace dq
