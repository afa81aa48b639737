// Work of one call, shared by the threads of XLA's pool.

#ifndef JAXNMC_SHARE_H_
#define JAXNMC_SHARE_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace jaxnmc {

// One call, cut in parts that whoever is free takes.  The caller takes parts
// until none is left and then waits only for those that others have begun, so
// a pool of one thread, or a busy one, cannot block it; nobody spins.
struct Job {
  std::atomic<int64_t> next{0};
  int64_t parts = 1;
  std::mutex mutex;
  std::condition_variable done;
  int64_t finished = 0;
};

template <typename Part>
void Share(xla::ffi::ThreadPool* pool, int64_t parts, const Part& part) {
  auto job = std::make_shared<Job>();
  job->parts = parts;
  auto work = [&part](Job* j) {
    int64_t mine = 0;
    for (int64_t p = j->next++; p < j->parts; p = j->next++) {
      part(p);
      ++mine;
    }
    return mine;
  };
  for (int64_t t = 1; t < parts; ++t) {
    // `part` lives as long as the call; a helper that finds no part left does
    // not touch it.
    pool->Schedule([job, work] {
      const int64_t mine = work(job.get());
      if (mine == 0) return;
      std::lock_guard<std::mutex> lock(job->mutex);
      job->finished += mine;
      job->done.notify_one();
    });
  }
  const int64_t mine = work(job.get());
  std::unique_lock<std::mutex> lock(job->mutex);
  job->finished += mine;
  job->done.wait(lock, [&] { return job->finished == job->parts; });
}

}  // namespace jaxnmc

#endif  // JAXNMC_SHARE_H_
