// SPDX-License-Identifier: MIT
// The agent one would write in C++: libbpf's consumer, a hash of the backends, prometheus-cpp.
//
//	agent RING_FD
//
// reads commands, and answers each with "EVENTS NS":
//	drain TABLE N        take what is in the ring; the time it took
//	poll TABLE SECONDS   be woken for it; the CPU time it took
// Each table has backends of its own.
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <time.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>

#include "../../../bpf/include/lbl_abi.h"

using prometheus::Family;
using prometheus::Histogram;

namespace {

const Histogram::BucketBoundaries kBounds = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1,
                                             0.25,  0.5,   1.0,  2.5,   5.0,  10.0};

struct Key {
  std::uint64_t high, low;
  std::uint16_t port, proxy;
  bool operator==(const Key& other) const {
    return high == other.high && low == other.low && port == other.port && proxy == other.proxy;
  }
};

struct Hash {
  std::size_t operator()(const Key& key) const {
    const std::uint64_t k = 0x9e3779b97f4a7c15;
    const std::uint64_t mixed = (key.high ^ key.port ^ (std::uint64_t{key.proxy} << 16)) * k;
    return ((mixed ^ key.low) * k) >> 16;
  }
};

struct Table {
  prometheus::Registry registry;
  Family<Histogram>& family = prometheus::BuildHistogram()
                                  .Name("lb_backend_latency_seconds")
                                  .Help("Lifetime of connections.")
                                  .Register(registry);
  std::unordered_map<Key, Histogram*, Hash> backends;
  std::uint64_t seen = 0;
};

Histogram* add_backend(Table& table, const Key& key, const lbl_event& event) {
  char ip[INET6_ADDRSTRLEN];

  inet_ntop(AF_INET6, event.addr, ip, sizeof(ip));
  Histogram& histogram = table.family.Add({{"proxy_name", std::to_string(event.proxy_id)},
                                           {"target_ip", ip},
                                           {"target_port", std::to_string(event.port)}},
                                          kBounds);
  return table.backends[key] = &histogram;
}

int handle(void* ctx, void* data, std::size_t size) {
  Table& table = **static_cast<Table**>(ctx);
  const auto& event = *static_cast<const lbl_event*>(data);
  Key key{};

  if (size != sizeof(event) || event.type != LBL_CLOSED || !event.created_ns) return 0;
  std::memcpy(&key.high, event.addr, 8);
  std::memcpy(&key.low, event.addr + 8, 8);
  key.port = event.port;
  key.proxy = event.proxy_id;
  const auto found = table.backends.find(key);
  Histogram* histogram =
      found == table.backends.end() ? add_backend(table, key, event) : found->second;
  histogram->Observe(static_cast<double>(event.timestamp_ns - event.created_ns) * 1e-9);
  table.seen++;
  return 0;
}

std::uint64_t clock_ns(clockid_t clock) {
  timespec ts;

  clock_gettime(clock, &ts);
  return static_cast<std::uint64_t>(ts.tv_sec) * 1000000000 + ts.tv_nsec;
}

std::uint64_t poll_for(ring_buffer* ring, int seconds) {
  const std::uint64_t end = clock_ns(CLOCK_MONOTONIC) + seconds * 1000000000ULL;
  const std::uint64_t start = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

  while (clock_ns(CLOCK_MONOTONIC) < end) ring_buffer__poll(ring, 100);
  return clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
}

std::uint64_t drain(ring_buffer* ring) {
  const std::uint64_t start = clock_ns(CLOCK_MONOTONIC);

  ring_buffer__consume(ring);
  return clock_ns(CLOCK_MONOTONIC) - start;
}

}  // namespace

int main(int, char** argv) {
  std::map<std::string, std::unique_ptr<Table>> tables;
  Table* current = nullptr;
  ring_buffer* ring = ring_buffer__new(std::atoi(argv[1]), handle, &current, nullptr);
  std::string command, name;
  int number;

  if (!ring) return 1;
  while (std::cin >> command >> name >> number) {
    std::unique_ptr<Table>& table = tables[name];
    if (!table) table = std::make_unique<Table>();
    current = table.get();
    const std::uint64_t before = current->seen;
    const std::uint64_t ns = command == "poll" ? poll_for(ring, number) : drain(ring);
    std::cout << current->seen - before << ' ' << ns << std::endl;
  }
  return 0;
}
